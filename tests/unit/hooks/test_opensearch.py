from __future__ import annotations

import asyncio
import json
from typing import Any

import httpx
import pytest
from airflow.sdk import BaseHook

from overnight.errors import SpecError
from overnight.hooks.job import hook_for
from overnight.hooks.opensearch import OpenSearchHook
from overnight.jobs import JobRef
from overnight.transport.opensearch import ServerVersion
from overnight.transport.sigv4 import SigV4Auth

SECRET = "AKsecretsecret"


@pytest.fixture
def connect(monkeypatch: pytest.MonkeyPatch) -> Any:
    def set_connection(conn_id: str = "opensearch_default", **fields: Any) -> OpenSearchHook:
        monkeypatch.setenv(f"AIRFLOW_CONN_{conn_id.upper()}", json.dumps({"conn_type": "opensearch", **fields}))
        return OpenSearchHook(conn_id)

    return set_connection


@pytest.mark.parametrize(
    ("fields", "url"),
    [
        ({"host": "search.example.com"}, "https://search.example.com:9200"),
        ({"host": "search.example.com", "port": 443}, "https://search.example.com:443"),
        ({"host": "https://search.example.com"}, "https://search.example.com"),
        ({"host": "https://search.example.com:9201/"}, "https://search.example.com:9201"),
        ({"host": "http://localhost", "port": 9200}, "http://localhost:9200"),
        ({"host": "localhost", "schema": "http"}, "http://localhost:9200"),
        ({"host": "localhost", "extra": {"use_ssl": False}}, "http://localhost:9200"),
        ({"host": "localhost", "extra": {"use_ssl": "false"}}, "http://localhost:9200"),
        ({"host": "localhost", "extra": {"use_ssl": ""}}, "https://localhost:9200"),
        ({"host": "localhost", "extra": {"scheme": "http", "use_ssl": False}}, "http://localhost:9200"),
        ({"host": "https://localhost", "extra": {"use_ssl": False}}, "https://localhost"),
        ({"host": "proxy", "port": 8443, "extra": {"url_prefix": "/search/"}}, "https://proxy:8443/search"),
        ({"host": "[::1]", "schema": "http"}, "http://[::1]:9200"),
        ({"host": "search.example.com:9300"}, "https://search.example.com:9300"),
    ],
)
def test_the_address_is_tls_unless_the_connection_says_http(connect: Any, fields: dict[str, Any], url: str) -> None:
    assert connect(**fields).get_config().url == url


def test_login_and_password_are_sent_and_never_shown(connect: Any) -> None:
    reach = connect(host="localhost", login="admin", password=SECRET, extra={"headers": {"X-Key": SECRET}}).get_config()
    request = next(reach.auth.sync_auth_flow(httpx.Request("GET", reach.url)))
    assert request.headers["Authorization"].startswith("Basic ")
    assert SECRET not in repr(reach)


def test_a_load_sends_the_connections_headers_too(connect: Any) -> None:
    hook = connect(host="localhost", login="admin", password=SECRET, extra={"headers": {"X-Key": SECRET}, "timeout": 7})
    with hook.target() as target:
        assert target.transport.client.headers["X-Key"] == SECRET
        assert target.transport.client.timeout.read == 7
        assert SECRET not in repr(target)


@pytest.mark.parametrize(
    ("extra", "verify"),
    [
        ({}, True),
        ({"verify_certs": None}, True),
        ({"verify_certs": "false"}, False),
        ({"ca_certs": "/etc/ca.pem"}, "/etc/ca.pem"),
    ],
)
def test_certificates_are_checked_unless_the_connection_says_not_to(connect: Any, extra: Any, verify: Any) -> None:
    assert connect(host="localhost", extra=extra).get_config().verify == verify


