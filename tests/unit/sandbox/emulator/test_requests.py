from __future__ import annotations

import inspect
from pathlib import Path

import pytest
from fastapi import FastAPI
from fastapi.routing import APIRoute

from overnight.sandbox import azure, openai, sagemaker
from overnight.sandbox.emulator.requests import ADMIN, Requests
from overnight.sandbox.llamacloud.app import create_app as create_llamacloud
from overnight.sandbox.llamacloud.settings import Settings as LlamaCloudSettings


def scope(method: str = "GET", path: str = "/v1/files") -> dict[str, object]:
    headers = [(b"authorization", b"Bearer sk-secret"), (b"openai-project", b"whales")]
    return {"type": "http", "method": method, "path": path, "headers": headers}


def test_requests_are_found_by_what_they_were_and_keep_no_credentials() -> None:
    requests = Requests()
    for method, path in (("GET", "/a"), ("POST", "/a"), ("GET", "/b")):
        requests.add(scope(method, path)).status = 200
    assert [seen["number"] for seen in requests.public(method="GET", path=None)] == [1, 3]
    assert requests.public(method="POST", path="/a") == [
        {
            "number": 2,
            "method": "POST",
            "path": "/a",
            "status": 200,
            "fault": None,
            "organization": None,
            "project": "whales",
        }
    ]
    assert "secret" not in repr(requests.public())
    requests.clear()
    assert requests.public() == []
    assert requests.add(scope()).number == 4


def create(name: str, folder: Path) -> FastAPI:
    match name:
        case "openai":
            return openai.create_app(openai.Settings(data_dir=folder))
        case "azure":
            return azure.create_app(azure.Settings(data_dir=folder))
        case "llamacloud":
            return create_llamacloud(LlamaCloudSettings(data_dir=folder))
    return sagemaker.create_app(sagemaker.Settings(data_dir=folder, s3_endpoint="http://127.0.0.1:1"))


@pytest.mark.parametrize("name", ["openai", "azure", "llamacloud", "sagemaker"])
def test_requests_are_read_where_they_are_recorded(tmp_path: Path, name: str) -> None:
    """A route that is a plain function runs in a thread, and finds the record changing under its hands."""
    log = {f"{ADMIN}/requests", f"{ADMIN}/calls"}
    app = create(name, tmp_path)
    routes = [route for route in app.routes if isinstance(route, APIRoute) and route.path in log]
    assert {method for route in routes for method in route.methods} == {"GET", "DELETE"}
    assert all(inspect.iscoroutinefunction(route.endpoint) for route in routes)
