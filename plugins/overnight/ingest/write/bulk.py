"""The ``_bulk`` API: each document's outcome by its ``_id``; what OpenSearch is too busy for is sent again."""

from __future__ import annotations

import logging
import random
import threading
import time
from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any, Final, Literal

import msgspec
import orjson

from overnight.errors import RateLimitedError, RequestRefusedError, TransientError, UnavailableError
from overnight.ingest.write.bulk_causes import ItemCause, Scope, classify_item
from overnight.ingest.write.names import quote_index_name
from overnight.ingest.write.sink import Body, BodyOutcome, Frame, IndexInfo, StoppedError, WriteOperation, WriteOptions
from overnight.ingest.write.target import OpenSearchTarget
from overnight.rejection import Rejection

log = logging.getLogger(__name__)

_FILTER = (
    "errors,items.*._id,items.*._version,items.*.result,items.*.status,"
    "items.*.error.type,items.*.error.reason,items.*.error.caused_by.reason"
)
_FRAMES: dict[WriteOperation, Frame] = {
    "index": Frame(b'{"index":{"_id":', b"}}\n", b"\n", b',"routing":'),
    "create": Frame(b'{"create":{"_id":', b"}}\n", b"\n", b',"routing":'),
    "update": Frame(
        b'{"update":{"_id":',
        b',"retry_on_conflict":3}}\n{"doc":',
        b',"doc_as_upsert":true}\n',
        b',"routing":',
    ),
}
_OK = frozenset({200, 201})
_CONFLICT = 409
# Through a pipeline, OpenSearch 2.19 and 3.6 answer an update that was dropped or failed with one of these instead of
# its _id.
_NAMELESS = (None, "auto-generated")
_MAX_WAIT = 30.0
_MAX_UNREADABLE = 8
_ALL_INDEXED: Final = object()


class _Indexed(msgspec.Struct, gc=False):
    """What an answer says of a document that is in the index; it says ``noop`` of one that was dropped, too."""

    status: Literal[200, 201]
    id: str = msgspec.field(name="_id")
    result: Literal["created", "updated"] = "created"
    index: str | None = msgspec.field(name="_index", default=None)


class _IndexedItem(msgspec.Struct, gc=False, forbid_unknown_fields=True):
    index: _Indexed | None = None
    create: _Indexed | None = None
    update: _Indexed | None = None


class _IndexedAnswer(msgspec.Struct, gc=False):
    items: list[_IndexedItem]


_decode_indexed = msgspec.json.Decoder(_IndexedAnswer).decode


class IndexRefusedError(RequestRefusedError):
    """The index takes no document at all; each further one would be refused for the same reason."""


