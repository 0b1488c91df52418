"""
What became of every line of a batch: input, output and error file joined by ``custom_id``.

"Completed" says nothing of lines. The result files hold them in any order, some lines of the *output* file have failed,
and an expired batch leaves lines without any result. Here each input line ends as exactly one of succeeded,
failed, expired, or missing.
"""

from __future__ import annotations

import tempfile
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from contextlib import ExitStack
from enum import IntEnum, StrEnum
from typing import IO, Any, NamedTuple, cast

import msgspec
import orjson
from msgspec.structs import replace
from pydantic import BaseModel, ConfigDict

from overnight.jobs import JobState, ResultManifest
from overnight.jobs.errors import SpecError
from overnight.services.http import HttpTransport
from overnight.services.openai_files import FILE_SCHEME, content
from overnight.services.openai_scan import id_digest
from overnight.storage import Storage

EXPIRED_CODES = frozenset({"batch_expired", "request_expired"})
MAX_MESSAGE = 2_000
SPOOL_BYTES = 16 << 20

Chunks = Callable[[str], Iterator[bytes]]
"""Opens a URI and yields its bytes in pieces of any size."""


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


class OutcomeCounts(BaseModel):
    """
    Every input line counted once, and the result lines that belong to none counted beside them.

    ``submitted == succeeded + failed + expired + missing``
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    submitted: int
    succeeded: int
    failed: int
    expired: int
    missing: int
    unknown_id: int = 0
    repeated: int = 0
    broken: int = 0

    @property
    def unsuccessful(self) -> int:
        """How many input lines have no usable result."""
        return self.submitted - self.succeeded


class LineOutcome(msgspec.Struct, frozen=True, omit_defaults=True):
    """
    One line of the outcomes file.

    :param outcome: Any :class:`Outcome` but succeeded.
    :param custom_id: Of the input line; ``None`` where a result line names none.
    :param line: Of the input, counted from 1; ``None`` where a result belongs to no input line.
    :param source: ``output`` or ``error``, with ``source_line``: where the result was.
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


def join_results(
    manifest: ResultManifest,
    chunks: Chunks,
    *,
    outcomes_uri: str,
    retry_uri: str,
    succeeded_uri: str | None = None,
    ended: JobState = JobState.SUCCEEDED,
    input_uri: str | None = None,
    storage: Storage | None = None,
) -> OutcomeCounts:
    """
    Join a batch's input with its results, and write down every line that has no usable result.

    Memory grows by some 150 bytes per input line; no line is kept. Of several results for a line the first success
    counts, else the first failure. An input in which an id occurs twice gives each occurrence a result of its own,
    as long as there are enough.

    :param manifest: Where input, output and errors are.
    :param chunks: Opens each of its URIs; it is called twice for the input.
    :param outcomes_uri: Gets a :class:`LineOutcome` as JSON for every failed, expired and missing line, and for
        every result line that belongs to no input line.
    :param retry_uri: Gets the input lines of the failed, expired and missing ones, byte for byte: a batch input again.
    :param succeeded_uri: Gets the usable result lines, each line once, with ``response.body`` as an object.
    :param ended: How the batch ended; a line without a result in an EXPIRED one has expired.
    :param input_uri: The input where the service has deleted it, or for reading it from nearer by.
    :return: The counts.
    :raises ServiceError: a file cannot be read.
    """
    storage = storage or Storage()
    inputs = [input_uri] if input_uri is not None else manifest.uris("input")
    if not inputs:
        raise SpecError(f"{manifest.ref} names no input file; give the one that was submitted as input_uri.")
    ledger = _Ledger(_custom_id(line) for line in _lines(chunks, inputs))
    with (
        ExitStack() as files,
        cast("IO[bytes]", tempfile.SpooledTemporaryFile(SPOOL_BYTES)) as spool,
    ):
        succeeded = files.enter_context(storage.open(succeeded_uri, "wb")) if succeeded_uri is not None else None
        for result in _results(manifest, chunks):
            outcome = ledger.enter(result)
            if outcome is not None:
                spool.write(_encode(outcome))
            elif succeeded is not None:
                succeeded.write(result.usable)
        spool.seek(0)
        outcomes = files.enter_context(storage.open(outcomes_uri, "wb"))
        for line in spool:
            outcomes.write(_encode(ledger.confirm(_decode_outcome(line))))
        retry = files.enter_context(storage.open(retry_uri, "wb"))
        for number, line in enumerate(_lines(chunks, inputs), 1):
            outcome = ledger.close(number, _custom_id(line), ended)
            if outcome is not None:
                outcomes.write(_encode(outcome))
            if not ledger.has_succeeded(number):
                retry.write(line + b"\n")
    return ledger.counts()


