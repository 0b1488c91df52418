"""The transport of every service with JSON over HTTP: httpx, sync and async, with the same retries."""

from __future__ import annotations

import asyncio
import logging
import random
import re
import threading
import time
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from enum import Enum
from functools import partial
from typing import Any, BinaryIO, Final, TypeVar

import httpx
import orjson
from tenacity import (
    AsyncRetrying,
    RetryCallState,
    Retrying,
    retry_if_exception,
    stop_after_attempt,
)

from overnight.certificates import load_certificates
from overnight.errors import (
    ConnectionConfigError,
    QueueFullError,
    RateLimitedError,
    RequestRefusedError,
    SpecError,
    TransientError,
    shorten,
)
from overnight.transport.errors import NOT_SENT, SECRET_NAME, ErrorReader, Errors, retry_after
from overnight.transport.flow import Flow, TimeIsUpError, Transport, call_within, map_calls
from overnight.transport.resume import Reading

log = logging.getLogger(__name__)

ClientT = TypeVar("ClientT", httpx.Client, httpx.AsyncClient)
T = TypeVar("T")

MAX_PORT: Final = 65_535
MAX_BACKOFF: Final = 30.0
"""Seconds between two attempts where the server does not name a time."""
TIMEOUTS_PER_CALL: Final = 5.0
"""How many times its time-out one attempt of a call may take as a whole."""
_TOKEN: Final = re.compile(r"[!#$%&'*+.^_`|~0-9A-Za-z-]+")
"""A header's name: https://www.rfc-editor.org/rfc/rfc9110#name-tokens."""
_FRAMING: Final = frozenset({"connection", "content-encoding", "content-length", "te", "trailer", "transfer-encoding",
                             "upgrade"})  # fmt: skip
SLOWEST_STREAM: Final = 1 << 16
"""Bytes of a file that have to arrive in the time of one whole call."""


class Retry(Enum):
    """Which failures of a call are worth sending it again at once."""

    SAFE = "safe"
    """The call can be repeated: any transient failure."""
    REJECTED = "rejected"
    """The call creates something: only an answer that says it was not carried out (429)."""
    NEVER = "never"
    """The caller has its own loop."""


@dataclass(frozen=True)
class HttpCall:
    """
    One HTTP request, before there is a client.

    :param path: Relative to the transport's base URL, or absolute.
    :param params: Query parameters. A secret has no place here; it goes into a header.
    :param content: The body, or what yields it piece by piece. Name its ``Content-Length`` in ``headers`` where the
        server wants one, and ``Retry.NEVER`` when it can be read only once. Pieces are for workers, not for event
        loops.
    :param files: Makes the body multipart. A mapping of field to ``(file name, open)``; ``open`` is called for each
        attempt, so that a repeated upload starts at the first byte again, and is streamed. What ``open`` or
        reading raises (:class:`OSError`) passes through.
    """

    method: str
    path: str
    params: Mapping[str, Any] | None = None
    # Bodies and headers may be private or secret, so a call's repr does not show them.
    json: Any = field(default=None, repr=False)
    content: bytes | Iterable[bytes] | None = field(default=None, repr=False)
    headers: Mapping[str, str] = field(default_factory=dict, repr=False)
    data: Mapping[str, str] | None = field(default=None, repr=False)
    files: Mapping[str, tuple[str, Callable[[], BinaryIO]]] | None = None
    retry: Retry = Retry.SAFE
    timeout: float | None = None
    """Seconds for each read or write; the transport's own when ``None``. All of an attempt takes five times as long at
    most, however slowly the bytes arrive."""
    whole: bool = False
    """Answer with an :class:`HttpAnswer`, for a service that says something in its headers."""
    decode: Callable[[bytes], Any] = orjson.loads
    """Reads the body of a success; raises :class:`orjson.JSONDecodeError` when it is not what it should be."""


@dataclass(frozen=True)
class HttpAnswer:
    """
    The answer to an :class:`HttpCall` that asked for more than the body.

    :param body: The decoded body.
    :param retry_after: Seconds after which the server wants to be asked again.
    """

    body: Any
    retry_after: float | None = None


def send_once(flow: Flow[T]) -> Flow[T]:
    """Return the flow with its HTTP calls sent once each, whatever they fail with: somebody waits for the answer."""
    return map_calls(flow, lambda call: replace(call, retry=Retry.NEVER) if isinstance(call, HttpCall) else call)


