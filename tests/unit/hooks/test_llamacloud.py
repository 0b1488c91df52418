from __future__ import annotations

import json
from typing import Any

import pytest

from overnight.errors import SpecError
from overnight.hooks.job import hook_for
from overnight.hooks.llamacloud import LlamaCloudHook
from overnight.jobs import JobRef
from overnight.provider_info import get_provider_info
from overnight.transport.http import HttpTransport

REF = JobRef(service="llamacloud", id="bat-1+bat-2", conn_id="llamacloud_default")


@pytest.fixture
def connect(monkeypatch: pytest.MonkeyPatch) -> Any:
    def transport_of(**fields: Any) -> HttpTransport:
        connection = {"conn_type": "overnight_llamacloud", "password": "llx-secret", **fields}
        monkeypatch.setenv("AIRFLOW_CONN_LLAMACLOUD_DEFAULT", json.dumps(connection))
        transport = LlamaCloudHook().client().transport
        assert isinstance(transport, HttpTransport)
        return transport

    return transport_of


def test_the_registry_and_airflow_know_the_hook() -> None:
    hook = hook_for(REF)
    assert isinstance(hook, LlamaCloudHook)
    assert hook.conn_id == "llamacloud_default"
    (known,) = [
        one for one in get_provider_info()["connection-types"] if one["connection-type"] == LlamaCloudHook.conn_type
    ]
    assert known["hook-class-name"] == f"{LlamaCloudHook.__module__}.{LlamaCloudHook.__qualname__}"
    assert known["hook-name"] == LlamaCloudHook.hook_name


@pytest.mark.parametrize(
    ("fields", "base_url"),
    [
        ({}, "https://api.cloud.llamaindex.ai/"),
        ({"extra": {"region": "eu"}}, "https://api.cloud.eu.llamaindex.ai/"),
        ({"host": "https://llama.example.com/", "extra": {"region": "eu"}}, "https://llama.example.com/"),
        ({"host": "llama.example.com", "port": 8443}, "https://llama.example.com:8443/"),
    ],
)
def test_the_address_is_the_regions_or_the_hosts(connect: Any, fields: dict[str, Any], base_url: str) -> None:
    assert connect(**fields).base_url == base_url


def test_project_and_organization_are_in_every_query(connect: Any) -> None:
    transport = connect(extra={"project_id": "prj-1", "organization_id": "org-1"})
    request = transport.client.build_request("GET", "x", params={"page_size": 1})
    assert dict(request.url.params) == {"project_id": "prj-1", "organization_id": "org-1", "page_size": "1"}


def test_a_connection_without_a_key_is_refused(connect: Any) -> None:
    with pytest.raises(SpecError, match="password"):
        connect(password="")
