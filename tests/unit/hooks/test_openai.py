from __future__ import annotations

import json
from typing import Any

import pytest

from http_server import Server, json_answer
from overnight.errors import SpecError
from overnight.hooks.openai import OpenAIHook

KEY = "sk-of-the-kwargs"


def connect(monkeypatch: pytest.MonkeyPatch, extra: dict[str, Any], **fields: Any) -> None:
    connection = {"conn_type": "openai", "password": "sk-of-the-form", "extra": extra, **fields}
    monkeypatch.setenv("AIRFLOW_CONN_OPENAI_DEFAULT", json.dumps(connection))


def ask(hook: OpenAIHook) -> None:
    with hook.client() as client:
        client.run(hook.probe(client.service))


def test_the_openai_providers_arguments_go_before_the_form(monkeypatch: pytest.MonkeyPatch, server: Server) -> None:
    given = {
        "base_url": f"{server.url}/v9/",
        "api_key": KEY,
        "organization": "org",
        "project": "proj",
        "timeout": 5,
        "default_headers": {"X-Team": "a"},
    }
    connect(monkeypatch, {"openai_client_kwargs": given}, host="http://127.0.0.1:9/elsewhere")
    server.answers = [json_answer({"data": []})]
    with OpenAIHook().client() as client:
        client.run(client.service.list_queue("m"))
        assert client.transport.client.timeout.read == 5.0  # type: ignore[attr-defined]
    (request,) = server.requests
    assert request.path == "/v9/batches"
    assert request.headers["authorization"] == f"Bearer {KEY}"
    assert (request.headers["openai-organization"], request.headers["openai-project"]) == ("org", "proj")
    assert request.headers["x-team"] == "a"


def test_without_them_the_form_counts(monkeypatch: pytest.MonkeyPatch, server: Server) -> None:
    connect(monkeypatch, {"openai_client_kwargs": {}}, host=server.url)
    server.answers = [json_answer({"data": []})]
    ask(OpenAIHook())
    assert server.requests[0].headers["authorization"] == "Bearer sk-of-the-form"


@pytest.mark.parametrize(
    "given",
    [{"http_client": KEY}, {"default_headers": [KEY]}, {"timeout": KEY}, KEY],
    ids=["unknown", "h", "t", "text"],
)
def test_what_cannot_be_read_is_refused_and_not_quoted(monkeypatch: pytest.MonkeyPatch, given: Any) -> None:
    connect(monkeypatch, {"openai_client_kwargs": given})
    with pytest.raises(SpecError, match="openai_client_kwargs") as caught:
        OpenAIHook().client()
    assert KEY not in str(caught.value)