class HttpTransport(Transport[HttpCall, Any]):
    """
    Send calls to one server and hand back decoded JSON.

    Redirects are followed for reading only: another method would be repeated as a GET (301, 302, 303), whose
    answer would read as that of the call. No header of this transport goes to another origin.

    :param service: The name that errors start with.
    :param base_url: Everything that a call's path is relative to.
    :param headers: Sent with every call. Credentials go here or into ``auth``, and nowhere else: no error
        and no log line of this class quotes a request's headers, nor an answer that repeats a credential of them.
    :param verify: ``False`` takes any certificate; the path of a CA file or folder; ``True`` takes the one that
        ``SSL_CERT_FILE``, ``SSL_CERT_DIR``, ``REQUESTS_CA_BUNDLE`` or ``CURL_CA_BUNDLE`` names, else those of certifi.
    :param timeout: Seconds to wait for a connection, for each read and for each write.
    :param limit: Seconds for one attempt of a call as a whole, from the look-up of the name to the last byte of the
        answer; :data:`TIMEOUTS_PER_CALL` times its time-out when left out.
    :param attempts: How often a repeatable call is sent at most.
    :param backoff: Seconds before the second attempt, doubled for each one after it.
    :param error_reader: Picks ``(code, message)`` out of a decoded error body.
    :param remedies: What a user can do about a status, by status; added to the error's text.
    :param final_codes: Error codes that no waiting mends, whatever the status (a used-up quota that answers 429).
    :param queue_codes: Error codes of a queue that has no room for one more job; such a call is not repeated.
    :param throttled_codes: Error codes that say "not carried out, try later", whatever the status.
    :param secrets: What no error may quote although no header of a request is equal to it.
    :raises SpecError: the base URL or a header cannot be sent as it is.
    """

    def __init__(
        self,
        *,
        service: str,
        base_url: str,
        headers: Mapping[str, str] | None = None,
        auth: httpx.Auth | None = None,
        params: Mapping[str, str] | None = None,
        verify: bool | str = True,
        timeout: float = 60.0,
        limit: float | None = None,
        attempts: int = 6,
        backoff: float = 0.5,
        error_reader: ErrorReader | None = None,
        remedies: Mapping[int, str] | None = None,
        final_codes: Collection[str] = (),
        queue_codes: Collection[str] = (),
        secrets: Collection[str] = (),
        throttled_codes: Collection[str] = (),
    ) -> None:
        self.service = service
        self.base_url = base_url.rstrip("/") + "/"
        self._origin = _origin(parse_address(self.base_url, service))
        self._headers = dict(headers or {})
        check_headers(self._headers, service)
        self._options: dict[str, Any] = {
            "base_url": self.base_url,
            "headers": self._headers,
            "params": dict(params or {}),
            "auth": auth,
            "timeout": httpx.Timeout(timeout, connect=min(timeout, 10.0)),
        }
        self._verify = verify
        self._timeout = timeout
        self._limit = limit
        self._attempts = attempts
        self._backoff = backoff
        self._errors = Errors(
            service,
            reader=error_reader,
            remedies=remedies,
            final_codes=final_codes,
            queue_codes=queue_codes,
            secrets=secrets,
            throttled_codes=throttled_codes,
        )
        self._client: httpx.Client | None = None
        # A gathered flow's calls come from several threads.
        self._making_client = threading.Lock()
        self._async_client: httpx.AsyncClient | None = None

    @property
    def client(self) -> httpx.Client:
        """The blocking client, made when it is first needed."""
        with self._making_client:
            if self._client is None:
                self._client = self._make_client(httpx.Client, self._keep_home)
            return self._client

    @property
    def async_client(self) -> httpx.AsyncClient:
        """The async client, made when it is first needed."""
        if self._async_client is None:

            async def keep_home(request: httpx.Request) -> None:
                self._keep_home(request)

            self._async_client = self._make_client(httpx.AsyncClient, keep_home)
        return self._async_client

    def send(self, call: HttpCall) -> Any:
        """Send one call, repeating it as ``call.retry`` allows, and return the decoded body."""
        if call.retry is Retry.NEVER:
            return self._send_within(call)
        retrying = Retrying(**self._retry_options(call))
        return retrying(self._send_within, call)

    async def asend(self, call: HttpCall) -> Any:
        """Send one call on the event loop, repeating it as ``call.retry`` allows."""
        retrying = AsyncRetrying(**self._retry_options(call))
        return await retrying(self._asend_within, call)

    def stream(self, path: str, *, start: int = 0) -> Iterator[bytes]:
        """
        Yield a file's bytes from ``start`` on, going on where a broken connection stopped.

        Pieces are as large as they arrive, and nothing is kept. A server that ignores ``Range`` is read again from
        its first byte, and what was seen before is dropped. A file that changes meanwhile is an error, not a mixture.

        :raises RequestRefusedError: the file is shorter than ``start``, or another one than at the start.
        """
        reading = Reading(start)
        failures = 0
        while True:
            before = reading.offset
            try:
                for chunk in self._stream_once(path, reading):
                    reading.offset += len(chunk)
                    yield chunk
            except TransientError as error:
                failures = 1 if reading.offset > before else failures + 1
                if failures >= self._attempts:
                    raise
                delay = self._delay(failures, error)
                log.warning("%s Going on at byte %d in %.1f s.", error, reading.offset, delay)
                time.sleep(delay)
            else:
                return

    def close(self) -> None:
        """Close the blocking client; the next call makes another."""
        if self._client is not None:
            self._client.close()
            self._client = None

    async def aclose(self) -> None:
        """Close the async client; the next call makes another."""
        if self._async_client is not None:
            await self._async_client.aclose()
            self._async_client = None

    def _make_client(self, kind: Callable[..., ClientT], keep_home: Callable[[httpx.Request], Any]) -> ClientT:
        verify = load_certificates(self._verify, self.service)
        try:
            return kind(**self._options, verify=verify, event_hooks={"request": [keep_home]})
        except (ImportError, ValueError, httpx.InvalidURL) as error:
            # Not quoted: a proxy's address may hold a password.
            what = "needs the package httpx[socks]" if isinstance(error, ImportError) else "is none that can be used"
            raise ConnectionConfigError(
                f"{self.service}: the proxy in the task's environment {what}. Correct HTTP_PROXY, HTTPS_PROXY, "
                "ALL_PROXY and NO_PROXY, or install that on every worker and triggerer."
            ) from None

    def _get_limit(self, call: HttpCall) -> float:
        if self._limit is not None:
            return self._limit
        return TIMEOUTS_PER_CALL * (call.timeout if call.timeout is not None else self._timeout)

    def _send_within(self, call: HttpCall) -> Any:
        limit = self._get_limit(call)
        try:
            return call_within(limit, partial(self._send_once, call))
        except TimeIsUpError:
            raise self._errors.too_slow(call.method, call.path, limit) from None

    async def _asend_within(self, call: HttpCall) -> Any:
        limit = self._get_limit(call)
        try:
            async with asyncio.timeout(limit) as timer:
                return await self._asend_once(call)
        except TimeoutError:
            if not timer.expired():
                raise
            raise self._errors.too_slow(call.method, call.path, limit) from None

    def _send_once(self, call: HttpCall) -> Any:
        opened: list[BinaryIO] = []
        try:
            request = self._build(self.client, call, opened)
            response = self.client.send(request, follow_redirects=_is_reading(call))
        except NOT_SENT as error:
            raise self._errors.unanswered(call.method, call.path, error) from None
        finally:
            for file in opened:
                file.close()
        return self._decode(call, response)

    async def _asend_once(self, call: HttpCall) -> Any:
        if call.files is not None or not isinstance(call.content, bytes | None):
            raise TypeError("uploads read files and so belong on a worker, not on the event loop")
        try:
            request = self._build(self.async_client, call, [])
            response = await self.async_client.send(request, follow_redirects=_is_reading(call))
        except NOT_SENT as error:
            raise self._errors.unanswered(call.method, call.path, error) from None
        return self._decode(call, response)

    def _stream_once(self, path: str, reading: Reading) -> Iterator[bytes]:
        # Offsets count the file's bytes, so the body must not be compressed on its way.
        headers = {"Accept-Encoding": "identity"}
        if reading.offset:
            headers["Range"] = f"bytes={reading.offset}-"
        try:
            with self.client.stream("GET", path, headers=headers, follow_redirects=True) as response:
                if response.status_code == httpx.codes.REQUESTED_RANGE_NOT_SATISFIABLE:
                    reading.check_end(response, self.service)
                    return
                if not response.is_success:
                    response.read()
                    raise self._errors.answered(response)
                skip = reading.check_start(response, self.service)
                for chunk in self._check_pace(path, response.iter_bytes()):
                    kept = chunk[skip:] if skip else chunk
                    skip = max(0, skip - len(chunk))
                    if kept:
                        yield kept
                if skip:
                    raise reading.shorter(self.service)
        except NOT_SENT as error:
            raise self._errors.unanswered("GET", path, error) from None

    def _check_pace(self, path: str, chunks: Iterator[bytes]) -> Iterator[bytes]:
        """Pass a file's pieces on, unless they come so slowly that the file would never end."""
        limit = self._get_limit(HttpCall("GET", path))
        since, arrived = time.monotonic(), 0
        for chunk in chunks:
            arrived += len(chunk)
            yield chunk
            if arrived >= SLOWEST_STREAM:
                since, arrived = time.monotonic(), 0
            elif time.monotonic() - since > limit:
                raise self._errors.too_slow("GET", path, limit)

    def _keep_home(self, request: httpx.Request) -> None:
        # httpx drops ``Authorization`` alone when a redirect leaves the origin, and nothing for an absolute path.
        if _origin(request.url) != self._origin:
            ours = {name.lower() for name in self._headers}
            for name in list(request.headers):
                if name in ours or SECRET_NAME.search(name):
                    del request.headers[name]

    @staticmethod
    def _build(client: httpx.Client | httpx.AsyncClient, call: HttpCall, opened: list[BinaryIO]) -> httpx.Request:
        files: dict[str, tuple[str, BinaryIO]] | None = None
        if call.files is not None:
            files = {}
            for name, (file_name, open_file) in call.files.items():
                file = open_file()
                opened.append(file)
                files[name] = (file_name, file)
        headers = dict(call.headers)
        content = call.content
        if call.json is not None:
            try:
                content = orjson.dumps(call.json)
            except orjson.JSONEncodeError as error:
                raise RequestRefusedError(
                    f"The body of {call.method} {shorten(call.path)} cannot be written as JSON: {error}. Nothing was "
                    "sent; correct the value."
                ) from None
            headers.setdefault("Content-Type", "application/json")
        return client.build_request(
            call.method,
            call.path,
            params=call.params,
            content=content,
            data=call.data,
            files=files,
            headers=headers,
            timeout=call.timeout if call.timeout is not None else httpx.USE_CLIENT_DEFAULT,
        )

    def _decode(self, call: HttpCall, response: httpx.Response) -> Any:
        if not response.is_success:
            raise self._errors.answered(response)
        try:
            body = call.decode(response.content) if response.content else None
        except orjson.JSONDecodeError:
            raise self._errors.unreadable(response) from None
        return HttpAnswer(body, retry_after(response)) if call.whole else body

    def _delay(self, attempt: int, error: BaseException | None) -> float:
        jitter = random.uniform(0, self._backoff)  # noqa: S311 - spreads load, guards nothing
        asked = error.retry_after if isinstance(error, TransientError) else None
        if asked is None:
            return min(self._backoff * 2.0 ** min(attempt - 1, 10), MAX_BACKOFF) + jitter
        # Not before the time asked for, and not all clients at the same moment after it.
        return asked + jitter

    def _retry_options(self, call: HttpCall) -> dict[str, Any]:
        kinds: tuple[type[TransientError], ...] = {
            Retry.SAFE: (TransientError,),
            Retry.REJECTED: (RateLimitedError,),
            Retry.NEVER: (),
        }[call.retry]

        def wait(state: RetryCallState) -> float:
            error = state.outcome.exception() if state.outcome is not None else None
            return self._delay(state.attempt_number, error)

        return {
            "retry": retry_if_exception(
                lambda error: isinstance(error, kinds) and not isinstance(error, QueueFullError)
            ),
            "stop": stop_after_attempt(self._attempts),
            "wait": wait,
            "before_sleep": _log_retry,
            "reraise": True,
        }


