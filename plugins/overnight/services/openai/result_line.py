"""One line of a batch's result files: what became of a request, however the server words it."""

from __future__ import annotations

from enum import StrEnum
from typing import Any, Final, NamedTuple

import msgspec
import orjson

from overnight.errors import MAX_TEXT
from overnight.jobs.model import FailureCause
from overnight.services.openai.causes import get_cause

EXPIRED_CODES: Final = frozenset({"batch_expired", "request_expired"})


class Outcome(StrEnum):
    """What became of an input line, or what is wrong with a result line that belongs to none."""

    SUCCEEDED = "succeeded"
    FAILED = "failed"
    EXPIRED = "expired"
    MISSING = "missing"
    UNKNOWN_ID = "unknown_id"
    """A result whose ``custom_id`` is not in the input."""
    REPEATED = "repeated"
    """One more result for a line that has one."""
    BROKEN = "broken"
    """A result line that cannot be read, or names no line."""


class LineOutcome(msgspec.Struct, frozen=True, omit_defaults=True):
    """
    One line of the outcomes file.

    :param outcome: Any :class:`Outcome` but succeeded.
    :param custom_id: Of the input line; ``None`` where a result line names none.
    :param line: Of the input, counted from 1; ``None`` where a result belongs to no input line.
    :param source: ``output`` or ``error``, with ``source_line``: where the result was.
    :param source_uri: Which of several such files it was in.
    :param status: The HTTP status of the request inside the batch.
    :param code: The service's error code.
    :param message: The service's words.
    """

    outcome: str
    custom_id: str | None = None
    line: int | None = None
    source: str | None = None
    source_line: int | None = None
    status: int | None = None
    code: str | None = None
    message: str | None = None
    source_uri: str | None = None


def is_refused(outcome: LineOutcome) -> bool:
    """
    Whether a failed request was refused for what is in it: the service would refuse it again.

    What it failed for the account (a quota, a key) or for the service can be sent again, as can what nobody knows.
    """
    if outcome.outcome != Outcome.FAILED:
        return False
    row = get_cause(outcome.code)
    if row is None and outcome.status is not None:
        row = get_cause(None, outcome.status)
        if row is None:
            return 400 <= outcome.status < 500 and outcome.status not in _PASSING
    return row is not None and row.cause is FailureCause.INPUT


_PASSING: Final = frozenset({408, 409, 423, 425, 429})
"""Statuses of the 4xx that pass by themselves."""


class _Line(msgspec.Struct):
    custom_id: Any = None
    response: msgspec.Raw = msgspec.Raw()
    error: msgspec.Raw = msgspec.Raw()


class _Response(msgspec.Struct):
    status_code: Any = None
    body: msgspec.Raw = msgspec.Raw()


class _Body(msgspec.Struct):
    object: Any = None
    """What kind of result it is; a request has none."""
    error: msgspec.Raw = msgspec.Raw()
    message: Any = None
    detail: Any = None
    # Where the endpoints put their results (embeddings, chat and completions, responses, moderations) …
    data: msgspec.Raw = msgspec.Raw()
    choices: msgspec.Raw = msgspec.Raw()
    output: msgspec.Raw = msgspec.Raw()
    results: msgspec.Raw = msgspec.Raw()
    # … and what a request has.
    input: msgspec.Raw = msgspec.Raw()
    messages: msgspec.Raw = msgspec.Raw()
    prompt: msgspec.Raw = msgspec.Raw()


class Result(NamedTuple):
    """
    A result line that was read.

    :param usable: The line with ``response.body`` as an object, when it succeeded.
    """

    outcome: LineOutcome
    usable: bytes = b""


_decode_line = msgspec.json.Decoder(_Line).decode
_decode_response = msgspec.json.Decoder(_Response).decode
_decode_body = msgspec.json.Decoder(_Body).decode
decode_outcome = msgspec.json.Decoder(LineOutcome).decode


def read_result(line: bytes, source: str, number: int) -> Result:
    """Read one result line; whatever it lacks, it ends as some outcome."""

    def broken(message: str) -> Result:
        return Result(LineOutcome(Outcome.BROKEN, source=source, source_line=number, message=message))

    try:
        parsed = _decode_line(line)
    except (msgspec.DecodeError, UnicodeDecodeError) as error:
        return broken(f"not a JSON object: {error}")
    if isinstance(parsed.custom_id, bool) or not isinstance(parsed.custom_id, str | int):
        return broken("no custom_id")
    status, body, body_text, raw = _read_response(parsed.response)
    code, message = _first_error(parsed.error, body, body_text)
    # A server can say 200 about a request that it then finds an error for.
    good = source == "output" and code is None and message is None and _is_success(status) and body is not None
    if good and body is not None and (missing := _explain_empty(raw, body)) is not None:
        good, code, message = False, "empty_result", missing
    usable = (line if body_text is None else _unpacked(line, body_text)) if good else None
    outcome = LineOutcome(
        Outcome.EXPIRED if code in EXPIRED_CODES else Outcome.FAILED if usable is None else Outcome.SUCCEEDED,
        str(parsed.custom_id),
        source=source,
        source_line=number,
        status=status,
        code=code or (None if message or usable is not None else "unreadable_response"),
        message=message[:MAX_TEXT] if message else None,
    )
    return Result(outcome, b"" if usable is None else usable + b"\n")


