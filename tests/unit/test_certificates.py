"""Certificates and proxies: what cannot work is said at once, with its remedy, and never tried again."""

from __future__ import annotations

import asyncio
import os
import ssl
import threading
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any, cast

import boto3
import pytest
import s3fs
from cryptography.hazmat.primitives import serialization

from certificates import make_certificate
from overnight.certificates import VARIABLES, load_certificates
from overnight.errors import ConnectionConfigError
from overnight.services.sagemaker.connection import BOTO_CONFIG, transport
from overnight.storage import Storage
from overnight.transport.aws import AwsTransport
from overnight.transport.aws_call import AwsCall
from overnight.transport.http import HttpCall, HttpTransport

GET = HttpCall("GET", "x")
LIST = AwsCall("sagemaker", "ListTransformJobs")


@pytest.fixture(autouse=True)
def plain_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in (*VARIABLES, "AWS_CA_BUNDLE", "HTTP_PROXY", "HTTPS_PROXY", "ALL_PROXY", "NO_PROXY"):
        monkeypatch.delenv(name, raising=False)
        monkeypatch.delenv(name.lower(), raising=False)


@pytest.fixture(scope="module")
def certificate(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A certificate of ``localhost`` that signs itself, with its key, as one PEM file."""
    built, key = make_certificate("localhost")
    path = tmp_path_factory.mktemp("tls") / "server.pem"
    path.write_bytes(built.public_bytes(serialization.Encoding.PEM) + key)
    return path


class Handler(BaseHTTPRequestHandler):
    def do_GET(self) -> None:
        self.send_response(200)
        self.send_header("Content-Length", "2")
        self.end_headers()
        self.wfile.write(b"{}")

    def log_message(self, *args: Any) -> None:
        pass


class Quiet(ThreadingHTTPServer):
    daemon_threads = True
    connections = 0

    def get_request(self) -> Any:
        self.connections += 1
        return super().get_request()

    def handle_error(self, request: Any, client_address: Any) -> None:
        pass


@pytest.fixture
def serve(certificate: Path) -> Iterator[Callable[[bool], Quiet]]:
    started: list[tuple[Quiet, threading.Thread]] = []

    def start(tls: bool) -> Quiet:
        server = Quiet(("127.0.0.1", 0), Handler)
        if tls:
            context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
            context.load_cert_chain(certificate)
            server.socket = context.wrap_socket(server.socket, server_side=True, do_handshake_on_connect=False)
        thread = threading.Thread(target=server.serve_forever, args=(0.01,), daemon=True)
        thread.start()
        started.append((server, thread))
        return server

    yield start
    for server, thread in started:
        server.shutdown()
        server.server_close()
        thread.join()


def blocking(**options: Any) -> Any:
    with HttpTransport(service="Test", **options) as transport:
        return transport.send(GET)


def on_the_loop(**options: Any) -> Any:
    async def main() -> Any:
        async with HttpTransport(service="Test", **options) as transport:
            return await transport.asend(GET)

    return asyncio.run(cast("Any", main()))


def boto(url: str, **options: Any) -> AwsTransport:
    def connect(service: str) -> Any:
        keys = {"aws_access_key_id": "a", "aws_secret_access_key": "b", "region_name": "us-east-1"}
        return boto3.client(cast("Any", service), endpoint_url=url, config=BOTO_CONFIG, **keys, **options)

    return transport(connect)


@pytest.mark.parametrize("send", [blocking, on_the_loop])
@pytest.mark.parametrize("variable", [None, "SSL_CERT_FILE", "REQUESTS_CA_BUNDLE", "CURL_CA_BUNDLE"])
def test_a_ca_file_is_taken_from_the_connection_or_the_environment(
    serve: Any, certificate: Path, monkeypatch: pytest.MonkeyPatch, send: Any, variable: str | None
) -> None:
    server = serve(True)
    url = f"https://localhost:{server.server_address[1]}"
    with pytest.raises(ConnectionConfigError, match="not trusted"):
        send(base_url=url, backoff=0.001)
    assert server.connections == 1
    if variable is None:
        assert send(base_url=url, verify=str(certificate)) == {}
    else:
        monkeypatch.setenv(variable, str(certificate))
        assert send(base_url=url) == {}


@pytest.mark.parametrize("send", [blocking, on_the_loop])
@pytest.mark.parametrize("content", [None, "", "no certificate", "-----BEGIN CERTIFICATE-----\nxx\n"])
@pytest.mark.parametrize("variable", [None, "SSL_CERT_FILE", "REQUESTS_CA_BUNDLE"])
def test_a_ca_file_that_is_none_is_named_with_what_names_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, send: Any, content: str | None, variable: str | None
) -> None:
    path = tmp_path / "ca.pem"
    if content is not None:
        path.write_text(content)
    if variable is not None:
        monkeypatch.setenv(variable, str(path))
    with pytest.raises(ConnectionConfigError, match="PEM") as refusal:
        send(base_url="https://localhost:1", verify=str(path) if variable is None else True)
    assert str(path) in str(refusal.value)
    assert (variable or "the connection") in str(refusal.value)


def test_a_ca_file_is_read_once_for_all_clients_until_it_changes(certificate: Path, tmp_path: Path) -> None:
    assert load_certificates(True, "a") is load_certificates(True, "b")
    path = tmp_path / "ca.pem"
    path.write_bytes(certificate.read_bytes())
    first = load_certificates(str(path), "a")
    assert load_certificates(str(path), "b") is first
    os.utime(path, ns=(1, 1))
    assert load_certificates(str(path), "b") is not first


@pytest.mark.parametrize("send", [blocking, on_the_loop])
@pytest.mark.parametrize(
    ("proxy", "text"), [("socks5://u:secret@h:1", r"httpx\[socks\]"), ("ftp://u:secret@h:1", "HTTPS_PROXY")]
)
def test_a_proxy_that_cannot_be_used_is_refused_without_its_password(
    monkeypatch: pytest.MonkeyPatch, send: Any, proxy: str, text: str
) -> None:
    monkeypatch.setenv("ALL_PROXY", proxy)
    if proxy.startswith("socks5"):
        monkeypatch.setitem(__import__("sys").modules, "socksio", None)
    with pytest.raises(ConnectionConfigError, match=text) as refusal:
        send(base_url="https://localhost:1")
    assert "secret" not in str(refusal.value)


@pytest.mark.parametrize("send", [blocking, on_the_loop])
def test_https_to_a_server_of_http_is_said_and_not_tried_again(serve: Any, send: Any) -> None:
    server = serve(False)
    with pytest.raises(ConnectionConfigError, match="http://"):
        send(base_url=f"https://127.0.0.1:{server.server_address[1]}", backoff=0.001)
    assert server.connections == 1


def test_boto_says_the_same(serve: Any, certificate: Path, tmp_path: Path) -> None:
    server = serve(True)
    url = f"https://localhost:{server.server_address[1]}"
    with pytest.raises(ConnectionConfigError, match="not trusted"), boto(url) as aws:
        aws.send(LIST)
    assert server.connections == 1
    with boto(url, verify=str(tmp_path / "nowhere.pem")) as aws, pytest.raises(ConnectionConfigError) as refusal:
        aws.send(LIST)
    assert "AWS_CA_BUNDLE" in str(refusal.value)
    (tmp_path / "broken.pem").write_text("no certificate")
    with boto(url, verify=str(tmp_path / "broken.pem")) as aws, pytest.raises(ConnectionConfigError, match="PEM"):
        aws.send(LIST)
    plain = f"https://127.0.0.1:{serve(False).server_address[1]}"
    with boto(plain) as aws, pytest.raises(ConnectionConfigError, match="does not speak TLS"):
        aws.send(LIST)


@pytest.mark.parametrize("uri", ["s3://b/x/", "https://localhost:{port}/x.jsonl"])
def test_a_store_whose_certificate_is_not_trusted_is_no_outage_and_no_missing_file(serve: Any, uri: str) -> None:
    port = serve(True).server_address[1]
    storage = Storage(
        {
            "s3": lambda: s3fs.S3FileSystem(
                key="a",
                secret="b",
                endpoint_url=f"https://localhost:{port}",
                config_kwargs={"retries": {"max_attempts": 1}},
                skip_instance_cache=True,
            )
        }
    )
    with pytest.raises(ConnectionConfigError, match=r"with the credentials of the environment: .* is not trusted"):
        storage.open(uri.format(port=port)).read() if uri.startswith("https") else storage.list_files(uri)