def read_outcomes(uri: str, storage: Storage | None = None) -> Iterator[LineOutcome]:
    """Yield what :func:`join_results` wrote down, line by line."""
    with (storage or Storage()).open(uri) as file:
        for line in file:
            yield _decode_outcome(line)


def chunks_from(transport: HttpTransport, storage: Storage | None = None) -> Chunks:
    """Return an opener of ``openai://`` URIs through a connection, and of all others through a storage."""

    def chunks(uri: str) -> Iterator[bytes]:
        if uri.startswith(FILE_SCHEME):
            yield from content(transport, uri.removeprefix(FILE_SCHEME))
            return
        with (storage or Storage()).open(uri) as file:
            while chunk := file.read(1 << 20):
                yield chunk

    return chunks


class _State(IntEnum):
    OPEN = 0
    SUCCEEDED = 1
    FAILED = 2
    EXPIRED = 3
    MISSING = 4


_STATE_OF = {
    Outcome.FAILED: _State.FAILED,
    Outcome.EXPIRED: _State.EXPIRED,
    Outcome.MISSING: _State.MISSING,
}


class _Ledger:
    """One state for every input line, found by the digest of its id."""

    def __init__(self, custom_ids: Iterable[str | None]) -> None:
        self._states = bytearray()
        self._first: dict[bytes, int] = {}
        self._others: dict[bytes, list[int]] = {}
        self._strays: Counter[str] = Counter()
        for place, custom_id in enumerate(custom_ids):
            self._states.append(_State.OPEN)
            if custom_id is None:
                continue
            digest = id_digest(custom_id)
            if self._first.setdefault(digest, place) != place:
                self._others.setdefault(digest, []).append(place)

    def enter(self, result: _Result) -> LineOutcome | None:
        """Give a result to its line; return what to write down, ``None`` for a line's first success."""
        outcome = result.outcome
        if outcome.custom_id is None:
            return outcome
        digest = id_digest(outcome.custom_id)
        first = self._first.get(digest)
        if first is None:
            return replace(outcome, outcome=Outcome.UNKNOWN_ID)
        places = [first, *self._others.get(digest, ())]
        place = self._free(places, takes_failed=outcome.outcome == Outcome.SUCCEEDED)
        if place is None:
            return replace(outcome, outcome=Outcome.REPEATED)
        if outcome.outcome == Outcome.SUCCEEDED:
            self._states[place] = _State.SUCCEEDED
            return None
        self._states[place] = _STATE_OF[Outcome(outcome.outcome)]
        return replace(outcome, line=place + 1)

    def confirm(self, outcome: LineOutcome) -> LineOutcome:
        """Return a noted outcome as it stands after the last result: a failure may have been followed by a success."""
        if outcome.line is None:
            self._strays[outcome.outcome] += 1
            return outcome
        if not self.has_succeeded(outcome.line):
            return outcome
        self._strays[Outcome.REPEATED] += 1
        return replace(outcome, outcome=Outcome.REPEATED, line=None)

    def close(self, number: int, custom_id: str | None, ended: JobState) -> LineOutcome | None:
        """Decide about an input line that got no result."""
        if self._states[number - 1] != _State.OPEN:
            return None
        outcome = Outcome.EXPIRED if ended is JobState.EXPIRED else Outcome.MISSING
        self._states[number - 1] = _STATE_OF[outcome]
        return LineOutcome(outcome, custom_id, number)

    def has_succeeded(self, number: int) -> bool:
        return self._states[number - 1] == _State.SUCCEEDED

    def counts(self) -> OutcomeCounts:
        return OutcomeCounts(
            submitted=len(self._states),
            succeeded=self._states.count(_State.SUCCEEDED),
            failed=self._states.count(_State.FAILED),
            expired=self._states.count(_State.EXPIRED),
            missing=self._states.count(_State.MISSING),
            unknown_id=self._strays[Outcome.UNKNOWN_ID],
            repeated=self._strays[Outcome.REPEATED],
            broken=self._strays[Outcome.BROKEN],
        )

    def _free(self, places: list[int], *, takes_failed: bool) -> int | None:
        for place in places:
            if self._states[place] == _State.OPEN:
                return place
        if takes_failed:
            for place in places:
                if self._states[place] != _State.SUCCEEDED:
                    return place
        return None


class _Line(msgspec.Struct):
    custom_id: Any = None
    response: msgspec.Raw = msgspec.Raw()
    error: msgspec.Raw = msgspec.Raw()


class _Response(msgspec.Struct):
    status_code: Any = None
    body: msgspec.Raw = msgspec.Raw()


class _Body(msgspec.Struct):
    error: msgspec.Raw = msgspec.Raw()
    message: Any = None
    detail: Any = None


