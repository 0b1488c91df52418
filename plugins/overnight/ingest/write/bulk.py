"""The ``_bulk`` API: what OpenSearch takes is counted, what it is too busy for sent again, what it refuses named."""

from __future__ import annotations

import logging
import random
import threading
import time
from collections.abc import Sequence
from typing import Any, NamedTuple

from overnight.errors import RateLimitedError, RequestRefusedError, TransientError, UnavailableError
from overnight.ingest.write.target import Body, OpenSearchTarget

log = logging.getLogger(__name__)

_FILTER = "errors,items.*.status,items.*.error.type,items.*.error.reason,items.*.error.caused_by.reason"
_BUSY = frozenset({429, 503})
_CONFLICT = 409
# A node that is stopped answers with these and statuses of its own (500, 404) for the documents on their way.
_GOING = frozenset(
    {
        "already_closed_exception",
        "illegal_index_shard_state_exception",
        "index_shard_closed_exception",
        "index_shard_not_started_exception",
        "no_shard_available_action_exception",
        "node_closed_exception",
        "node_disconnected_exception",
        "node_not_connected_exception",
        "shard_not_found_exception",
        "shard_not_in_primary_mode_exception",
    }
)
_MAX_WAIT = 30.0
_MAX_UNREADABLE = 8


class ItemRejection(NamedTuple):
    """A document OpenSearch will never take: its number in the body, and OpenSearch's own words."""

    number: int
    code: str
    reason: str


class StoppedError(Exception):
    """The load is ending; a body on its way was given up."""


class Throttle:
    """
    How many bodies may be on their way: fewer at once when OpenSearch pushes back, slowly more when it does not.

    Additive increase, multiplicative decrease, as TCP does it. Thread-safe.
    """

    def __init__(self, most: int) -> None:
        self._most = most
        self._allowed = float(most)
        self._lock = threading.Lock()

    @property
    def limit(self) -> int:
        """Bodies in flight at most, from 1."""
        return int(self._allowed)

    def relax(self) -> None:
        """A body went through."""
        with self._lock:
            self._allowed = min(self._most, self._allowed + 1.0 / self._allowed)

    def push_back(self) -> None:
        """OpenSearch is too busy."""
        with self._lock:
            self._allowed = max(1.0, self._allowed / 2)


class BulkSender:
    """
    Sends bodies, each until every document in it has come to an end. Thread-safe.

    A connection that broke leaves open what was written; the body is sent again, which the documents' ids make
    harmless.

    :param patience: Seconds to go on with one body that makes no headway.
    :param stop: Ends all waiting when set.
    """

    def __init__(
        self,
        target: OpenSearchTarget,
        index: str,
        *,
        throttle: Throttle,
        patience: float,
        stop: threading.Event,
        require_alias: bool = False,
    ) -> None:
        self._target = target
        self._index = index
        self._throttle = throttle
        self._patience = patience
        self._stop = stop
        self._params = {"filter_path": _FILTER}
        if require_alias:
            self._params["require_alias"] = "true"

    def send(self, body: Body, ends: Sequence[int]) -> list[ItemRejection]:
        """
        Send one body and return the documents that were refused.

        :param ends: Where each document (with its action line) ends in the body.
        :raises TransientError: OpenSearch stayed busy or away.
        :raises ServiceError: the whole request is refused (credentials, a blocked or vanished index).
        """
        refused: list[ItemRejection] = []
        waiting: list[Sequence[int]] = [range(len(ends))]
        backoff = _Backoff(self._patience, self._stop)
        unreadable = 0
        while waiting:
            numbers = waiting.pop()
            content = body if len(numbers) == len(ends) else _select(body, ends, numbers)
            try:
                items = self._send_once(content, len(numbers))
            except TransientError as error:
                self._throttle.push_back()
                waiting.append(numbers)
                backoff.wait(error)
                continue
            except RequestRefusedError as error:
                if error.status not in (400, 413):
                    raise
                # Too large, or one document spoils the whole request: find it by halves.
                if len(numbers) > 1:
                    half = len(numbers) // 2
                    waiting += [numbers[half:], numbers[:half]]
                    continue
                unreadable += 1
                if unreadable > _MAX_UNREADABLE and len(refused) == unreadable - 1:
                    raise
                refused.append(ItemRejection(numbers[0], error.code or f"status_{error.status}", str(error)))
                continue
            again, bad = _sort(numbers, items)
            refused += bad
            if len(again) < len(numbers):
                backoff.reset()
            if again:
                self._throttle.push_back()
                waiting.append(again)
                backoff.wait(_busy(items))
            else:
                self._throttle.relax()
        return refused

    def _send_once(self, content: Body, count: int) -> list[Any]:
        answer = self._target.bulk(self._index, content, self._params)
        items = answer.get("items") if isinstance(answer, dict) else None
        if not isinstance(items, list) or len(items) != count:
            raise UnavailableError("OpenSearch's answer to _bulk is not whole; something between cuts it.")
        outcomes = [_outcome(item) for item in items]
        if None in outcomes:
            # Neither taken nor refused: to count it as either would be a guess.
            raise UnavailableError("The answer to _bulk is not OpenSearch's: an item has no status. Check the address.")
        return outcomes