class BulkSender:
    """
    Sends bodies, each until the outcome of every document in it is known. Thread-safe.

    An outcome is matched to its document by ``_id`` only: through an ingest pipeline OpenSearch gives the items of
    failed, dropped and throttled documents back in each other's places. Two items of one id, an id that was not
    sent, and an id without an item are a fault of the answer: what they leave open is sent again, which the documents'
    ids make harmless. So is a body whose answer was lost.

    :param index: Where the documents go; by the name that was asked for, so that an alias' routing is used.
    """

    def __init__(self, target: OpenSearchTarget, index: IndexInfo, options: WriteOptions) -> None:
        self._target = target
        self._index = index
        self._options = options
        self._name = index.requested or index.name
        self._throttle = options.throttle
        self.has_written = False
        """Whether a document was acknowledged through this object."""
        # A pipeline or a data stream can put a document into another index.
        self._can_differ = bool(index.pipelines) or index.is_data_stream
        self._params = {"filter_path": f"{_FILTER},items.*._index" if self._can_differ else _FILTER}
        if index.is_alias:
            self._params["require_alias"] = "true"

    @property
    def frame(self) -> Frame:
        """The action line before each document, and what an update puts around it."""
        return _FRAMES[self._options.operation]

    def send(self, body: Body, ends: Sequence[int], ids: Sequence[str]) -> BodyOutcome:
        """
        Send one body and return what became of its documents.

        :param ends: Where each document (with its action line) ends in the body.
        :param ids: The ``_id`` of each document; all different.
        :raises TransientError: OpenSearch stayed busy or away.
        :raises IndexRefusedError: the index takes no document (blocked, closed, without its pipeline).
        :raises ServiceError: the whole request is refused (credentials).
        """
        outcome = BodyOutcome()
        waiting: list[Sequence[int]] = [range(len(ends))]
        backoff = Backoff(self._options.patience, self._options.stop)
        attempted = {*range(len(ends))} if self._options.was_sent else set[int]()
        unreadable, is_answered = 0, False
        while waiting:
            numbers = waiting.pop()
            content = body if len(numbers) == len(ends) else _select(body, ends, numbers)
            try:
                items = self._send_once(content, ids if content is body else [ids[number] for number in numbers])
            except TransientError as error:
                self._throttle.push_back()
                attempted.update(numbers)
                waiting.append(numbers)
                backoff.wait(error)
                continue
            except RequestRefusedError as error:
                if error.status not in (400, 413):
                    raise
                # Too large, or one document spoils the whole request: find it by halves.
                if len(numbers) > 1:
                    waiting += _halves(numbers)
                    continue
                unreadable += 1
                if unreadable > _MAX_UNREADABLE and not is_answered:
                    raise
                outcome.rejected[numbers[0]] = Rejection(error.code or f"status_{error.status}", str(error))
                continue
            is_answered = True
            if items is None:
                backoff.reset()
                self._throttle.relax()
                continue
            matched = _match(items, numbers, ids)
            again, busy = self._sort(matched.found, attempted, outcome)
            attempted.update(numbers)
            if len(again) + len(matched.unanswered) < len(numbers):
                backoff.reset()
            if matched.can_be_split:
                # Each half has fewer outcomes to tell apart; a body of one document has only its own.
                waiting += _halves(matched.unanswered)
            elif matched.unanswered:
                again += matched.unanswered
                busy = busy or UnavailableError(
                    f"OpenSearch's answer to _bulk lacks {len(matched.unanswered)} of {len(numbers)} documents, such "
                    f"as {ids[matched.unanswered[0]]!r}; something between changes it. They are sent again."
                )
            if busy is not None:
                self._throttle.push_back()
                waiting.append(again)
                backoff.wait(busy)
            else:
                self._throttle.relax()
        return outcome

    def _send_once(self, content: Body, ids: Sequence[str]) -> list[_Item] | None:
        """Send documents, and return what is said of them; ``None``: each was indexed."""
        name, read_answer = quote_index_name(self._name), partial(self._read_answer, ids)
        answer = self._target.bulk(name, content, self._params, decode=read_answer)
        if answer is _ALL_INDEXED:
            self.has_written = True
            return None
        items = answer.get("items") if isinstance(answer, dict) else None
        if not isinstance(items, list):
            raise UnavailableError("OpenSearch's answer to _bulk has no items; something between cuts it.")
        read = [_read_item(item) for item in items]
        known = [item for item in read if item is not None]
        if len(known) < len(read):
            # Neither taken nor refused: to count it as either would be a guess.
            raise UnavailableError("The answer to _bulk is not OpenSearch's: an item has no status. Check the address.")
        return known

    def _read_answer(self, ids: Sequence[str], content: bytes) -> Any:
        """Return ``_ALL_INDEXED`` for an answer that says so of each document, in the order that they were sent in."""
        return _ALL_INDEXED if self._are_all_indexed(ids, content) else orjson.loads(content)

    def _are_all_indexed(self, ids: Sequence[str], content: bytes) -> bool:
        try:
            items = _decode_indexed(content).items
        except msgspec.MsgspecError:
            return False
        found = [said for item in items if (said := item.index or item.create or item.update) is not None]
        if [said.id for said in found] != ids or len(items) != len(ids):
            return False
        return not self._can_differ or {said.index for said in found} == {self._index.name}

    def _sort(
        self, found: dict[int, _Item], attempted: set[int], outcome: BodyOutcome
    ) -> tuple[list[int], TransientError | None]:
        """Enter the outcomes, and return the documents to send again with the reason."""
        again: list[int] = []
        busy: TransientError | None = None
        for number, item in sorted(found.items()):
            if item.status in _OK:
                self.has_written = True
                if item.is_dropped:
                    outcome.dropped.append(number)
                elif self._can_differ and item.index != self._index.name:
                    outcome.elsewhere.append(number)
                continue
            if self._options.operation == "create" and item.status == _CONFLICT:
                if number not in attempted:
                    outcome.rejected[number] = EXISTS
                continue
            cause = classify_item(item.status, item.code, item.reason)
            if cause.scope is Scope.INDEX:
                raise IndexRefusedError(
                    f"{self._name!r} takes no documents: {item.code}: {item.reason}. {cause.remedy}",
                    status=item.status,
                    code=item.code,
                )
            if cause.scope is Scope.DOCUMENT:
                reason = item.reason or f"OpenSearch answered {item.status}"
                outcome.rejected[number] = Rejection(item.code, reason)
            else:
                again.append(number)
                busy = busy or _to_error(item, cause)
        return again, busy


EXISTS = Rejection("document_exists", "a data stream takes new documents only, and one with this id is there")


@dataclass(frozen=True, slots=True)
class _Item:
    """
    What an answer says of one document.

    :param id: ``None`` when the answer does not say.
    :param is_dropped: Whether an ingest pipeline dropped it. OpenSearch gives such a document a version below zero (-3
        for ``index``, -4 for ``create``); an update that changes nothing is a ``noop``, too, with its real version.
    """

    id: str | None
    status: int
    index: str | None
    is_dropped: bool
    code: str = ""
    reason: str = ""

    @property
    def kind(self) -> tuple[int, bool, str, str]:
        return self.status, self.is_dropped, self.code, self.reason


