"""The transport of every service that speaks JSON over HTTP: httpx in both colours, with the same manners."""

from __future__ import annotations

import logging
import random
import re
import time
from collections.abc import Callable, Collection, Iterator, Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from enum import Enum
from typing import Any, BinaryIO, Final

import httpx
import orjson
from tenacity import (
    AsyncRetrying,
    RetryCallState,
    Retrying,
    retry_if_exception,
    stop_after_attempt,
)

from overnight.jobs.errors import (
    CredentialsError,
    JobNotFoundError,
    RateLimitedError,
    RequestRefusedError,
    ServiceError,
    SpecError,
    TransientError,
    UnavailableError,
    UnsupportedError,
)
from overnight.services.flow import Transport

log = logging.getLogger(__name__)

MAX_ERROR_TEXT: Final = 2_000
MAX_RETRY_AFTER: Final = 300.0
"""Seconds; a server that asks for more gets asked again after this."""
MAX_BACKOFF: Final = 30.0
"""Seconds between two attempts where the server does not name a time."""


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
    :param files: Makes the body multipart. A mapping of field to ``(file name, open)``; ``open`` is called for each
        attempt, so that a repeated upload starts at the first byte again, and is streamed. What ``open`` or
        reading raises (:class:`OSError`) passes through.
    """

    method: str
    path: str
    params: Mapping[str, Any] | None = None
    # Bodies and headers may be private or secret, so a call's repr does not show them.
    json: Any = field(default=None, repr=False)
    content: bytes | None = field(default=None, repr=False)
    headers: Mapping[str, str] = field(default_factory=dict, repr=False)
    data: Mapping[str, str] | None = field(default=None, repr=False)
    files: Mapping[str, tuple[str, Callable[[], BinaryIO]]] | None = None
    retry: Retry = Retry.SAFE
    timeout: float | None = None
    """Seconds for each read or write; the transport's own when ``None``."""


