"""Each hook reads its connection alike, whether Airflow has it as JSON or as a URI."""

from __future__ import annotations

import asyncio
import json
from typing import Any
from urllib.parse import quote, urlencode

import pytest

from overnight.errors import SpecError
from overnight.hooks.azure_ingestion import AzureIngestionHook
from overnight.hooks.connection import aread_extra_dejson
from overnight.hooks.job import JobHook
from overnight.hooks.llamacloud import LlamaCloudHook
from overnight.hooks.ml_commons import MLCommonsIngestHook, MLCommonsPredictHook
from overnight.hooks.openai import OpenAIHook
from overnight.hooks.opensearch import OpenSearchHook
from overnight.hooks.sagemaker import SageMakerHook

SECRET = "sk-of-the-connection"
HOOKS: tuple[type[JobHook[Any]], ...] = (
    OpenAIHook, LlamaCloudHook, AzureIngestionHook, MLCommonsPredictHook, MLCommonsIngestHook,
)  # fmt: skip


def set_json(monkeypatch: pytest.MonkeyPatch, hook: type[Any], **fields: Any) -> None:
    connection = {"conn_type": hook.conn_type, "login": "me", "password": SECRET, **fields}
    monkeypatch.setenv(f"AIRFLOW_CONN_{hook.default_conn_name.upper()}", json.dumps(connection))


def set_uri(monkeypatch: pytest.MonkeyPatch, hook: type[Any], rest: str, **extra: Any) -> None:
    kind, query = hook.conn_type.replace("_", "-"), f"?{urlencode(extra)}" if extra else ""
    uri = f"{kind}://me:{quote(SECRET, safe='')}@{rest}{query}"
    monkeypatch.setenv(f"AIRFLOW_CONN_{hook.default_conn_name.upper()}", uri)


def get_address(hook: type[Any]) -> str:
    if hook is OpenSearchHook:
        return str(OpenSearchHook().get_config().url)
    with hook().client() as client:
        return str(client.transport.base_url).removesuffix("/")


@pytest.mark.parametrize("hook", [*HOOKS, OpenSearchHook])
@pytest.mark.parametrize(
    ("fields", "address"),
    [
        ({"host": "api.example.com", "port": 8443}, "https://api.example.com:8443"),
        ({"host": "https://api.example.com:8443"}, "https://api.example.com:8443"),
        ({"host": "https://api.example.com", "port": 8443}, "https://api.example.com:8443"),
        ({"host": "https://api.example.com:8443", "port": 8443}, "https://api.example.com:8443"),
        ({"host": "api.example.com:8443"}, "https://api.example.com:8443"),
        ({"host": "api.example.com", "port": 80, "schema": "http"}, "http://api.example.com:80"),
        ({"host": "http://api.example.com", "schema": "https"}, "http://api.example.com"),
        ({"host": " https://api.example.com/a/v1/ "}, "https://api.example.com/a/v1"),
        ({"host": "https://api.example.com", "port": 8443, "schema": "a/v1"}, "https://api.example.com:8443/a/v1"),
        ({"host": "https://api.example.com/a/v1", "schema": "/a/v1"}, "https://api.example.com/a/v1"),
        ({"host": "http://[::1]", "port": 8443}, "http://[::1]:8443"),
    ],
)
def test_every_field_of_an_address_counts(
    monkeypatch: pytest.MonkeyPatch, hook: type[Any], fields: dict[str, Any], address: str
) -> None:
    set_json(monkeypatch, hook, **fields)
    assert get_address(hook) == address


@pytest.mark.parametrize("hook", [*HOOKS, OpenSearchHook])
@pytest.mark.parametrize(
    ("rest", "address"),
    [
        ("api.example.com:8443", "https://api.example.com:8443"),
        ("api.example.com:8443/v1", "https://api.example.com:8443/v1"),
        ("api.example.com:8443/http", "http://api.example.com:8443"),
        (quote("https://api.example.com/a/v1", safe=""), "https://api.example.com/a/v1"),
        (quote("http://api.example.com", safe="") + ":8443", "http://api.example.com:8443"),
    ],
)
def test_a_connection_that_is_a_uri_means_the_same(
    monkeypatch: pytest.MonkeyPatch, hook: type[Any], rest: str, address: str
) -> None:
    set_uri(monkeypatch, hook, rest, timeout="7")
    assert get_address(hook) == address


@pytest.mark.parametrize("hook", [*HOOKS, OpenSearchHook])
@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"host": f"https://me:{SECRET}@api.example.com"}, "login and password fields"),
        ({"host": f"me:{SECRET}@api.example.com"}, "login and password fields"),
        ({"host": f"https://api.example.com/?key={SECRET}"}, "query"),
        ({"host": "https://api.example.com#x"}, "fragment"),
        ({"host": "api example.com"}, "blank"),
        ({"host": "ftp://api.example.com"}, "scheme"),
        ({"host": "https://"}, "scheme"),
        ({"host": "https://api.example.com:port"}, "no address"),
        ({"host": "https://[::1"}, "no address"),
        ({"host": "https://api.example.com:1", "port": 2}, "the port 1 in its host and 2"),
        ({"host": "https://api.example.com/v1", "schema": "v2"}, "the path 'v1' in its host and 'v2'"),
    ],
)
def test_what_contradicts_itself_or_holds_a_secret_is_refused(
    monkeypatch: pytest.MonkeyPatch, hook: type[Any], fields: dict[str, Any], message: str
) -> None:
    set_json(monkeypatch, hook, **fields)
    with pytest.raises(SpecError, match=message) as refusal:
        get_address(hook)
    assert SECRET not in str(refusal.value)
    assert hook.default_conn_name in str(refusal.value)


