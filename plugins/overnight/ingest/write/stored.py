"""What an index holds already: its documents' ids, and how one is deleted that nobody has written since it was seen."""

from __future__ import annotations

import logging
import re
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from itertools import islice
from typing import Any, Final, NamedTuple

import msgspec

from overnight.errors import (
    NotFoundError,
    RequestRefusedError,
    ServiceError,
    SpecError,
    TransientError,
    UnavailableError,
)
from overnight.ingest.write.bulk_causes import Scope, classify_item
from overnight.ingest.write.index import read_settings
from overnight.ingest.write.names import quote_index_name
from overnight.ingest.write.sink import IndexInfo
from overnight.ingest.write.target import OpenSearchTarget
from overnight.transport.http import HttpCall, Retry

log = logging.getLogger(__name__)

PAGE: Final = 5_000
"""Documents of one answer of a scan; ids and no more."""
KEEP_ALIVE: Final = "5m"
_SCANS: Final = 5
"""How often a shard is read from its start when an answer is lost or the cluster forgets the scan."""
_BULK: Final = 2_000
_PAUSES: Final = (1.0, 2.0, 4.0, 8.0, 16.0, 30.0)
"""Seconds before documents that OpenSearch is too busy for are deleted again."""
_OK, _NOT_FOUND, _CONFLICT = 200, 404, 409
# How OpenSearch says that a document with an if_seq_no is not there any more.
_ABSENT: Final = re.compile(r"no document was found|document already deleted")

_encode = msgspec.json.Encoder().encode


class Baseline(msgspec.Struct, frozen=True):
    """
    What an index had when a run began, by the sequence numbers that OpenSearch gives each write.

    A document with a higher number was written later, by this run or by another one.

    :param uuid: The index's; an index that was made anew has another.
    :param sequence: The highest number of each shard; -1 of an empty one.
    """

    uuid: str
    sequence: dict[str, int]

    def is_newer(self, index: IndexInfo, document: StoredDocument) -> bool:
        """Whether a document was written after the run began, or nobody can say so."""
        before = self.sequence.get(str(document.shard))
        return self.uuid != index.uuid or before is None or document.sequence > before


class StoredDocument(NamedTuple):
    """
    One document of an index.

    :param sequence: The number of its last write in its shard; with ``term`` it names that very write.
    """

    id: str
    routing: str | None
    shard: int
    sequence: int
    term: int


@dataclass
class DeleteOutcome:
    """
    What became of documents that were to be deleted.

    :param deleted: How many are gone now, those that somebody else deleted meanwhile included.
    :param changed: How many were written again since they were seen, and were left.
    """

    deleted: int = 0
    changed: int = 0


def read_baseline(target: OpenSearchTarget, index: IndexInfo) -> Baseline:
    """
    Note what is in an index now.

    :raises SpecError: the user has no right to read the index's statistics (``indices:monitor/stats``), or no shard
        has any.
    """
    path = f"{quote_index_name(index.name)}/_stats"
    try:
        answer = target.get(path, level="shards", filter_path="indices.*.shards.*.seq_no,indices.*.shards.*.routing")
    except (NotFoundError, TransientError):
        raise
    except ServiceError as error:
        raise SpecError(
            f"What {index.name!r} holds before the run cannot be noted, so documents that others write meanwhile could "
            f"not be told from those that are gone: {error} Give the OpenSearch user the right indices:monitor/stats, "
            "or leave sync out."
        ) from error
    sequence: dict[str, int] = {}
    try:
        for number, copies in answer["indices"][index.name]["shards"].items():
            sequence[number] = max(int(copy["seq_no"]["max_seq_no"]) for copy in copies)
    except (KeyError, TypeError, ValueError) as error:
        raise UnavailableError(f"The answer to GET /{path} has no shard of {index.name!r}.") from error
    return Baseline(index.uuid, sequence)


def scan(
    target: OpenSearchTarget, index: IndexInfo, scope: Mapping[str, Any] | None = None
) -> Iterator[StoredDocument]:
    """
    Yield every document of an index that a search sees, in no order; nothing but its id and its place is read.

    A shard is read anew when its scan is lost, as when a node restarts, so a document can come more than once.

    :param scope: A query that the documents must match. Those of an alias with a filter or a routing value must match
        these, too.
    :raises UnavailableError: the index cannot be read to its end.
    """
    shards = read_settings(target, index.name, ["number_of_shards"])["number_of_shards"]
    query = _build_query(index, scope)
    for shard in range(int(shards)):
        for pause in (*_PAUSES[: _SCANS - 1], None):
            try:
                yield from _scan_shard(target, index, shard, query)
                break
            except (TransientError, NotFoundError) as error:
                if pause is None:
                    raise UnavailableError(
                        f"Shard {shard} of {index.name!r} cannot be read to its end: {error}"
                    ) from error
                log.warning("Shard %d of %s is read anew in %.0f s: %s", shard, index.name, pause, error)
                time.sleep(pause)


def _build_query(index: IndexInfo, scope: Mapping[str, Any] | None) -> dict[str, Any]:
    clauses: list[Mapping[str, Any]] = [clause for clause in (scope, index.filter) if clause]
    if index.routing is not None:
        clauses.append({"term": {"_routing": index.routing}})
    return {"bool": {"filter": clauses}} if clauses else {"match_all": {}}