def _read_response(raw: msgspec.Raw) -> tuple[int | None, _Body | None, str | None, bytes | msgspec.Raw]:
    """Return the status, the body, the body's text where a server sent the body as a string, and the body's bytes."""
    if not _holds(raw):
        return None, None, None, b""
    try:
        response = _decode_response(raw)
    except msgspec.DecodeError:
        return None, None, None, b""
    status = response.status_code
    if type(status) is not int or status < 0:
        status = int(status) if isinstance(status, int | float | str) and str(status).isdecimal() else None
    body: bytes | msgspec.Raw = response.body
    text = None
    try:
        if bytes(memoryview(body)[:1]) == b'"':
            text = msgspec.json.decode(body, type=str)
            body = text.encode()
        return status, _decode_body(body), text, body
    except (msgspec.DecodeError, UnicodeError):
        return status, None, text, body


def _first_error(raw: msgspec.Raw, body: _Body | None, body_text: str | None) -> tuple[str | None, str | None]:
    """Return code and message of a line's error, else of its body's."""
    for error in (raw, body.error if body is not None else msgspec.Raw()):
        if not _holds(error):
            continue
        try:
            value = orjson.loads(bytes(error))
        except orjson.JSONDecodeError:
            value = bytes(error).decode("utf-8", "backslashreplace")
        if isinstance(value, dict):
            code = value.get("code") or value.get("type")
            code = code or value.get("errorCode")
            message = value.get("message") or value.get("errorMessage") or code or value
            return (str(code) if code else None), str(message)
        return None, str(value)
    if body is None:
        return None, body_text or None
    text = body.message or body.detail
    return None, str(text) if text else None


def is_result(line: bytes) -> bool:
    """Whether a line has a ``response`` or an ``error``, as all result lines do and no input line does."""
    try:
        parsed = _decode_line(line)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        return False
    return bytes(parsed.response) != b"" or bytes(parsed.error) != b""


def _explain_empty(text: bytes | msgspec.Raw, body: _Body) -> str | None:
    """
    Say why a body without an error is no result, either; ``None`` for one that is.

    :param text: The body's bytes.
    """
    # Views: a result may be large, and is copied by no question.
    results = {
        name: view
        for name in ("data", "choices", "output", "results")
        if (view := memoryview(getattr(body, name))).nbytes
    }
    if not results and not bytes(text).strip()[1:-1].strip():
        return "the response is an empty object"
    if results and all(_is_nothing(view) for view in results.values()):
        return f"the response has no result: {', '.join(results)} is empty"
    # A video has its prompt beside it.
    if not results and body.object is None and any(_holds(raw) for raw in (body.input, body.messages, body.prompt)):
        return "the response is the request again, without a result"
    return None


def _is_nothing(view: memoryview) -> bool:
    return view.nbytes < 64 and b"".join(bytes(view).split()) in (b"[]", b"null", b"{}", b'""')


def _holds(raw: msgspec.Raw) -> bool:
    view = memoryview(raw)
    return view.nbytes > 0 and (view.nbytes != 4 or bytes(view) != b"null")


def _is_success(status: int | None) -> bool:
    # Some servers leave the status of a good answer out.
    return status is None or 200 <= status < 300


def _unpacked(line: bytes, body: str) -> bytes | None:
    """Put a body that came as text into its line as an object, on one line and with its numbers as they were."""
    try:
        result = orjson.loads(line)
        result["response"]["body"] = orjson.Fragment(msgspec.json.format(body, indent=-1))
        return orjson.dumps(result)
    except (orjson.JSONDecodeError, msgspec.DecodeError):
        return None


def input_id(line: bytes) -> str | None:
    """Return the ``custom_id`` of an input line, ``None`` when it has none."""
    try:
        custom_id = _decode_line(line).custom_id
    except (msgspec.DecodeError, UnicodeDecodeError):
        return None
    # A service may take whole numbers, and answers with them or with their text.
    return str(custom_id) if isinstance(custom_id, str | int) and not isinstance(custom_id, bool) else None