@pytest.mark.parametrize("hook", [OpenAIHook, LlamaCloudHook, AzureIngestionHook])
@pytest.mark.parametrize(
    ("given", "verify"),
    [("false", False), ("False", False), ("0", False), (False, False), ("true", True), ("", True), (None, True),
     (True, True), ("/etc/ca.pem", "/etc/ca.pem")],
)  # fmt: skip
def test_verify_may_be_text(monkeypatch: pytest.MonkeyPatch, hook: type[Any], given: Any, verify: bool | str) -> None:
    set_json(monkeypatch, hook, host="https://api.example.com", extra={"verify": given})
    with hook().client() as client:
        assert client.transport._verify == verify


@pytest.mark.parametrize("hook", [OpenAIHook, LlamaCloudHook, AzureIngestionHook])
def test_verify_of_a_uri_is_text(monkeypatch: pytest.MonkeyPatch, hook: type[Any]) -> None:
    set_uri(monkeypatch, hook, "api.example.com", verify="false")
    with hook().client() as client:
        assert client.transport._verify is False


@pytest.mark.parametrize("hook", [OpenAIHook, LlamaCloudHook, AzureIngestionHook, OpenSearchHook])
def test_a_wrong_extra_is_named_and_not_quoted(monkeypatch: pytest.MonkeyPatch, hook: type[Any]) -> None:
    set_json(monkeypatch, hook, host="https://api.example.com", extra={"timeout": SECRET})
    with pytest.raises(SpecError, match="timeout") as refusal:
        get_address(hook)
    assert SECRET not in str(refusal.value)


@pytest.mark.parametrize("hook", [OpenAIHook, OpenSearchHook, MLCommonsPredictHook, MLCommonsIngestHook])
@pytest.mark.parametrize("name", ["headers", "secret_headers"])
@pytest.mark.parametrize("wrong", [SECRET, [SECRET], {"X-Key": [SECRET]}, {"X-Key": {"is": SECRET}}])
def test_wrong_headers_are_named_and_not_quoted(
    monkeypatch: pytest.MonkeyPatch, hook: type[Any], name: str, wrong: Any
) -> None:
    set_json(monkeypatch, hook, host="https://api.example.com", extra={name: wrong})
    with pytest.raises(SpecError, match="headers") as refusal:
        get_address(hook)
    error: BaseException | None = refusal.value
    while error is not None:
        assert SECRET not in str(error)
        error = error.__cause__ or error.__context__


@pytest.mark.parametrize("hook", [OpenAIHook, LlamaCloudHook, AzureIngestionHook, OpenSearchHook])
@pytest.mark.parametrize("extra", ["[]", "5", '"text"', '{"verify": []}', '{"verify": {}}', '{"timeout": {}}'])
def test_an_extra_of_another_type_ends_in_a_client_or_a_refusal(
    monkeypatch: pytest.MonkeyPatch, hook: type[Any], extra: str
) -> None:
    set_json(monkeypatch, hook, host="https://api.example.com", extra=extra)
    try:
        assert get_address(hook) == "https://api.example.com"
    except SpecError as refusal:
        assert "extra" in str(refusal)  # noqa: PT017 - either is fine


@pytest.mark.parametrize("as_uri", [False, True])
def test_an_aws_connection_is_read_in_both_forms(monkeypatch: pytest.MonkeyPatch, as_uri: bool) -> None:
    extra = {"region_name": "eu-west-1", "endpoint_url": "http://localhost:9"}
    if as_uri:
        set_uri(monkeypatch, SageMakerHook, "", **extra)
    else:
        set_json(monkeypatch, SageMakerHook, extra=extra)
    with SageMakerHook().client() as client:
        boto: Any = client.transport._client("sagemaker")  # type: ignore[attr-defined]
        assert (boto.meta.region_name, boto.meta.endpoint_url) == ("eu-west-1", "http://localhost:9")
        assert boto._request_signer._credentials.secret_key == SECRET


def test_a_base_url_with_a_password_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    # Sent, it would take the place of the key.
    given = {"base_url": f"https://me:{SECRET}@api.example.com/v1"}
    set_json(monkeypatch, OpenAIHook, extra={"openai_client_kwargs": given})
    with pytest.raises(SpecError, match="base_url") as refusal:
        OpenAIHook().client()
    assert SECRET not in str(refusal.value)


class _Blocking:
    """A connection of Airflow 3.3.0: its extra can be read off the event loop only."""

    @property
    def extra_dejson(self) -> dict[str, Any]:
        with pytest.raises(RuntimeError, match="no running event loop"):
            asyncio.get_running_loop()
        return {"timeout": 5}


class _Async:
    async def aextra_dejson(self) -> dict[str, Any]:
        return {"timeout": 5}


@pytest.mark.parametrize("kind", [_Blocking, _Async])
async def test_an_extra_is_read_on_an_event_loop_with_every_airflow(kind: type[Any]) -> None:
    assert await aread_extra_dejson(kind()) == {"timeout": 5}