class HttpTransport(Transport[HttpCall, Any]):
    """
    Send calls to one server and hand back decoded JSON.

    Redirects are followed for reading only: another method would be repeated as a GET (301, 302, 303), whose
    answer would read as that of the call. No header of this transport goes to another origin.

    :param service: The name that errors start with.
    :param base_url: Everything that a call's path is relative to.
    :param headers: Sent with every call. Credentials go here or into ``auth``, and nowhere else: no error
        and no log line of this class quotes a request's headers, nor an answer that repeats a credential of them.
    :param timeout: Seconds to wait for a connection, for each read and for each write.
    :param attempts: How often a repeatable call is sent at most.
    :param backoff: Seconds before the second attempt, doubled for each one after it.
    :param error_reader: Picks ``(code, message)`` out of a decoded error body.
    :param remedies: What a user can do about a status, by status; added to the error's text.
    :param final_codes: Error codes that no waiting mends, whatever the status (a used-up quota that answers 429).
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
        attempts: int = 6,
        backoff: float = 0.5,
        error_reader: Callable[[Any], tuple[str | None, str] | None] | None = None,
        remedies: Mapping[int, str] | None = None,
        final_codes: Collection[str] = (),
    ) -> None:
        self.service = service
        self.base_url = base_url.rstrip("/") + "/"
        self._origin = _origin_of(self.base_url, service)
        self._headers = dict(headers or {})
        _check_headers(self._headers, service)
        self._options: dict[str, Any] = {
            "base_url": self.base_url,
            "headers": self._headers,
            "params": dict(params or {}),
            "auth": auth,
            "verify": verify,
            "timeout": httpx.Timeout(timeout, connect=min(timeout, 10.0)),
        }
        self._attempts = attempts
        self._backoff = backoff
        self._error_reader = error_reader or read_error
        self._remedies = {**_REMEDIES, **(remedies or {})}
        self._final_codes = frozenset(final_codes)
        self._client: httpx.Client | None = None
        self._async_client: httpx.AsyncClient | None = None

    @property
    def client(self) -> httpx.Client:
        """The blocking client, made when it is first needed."""
        if self._client is None:
            self._client = httpx.Client(**self._options, event_hooks={"request": [self._keep_home]})
        return self._client

    @property
    def async_client(self) -> httpx.AsyncClient:
        """The async client, made when it is first needed."""
        if self._async_client is None:

            async def keep_home(request: httpx.Request) -> None:
                self._keep_home(request)

            self._async_client = httpx.AsyncClient(**self._options, event_hooks={"request": [keep_home]})
        return self._async_client

    def send(self, call: HttpCall) -> Any:
        """Send one call, repeating it as ``call.retry`` allows, and return the decoded body."""
        retrying = Retrying(**self._retry_options(call))
        return retrying(self._send_once, call)

    async def asend(self, call: HttpCall) -> Any:
        """Send one call on the event loop, repeating it as ``call.retry`` allows."""
        retrying = AsyncRetrying(**self._retry_options(call))
        return await retrying(self._asend_once, call)

    def stream(self, path: str, *, start: int = 0, chunk_bytes: int = 1 << 20) -> Iterator[bytes]:
        """
        Yield a file's bytes from ``start`` on, going on where a broken connection stopped.

        Memory is bounded by ``chunk_bytes``. A server that ignores ``Range`` is read again from its first byte,
        and what was seen before is dropped. A file that changes while it is read is an error, not a mixture.

        :raises RequestRefusedError: the file is shorter than ``start``, or another one than at the start.
        """
        reading = _Reading(start)
        failures = 0
        while True:
            before = reading.offset
            try:
                for chunk in self._stream_once(path, reading, chunk_bytes):
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

    def _send_once(self, call: HttpCall) -> Any:
        opened: list[BinaryIO] = []
        try:
            request = self._build(self.client, call, opened)
            response = self.client.send(request, follow_redirects=_is_reading(call))
        except (httpx.RequestError, httpx.InvalidURL) as error:
            raise self._unanswered(call, error) from None
        finally:
            for file in opened:
                file.close()
        return self._decode(call, response)

    async def _asend_once(self, call: HttpCall) -> Any:
        if call.files is not None:
            raise TypeError("uploads read files and so belong on a worker, not on the event loop")
        try:
            request = self._build(self.async_client, call, [])
            response = await self.async_client.send(request, follow_redirects=_is_reading(call))
        except (httpx.RequestError, httpx.InvalidURL) as error:
            raise self._unanswered(call, error) from None
        return self._decode(call, response)

    def _stream_once(self, path: str, reading: _Reading, chunk_bytes: int) -> Iterator[bytes]:
        # Offsets count the file's bytes, so the body must not be compressed on its way.
        headers = {"Accept-Encoding": "identity"}
        if reading.offset:
            headers["Range"] = f"bytes={reading.offset}-"
        call = HttpCall("GET", path, headers=headers)
        try:
            with self.client.stream("GET", path, headers=headers, follow_redirects=True) as response:
                if response.status_code == httpx.codes.REQUESTED_RANGE_NOT_SATISFIABLE:
                    reading.check_end(response, self.service)
                    return
                if not response.is_success:
                    response.read()
                    raise self._error(call, response)
                skip = reading.check_start(response, self.service)
                for chunk in response.iter_bytes(chunk_bytes):
                    kept = chunk[skip:] if skip else chunk
                    skip = max(0, skip - len(chunk))
                    if kept:
                        yield kept
                if skip:
                    raise _shorter(self.service, reading)
        except (httpx.RequestError, httpx.InvalidURL) as error:
            raise self._unanswered(call, error) from None

    def _keep_home(self, request: httpx.Request) -> None:
        # httpx drops ``Authorization`` alone when a redirect leaves the origin, and nothing for an absolute path.
        if _origin(request.url) != self._origin:
            for name in (*self._headers, "Authorization"):
                request.headers.pop(name, None)

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
            content = orjson.dumps(call.json)
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
            raise self._error(call, response)
        if not response.content:
            return None
        try:
            return orjson.loads(response.content)
        except orjson.JSONDecodeError as error:
            raise UnavailableError(
                f"{self.service} answered {call.method} {_path(response)} with {response.status_code} and a body "
                "that is not JSON; the answer was cut, or something else answers at this address.",
                status=response.status_code,
            ) from error

    def _error(self, call: HttpCall, response: httpx.Response) -> ServiceError:
        status = response.status_code
        code, text = self._read_body(response)
        text = self._redact(call, text)
        remedy = self._remedies.get(status, "")
        if response.is_redirect:
            target = response.request.url.join(response.headers.get("Location", ""))
            remedy = f"It redirects to {_bare(target)}; put that address into the connection."
        message = f"{self.service} answered {call.method} {_path(response)} with {status}: {text} {remedy}".strip()
        kind = self._kind(status, code)
        if issubclass(kind, TransientError):
            return kind(message, status=status, code=code, retry_after=retry_after(response))
        return kind(message, status=status, code=code)

    def _kind(self, status: int, code: str | None) -> type[ServiceError]:
        if code in self._final_codes:
            return RequestRefusedError
        if status in _KINDS:
            return _KINDS[status]
        return UnavailableError if status >= httpx.codes.INTERNAL_SERVER_ERROR else RequestRefusedError

    def _read_body(self, response: httpx.Response) -> tuple[str | None, str]:
        try:
            read = self._error_reader(orjson.loads(response.content))
        except orjson.JSONDecodeError:
            read = None
        if read is None:
            return None, response.text[:MAX_ERROR_TEXT].strip() or response.reason_phrase
        return read[0], read[1][:MAX_ERROR_TEXT]

    def _redact(self, call: HttpCall, text: str) -> str:
        """Take our own credentials out of a server's words; some servers repeat a wrong key."""
        for name, value in [*self._headers.items(), *call.headers.items()]:
            secret = value.split(" ", 1)[-1].strip()
            if _SECRET_NAME.search(name) and len(secret) >= _SHORTEST_SECRET:
                text = text.replace(secret, "***")
        return text

    def _unanswered(self, call: HttpCall, error: httpx.RequestError | httpx.InvalidURL) -> ServiceError:
        path = call.path.partition("?")[0]
        if isinstance(error, httpx.LocalProtocolError | httpx.UnsupportedProtocol | httpx.InvalidURL):
            # Its text quotes the header or address that cannot be sent.
            return RequestRefusedError(
                f"{self.service}: {call.method} {path} cannot be sent ({type(error).__name__}). Check the "
                "address and the credentials in the connection for line breaks and other stray characters."
            )
        if isinstance(error, httpx.TooManyRedirects):
            return RequestRefusedError(
                f"{self.service} redirects {call.method} {path} in a circle. Check the connection's address."
            )
        return UnavailableError(
            f"{self.service} gave no whole answer to {call.method} {path}: {type(error).__name__}: {error}."
        )

    def _delay(self, attempt: int, error: BaseException | None) -> float:
        jitter = random.uniform(0, self._backoff)  # noqa: S311 - spreads load, guards nothing
        asked = error.retry_after if isinstance(error, TransientError) else None
        if asked is None:
            return min(self._backoff * 2.0 ** (attempt - 1), MAX_BACKOFF) + jitter
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
            "retry": retry_if_exception(lambda error: isinstance(error, kinds)),
            "stop": stop_after_attempt(self._attempts),
            "wait": wait,
            "before_sleep": _log_retry,
            "reraise": True,
        }


