from __future__ import annotations

import asyncio
import contextlib
import io
import logging
import socket
import threading
import tracemalloc
from collections.abc import Callable, Iterator
from datetime import UTC, datetime, timedelta
from email.utils import format_datetime
from typing import Any, BinaryIO, cast

import httpx
import pytest

from http_server import Answer, Server, json_answer
from overnight.errors import (
    MAX_TEXT,
    CredentialsError,
    NotFoundError,
    RateLimitedError,
    RequestRefusedError,
    ServiceError,
    SpecError,
    TransientError,
    UnavailableError,
    UnsupportedError,
)
from overnight.transport.errors import MAX_RETRY_AFTER, add_remedy, retry_after
from overnight.transport.http import HttpCall, HttpTransport, Retry

KEY = "sk-very-secret-4711"


def transport_to(server: Server, **options: Any) -> HttpTransport:
    options = {"backoff": 0.001, "attempts": 4, "headers": {"Authorization": f"Bearer {KEY}"}, **options}
    return HttpTransport(service="Test", base_url=f"{server.url}/v1", **options)


Send = Callable[[HttpTransport, HttpCall], Any]


def blocking(transport: HttpTransport, call: HttpCall) -> Any:
    with transport:
        return transport.send(call)


def on_the_loop(transport: HttpTransport, call: HttpCall) -> Any:
    async def main() -> Any:
        async with transport:
            return await transport.asend(call)

    return asyncio.run(cast("Any", main()))


@pytest.fixture(params=[blocking, on_the_loop])
def send(request: pytest.FixtureRequest) -> Send:
    return cast("Send", request.param)


GET = HttpCall("GET", "things")
CREATE = HttpCall("POST", "things", json={"a": 1}, retry=Retry.REJECTED)


def test_a_call_goes_to_the_base_url_with_the_headers_and_decodes_json(server: Server, send: Send) -> None:
    server.answers = [json_answer({"id": 7})]
    answer = send(
        transport_to(server, params={"api-version": "1"}), HttpCall("POST", "things", params={"a": 2}, json=[1])
    )
    request = server.requests[0]
    assert answer == {"id": 7}
    assert (request.method, request.path, request.body) == ("POST", "/v1/things", b"[1]")
    assert request.query == "api-version=1&a=2"
    assert request.headers["authorization"] == f"Bearer {KEY}"
    assert request.headers["content-type"] == "application/json"


def test_an_empty_answer_is_none(server: Server, send: Send) -> None:
    server.answers = [Answer(204, b"")]
    assert send(transport_to(server), GET) is None


@pytest.mark.parametrize("status", [408, 500, 502, 503, 529])
def test_a_repeatable_call_survives_a_broken_server(server: Server, send: Send, status: int) -> None:
    server.answers = [Answer(status, b"oops"), Answer(status, b"oops"), json_answer({"ok": True})]
    assert send(transport_to(server), GET) == {"ok": True}
    assert len(server.requests) == 3


@pytest.mark.parametrize(
    "answer",
    [Answer(drop=True), Answer(body=b'{"ok": true}', sent=4), Answer(body=b'{"ok": tr')],
    ids=["dropped", "cut", "broken json"],
)
def test_a_repeatable_call_survives_a_lost_answer(server: Server, send: Send, answer: Answer) -> None:
    server.answers = [answer, json_answer({"ok": True})]
    assert send(transport_to(server), GET) == {"ok": True}


@pytest.mark.parametrize(
    "answer",
    [Answer(500), Answer(drop=True), Answer(body=b'{"id": 1}', sent=4), Answer(body=b'{"id"')],
    ids=["500", "dropped", "cut", "broken json"],
)
def test_a_creating_call_is_never_sent_twice_when_its_fate_is_unknown(
    server: Server, send: Send, answer: Answer
) -> None:
    server.answers = [answer]
    with pytest.raises(UnavailableError):
        send(transport_to(server), CREATE)
    assert len(server.requests) == 1


def test_a_creating_call_is_sent_again_when_it_was_rejected(server: Server, send: Send) -> None:
    server.answers = [json_answer({}, 429, Retry_After="0"), json_answer({"id": 1})]
    assert send(transport_to(server), CREATE) == {"id": 1}


