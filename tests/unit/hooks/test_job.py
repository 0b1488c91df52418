from __future__ import annotations

import json

import pytest

from http_server import Server, json_answer
from overnight.hooks.job import hook_for
from overnight.hooks.openai import OpenAIHook
from overnight.jobs import JobRef
from slowprint.hook import PrintHook
from slowprint.server import Shop, connect


def test_a_hook_of_another_package_is_found_by_its_entry_point(shop: Shop):
    hook = hook_for(JobRef(service="slowprint", id="p0", conn_id="another"))
    assert isinstance(hook, PrintHook)
    assert hook.conn_id == "another"


@pytest.mark.parametrize(
    "service", ["azure_ingestion", "llamacloud", "ml_commons_ingest", "ml_commons_predict", "openai", "sagemaker"]
)
def test_every_service_of_ours_has_its_hook(service: str):
    hook = hook_for(JobRef(service=service, id="1", conn_id="c"))
    assert hook.conn_id == "c"
    assert hook.default_conn_name.endswith("_default")


def test_a_connection_is_tried_with_one_cheap_call(shop: Shop, monkeypatch: pytest.MonkeyPatch):
    assert PrintHook().test_connection() == (True, "The print shop is open.")
    assert shop.requests == [("GET", "/orders")]
    connect(monkeypatch, shop.url, "water")
    ok, message = PrintHook().test_connection()
    assert not ok
    assert "401" in message
    assert "water" not in message


@pytest.mark.parametrize(
    ("connection", "base_url"),
    [
        ({}, "https://api.openai.com/v1/"),
        ({"host": "http://127.0.0.1:8000/v1"}, "http://127.0.0.1:8000/v1/"),
        ({"host": "llm.example.com", "port": 8443, "schema": "v1"}, "https://llm.example.com:8443/v1/"),
    ],
)
def test_the_openai_connection_says_where_the_server_is(
    monkeypatch: pytest.MonkeyPatch, connection: dict[str, object], base_url: str
):
    fields = {"conn_type": "overnight_openai", "password": "sk-planted", **connection}
    monkeypatch.setenv("AIRFLOW_CONN_OPENAI_DEFAULT", json.dumps(fields))
    with OpenAIHook().client() as client:
        assert client.transport.base_url == base_url
        page = client.service.console_url(client.service.ref("batch_1"))
    # Only OpenAI itself has pages for people.
    assert (page == "https://platform.openai.com/batches/batch_1") == (not connection)
    assert "sk-planted" not in repr(client)


def test_a_connection_that_is_tried_is_asked_once_by_somebody_who_waits(
    monkeypatch: pytest.MonkeyPatch, server: Server
):
    connection = {"conn_type": "overnight_openai", "password": "sk-planted", "host": server.url}
    monkeypatch.setenv("AIRFLOW_CONN_OPENAI_DEFAULT", json.dumps(connection))
    server.answers = [json_answer({"error": "down"}, 503)]
    assert not OpenAIHook().test_connection()[0]
    assert len(server.requests) == 1
