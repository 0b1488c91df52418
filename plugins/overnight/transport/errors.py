"""From what a server answers, or fails to answer, to an error that names its remedy and no secret."""

from __future__ import annotations

import re
from collections.abc import Callable, Collection, Mapping
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from typing import Any, Final, TypeAlias

import httpx
import orjson

from overnight.certificates import explain_tls
from overnight.errors import (
    CredentialsError,
    NotFoundError,
    QueueFullError,
    RateLimitedError,
    RequestRefusedError,
    ServiceError,
    TransientError,
    UnavailableError,
    UnsupportedError,
    shorten,
)
from overnight.transport.proxies import explain_proxy

# A host name that cannot be encoded for its look-up, of a connection or a redirect, is a UnicodeError.
NOT_SENT: Final = (httpx.RequestError, httpx.InvalidURL, UnicodeError)
"""What httpx raises for a call that could not be sent, or got no whole answer."""
MAX_PATH: Final = 500
"""Characters of a call's path that an error quotes."""
MAX_RETRY_AFTER: Final = 300.0
"""Seconds; a server that asks for more gets asked again after this."""

SECRET_NAME: Final = re.compile(r"authorization|key|token|secret|password|credential|connection|cookie", re.IGNORECASE)
"""Headers whose values are never quoted and never leave their origin."""
_SHORTEST_SECRET = 6
_ENDS = (".", "!", "?", "…")

ErrorReader: TypeAlias = Callable[[Any], tuple[str | None, str] | None]
"""Picks ``(code, message)`` out of a decoded error body; ``None`` when there is no message."""


class Errors:
    """
    Make errors for one server.

    :param service: The name that each error's text starts with.
    :param reader: Reads the server's error bodies.
    :param remedies: What a user can do about a status, by status; added to the error's text.
    :param final_codes: Error codes that no waiting mends, whatever the status.
    :param queue_codes: Error codes of a queue that has no room for one more job, whatever the status.
    :param throttled_codes: Error codes that say "not carried out, try later", whatever the status.
    :param secrets: What no text may quote, beside the credentials in a request's headers: a part of one, say.
    """

    def __init__(
        self,
        service: str,
        *,
        reader: ErrorReader | None = None,
        remedies: Mapping[int, str] | None = None,
        final_codes: Collection[str] = (),
        queue_codes: Collection[str] = (),
        secrets: Collection[str] = (),
        throttled_codes: Collection[str] = (),
    ) -> None:
        self._service = service
        self._reader = reader or read_error
        self._remedies = {**_REMEDIES, **(remedies or {})}
        self._final_codes = frozenset(final_codes)
        self._queue_codes = frozenset(queue_codes)
        self._throttled_codes = frozenset(throttled_codes)
        self._secrets = tuple(secrets)

    def answered(self, response: httpx.Response) -> ServiceError:
        """Return the error for an answer whose body has been read and whose status is not a success."""
        status, request = response.status_code, response.request
        code, text = self._read_body(response)
        remedy = self._remedies.get(status, "")
        if response.has_redirect_location:
            remedy = f"It redirects to {_target(response)}; put that address into the connection."
        message = f"{self._service} answered {request.method} {get_path(response)} with {status}: "
        # Cut last: of a secret that is cut in two, no half would be recognised.
        text = without(self._secrets, _redact(request.headers, text))
        message = add_remedy(f"{message}{shorten(text).strip()}", remedy)
        kind = self._kind(status, code)
        if issubclass(kind, TransientError):
            return kind(message, status=status, code=code, retry_after=retry_after(response))
        return kind(message, status=status, code=code)

    def unreadable(self, response: httpx.Response) -> UnavailableError:
        """Return the error for a success whose body is not JSON."""
        return UnavailableError(
            f"{self._service} answered {response.request.method} {get_path(response)} with {response.status_code} and "
            "a body that is not JSON; the answer was cut, or something else answers at this address.",
            status=response.status_code,
        )

    def unanswered(self, method: str, path: str, error: Exception) -> ServiceError:
        """
        Return the error for a call that could not be sent, or got no whole answer.

        :param error: One of :data:`NOT_SENT`.
        """
        path = shorten(path.partition("?")[0], MAX_PATH)
        if isinstance(error, httpx.LocalProtocolError | httpx.UnsupportedProtocol | httpx.InvalidURL | UnicodeError):
            # Its text quotes the header or address that cannot be sent.
            return RequestRefusedError(
                f"{self._service}: {method} {path} cannot be sent ({type(error).__name__}). Check the "
                "address and the credentials in the connection for line breaks and other stray characters."
            )
        if isinstance(error, httpx.TooManyRedirects):
            return RequestRefusedError(
                f"{self._service} redirects {method} {path} in a circle. Check the connection's address."
            )
        why = shorten(f"{type(error).__name__}: {error}".rstrip(": "))
        refused: ServiceError | None = explain_tls(error, self._service)
        refused = refused or explain_proxy(error, self._service)
        if refused is not None:
            return refused
        return UnavailableError(f"{self._service} gave no whole answer to {method} {path} ({why}).")

    def too_slow(self, method: str, path: str, seconds: float) -> UnavailableError:
        """Return the error for a call whose answer did not come to its end in time."""
        path = shorten(path.partition("?")[0], MAX_PATH)
        return UnavailableError(
            f"{self._service} gave no whole answer to {method} {path} within {seconds:.1f} s, all the time that one "
            "call has."
        )

    def _kind(self, status: int, code: str | None) -> type[ServiceError]:
        if code in self._final_codes:
            return RequestRefusedError
        if code in self._queue_codes:
            return QueueFullError
        if code in self._throttled_codes:
            return RateLimitedError
        if status in _KINDS:
            return _KINDS[status]
        return UnavailableError if status >= httpx.codes.INTERNAL_SERVER_ERROR else RequestRefusedError

    def _read_body(self, response: httpx.Response) -> tuple[str | None, str]:
        try:
            read = self._reader(orjson.loads(response.content))
        except orjson.JSONDecodeError:
            read = None
        if read is None:
            return None, response.text.strip() or response.reason_phrase
        return read


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


