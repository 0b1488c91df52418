"""The transport of every service that speaks JSON over HTTP: httpx in both colours, with the same manners."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from enum import Enum
from typing import Any, BinaryIO

import httpx
import orjson
from tenacity import (
    AsyncRetrying,
    RetryCallState,
    Retrying,
    retry_if_exception,
    stop_after_attempt,
    wait_exponential_jitter,
)

from overnight.jobs.errors import (
    CredentialsError,
    JobNotFoundError,
    RateLimitedError,
    RequestRefusedError,
    ServiceError,
    TransientError,
    UnavailableError,
)
from overnight.services.flow import Transport

log = logging.getLogger(__name__)

MAX_ERROR_TEXT = 2_000
MAX_RETRY_AFTER = 300.0
"""Seconds; a server that asks for more gets asked again after this."""


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
    :param files: Makes the body multipart. A mapping of field to ``(file name, open)``; ``open`` is called for each
        attempt, so that a repeated upload starts at the first byte again, and is streamed.
    """

    method: str
    path: str
    params: Mapping[str, Any] | None = None
    json: Any = None
    content: bytes | None = None
    headers: Mapping[str, str] = field(default_factory=dict)
    data: Mapping[str, str] | None = None
    files: Mapping[str, tuple[str, Callable[[], BinaryIO]]] | None = None
    retry: Retry = Retry.SAFE
    timeout: float | None = None
    """Seconds for each read or write; the transport's own when ``None``."""


class HttpTransport(Transport[HttpCall, Any]):
    """
    Send calls to one server and hand back decoded JSON.

    :param service: The name that errors start with.
    :param base_url: Everything that a call's path is relative to.
    :param headers: Sent with every call. Credentials go here or into ``auth``, and nowhere else: no error
        and no log line of this class quotes a request's headers.
    :param timeout: Seconds to wait for a connection, for each read and for each write.
    :param attempts: How often a repeatable call is sent at most.
    :param error_reader: Picks ``(code, message)`` out of a decoded error body.
    :param remedies: What a user can do about a status, by status; added to the error's text.
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
        error_reader: Callable[[Any], tuple[str | None, str] | None] | None = None,
        remedies: Mapping[int, str] | None = None,
    ) -> None:
        self.service = service
        self.base_url = base_url.rstrip("/") + "/"
        self._options: dict[str, Any] = {
            "base_url": self.base_url,
            "headers": dict(headers or {}),
            "params": dict(params or {}),
            "auth": auth,
            "verify": verify,
            "timeout": httpx.Timeout(timeout, connect=min(timeout, 10.0)),
            "follow_redirects": True,
        }
        self._attempts = attempts
        self._error_reader = error_reader or _read_error
        self._remedies = {**_REMEDIES, **(remedies or {})}
        self._client: httpx.Client | None = None
        self._async_client: httpx.AsyncClient | None = None

    @property
    def client(self) -> httpx.Client:
        """The blocking client, made when it is first needed."""
        if self._client is None:
            self._client = httpx.Client(**self._options)
        return self._client

    @property
    def async_client(self) -> httpx.AsyncClient:
        """The async client, made when it is first needed."""
        if self._async_client is None:
            self._async_client = httpx.AsyncClient(**self._options)
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

        Memory is bounded by ``chunk_bytes``. A server that ignores ``Range`` is read again from its first byte, and what
        was seen before is dropped.
        """
        offset = start
        failures = 0
        while True:
            before = offset
            try:
                for chunk in self._stream_once(path, offset, chunk_bytes):
                    offset += len(chunk)
                    yield chunk
            except TransientError as error:
                failures = 1 if offset > before else failures + 1
                if failures >= self._attempts:
                    raise
                delay = error.retry_after or min(2.0 ** (failures - 1) * 0.5, 30.0)
                log.warning("%s; going on at byte %d in %.1f s.", error, offset, delay)
                time.sleep(delay)
            else:
                return

    def close(self) -> None:
        if self._client is not None:
            self._client.close()
            self._client = None

    async def aclose(self) -> None:
        if self._async_client is not None:
            await self._async_client.aclose()
            self._async_client = None

    def _send_once(self, call: HttpCall) -> Any:
        opened: list[BinaryIO] = []
        try:
            request = self._build(self.client, call, opened)
            response = self.client.send(request)
        except (httpx.TransportError, httpx.DecodingError) as error:
            raise self._unreachable(call, error) from error
        finally:
            for file in opened:
                file.close()
        return self._decode(call, response)

    async def _asend_once(self, call: HttpCall) -> Any:
        if call.files is not None:
            raise TypeError("uploads read files and so belong on a worker, not on the event loop")
        try:
            response = await self.async_client.send(self._build(self.async_client, call, []))
        except (httpx.TransportError, httpx.DecodingError) as error:
            raise self._unreachable(call, error) from error
        return self._decode(call, response)

    def _stream_once(self, path: str, offset: int, chunk_bytes: int) -> Iterator[bytes]:
        call = HttpCall("GET", path, headers={"Range": f"bytes={offset}-"} if offset else {})
        try:
            with self.client.stream("GET", path, headers=dict(call.headers)) as response:
                if response.status_code == httpx.codes.REQUESTED_RANGE_NOT_SATISFIABLE:
                    return  # the file ends exactly where we stopped
                if response.is_error:
                    response.read()
                    raise self._error(call, response)
                skip = 0 if response.status_code == httpx.codes.PARTIAL_CONTENT else offset
                for chunk in response.iter_bytes(chunk_bytes):
                    kept = chunk[skip:]
                    skip = max(0, skip - len(chunk))
                    if kept:
                        yield kept
        except (httpx.TransportError, httpx.DecodingError) as error:
            raise self._unreachable(call, error) from error

    @staticmethod
    def _build(
        client: httpx.Client | httpx.AsyncClient, call: HttpCall, opened: list[BinaryIO]
    ) -> httpx.Request:
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
        if response.is_error:
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
        remedy = self._remedies.get(status, "")
        message = f"{self.service} answered {call.method} {_path(response)} with {status}: {text} {remedy}".strip()
        if status == httpx.codes.TOO_MANY_REQUESTS:
            return RateLimitedError(message, status=status, code=code, retry_after=retry_after(response))
        if status == httpx.codes.REQUEST_TIMEOUT or status >= httpx.codes.INTERNAL_SERVER_ERROR:
            return UnavailableError(message, status=status, code=code, retry_after=retry_after(response))
        if status in (httpx.codes.UNAUTHORIZED, httpx.codes.FORBIDDEN):
            return CredentialsError(message, status=status, code=code)
        if status in (httpx.codes.NOT_FOUND, httpx.codes.GONE):
            return JobNotFoundError(message, status=status, code=code)
        return RequestRefusedError(message, status=status, code=code)

    def _read_body(self, response: httpx.Response) -> tuple[str | None, str]:
        try:
            read = self._error_reader(orjson.loads(response.content))
        except orjson.JSONDecodeError:
            read = None
        if read is None:
            return None, response.text[:MAX_ERROR_TEXT].strip() or response.reason_phrase
        return read[0], read[1][:MAX_ERROR_TEXT]

    def _unreachable(self, call: HttpCall, error: httpx.HTTPError) -> UnavailableError:
        return UnavailableError(
            f"{self.service} gave no whole answer to {call.method} {call.path}: {type(error).__name__}: {error}"
        )

    def _retry_options(self, call: HttpCall) -> dict[str, Any]:
        kinds: tuple[type[TransientError], ...] = {
            Retry.SAFE: (TransientError,),
            Retry.REJECTED: (RateLimitedError,),
            Retry.NEVER: (),
        }[call.retry]
        return {
            "retry": retry_if_exception(lambda error: isinstance(error, kinds)),
            "stop": stop_after_attempt(self._attempts),
            "wait": _wait,
            "before_sleep": _log_retry,
            "reraise": True,
        }