class _Result(NamedTuple):
    outcome: LineOutcome
    usable: bytes = b""


_decode_line = msgspec.json.Decoder(_Line).decode
_decode_response = msgspec.json.Decoder(_Response).decode
_decode_body = msgspec.json.Decoder(_Body).decode
_decode_outcome = msgspec.json.Decoder(LineOutcome).decode


def _encode(outcome: LineOutcome) -> bytes:
    return msgspec.json.encode(outcome) + b"\n"


def _results(manifest: ResultManifest, chunks: Chunks) -> Iterator[_Result]:
    for source in ("output", "error"):
        for number, line in enumerate(_lines(chunks, manifest.uris(source)), 1):
            yield _read_result(line, source, number)


def _read_result(line: bytes, source: str, number: int) -> _Result:
    """Read one result line; whatever it lacks, it ends as some outcome."""

    def broken(message: str) -> _Result:
        return _Result(LineOutcome(Outcome.BROKEN, source=source, source_line=number, message=message))

    try:
        parsed = _decode_line(line)
    except (msgspec.DecodeError, UnicodeDecodeError) as error:
        return broken(f"not a JSON object: {error}")
    if isinstance(parsed.custom_id, bool) or not isinstance(parsed.custom_id, str | int):
        return broken("no custom_id")
    status, body, body_text = _read_response(parsed.response)
    code, message = _first_error(parsed.error, body, body_text)
    # A server can say 200 about a request that it then finds an error for.
    usable = source == "output" and code is None and message is None and _is_success(status) and body is not None
    outcome = LineOutcome(
        Outcome.SUCCEEDED if usable else Outcome.EXPIRED if code in EXPIRED_CODES else Outcome.FAILED,
        str(parsed.custom_id),
        source=source,
        source_line=number,
        status=status,
        code=code or (None if message or usable else "unreadable_response"),
        message=message[:MAX_MESSAGE] if message else None,
    )
    if not usable:
        return _Result(outcome)
    return _Result(outcome, (line if body_text is None else _unpacked(line, body_text)) + b"\n")


def _read_response(raw: msgspec.Raw) -> tuple[int | None, _Body | None, str | None]:
    """Return the status, the body, and the body's text where a server sent the body as a string."""
    if not _holds(raw):
        return None, None, None
    try:
        response = _decode_response(raw)
    except msgspec.DecodeError:
        return None, None, None
    status = response.status_code
    status = int(status) if isinstance(status, int | float | str) and str(status).isdecimal() else None
    body, text = bytes(response.body), None
    if body.startswith(b'"'):
        text = msgspec.json.decode(body, type=str)
        body = text.encode("utf-8", "surrogatepass")
    try:
        # The whole body is checked here, though its numbers are not made into objects.
        return status, _decode_body(body), text
    except msgspec.DecodeError:
        return status, None, text


def _first_error(raw: msgspec.Raw, body: _Body | None, body_text: str | None) -> tuple[str | None, str | None]:
    """Return code and message of a line's error, else of its body's."""
    for error in (raw, body.error if body is not None else msgspec.Raw()):
        if not _holds(error):
            continue
        value = orjson.loads(bytes(error))
        if isinstance(value, dict):
            code = value.get("code") or value.get("type")
            return (str(code) if code else None), str(value.get("message") or code or value)
        return None, str(value)
    if body is None:
        return None, body_text or None
    text = body.message or body.detail
    return None, str(text) if text else None


def _holds(raw: msgspec.Raw) -> bool:
    return bytes(raw) not in (b"", b"null")


def _is_success(status: int | None) -> bool:
    # Some servers leave the status of a good answer out.
    return status is None or 200 <= status < 300


def _unpacked(line: bytes, body: str) -> bytes:
    result = orjson.loads(line)
    result["response"]["body"] = orjson.Fragment(body)
    return orjson.dumps(result)


def _custom_id(line: bytes) -> str | None:
    try:
        custom_id = _decode_line(line).custom_id
    except (msgspec.DecodeError, UnicodeDecodeError):
        return None
    return custom_id if isinstance(custom_id, str) else None


def _lines(chunks: Chunks, uris: Iterable[str]) -> Iterator[bytes]:
    """Yield the lines of files without their ends, and without blank ones."""
    for uri in uris:
        pieces: list[bytes] = []
        for chunk in chunks(uri):
            first, *rest = chunk.split(b"\n")
            pieces.append(first)
            for following in rest:
                yield from _unless_blank(b"".join(pieces))
                pieces = [following]
        yield from _unless_blank(b"".join(pieces))


def _unless_blank(line: bytes) -> Iterator[bytes]:
    line = line.rstrip(b"\r")
    if line.strip():
        yield line