def test_a_call_that_must_not_be_repeated_is_not(server: Server, send: Send) -> None:
    server.answers = [json_answer({}, 429, Retry_After="0")]
    with pytest.raises(RateLimitedError) as caught:
        send(transport_to(server), HttpCall("GET", "things", retry=Retry.NEVER))
    assert caught.value.retry_after == 0
    assert len(server.requests) == 1


def test_attempts_end(server: Server, send: Send) -> None:
    server.answers = [Answer(503)]
    with pytest.raises(UnavailableError):
        send(transport_to(server, attempts=3), GET)
    assert len(server.requests) == 3


@pytest.mark.parametrize(
    ("status", "kind"),
    [
        (400, RequestRefusedError),
        (401, CredentialsError),
        (403, CredentialsError),
        (404, NotFoundError),
        (405, UnsupportedError),
        (409, RequestRefusedError),
        (410, NotFoundError),
        (413, RequestRefusedError),
        (422, RequestRefusedError),
        (501, UnsupportedError),
    ],
)
def test_what_cannot_be_mended_is_told_at_once(
    server: Server, send: Send, status: int, kind: type[ServiceError]
) -> None:
    server.answers = [json_answer({"error": {"code": "x", "message": "no such luck"}}, status)]
    with pytest.raises(kind) as caught:
        send(transport_to(server, remedies={status: "Do this."}), GET)
    assert len(server.requests) == 1
    assert (caught.value.status, caught.value.code) == (status, "x")
    assert str(caught.value) == f"Test answered GET /v1/things with {status}: no such luck. Do this."


def test_a_used_up_quota_is_not_waited_for(server: Server, send: Send) -> None:
    server.answers = [json_answer({"error": {"code": "insufficient_quota", "message": "pay"}}, 429)]
    with pytest.raises(RequestRefusedError, match="pay"):
        send(transport_to(server, final_codes={"insufficient_quota"}), GET)
    assert len(server.requests) == 1


@pytest.mark.parametrize(
    "body",
    [b"<html>bad gateway</html>", b'"text"', b"[1]", b"null", b'{"error": null}', b'{"error": {"message": null}}', b""],
)
def test_any_error_body_can_be_told(server: Server, send: Send, body: bytes) -> None:
    server.answers = [Answer(400, body)]
    with pytest.raises(RequestRefusedError, match=r"with 400: .+"):
        send(transport_to(server), GET)


def test_nobody_listening_is_unavailable(server: Server, send: Send) -> None:
    transport = HttpTransport(service="Test", base_url="http://127.0.0.1:9/v1", attempts=2, backoff=0.001)
    with pytest.raises(UnavailableError, match="ConnectError"):
        send(transport, GET)


def test_a_connection_dropped_behind_an_error_does_not_hurt_the_next_call(server: Server) -> None:
    server.answers = [Answer(404, hang_up_after=True), json_answer({"id": 1})]
    with transport_to(server) as transport:
        with pytest.raises(NotFoundError):
            transport.send(GET)
        assert transport.send(HttpCall("GET", "again")) == {"id": 1}


# Retry-After


def response_with(value: str) -> httpx.Response:
    return httpx.Response(429, headers={"Retry-After": value})


@pytest.mark.parametrize(("value", "seconds"), [("0", 0), ("7", 7), (" 1.5 ", 1.5), ("100000", MAX_RETRY_AFTER)])
def test_retry_after_in_seconds(value: str, seconds: float) -> None:
    assert retry_after(response_with(value)) == seconds


def test_retry_after_as_a_date() -> None:
    at = datetime.now(UTC) + timedelta(seconds=100)
    seconds = retry_after(response_with(format_datetime(at, usegmt=True)))
    assert seconds is not None
    assert 60 < seconds <= 100
    assert retry_after(response_with("Wed, 21 Oct 2015 07:28:00 GMT")) == 0
    assert retry_after(response_with("Wed, 21 Oct 2065 07:28:00")) == MAX_RETRY_AFTER


@pytest.mark.parametrize("value", ["", "soon", "nan", "inf", "-5", "1e400", "Wed, 99 Oct 2015 07:28:00 GMT"])
def test_a_retry_after_that_is_none_reads_as_absent(value: str) -> None:
    assert retry_after(response_with(value)) is None