class _Reading:
    """How far a file was read, and which file it was."""

    def __init__(self, offset: int) -> None:
        self.offset = offset
        self._etag: str | None = None

    def check_start(self, response: httpx.Response, service: str) -> int:
        """Return how many bytes of this answer were seen before."""
        etag = response.headers.get("ETag")
        if self._etag is not None and etag is not None and etag != self._etag:
            raise RequestRefusedError(
                f"{service} changed {_path(response)} while it was being read (at byte {self.offset}). Read it again "
                "from the start.",
                status=response.status_code,
            )
        self._etag = self._etag or etag
        if response.status_code != httpx.codes.PARTIAL_CONTENT:
            return self.offset
        sent = _CONTENT_RANGE.match(response.headers.get("Content-Range", ""))
        # A server may send more than it was asked for, never less (RFC 9110, 15.3.7).
        first = int(sent[1]) if sent is not None else self.offset
        if first > self.offset:
            raise RequestRefusedError(
                f"{service} was asked for {_path(response)} from byte {self.offset} on and sent it from byte "
                f"{first} on.",
                status=response.status_code,
            )
        return self.offset - first

    def check_end(self, response: httpx.Response, service: str) -> None:
        """Accept "nothing there" only where the file ends exactly here, or where the server does not say."""
        length = _UNSATISFIED.match(response.headers.get("Content-Range", ""))
        if length is not None and int(length[1]) < self.offset:
            raise _shorter(service, self)


