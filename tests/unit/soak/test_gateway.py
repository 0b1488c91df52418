"""What stands between Airflow and a server in the soak: it changes nothing but what is to go wrong."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from typing import Any

import httpx
import pytest
import uvicorn

from http_server import Answer, Server, json_answer
from overnight.sandbox.emulator.connections import DroppableProtocol
from soak.gateway import build_app


@pytest.fixture
def server() -> Iterator[Server]:
    server = Server()
    yield server
    server.stop()


@pytest.fixture(params=["s3", "opensearch"])
def kind(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.fixture
def gateway(server: Server, kind: str) -> Iterator[httpx.Client]:
    config = uvicorn.Config(build_app(kind, server.url, 1), port=0, http=DroppableProtocol, log_level="error")
    running = uvicorn.Server(config)
    started = threading.Event()
    startup = running.startup

    async def start(sockets: Any = None) -> None:
        await startup(sockets)
        started.set()

    running.startup = start  # type: ignore[method-assign]
    thread = threading.Thread(target=running.run)
    thread.start()
    try:
        assert started.wait(60)
        (listener,) = running.servers[0].sockets
        with httpx.Client(base_url=f"http://127.0.0.1:{listener.getsockname()[1]}", trust_env=False) as client:
            yield client
    finally:
        running.should_exit = True
        thread.join()


def break_everything(gateway: httpx.Client, fault: str) -> None:
    gateway.put("/_sandbox/faults", json={fault: 1, "server_error_status": 503}).raise_for_status()


def test_what_does_not_go_wrong_is_passed_on_as_it_is(gateway: httpx.Client, server: Server) -> None:
    server.answers = [Answer(201, b"\x1f\x8bnot-gzip", {"ETag": '"e"', "Content-Encoding": "gzip"})]
    with gateway.stream(
        "PUT", "/b/a%20key%2B1?partNumber=1&uploadId=u%2F", content=b"body", headers={"x-a": "1"}
    ) as got:
        assert (got.status_code, got.headers["etag"]) == (201, '"e"')
        assert b"".join(got.iter_raw()) == b"\x1f\x8bnot-gzip"
    (seen,) = server.requests
    assert (seen.method, seen.path, seen.query) == ("PUT", "/b/a%20key%2B1", "partNumber=1&uploadId=u%2F")
    assert (seen.body, seen.headers["x-a"]) == (b"body", "1")


def test_a_refused_request_does_not_arrive(gateway: httpx.Client, server: Server, kind: str) -> None:
    break_everything(gateway, "rate_limited")
    answer = gateway.put("/b/k", content=b"body")
    assert (answer.status_code, "SlowDown" in answer.text) == ((503, True) if kind == "s3" else (429, False))
    break_everything(gateway, "server_error")
    assert gateway.put("/b/k", content=b"body").status_code == 503
    assert server.requests == []


def test_a_lost_answer_is_of_a_request_that_arrived(gateway: httpx.Client, server: Server) -> None:
    break_everything(gateway, "lost_answer")
    with pytest.raises(httpx.RemoteProtocolError):
        gateway.put("/b/k", content=b"body")
    assert [seen.path for seen in server.requests] == ["/b/k"]


def test_a_cut_body_is_shorter_than_its_length_says(gateway: httpx.Client, server: Server) -> None:
    server.answers = [json_answer({"a": "long answer"})]
    break_everything(gateway, "cut_body")
    with pytest.raises(httpx.RemoteProtocolError, match="incomplete|without sending complete"):
        gateway.get("/b/k")


def test_an_answer_to_a_head_keeps_the_length_of_the_object(gateway: httpx.Client, server: Server) -> None:
    # The test's server has no HEAD of its own: it answers 501, with the length of a page that it does not send.
    answer = gateway.head("/b/k")
    assert int(answer.headers["content-length"]) > 0
    assert answer.content == b""