def test_a_date_in_retry_after_is_waited_for(server: Server, send: Send) -> None:
    server.answers = [json_answer({}, 503, Retry_After="Wed, 21 Oct 2015 07:28:00 GMT"), json_answer({"id": 1})]
    assert send(transport_to(server), GET) == {"id": 1}


# Secrets


def everything_about(error: BaseException) -> str:
    message = []
    seen: BaseException | None = error
    while seen is not None:
        message.append(f"{seen} {seen!r} {vars(seen)}")
        seen = seen.__cause__ or (None if seen.__suppress_context__ else seen.__context__)
    return "\n".join(message)


@pytest.mark.parametrize("status", [400, 401, 403, 404, 429, 500])
def test_a_key_that_the_server_repeats_is_not_told(
    server: Server, send: Send, status: int, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.DEBUG, "overnight")
    server.answers = [json_answer({"error": {"message": f"Incorrect API key provided: {KEY}."}}, status)]
    transport = transport_to(server)
    with pytest.raises(ServiceError) as caught:
        send(transport, GET)
    assert KEY not in everything_about(caught.value) + caplog.text + repr(transport)
    assert "Incorrect API key provided: ***." in str(caught.value)


@pytest.mark.parametrize("is_json", [True, False])
@pytest.mark.parametrize("kept", range(len(KEY) + 1))
def test_no_part_of_a_key_is_told_where_a_long_message_is_cut(server: Server, kept: int, is_json: bool) -> None:
    message = "x" * (MAX_TEXT - 1 - kept) + KEY + " and more"
    server.answers = [json_answer({"error": {"message": message}}, 400) if is_json else Answer(400, message.encode())]
    with pytest.raises(ServiceError) as caught:
        blocking(transport_to(server), GET)
    message = str(caught.value)
    assert "x" * (MAX_TEXT - 1 - kept) in message
    assert not any(KEY[:length] in message for length in range(2, len(KEY) + 1))


def test_a_calls_own_secret_is_not_told(server: Server, send: Send) -> None:
    call = HttpCall("GET", "things", headers={"storageConnectionString": "AccountKey=abcdef"})
    server.answers = [Answer(400, b"bad AccountKey=abcdef")]
    with pytest.raises(ServiceError) as caught:
        send(transport_to(server), call)
    assert "abcdef" not in everything_about(caught.value) + repr(call)


@pytest.mark.parametrize(
    "key", ["sk-secret\n", "sk-secret\r\nX-Evil: 1", "sk-secrét", "sk-secret\x00", " sk-secret", ""]
)
def test_a_header_that_cannot_be_sent_is_refused_without_quoting_it(key: str) -> None:
    with pytest.raises(SpecError, match="api-key header") as caught:
        HttpTransport(service="Test", base_url="http://localhost", headers={"api-key": key})
    assert "secr" not in everything_about(caught.value)


@pytest.mark.parametrize(
    "url", ["", "localhost:80/v1", "ftp://host/v1", "http://", "http://host:port/", "http://a b/\n",
     "http://xn--/v1", "http://a..b/v1", f"http://{'a' * 64}.example/v1", "http://[::1/v1", "http://host:65536/v1"]
)  # fmt: skip
def test_an_address_that_is_none_is_refused(url: str) -> None:
    with pytest.raises(SpecError, match="whole URL"):
        HttpTransport(service="Test", base_url=url)


@pytest.mark.parametrize("location", ["http://xn--/", "http://a..b/", "http://[::1", "//[x]/"])
def test_a_redirect_to_an_address_that_is_none_is_a_service_error(server: Server, send: Send, location: str) -> None:
    server.answers = [Answer(302, b"", {"Location": location})]
    for call in (HttpCall("GET", "x"), HttpCall("POST", "x", json={})):
        with pytest.raises(ServiceError):
            send(transport_to(server, attempts=1), call)
    with transport_to(server, attempts=1) as transport, pytest.raises(ServiceError):
        list(transport.stream("x"))


@pytest.mark.parametrize("address", ["http://xn--/x", "http://a..b/x"])
def test_a_call_of_an_address_that_is_none_is_refused(server: Server, address: str) -> None:
    with transport_to(server, attempts=1) as transport, pytest.raises(RequestRefusedError, match="Check the address"):
        transport.send(HttpCall("GET", address))