def _log_retry(state: RetryCallState) -> None:
    error = state.outcome.exception() if state.outcome is not None else None
    delay = state.next_action.sleep if state.next_action is not None else 0.0
    log.warning("%s Trying again in %.1f s (attempt %d).", error, delay, state.attempt_number + 1)


def _is_reading(call: HttpCall) -> bool:
    return call.method.upper() in ("GET", "HEAD")


def _origin(url: httpx.URL) -> tuple[str, str, int | None]:
    port = url.port if url.port is not None else {"http": 80, "https": 443}.get(url.scheme)
    return url.scheme, url.host, port


def parse_address(address: str, service: str) -> httpx.URL:
    """
    Take a connection's address apart.

    :raises SpecError: it is no HTTP URL, or names a host or port that cannot be.
    """
    try:
        url = httpx.URL(address)
        # As the look-up of the name will do.
        url.host.encode("idna")
        if url.scheme in ("http", "https") and url.host and (url.port or 0) <= MAX_PORT:
            return url
    except (httpx.InvalidURL, UnicodeError):
        pass
    raise SpecError(
        f"{service}: the connection's address must be a whole URL such as https://host/path, without stray characters."
    )


def check_headers(headers: Mapping[str, str], service: str) -> None:
    """
    Refuse, without quoting it, what a connection has as a header and cannot be one.

    :raises SpecError: a name is no token of HTTP, or says how the request is framed; a value cannot be sent.
    """
    for name, value in headers.items():
        if not _TOKEN.fullmatch(name) or name.lower() in _FRAMING:
            raise SpecError(
                f"{service}: the connection's headers have the name {shorten(ascii(name), 100)}, which is no header's "
                "or is set by each call itself. Leave it out."
            )
        if not value.isascii() or not value.isprintable() or value != value.strip() or not value:
            # Said here, without the value: h11's own error would quote it.
            raise SpecError(
                f"{service}: the {name} header from the connection is empty, begins or ends with a blank, or has a "
                "character that HTTP cannot carry (a line break, a typographic quote). Enter it again."
            )
