from __future__ import annotations

from typing import Any

import pytest

from http_server import Server, json_answer
from overnight.errors import (
    CredentialsError,
    NotFoundError,
    RateLimitedError,
    RequestRefusedError,
    ServiceError,
    SpecError,
)
from overnight.services.openai.connection import OpenAIConnection, read_openai_error
from overnight.transport.http import HttpCall

CALL = HttpCall("GET", "batches")


def test_openai_gets_a_bearer_key_organization_and_project(server: Server) -> None:
    facts = OpenAIConnection(" sk-key\n", base_url=f"{server.url}/v1/", organization="org-1", project="proj_1")
    with facts.transport() as transport:
        transport.send(CALL)
    (request,) = server.requests
    assert (request.path, request.query) == ("/v1/batches", "")
    assert request.headers["authorization"] == "Bearer sk-key"
    assert request.headers["openai-organization"] == "org-1"
    assert request.headers["openai-project"] == "proj_1"
    assert "api-key" not in request.headers


def test_azure_gets_an_api_key_and_its_version(server: Server) -> None:
    facts = OpenAIConnection(
        "k-123456",
        base_url=f"{server.url}/openai",
        auth_style="api-key",
        api_version="2025-04-01-preview",
        headers={"X-Gateway": "g"},
    )
    with facts.transport() as transport:
        transport.send(CALL)
    (request,) = server.requests
    assert (request.path, request.query) == ("/openai/batches", "api-version=2025-04-01-preview")
    assert (request.headers["api-key"], request.headers["x-gateway"]) == ("k-123456", "g")
    assert "authorization" not in request.headers


def test_a_server_without_keys_gets_none(server: Server) -> None:
    with OpenAIConnection("unused", base_url=server.url, auth_style="none").transport() as transport:
        transport.send(CALL)
    assert "authorization" not in server.requests[0].headers


@pytest.mark.parametrize("key", [None, "", " \n"])
def test_a_missing_key_is_told_before_any_call(key: str | None) -> None:
    with pytest.raises(SpecError, match="no API key"):
        OpenAIConnection(key).transport()


def test_a_repr_shows_no_secret() -> None:
    shown = repr(OpenAIConnection("sk-secret", headers={"X-Token": "also-secret"}))
    assert "secret" not in shown


@pytest.mark.parametrize(
    ("status", "kind", "remedy"),
    [
        (401, CredentialsError, "Check the API key"),
        (403, CredentialsError, "organization and the project"),
        (404, NotFoundError, "ends in /v1"),
        (413, RequestRefusedError, "smaller byte limit"),
        (429, RateLimitedError, "rate limit"),
    ],
)
def test_every_refusal_names_a_remedy(server: Server, status: int, kind: type[ServiceError], remedy: str) -> None:
    server.answers = [json_answer({"error": {"message": "m", "type": "t", "param": "p", "code": None}}, status)]
    transport = OpenAIConnection("k", base_url=server.url, attempts=1).transport()
    with transport, pytest.raises(kind, match=remedy) as caught:
        transport.send(CALL)
    assert caught.value.code == "t"
    assert "m (param 'p')" in str(caught.value)


def test_a_used_up_quota_is_refused_at_once(server: Server) -> None:
    server.answers = [json_answer({"error": {"message": "pay", "code": "insufficient_quota"}}, 429)]
    with OpenAIConnection("k", base_url=server.url).transport() as transport, pytest.raises(RequestRefusedError):
        transport.send(CALL)
    assert len(server.requests) == 1


@pytest.mark.parametrize(
    ("body", "read"),
    [
        ({"error": {"message": "m", "type": "t", "param": None, "code": "c"}}, ("c", "m")),
        ({"error": {"message": "m", "code": 404}}, ("404", "m")),
        ({"error": "text"}, (None, "text")),
        ({"object": "error", "message": "m", "type": "t", "param": "x", "code": 400}, ("400", "m (param 'x')")),
        ([{"error": {"message": "m"}}], (None, "m")),
        ({"detail": "Not Found"}, (None, "Not Found")),
        ({"detail": [{"loc": ["body"], "msg": "missing"}]}, (None, "[{'loc': ['body'], 'msg': 'missing'}]")),
        ({}, None),
        ([], None),
        ("x", None),
        (None, None),
    ],
)
def test_error_bodies_of_many_servers_are_read(body: Any, read: Any) -> None:
    assert read_openai_error(body) == read