def test_a_query_is_not_told(server: Server, send: Send) -> None:
    server.answers = [Answer(drop=True)]
    with pytest.raises(UnavailableError) as caught:
        send(transport_to(server), HttpCall("GET", f"{server.url}/file?sig=topsecret", retry=Retry.NEVER))
    assert "topsecret" not in everything_about(caught.value)


# Redirects


def test_reading_follows_a_redirect_and_leaves_every_credential_behind(
    server: Server, other_server: Server, send: Send
) -> None:
    server.answers = [Answer(302, b"", {"Location": f"{other_server.url}/blob?sig=abc"})]
    other_server.answers = [json_answer({"ok": True})]
    headers = {"api-key": KEY, "Authorization": f"Bearer {KEY}", "X-Gateway-Token": KEY, "OpenAI-Project": "p"}
    call = HttpCall("GET", "things", headers={"serviceKey": KEY})
    assert send(transport_to(server, headers=headers), call) == {"ok": True}
    assert KEY in server.requests[0].headers["api-key"]
    assert KEY not in str(other_server.requests[0].headers)
    assert "openai-project" not in other_server.requests[0].headers


def test_a_redirect_on_the_same_server_keeps_the_credentials(server: Server, send: Send) -> None:
    server.answers = [Answer(307, b"", {"Location": "/v1/moved"}), json_answer({"ok": True})]
    assert send(transport_to(server, headers={"api-key": KEY}), GET) == {"ok": True}
    assert server.requests[1].headers["api-key"] == KEY


def test_an_absolute_path_elsewhere_gets_no_credentials(server: Server, other_server: Server, send: Send) -> None:
    send(transport_to(server), HttpCall("GET", f"{other_server.url}/file"))
    assert KEY not in str(other_server.requests[0].headers)


@pytest.mark.parametrize("status", [301, 302, 303, 307, 308])
def test_a_creating_call_does_not_follow_a_redirect(server: Server, send: Send, status: int) -> None:
    server.answers = [Answer(status, b"", {"Location": f"{server.url}/v2/things?token=abc"})]
    with pytest.raises(RequestRefusedError, match=rf"redirects to {server.url}/v2/things; put") as caught:
        send(transport_to(server), CREATE)
    assert "abc" not in str(caught.value)
    assert len(server.requests) == 1


def test_a_circle_of_redirects_is_refused(server: Server, send: Send) -> None:
    server.answers = [Answer(302, b"", {"Location": "/v1/things"})]
    with pytest.raises(RequestRefusedError, match="circle"):
        send(transport_to(server), GET)


# Uploads


def upload(open_file: Callable[[], BinaryIO], retry: Retry = Retry.SAFE) -> HttpCall:
    return HttpCall("POST", "files", data={"purpose": "batch"}, files={"file": ("in.jsonl", open_file)}, retry=retry)


def test_a_repeated_upload_opens_the_file_anew_and_closes_each(server: Server) -> None:
    opened: list[io.BytesIO] = []

    def open_file() -> BinaryIO:
        opened.append(io.BytesIO(b"content of the file"))
        opened[-1].read(7)
        return opened[-1]

    server.answers = [Answer(500), json_answer({"id": 1})]
    with transport_to(server) as transport:
        assert transport.send(upload(open_file)) == {"id": 1}
    assert len(opened) == 2
    assert all(file.closed for file in opened)
    for request in server.requests:
        assert b"content of the file\r\n" in request.body
        assert b'name="purpose"\r\n\r\nbatch\r\n' in request.body
        assert b'filename="in.jsonl"' in request.body