_backoff = wait_exponential_jitter(initial=0.5, max=30.0, jitter=0.5)


def _wait(state: RetryCallState) -> float:
    error = state.outcome.exception() if state.outcome is not None else None
    asked = error.retry_after if isinstance(error, TransientError) else None
    return asked if asked is not None else _backoff(state)


def _log_retry(state: RetryCallState) -> None:
    error = state.outcome.exception() if state.outcome is not None else None
    delay = state.next_action.sleep if state.next_action is not None else 0.0
    log.warning("%s Trying again in %.1f s (attempt %d).", error, delay, state.attempt_number + 1)


def retry_after(response: httpx.Response) -> float | None:
    """
    Read ``Retry-After`` as seconds from now, at most :data:`MAX_RETRY_AFTER`.

    Both forms of RFC 9110, section 10.2.3, are understood; anything else reads as absent.
    """
    value = response.headers.get("Retry-After")
    if value is None:
        return None
    try:
        seconds = float(value)
    except ValueError:
        try:
            moment = parsedate_to_datetime(value)
        except ValueError:
            return None
        seconds = (moment.astimezone(UTC) - datetime.now(UTC)).total_seconds()
    return min(max(seconds, 0.0), MAX_RETRY_AFTER)


def _path(response: httpx.Response) -> str:
    # The query can carry tokens (presigned URLs), so it is not quoted.
    return response.request.url.path


def _read_error(body: Any) -> tuple[str | None, str] | None:
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


_REMEDIES = {
    401: "Check the credentials in the connection.",
    403: "The connection's credentials are not allowed to do this.",
    404: "Check the id, and that the connection points at the account and address that own it.",
}