def _shorter(service: str, reading: _Reading) -> RequestRefusedError:
    return RequestRefusedError(f"{service} has fewer bytes of this file than the {reading.offset} read before.")


def _log_retry(state: RetryCallState) -> None:
    error = state.outcome.exception() if state.outcome is not None else None
    delay = state.next_action.sleep if state.next_action is not None else 0.0
    log.warning("%s Trying again in %.1f s (attempt %d).", error, delay, state.attempt_number + 1)


def retry_after(response: httpx.Response) -> float | None:
    """
    Read ``Retry-After`` as seconds from now, at most :data:`MAX_RETRY_AFTER`.

    Both forms of RFC 9110, section 10.2.3, are understood; anything else reads as absent.
    """
    value = response.headers.get("Retry-After", "").strip()
    if re.fullmatch(r"\d+(\.\d+)?", value):
        seconds = float(value)
    else:
        try:
            moment = parsedate_to_datetime(value)
        except ValueError:
            return None
        # A date without a zone is in UTC, as HTTP has no other.
        aware = moment if moment.tzinfo is not None else moment.replace(tzinfo=UTC)
        seconds = (aware - datetime.now(UTC)).total_seconds()
    return min(max(seconds, 0.0), MAX_RETRY_AFTER)


def read_error(body: Any) -> tuple[str | None, str] | None:
    """Read ``{"error": {"code", "message"}}``, ``{"error": "…"}``, ``{"detail": "…"}`` and ``{"message": "…"}``."""
    if not isinstance(body, dict):
        return None
    error = body.get("error", body)
    if isinstance(error, str):
        return None, error
    if not isinstance(error, dict):
        return None
    message = error.get("message") or error.get("reason") or error.get("detail")
    if message is None:
        return None
    code = error.get("code") or error.get("type")
    return (str(code) if code is not None else None), str(message)


def _is_reading(call: HttpCall) -> bool:
    return call.method.upper() in ("GET", "HEAD")


def _path(response: httpx.Response) -> str:
    # The query can carry tokens (presigned URLs), so it is not quoted.
    return response.request.url.path


def _bare(url: httpx.URL) -> str:
    return str(url.copy_with(query=None, fragment=None, username=None, password=None))


def _origin(url: httpx.URL) -> tuple[str, str, int | None]:
    port = url.port if url.port is not None else {"http": 80, "https": 443}.get(url.scheme)
    return url.scheme, url.host, port


def _origin_of(base_url: str, service: str) -> tuple[str, str, int | None]:
    try:
        origin = _origin(httpx.URL(base_url))
    except httpx.InvalidURL:
        origin = ("", "", None)
    if origin[0] not in ("http", "https") or not origin[1]:
        raise SpecError(
            f"{service}: the connection's address must be a whole URL such as https://host/path, without stray "
            "characters."
        )
    return origin


def _check_headers(headers: Mapping[str, str], service: str) -> None:
    for name, value in headers.items():
        if not value.isascii() or not value.isprintable() or value != value.strip() or not value:
            # Said here, without the value: h11's own error would quote it.
            raise SpecError(
                f"{service}: the {name} header from the connection is empty, begins or ends with a blank, or has a "
                "character that HTTP cannot carry (a line break, a typographic quote). Enter it again."
            )


_CONTENT_RANGE = re.compile(r"bytes (\d+)-")
_UNSATISFIED = re.compile(r"bytes \*/(\d+)")
_SECRET_NAME = re.compile(r"authorization|key|token|secret|password|credential|connection|cookie", re.IGNORECASE)
_SHORTEST_SECRET = 6

_KINDS: dict[int, type[ServiceError]] = {
    401: CredentialsError,
    403: CredentialsError,
    404: JobNotFoundError,
    405: UnsupportedError,
    408: UnavailableError,
    410: JobNotFoundError,
    429: RateLimitedError,
    501: UnsupportedError,
}

_REMEDIES = {
    401: "Check the credentials in the connection.",
    403: "The connection's credentials are not allowed to do this.",
    404: "Check the id, and that the connection points at the account and address that own it.",
}