def test_an_upload_does_not_hold_the_file_in_memory(server: Server) -> None:
    size = 64 << 20

    class Zeros(io.RawIOBase):
        at = 0

        def readable(self) -> bool:
            return True

        def seekable(self) -> bool:
            return True

        def seek(self, offset: int, whence: int = 0) -> int:
            self.at = offset + (size if whence == 2 else 0)
            return self.at

        def tell(self) -> int:
            return self.at

        def read(self, count: int = -1) -> bytes:
            count = min(count if count >= 0 else size, size - self.at)
            self.at += count
            return bytes(count)

    received = 0

    def drain(request: Any) -> Answer:
        nonlocal received
        received = len(request.body)
        return json_answer({"id": 1})

    server.handler = drain
    with transport_to(server) as transport:
        call = upload(lambda: cast("BinaryIO", Zeros()))
        request = transport._build(transport.client, call, [])
        assert int(request.headers["Content-Length"]) > size
        tracemalloc.start()
        try:
            for _ in request.stream:  # type: ignore[union-attr]
                pass
            peak = tracemalloc.get_traced_memory()[1]
        finally:
            tracemalloc.stop()
        assert peak < 2 << 20
        assert transport.send(call) == {"id": 1}
    assert received > size


def test_a_file_that_cannot_be_opened_is_told_as_it_is(server: Server) -> None:
    def missing() -> BinaryIO:
        raise FileNotFoundError("in.jsonl")

    with transport_to(server) as transport, pytest.raises(FileNotFoundError):
        transport.send(upload(missing))
    assert server.requests == []


async def test_an_upload_has_no_place_on_the_event_loop(server: Server) -> None:
    async with transport_to(server) as transport:
        with pytest.raises(TypeError, match="worker"):
            await transport.asend(upload(io.BytesIO))


# Streams

CONTENT = bytes(range(256)) * 2_000


def ranged(request: Any, *, sent: int | None = None, etag: str | None = None) -> Answer:
    headers = {"ETag": etag} if etag else {}
    asked = request.headers.get("range")
    if asked is None:
        return Answer(200, CONTENT, headers, sent)
    start = int(asked.removeprefix("bytes=").rstrip("-"))
    if start >= len(CONTENT):
        return Answer(416, b"", {**headers, "Content-Range": f"bytes */{len(CONTENT)}"})
    headers["Content-Range"] = f"bytes {start}-{len(CONTENT) - 1}/{len(CONTENT)}"
    return Answer(206, CONTENT[start:], headers, sent)


def read(server: Server, **options: Any) -> bytes:
    with transport_to(server, attempts=3) as transport:
        return b"".join(transport.stream("file", **options))


def test_a_stream_goes_on_where_the_connection_broke(server: Server) -> None:
    server.handler = lambda request: ranged(request, sent=100_000)
    assert read(server) == CONTENT
    assert len(server.requests) > 4
    assert all(request.headers["accept-encoding"] == "identity" for request in server.requests)


def test_a_stream_survives_a_server_that_ignores_ranges(server: Server) -> None:
    cuts = iter([100_000, 300_000, 200_000, None])
    server.handler = lambda request: Answer(200, CONTENT, sent=next(cuts))
    assert read(server) == CONTENT


def test_a_stream_survives_a_server_that_sends_more_than_was_asked_for(server: Server) -> None:
    def aligned(request: Any) -> Answer:
        start = int(request.headers.get("range", "bytes=0-").removeprefix("bytes=").rstrip("-")) // 65_536 * 65_536
        headers = {"Content-Range": f"bytes {start}-{len(CONTENT) - 1}/{len(CONTENT)}"}
        return Answer(206, CONTENT[start:], headers, sent=150_000)

    server.handler = aligned
    assert read(server) == CONTENT


@pytest.mark.parametrize("start", [0, 1, 255, 300_000, len(CONTENT) - 1, len(CONTENT)])
def test_a_stream_starts_where_it_is_told(server: Server, start: int) -> None:
    server.handler = ranged
    assert read(server, start=start) == CONTENT[start:]
    server.handler = lambda request: Answer(200, CONTENT)
    assert read(server, start=start) == CONTENT[start:]


def test_a_start_behind_the_end_is_an_error(server: Server) -> None:
    server.handler = ranged
    with pytest.raises(RequestRefusedError, match="fewer bytes"):
        read(server, start=len(CONTENT) + 1)
    server.handler = lambda request: Answer(200, CONTENT)
    with pytest.raises(RequestRefusedError, match="fewer bytes"):
        read(server, start=len(CONTENT) + 1)


def test_a_file_that_changes_meanwhile_is_an_error(server: Server) -> None:
    etags = iter(['"one"', '"two"'])
    server.handler = lambda request: ranged(request, sent=100_000, etag=next(etags))
    with pytest.raises(RequestRefusedError, match="changed"):
        read(server)


