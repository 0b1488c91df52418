"""A call that got no further than the proxy says so, and which proxy."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any, cast

import httpx
import pytest

from overnight.errors import ConnectionConfigError, ProxyUnavailableError, RequestRefusedError, ServiceError
from overnight.transport.http import HttpCall, HttpTransport
from overnight.transport.proxies import find_proxy

GET = HttpCall("GET", "x")


class Proxy(ThreadingHTTPServer):
    """Refuses every connection with a status."""

    daemon_threads = True

    def __init__(self) -> None:
        self.status = 403
        self.asked: list[str] = []
        proxy = self

        class Handler(BaseHTTPRequestHandler):
            def refuse(self) -> None:
                proxy.asked.append(self.path)
                self.send_response(proxy.status)
                self.send_header("Content-Length", "0")
                self.end_headers()

            do_CONNECT = do_GET = refuse  # noqa: N815

            def log_message(self, *_: Any) -> None:
                pass

        super().__init__(("127.0.0.1", 0), Handler)


@pytest.fixture
def proxy(monkeypatch: pytest.MonkeyPatch) -> Iterator[Proxy]:
    server = Proxy()
    thread = threading.Thread(target=server.serve_forever, args=(0.01,), daemon=True)
    thread.start()
    use(monkeypatch, server.server_address[1])
    yield server
    server.shutdown()
    server.server_close()
    thread.join()


def use(monkeypatch: pytest.MonkeyPatch, port: int) -> None:
    for name in ("HTTP_PROXY", "HTTPS_PROXY", "ALL_PROXY", "NO_PROXY"):
        monkeypatch.delenv(name, raising=False)
        monkeypatch.delenv(name.lower(), raising=False)
    for name in ("HTTP_PROXY", "HTTPS_PROXY"):
        monkeypatch.setenv(name, f"http://user:secret@127.0.0.1:{port}")


def blocking(base_url: str) -> Any:
    with HttpTransport(service="Test", base_url=base_url, attempts=3, backoff=0.001) as transport:
        return transport.send(GET)


def on_the_loop(base_url: str) -> Any:
    async def main() -> Any:
        async with HttpTransport(service="Test", base_url=base_url, attempts=3, backoff=0.001) as transport:
            return await transport.asend(GET)

    return asyncio.run(cast("Any", main()))


@pytest.mark.parametrize("send", [blocking, on_the_loop])
@pytest.mark.parametrize(
    ("status", "kind", "attempts"),
    [
        (403, ConnectionConfigError, 1),
        (407, ConnectionConfigError, 1),
        (408, ProxyUnavailableError, 3),
        (502, ProxyUnavailableError, 3),
    ],
)
def test_a_proxy_that_does_not_connect_is_named(
    proxy: Proxy, send: Any, status: int, kind: type[ServiceError], attempts: int
) -> None:
    proxy.status = status
    with pytest.raises(kind) as error:
        send("https://service.example")
    address = f"http://127.0.0.1:{proxy.server_address[1]}"
    assert str(error.value).startswith(f"Test: the proxy {address} does not connect to service.example ({status} ")
    assert "NO_PROXY" in str(error.value)
    assert "secret" not in str(error.value)
    assert proxy.asked == ["service.example:443"] * attempts


@pytest.mark.parametrize("send", [blocking, on_the_loop])
def test_a_proxy_that_is_not_there_is_named(monkeypatch: pytest.MonkeyPatch, send: Any) -> None:
    use(monkeypatch, 9)
    for address in ("https://service.example", "http://service.example"):
        with pytest.raises(ProxyUnavailableError, match=r"the proxy http://127\.0\.0\.1:9 cannot be reached"):
            send(address)


def test_a_proxy_that_wants_a_password_answers_in_place_of_a_server_without_tls(proxy: Proxy) -> None:
    proxy.status = 407
    with pytest.raises(RequestRefusedError, match=r"with 407.* A proxy asks for a user and a password"):
        blocking("http://service.example")


def test_the_proxy_of_an_address_is_that_of_its_scheme(monkeypatch: pytest.MonkeyPatch) -> None:
    use(monkeypatch, 3128)
    monkeypatch.delenv("HTTP_PROXY")
    monkeypatch.setenv("NO_PROXY", "inside.example")
    assert find_proxy(httpx.URL("https://service.example")) == "http://127.0.0.1:3128"
    assert find_proxy(httpx.URL("http://service.example")) is None
    assert find_proxy(httpx.URL("https://inside.example")) is None
    monkeypatch.setenv("ALL_PROXY", "proxy.example:8080")
    assert find_proxy(httpx.URL("http://service.example")) == "http://proxy.example:8080"