def get_path(response: httpx.Response) -> str:
    """Return the path that answered. The query is left out: it can carry tokens (presigned URLs)."""
    return response.request.url.path


def add_remedy(text: str, remedy: str) -> str:
    """Return a text and what a user can do about it, as sentences."""
    text = text.rstrip()
    if not remedy or remedy in text:
        return text
    return f"{text if text.endswith(_ENDS) else f'{text}.'} {remedy}"


def without(secrets: Collection[str], text: str) -> str:
    """Return a text with each secret in it replaced; the longest first, since one may be a part of another."""
    for secret in sorted(secrets, key=len, reverse=True):
        text = text.replace(secret, "***")
    return text


def _target(response: httpx.Response) -> str:
    try:
        url = response.request.url.join(response.headers["Location"])
    except (httpx.InvalidURL, UnicodeError):
        return "an address that is not one"
    return str(url.copy_with(query=None, fragment=None, username=None, password=None))


def _redact(headers: httpx.Headers, text: str) -> str:
    """Take our own credentials out of a server's words; some servers repeat a wrong key."""
    for name, value in headers.items():
        secret = value.split(" ", 1)[-1].strip()
        if SECRET_NAME.search(name) and len(secret) >= _SHORTEST_SECRET:
            text = text.replace(secret, "***")
    return text


_KINDS: dict[int, type[ServiceError]] = {
    401: CredentialsError,
    403: CredentialsError,
    404: NotFoundError,
    405: UnsupportedError,
    408: UnavailableError,
    410: NotFoundError,
    429: RateLimitedError,
    501: UnsupportedError,
}

_REMEDIES = {
    401: "Check the credentials in the connection.",
    403: "The connection's credentials are not allowed to do this.",
    404: "Check the id, and that the connection points at the account and address that own it.",
    407: "A proxy asks for a user and a password; give them in HTTP_PROXY and HTTPS_PROXY of the environment.",
}