def _outcome(item: Any) -> dict[str, Any] | None:
    """Return what became of one document: ``{"index": {"status": …, "error": …}}``, whatever the action."""
    outcome = next(iter(item.values()), None) if isinstance(item, dict) else None
    return outcome if isinstance(outcome, dict) and isinstance(outcome.get("status"), int) else None


def _is_passing(status: int, code: str) -> bool:
    return status in _BUSY or status == _CONFLICT or code in _GOING


def _parse_error(item: dict[str, Any]) -> tuple[str, str]:
    """Return the type of an item's error and what it says."""
    error = item.get("error")
    if not isinstance(error, dict):  # old servers, and proxies, write a text
        return f"status_{item['status']}", str(error or "")
    cause = error.get("caused_by")
    texts = (error.get("reason"), cause.get("reason") if isinstance(cause, dict) else None)
    return str(error.get("type") or f"status_{item['status']}"), ": ".join(str(text) for text in texts if text)


def _sort(numbers: Sequence[int], items: list[Any]) -> tuple[list[int], list[ItemRejection]]:
    again: list[int] = []
    refused: list[ItemRejection] = []
    for number, item in zip(numbers, items, strict=True):
        status = item["status"]
        if status in (200, 201):
            continue
        code, reason = _parse_error(item)
        if code == "index_not_found_exception":
            raise RequestRefusedError(
                f"The index vanished during the load: {reason}. Create it and start the load again.",
                status=status,
                code=code,
            )
        if _is_passing(status, code):
            again.append(number)
        else:
            refused.append(ItemRejection(number, code, reason or f"OpenSearch answered {status}"))
    return again, refused


def _busy(items: list[Any]) -> TransientError:
    for item in items:
        status, (code, reason) = item["status"], _parse_error(item)
        if status in _BUSY or status == _CONFLICT:
            return RateLimitedError(
                f"OpenSearch rejects documents: {code}: {reason}. Lower max_in_flight or bulk_bytes, or give the "
                "cluster more memory.",
                status=status,
                code=code,
            )
        if _is_passing(status, code):
            return UnavailableError(f"A node of OpenSearch is going away: {code}: {reason}.", status=status, code=code)
    return RateLimitedError("OpenSearch rejects documents without saying why.")


def _select(body: Body, ends: Sequence[int], numbers: Sequence[int]) -> bytes:
    return b"".join(body[slice(*span(ends, number))] for number in numbers)


def span(ends: Sequence[int], number: int) -> tuple[int, int]:
    """Return where a document (with its action line) starts and ends in a body."""
    return (ends[number - 1] if number else 0), ends[number]


class _Backoff:
    def __init__(self, patience: float, stop: threading.Event) -> None:
        self._patience = patience
        self._stop = stop
        self.reset()

    def reset(self) -> None:
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