@pytest.mark.parametrize(
    ("fields", "named"),
    [
        ({}, "host"),
        ({"host": "https://me:pass@localhost"}, "login"),
        ({"host": "ftp://localhost"}, "http"),
        ({"host": "localhost", "extra": {"timeout": "soon"}}, "timeout"),
        ({"host": "localhost", "extra": {"aws_service": "ec2"}}, "aws_service"),
    ],
)
def test_a_wrong_connection_names_its_field(connect: Any, fields: dict[str, Any], named: str) -> None:
    with pytest.raises(SpecError, match=named):
        connect(**fields).get_config()


def test_aws_credentials_sign_requests_in_both_colours(connect: Any) -> None:
    connect("aws_default", conn_type="aws", login="AKIDEXAMPLE", password=SECRET, extra={"region_name": "eu-west-1"})
    hook = connect(host="x.eu-west-1.aoss.amazonaws.com", extra={"aws_conn_id": "aws_default", "aws_service": "aoss"})
    reach = hook.get_config()
    assert reach.url == "https://x.eu-west-1.aoss.amazonaws.com"
    assert reach.is_serverless
    assert isinstance(reach.auth, SigV4Auth)
    url = f"{reach.url}/a,b/_search?q=two%20words&x=1%2B1"

    blocking = next(reach.auth.sync_auth_flow(httpx.Request("POST", url, json={})))

    async def signed() -> httpx.Request:
        later = await hook.aget_config()
        return await anext(later.auth.async_auth_flow(httpx.Request("POST", url, json={})))

    for request in (blocking, asyncio.run(signed())):
        authorization = request.headers["Authorization"]
        assert "/eu-west-1/aoss/aws4_request" in authorization
        assert "x-amz-content-sha256" in authorization
        assert SECRET not in str(request.headers)
    assert SECRET not in repr(reach)


def test_a_signature_without_a_region_is_refused(connect: Any) -> None:
    connect("aws_default", conn_type="aws", login="AKIDEXAMPLE", password=SECRET)
    with pytest.raises(SpecError, match="region_name"):
        connect(host="localhost", extra={"aws_conn_id": "aws_default"}).get_config()


def test_airflow_makes_the_hook_from_its_connection_type(connect: Any) -> None:
    connect("mine", conn_type="overnight_opensearch", host="localhost")
    assert isinstance(BaseHook.get_hook("mine"), OpenSearchHook)


def test_a_server_that_is_away_fails_the_test_with_a_reason(connect: Any) -> None:
    works, message = connect(host="http://127.0.0.1:9", password=SECRET, login="x").test_connection()
    assert not works
    assert "ConnectError" in message
    assert SECRET not in message


@pytest.mark.parametrize(
    ("number", "release"), [("2.19.6", (2, 19)), ("3.0.0-beta1", (3, 0)), ("", (0, 0)), ("next", (0, 0))]
)
def test_a_version_reads_as_major_and_minor(number: str, release: tuple[int, int]) -> None:
    assert ServerVersion("opensearch", number).release == release


@pytest.mark.parametrize("service", ["ml_commons_predict", "ml_commons_ingest"])
def test_a_reference_finds_its_ml_commons_service_in_both_colours(connect: Any, service: str) -> None:
    connect("mine", host="localhost", login="me", password=SECRET)
    ref = JobRef(service=service, id="t", conn_id="mine")

    async def later() -> Any:
        return await hook_for(ref).aclient()

    for client in (hook_for(ref).client(), asyncio.run(later())):
        assert client.service.ref("t") == ref
        assert client.transport.base_url == "https://localhost:9200/"


def test_a_query_is_signed_as_it_is_sent(connect: Any) -> None:
    connect("aws_default", conn_type="aws", login="AKIDEXAMPLE", password=SECRET, extra={"region_name": "eu-west-1"})
    auth = connect(host="https://x", extra={"aws_conn_id": "aws_default"}).get_config().auth
    request = next(auth.sync_auth_flow(httpx.Request("GET", "https://x/_search", params={"q": "a b", "p": "1+1"})))
    assert request.url.query == b"q=a%20b&p=1%2B1"
