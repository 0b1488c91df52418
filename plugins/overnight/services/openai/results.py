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
from enum import IntEnum
from typing import IO, Final, cast

import msgspec
import orjson
from msgspec.structs import replace
from pydantic import BaseModel, ConfigDict, Field

from overnight.errors import NotFoundError, SpecError, UnavailableError, shorten
from overnight.jobs import JobState, ResultManifest
from overnight.services.openai.files import FILE_SCHEME, content
from overnight.services.openai.result_line import (
    LineOutcome,
    Outcome,
    Result,
    decode_outcome,
    input_id,
    is_refused,
    read_result,
)
from overnight.services.openai.scan import id_digest
from overnight.storage import Storage, get_scheme
from overnight.transport.http import HttpTransport

__all__ = [
    "Chunks",
    "LineOutcome",
    "Outcome",
    "OutcomeCounts",
    "chunks_from",
    "count_loadable",
    "count_results",
    "join_results",
    "list_item_files",
    "read_outcomes",
]

SPOOL_BYTES = 16 << 20

Chunks = Callable[[str], Iterator[bytes]]
"""Opens a URI and yields its bytes in pieces of any size."""


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
    refused: int = 0
    """Of the failed ones, those that the service would refuse again: they are not in the retry file."""
    usage: dict[str, int] = Field(default_factory=dict)
    """What the batch used, in tokens as the service counts them; empty where it does not say."""

    @property
    def unsuccessful(self) -> int:
        """How many input lines have no usable result."""
        return self.submitted - self.succeeded


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
    examine: Callable[[Result], Result] | None = None,
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
        What the service refuses for its content is left out, since it would be refused again.
    :param succeeded_uri: Gets the usable result lines, each line once, with ``response.body`` as an object.
    :param ended: How the batch ended; a line without a result in an EXPIRED one has expired.
    :param input_uri: The input where the service has deleted it, or for reading it from nearer by.
    :param examine: Returns each result as it counts: as it is, or as a failed one.
    :return: The counts.
    :raises ServiceError: a file cannot be read.
    :raises UnavailableError: the files hold fewer results than the service counts: they were cut, or something else
        answered. There is no retry file then: it would pay for the same lines again.
    """
    storage = storage or Storage()
    inputs = [input_uri] if input_uri is not None else manifest.uris("input")
    if not inputs:
        raise SpecError(f"{manifest.ref} names no input file; give the one that was submitted as input_uri.")

    def lines() -> Iterator[bytes]:
        try:
            yield from read_result_lines(chunks, inputs)
        except NotFoundError as error:
            if input_uri is not None:
                raise
            raise NotFoundError(
                f"The service no longer has the input of {manifest.ref}, with which its results are joined. Give the "
                f"file that was submitted as input_uri. {error}",
                status=error.status,
                code=error.code,
            ) from error

    ledger = _Ledger(lines())
    with (
        ExitStack() as files,
        cast("IO[bytes]", tempfile.SpooledTemporaryFile(SPOOL_BYTES)) as spool,
    ):
        succeeded = files.enter_context(storage.open(succeeded_uri, "wb")) if succeeded_uri is not None else None
        for result in _results(manifest, chunks):
            if examine is not None:
                result = examine(result)  # noqa: PLW2901
            outcome = ledger.enter(result)
            if outcome is not None:
                spool.write(_encode(outcome))
            elif succeeded is not None:
                succeeded.write(result.usable)
        ledger.check(manifest)
        spool.seek(0)
        outcomes = files.enter_context(storage.open(outcomes_uri, "wb"))
        for line in spool:
            outcomes.write(_encode(ledger.confirm(decode_outcome(line))))
        retry = files.enter_context(storage.open(retry_uri, "wb"))
        for number, line in enumerate(lines(), 1):
            if not line:
                continue
            if ledger.is_open(number):
                outcomes.write(_encode(ledger.close(number, input_id(line), ended)))
            if ledger.can_be_retried(number):
                retry.write(line + b"\n")
    return ledger.counts().model_copy(update={"usage": dict(manifest.detail.get("usage") or {})})


def count_results(manifest: ResultManifest) -> int | None:
    """
    Return how many results a batch's files should hold by the service's count; ``None`` where nothing says so.

    Some servers count what they finished before a batch expired, and have no file of it, and some count failures that
    no file has a line about.
    """
    counts = manifest.counts
    if not manifest.uris("output") or counts.succeeded is None:
        return None
    return counts.succeeded + ((counts.failed or 0) if manifest.uris("error") else 0)


def list_item_files(manifest: ResultManifest) -> list[str]:
    """Return the files that have a line for each item; an error line becomes a rejected document with its reason."""
    return [uri for kind in ("output", "error") for uri in manifest.uris(kind)]


def count_loadable(manifest: ResultManifest, repeated: int = 0) -> int | None:
    """
    Return how many results a load of a batch's files must find; ``None`` where nothing says so.

    Those of several rounds are written by Overnight, and what no round has a result for has no line in them.

    :param repeated: How many documents get the result of another one's request.
    """
    at_service = all(get_scheme(uri) == "openai" for uri in list_item_files(manifest))
    counted = count_results(manifest) if at_service else None
    # Where a request has no result, nobody says how many documents have none for it.
    is_complete = manifest.counts is not None and manifest.counts.total == counted
    return counted + repeated if counted is not None and is_complete else counted


def read_outcomes(uri: str, storage: Storage | None = None) -> Iterator[LineOutcome]:
    """Yield what :func:`join_results` wrote down, line by line."""
    with (storage or Storage()).open(uri) as file:
        for line in file:
            yield decode_outcome(line)


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
    BLANK = 5
    """A line of the input with nothing in it: no request."""


_STATE_OF = {
    Outcome.FAILED: _State.FAILED,
    Outcome.EXPIRED: _State.EXPIRED,
    Outcome.MISSING: _State.MISSING,
}


class _Ledger:
    """One state for every input line, found by the digest of its id."""

    def __init__(self, lines: Iterable[bytes]) -> None:
        self._states = bytearray()
        self._first: dict[bytes, int] = {}
        self._others: dict[bytes, list[int]] = {}
        self._strays: Counter[str] = Counter()
        self._refused: set[int] = set()
        self._unreadable = {"output": 0, "error": 0}
        self._spoilt = 0
        for place, line in enumerate(lines):
            self._states.append(_State.OPEN if line else _State.BLANK)
            custom_id = input_id(line) if line else None
            if custom_id is None:
                continue
            digest = id_digest(custom_id)
            if self._first.setdefault(digest, place) != place:
                self._others.setdefault(digest, []).append(place)
        self._submitted = len(self._states) - self._states.count(_State.BLANK)

    def enter(self, result: Result) -> LineOutcome | None:
        """Give a result to its line; return what to write down, ``None`` for a line's first success."""
        outcome = result.outcome
        source = outcome.source or "output"
        if outcome.custom_id is None:
            self._unreadable[source] += 1
            return outcome
        # A line that cannot be read in the middle of good ones is the service's own; at the end the file was cut.
        self._spoilt += self._unreadable[source]
        self._unreadable[source] = 0
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
            self._refused.discard(place)
            return None
        if is_refused(outcome):
            self._refused.add(place)
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

    def is_open(self, number: int) -> bool:
        """Whether an input line got no result."""
        return self._states[number - 1] == _State.OPEN

    def close(self, number: int, custom_id: str | None, ended: JobState) -> LineOutcome:
        """Decide about an input line that got no result."""
        outcome = Outcome.EXPIRED if ended is JobState.EXPIRED else Outcome.MISSING
        self._states[number - 1] = _STATE_OF[outcome]
        return LineOutcome(outcome, custom_id, number)

    def has_succeeded(self, number: int) -> bool:
        return self._states[number - 1] == _State.SUCCEEDED

    def can_be_retried(self, number: int) -> bool:
        return not self.has_succeeded(number) and number - 1 not in self._refused

    def check(self, manifest: ResultManifest) -> None:
        """Compare what was read with what the service counts."""
        counted = count_results(manifest)
        if counted is None:
            return
        read = self._submitted - self._states.count(_State.OPEN)
        if read + self._spoilt < min(counted, self._submitted):
            raise UnavailableError(
                f"{manifest.ref} has results of {counted:,} requests by the service's count, and its files hold "
                f"{read:,} that can be read. They were cut, or something else answered; they are read again by a "
                "retry. Nothing was written for another batch."
            )

    def counts(self) -> OutcomeCounts:
        return OutcomeCounts(
            submitted=self._submitted,
            succeeded=self._states.count(_State.SUCCEEDED),
            failed=self._states.count(_State.FAILED),
            expired=self._states.count(_State.EXPIRED),
            missing=self._states.count(_State.MISSING),
            unknown_id=self._strays[Outcome.UNKNOWN_ID],
            repeated=self._strays[Outcome.REPEATED],
            broken=self._strays[Outcome.BROKEN],
            refused=len(self._refused),
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


def _encode(outcome: LineOutcome) -> bytes:
    return msgspec.json.encode(outcome) + b"\n"


def _results(manifest: ResultManifest, chunks: Chunks) -> Iterator[Result]:
    for source in ("output", "error"):
        uris = manifest.uris(source)
        for uri in uris:
            is_first = True
            for number, line in enumerate(read_result_lines(chunks, [uri]), 1):
                if not line:
                    continue
                if is_first:
                    _check_first(line, source, uri)
                is_first = False
                result = read_result(line, source, number)
                if len(uris) > 1:
                    result = result._replace(outcome=replace(result.outcome, source_uri=uri))
                yield result


_OF_A_RESULT: Final = frozenset({"custom_id", "response"})


def _check_first(line: bytes, source: str, uri: str) -> None:
    """
    Refuse what is no result file: a web page, or an answer that holds an error, with a status of success.

    :raises UnavailableError: a retry may read the file itself.
    """
    if not line.lstrip().startswith(b"<"):
        try:
            value = orjson.loads(line)
        except orjson.JSONDecodeError:
            return
        # In an error file a line that names no request may be about the whole batch.
        if source != "output" or not isinstance(value, dict) or not value.get("error") or value.keys() & _OF_A_RESULT:
            return
    raise UnavailableError(
        f"{uri} is not the batch's result file; something else answered: "
        f"{shorten(line.decode('utf-8', 'backslashreplace'), 300)} Nothing was written for another batch.",
        status=200,
    )


def read_result_lines(chunks: Chunks, uris: Iterable[str]) -> Iterator[bytes]:
    """Yield the lines of files without their ends; blank ones, which keep their place, as nothing."""
    for uri in uris:
        pieces: list[bytes] = []
        for chunk in chunks(uri):
            first, *rest = chunk.split(b"\n")
            pieces.append(first)
            for following in rest:
                yield _strip(b"".join(pieces))
                pieces = [following]
        yield _strip(b"".join(pieces))


def _strip(line: bytes) -> bytes:
    return line.rstrip(b"\r") if line.strip() else b""