def test_a_range_that_leaves_a_gap_is_an_error(server: Server) -> None:
    headers = {"Content-Range": "bytes 9-20/21"}
    server.answers = [Answer(206, CONTENT, headers)]
    with pytest.raises(RequestRefusedError, match="from byte 5 on and sent it from byte 9"):
        read(server, start=5)


def test_a_stream_gives_up_when_nothing_comes_any_more(server: Server) -> None:
    server.answers = [Answer(200, CONTENT, sent=100_000), Answer(503)]
    pieces: list[bytes] = []

    def collect(chunks: Iterator[bytes]) -> None:
        pieces.extend(chunks)

    with transport_to(server, attempts=3) as transport, pytest.raises(TransientError):
        collect(transport.stream("file"))
    assert b"".join(pieces) == CONTENT[:100_000]
    assert len(server.requests) == 3


def test_a_missing_file_is_told_at_once(server: Server) -> None:
    server.answers = [json_answer({"error": {"message": "No such File object: file-1"}}, 404)]
    with pytest.raises(NotFoundError, match="No such File object"):
        read(server)
    assert len(server.requests) == 1


def test_a_stream_follows_a_redirect_without_credentials(server: Server, other_server: Server) -> None:
    server.answers = [Answer(302, b"", {"Location": f"{other_server.url}/blob?sig=1"})]
    other_server.handler = lambda request: ranged(request, sent=200_000)
    assert read(server) == CONTENT
    assert all(KEY not in str(request.headers) for request in other_server.requests)


def test_a_closed_transport_can_be_used_again(server: Server) -> None:
    transport = transport_to(server)
    for _ in range(2):
        with transport:
            transport.send(GET)


@pytest.fixture
def stuck() -> Iterator[tuple[str, threading.Event]]:
    """A server that answers a request's first line and headers one after the other, for ever."""
    listener = socket.create_server(("127.0.0.1", 0))
    over = threading.Event()

    def drip(client: socket.socket) -> None:
        with client, contextlib.suppress(OSError):
            client.recv(65536)
            client.sendall(b"HTTP/1.1 200 OK\r\n")
            while not over.wait(0.005):
                client.sendall(b"X-Slow: 1\r\n")

    def accept() -> None:
        with contextlib.suppress(OSError):
            while True:
                threading.Thread(target=drip, args=(listener.accept()[0],), daemon=True).start()

    threading.Thread(target=accept, daemon=True).start()
    yield f"http://127.0.0.1:{listener.getsockname()[1]}", over
    over.set()
    listener.close()


@pytest.mark.parametrize("call", [GET, CREATE], ids=["read", "create"])
def test_an_answer_that_never_ends_is_none_however_lively_it_is(
    stuck: tuple[str, threading.Event], send: Send, call: HttpCall
) -> None:
    # The headers never stop coming, so no time-out of a single read ends this.
    transport = HttpTransport(service="Test", base_url=stuck[0], limit=0.3, attempts=1)
    with pytest.raises(UnavailableError, match=r"no whole answer to (GET|POST) things within 0.3 s"):
        send(transport, call)


def test_a_file_that_comes_too_slowly_to_end_is_broken_off(server: Server) -> None:
    server.answers = [Answer(200, b"x" * 20)]
    transport = transport_to(server, limit=0.0, attempts=1)
    with transport, pytest.raises(UnavailableError, match="no whole answer to GET file"):
        list(transport.stream("file"))


def test_a_file_of_any_length_is_read_while_it_comes(server: Server, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("overnight.transport.http.SLOWEST_STREAM", 1)
    server.answers = [Answer(200, b"x" * 200_000)]
    with transport_to(server, limit=0.0, attempts=1) as transport:
        assert sum(map(len, transport.stream("file"))) == 200_000


@pytest.mark.parametrize(
    ("text", "message"),
    [("no", "no. Do this."), ("no.", "no. Do this."), ("no! ", "no! Do this."), ("no…", "no… Do this.")],
)
def test_a_remedy_is_a_sentence_of_its_own(text: str, message: str) -> None:
    assert add_remedy(text, "Do this.") == message
    assert add_remedy(message, "Do this.") == message