def _scan_shard(
    target: OpenSearchTarget, index: IndexInfo, shard: int, query: Mapping[str, Any]
) -> Iterator[StoredDocument]:
    body = {
        "query": query,
        "size": PAGE,
        "sort": ["_doc"],
        "_source": False,
        "seq_no_primary_term": True,
        "track_total_hits": True,
    }
    # A scroll, which every OpenSearch has. Its page cannot be asked for twice, so no call is repeated.
    first = HttpCall(
        "POST",
        f"{quote_index_name(index.name)}/_search",
        params={"scroll": KEEP_ALIVE, "preference": f"_shards:{shard}"},
        json=body,
        retry=Retry.NEVER,
    )
    call, scroll, seen, total = first, "", 0, 0
    try:
        while True:
            answer = target.transport.send(call)
            scroll, total, page = _read_page(answer, shard)
            if not page:
                break
            yield from page
            seen += len(page)
            following = {"scroll": KEEP_ALIVE, "scroll_id": scroll}
            call = HttpCall("POST", "_search/scroll", json=following, retry=Retry.NEVER)
    finally:
        if scroll:
            _close_scroll(target, scroll)
    if seen < total:
        raise UnavailableError(f"The scan gave {seen:,} of {total:,} documents.")


def _read_page(answer: Any, shard: int) -> tuple[str, int, list[StoredDocument]]:
    try:
        if answer["timed_out"] or answer["_shards"]["failed"]:
            raise UnavailableError("A part of the index did not answer the scan.")
        hits = answer["hits"]
        page = [
            StoredDocument(hit["_id"], hit.get("_routing"), shard, int(hit["_seq_no"]), int(hit["_primary_term"]))
            for hit in hits["hits"]
        ]
        return str(answer["_scroll_id"]), int(hits["total"]["value"]), page
    except (KeyError, TypeError, ValueError) as error:
        raise UnavailableError("The answer to _search is not OpenSearch's. Check the connection's address.") from error


def _close_scroll(target: OpenSearchTarget, scroll: str) -> None:
    try:
        target.transport.send(HttpCall("DELETE", "_search/scroll", json={"scroll_id": [scroll]}, retry=Retry.NEVER))
    except ServiceError as error:
        log.debug("The scan was not closed, and ends by itself: %s", error)


def delete_documents(target: OpenSearchTarget, index: IndexInfo, documents: Iterator[StoredDocument]) -> DeleteOutcome:
    """
    Delete documents, each only if its last write is still the one that was seen.

    :raises TransientError: OpenSearch stayed busy or away.
    :raises ServiceError: it deletes nothing at all (no right, blocked).
    """
    outcome = DeleteOutcome()
    while batch := list(islice(documents, _BULK)):
        for pause in (*_PAUSES, None):
            batch, busy = _delete(target, index, batch, outcome)
            if busy is None:
                break
            if pause is None:
                raise busy
            log.warning("%s Trying again in %.0f s.", busy, busy.retry_after or pause)
            time.sleep(busy.retry_after or pause)
    return outcome


def _delete(
    target: OpenSearchTarget, index: IndexInfo, batch: list[StoredDocument], outcome: DeleteOutcome
) -> tuple[list[StoredDocument], TransientError | None]:
    """Delete a batch, enter the outcomes, and return what is to be sent again, with the reason."""
    body = b"".join(_encode({"delete": _build_action(document)}) + b"\n" for document in batch)
    params = {"filter_path": "items.*._id,items.*.status,items.*.error.type,items.*.error.reason"}
    try:
        items = target.bulk(quote_index_name(index.name), body, params)["items"]
        answers = [item["delete"] for item in items]
    except TransientError as error:
        return batch, error
    except (KeyError, TypeError) as error:
        raise UnavailableError("The answer to _bulk is not OpenSearch's. Check the connection's address.") from error
    if [answer.get("_id") for answer in answers] != [document.id for document in batch]:
        return batch, UnavailableError("OpenSearch's answer to _bulk is not for the documents that were sent.")
    again: list[StoredDocument] = []
    busy: TransientError | None = None
    for document, answer in zip(batch, answers, strict=True):
        status, refusal = answer["status"], answer.get("error") or {}
        code, reason = str(refusal.get("type", f"status_{status}")), str(refusal.get("reason", ""))
        if (status in (_OK, _NOT_FOUND) and not refusal) or (status == _CONFLICT and _ABSENT.search(reason)):
            outcome.deleted += 1
            continue
        if status == _CONFLICT:
            outcome.changed += 1
            continue
        cause = classify_item(status, code, reason)
        if cause.scope in (Scope.BUSY, Scope.NODE):
            again.append(document)
            busy = busy or UnavailableError(f"OpenSearch does not delete now: {code}: {reason}. {cause.remedy}")
        else:
            raise RequestRefusedError(
                f"{index.name!r} does not delete {document.id!r}: {code}: {reason}. {cause.remedy}".rstrip(),
                status=status,
                code=code,
            )
    return again, busy


def _build_action(document: StoredDocument) -> dict[str, Any]:
    action = {"_id": document.id, "if_seq_no": document.sequence, "if_primary_term": document.term}
    return action if document.routing is None else action | {"routing": document.routing}