@dataclass(slots=True)
class _Matched:
    """
    :param found: The one item of each document that has one.
    :param unanswered: The documents without, or with more than one.
    :param can_be_split: Whether smaller bodies would tell whose the items without an id are.
    """

    found: dict[int, _Item]
    unanswered: list[int]
    can_be_split: bool = False


def _match(items: Sequence[_Item], numbers: Sequence[int], ids: Sequence[str]) -> _Matched:
    expected: dict[str | None, int] = {ids[number]: number for number in numbers}
    found: dict[int, _Item] = {}
    doubled: set[int] = set()
    nameless: list[_Item] = []
    strangers = 0
    for item in items:
        number = expected.get(item.id)
        if number is None:
            if item.id is None:
                nameless.append(item)
            else:
                strangers += 1
        elif number in found:
            doubled.add(number)
        else:
            found[number] = item
    for number in doubled:
        del found[number]
    unanswered = [number for number in numbers if number not in found]
    if strangers or doubled:
        log.warning(
            "An answer to _bulk has %d ids that were not sent and %d more than once; what they leave open is sent "
            "again.",
            strangers,
            len(doubled),
        )
    elif unanswered and len(nameless) == len(unanswered):
        if len({item.kind for item in nameless}) == 1:
            found.update(zip(unanswered, nameless, strict=True))
            return _Matched(found, [])
        return _Matched(found, unanswered, can_be_split=True)
    return _Matched(found, unanswered)


def _read_item(item: Any) -> _Item | None:
    """Read ``{"index": {"_id": …, "status": …, "error": …}}``, whatever the action; ``None``: it has no outcome."""
    found = next(iter(item.values()), None) if isinstance(item, dict) else None
    if not isinstance(found, dict) or type(found.get("status")) is not int:
        return None
    key, status = found.get("_id"), found["status"]
    version = found.get("_version")
    is_dropped = found.get("result") == "noop" and isinstance(version, int) and version < 0
    # Errors of ingest pipelines have the document's id, too.
    name = None if key in _NAMELESS else str(key)
    if status in _OK:
        return _Item(name, status, found.get("_index"), is_dropped)
    return _Item(name, status, None, is_dropped, *_read_error(status, found.get("error")))


def _read_error(status: int, error: Any) -> tuple[str, str]:
    """Return the type of an item's error and what it says."""
    if not isinstance(error, dict):  # old servers, and proxies, write a text
        return f"status_{status}", str(error or "")
    cause = error.get("caused_by")
    texts = (error.get("reason"), cause.get("reason") if isinstance(cause, dict) else None)
    return str(error.get("type") or f"status_{status}"), ": ".join(str(text) for text in texts if text)


def _to_error(item: _Item, cause: ItemCause) -> TransientError:
    if cause.scope is Scope.BUSY:
        message = f"OpenSearch rejects documents: {item.code}: {item.reason}. {cause.remedy}"
        return RateLimitedError(message, status=item.status, code=item.code)
    what = "A node of OpenSearch is going away" if cause.scope is Scope.NODE else "OpenSearch rejects documents"
    return UnavailableError(f"{what}: {item.code}: {item.reason}. {cause.remedy}", status=item.status, code=item.code)


def _halves(numbers: Sequence[int]) -> list[Sequence[int]]:
    half = len(numbers) // 2
    return [numbers[half:], numbers[:half]]


def _select(body: Body, ends: Sequence[int], numbers: Sequence[int]) -> bytes:
    return b"".join(body[slice(*span(ends, number))] for number in numbers)


def span(ends: Sequence[int], number: int) -> tuple[int, int]:
    """Return where a document (with its action line) starts and ends in a body."""
    return (ends[number - 1] if number else 0), ends[number]


class Backoff:
    """
    The waits of one piece of work.

    :param patience: Seconds that it may make no headway.
    :param stop: Ends all waiting when set.
    """

    def __init__(self, patience: float, stop: threading.Event) -> None:
        self._patience = patience
        self._stop = stop
        self.reset()

    def reset(self) -> None:
        """There was headway: patience begins anew."""
        self._tries = 0
        self._since = time.monotonic()

    def wait(self, error: TransientError) -> None:
        """Wait, longer each time and for as long as the server asks; raise the error when patience is over."""
        delay = error.retry_after
        if delay is None:
            delay = min(_MAX_WAIT, 0.25 * 2**self._tries) * random.uniform(0.5, 1.0)  # noqa: S311
        if time.monotonic() - self._since + delay > self._patience:
            raise error
        self._tries += 1
        log.warning("%s Trying again in %.1f s.", error, delay)
        if self._stop.wait(delay):
            raise StoppedError from error
