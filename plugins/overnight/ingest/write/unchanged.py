"""
Only documents that changed are written: each one that is carries a digest of its write, and is looked up by it.

The digest is of the whole action (the kind of write, id, routing value and document, as they are sent), the index and
its ingest pipelines. Beside it stands the version that the write gives the document, so that any later write, by
whomever, is noticed: a document is unchanged only when its last write was this very one. Whatever cannot be known
(the answer to a body was lost, somebody wrote at the same time) makes the next load write the document again.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterable, Sequence
from functools import partial
from hashlib import blake2b
from itertools import accumulate, chain, pairwise
from typing import Any, Final, TypeVar
from urllib.parse import quote

import msgspec

from overnight.errors import ServiceError, SpecError, TransientError, UnavailableError
from overnight.ingest.write.bulk import Backoff
from overnight.ingest.write.index import NOT_ALLOWED, require_allowed, try_refresh
from overnight.ingest.write.names import quote_index_name
from overnight.ingest.write.sink import Body, BodyOutcome, BodyWriter, Frame, IndexInfo, WriteOptions
from overnight.ingest.write.target import OpenSearchTarget
from overnight.transport.http import Retry

log = logging.getLogger(__name__)

T = TypeVar("T")

FIELD: Final = "overnight_digest"
"""The field of a document with its digest and its version, ``<32 hex digits>:<version>``."""
MAPPING: Final = {"type": "keyword", "index": False, "doc_values": True}
_FORMAT: Final = 1
_DIGEST_BYTES: Final = 16
_SEARCHED: Final = 1_000
"""Ids of one search; OpenSearch answers with 10,000 documents at most, or what ``index.max_result_window`` says."""
_ABSENT, _UNKNOWN = 0, -1
_NOBODY: Final = "overnight"
_CHECK: Final = "Check the connection's address."


class _Action(msgspec.Struct):
    routing: str | None = None


_decode_action = msgspec.json.Decoder(dict[str, _Action]).decode
_encode_sorted = msgspec.json.Encoder(order="sorted").encode


def check_fields(fields: Iterable[str]) -> None:
    """
    Refuse a field map that writes the digest's field.

    :raises SpecError: it does.
    """
    if any(name.partition(".")[0] == FIELD for name in fields):
        raise SpecError(
            f"field_map writes {FIELD!r}, which is where skip_unchanged keeps the digest of a document. Give the field "
            "another name, or leave skip_unchanged out."
        )


class ChangedSender:
    """
    Hands on those documents of a body that the index does not have as they are. Thread-safe.

    The versions are read by id, which sees what no search sees yet. The digests are read by a search, since it does not
    read the documents for it; one that is out of date has another version, and its document is written.

    :param sender: Writes what is left of a body.
    :param target: Where it writes.
    :raises SpecError: the index cannot have a field for digests, or the user has no right to look documents up.
    """

    def __init__(self, sender: BodyWriter, target: OpenSearchTarget, index: IndexInfo, options: WriteOptions) -> None:
        self._sender = sender
        self._target = target
        self._index = index
        self._options = options
        self._name = quote_index_name(index.name)
        self._prepare_index()
        self._key = _build_key(target, index)

    @property
    def frame(self) -> Frame:
        """What stands around each document in a body."""
        return self._sender.frame

    def send(self, body: Body, ends: Sequence[int], ids: Sequence[str]) -> BodyOutcome:
        """
        Write the documents of a body that changed.

        :return: As of the sender, with the documents that were not written in ``unchanged``.
        :raises ServiceError: as of the sender; also when documents cannot be looked up.
        """
        spans = list(pairwise((0, *ends)))
        digests = [blake2b(body[slice(*span)], digest_size=_DIGEST_BYTES, key=self._key).hexdigest() for span in spans]
        routings = [self._read_routing(body[slice(*span)]) for span in spans]
        versions = self._ask(partial(self._find_versions, ids, routings))
        known = [key for key, version in zip(ids, versions, strict=True) if version > _ABSENT]
        stamps: set[str] = set()
        for start in range(0, len(known), _SEARCHED):
            stamps |= self._ask(partial(self._find_stamps, known[start : start + _SEARCHED]))
        outcome = BodyOutcome()
        changed: list[int] = []
        for number, (digest, version) in enumerate(zip(digests, versions, strict=True)):
            (outcome.unchanged if _stamp(digest, version) in stamps else changed).append(number)
        if not changed:
            return outcome
        stamped = [
            self._add_stamp(body[slice(*spans[number])], _stamp(digests[number], versions[number] + 1))
            for number in changed
        ]
        written = self._sender.send(
            b"".join(chain.from_iterable(stamped)),
            list(accumulate(sum(map(len, pieces)) for pieces in stamped)),
            [ids[number] for number in changed],
        )
        outcome.rejected = {changed[number]: rejection for number, rejection in written.rejected.items()}
        outcome.dropped = [changed[number] for number in written.dropped]
        outcome.elsewhere = [changed[number] for number in written.elsewhere]
        return outcome

    def _add_stamp(self, framed: Body, stamp: str) -> tuple[Body, Body, Body]:
        """Return a document with its frame in pieces, the stamp as its last field."""
        end = len(framed) - len(self.frame.tail) - 1
        comma = b"" if framed[end - 1 : end] == b"{" else b","
        return framed[:end], b'%b"%b":"%b"' % (comma, FIELD.encode(), stamp.encode()), framed[end:]

    def _read_routing(self, framed: Body) -> str | None:
        if self._index.routing is not None:
            return self._index.routing
        if not self._options.has_routing:
            return None
        return next(iter(_decode_action(bytes(framed).partition(b"\n")[0]).values())).routing

    def _find_versions(self, ids: Sequence[str], routings: Sequence[str | None]) -> list[int]:
        """Return the version of each document that is there."""
        documents = [
            {"_id": key, **({"routing": routing} if routing is not None else {})}
            for key, routing in zip(ids, routings, strict=True)
        ]
        answer = self._target.post(
            f"{self._name}/_mget",
            {"docs": documents},
            retry=Retry.NEVER,
            _source="false",
            filter_path="docs._id,docs.found,docs._version,docs.error.type,docs.error.reason",
        )
        try:
            found = answer["docs"]
            if [document["_id"] for document in found] != [*ids]:
                raise UnavailableError("OpenSearch's answer to _mget is not for the documents that were asked for.")
            require_allowed(found)
            return [_read_version(document) for document in found]
        except (KeyError, TypeError) as error:
            raise UnavailableError(f"The answer to _mget is not OpenSearch's. {_CHECK}") from error

    def _find_stamps(self, ids: Sequence[str]) -> set[str]:
        """Return the digests, with their versions, of documents that a search sees."""
        answer = self._target.post(
            f"{self._name}/_search",
            {
                "query": {"ids": {"values": ids}},
                "size": len(ids),
                # Not even the _id is read: it lies beside the document, which would have to be unpacked for it. A
                # digest tells whose it is.
                "stored_fields": "_none_",
                "docvalue_fields": [FIELD],
                "track_total_hits": False,
            },
            retry=Retry.NEVER,
            allow_partial_search_results="false",
            filter_path=f"timed_out,hits.hits.fields.{FIELD}",
        )
        try:
            hits = answer.get("hits", {}).get("hits", ()) if answer["timed_out"] is False else ()
            return {stamp for hit in hits for stamp in hit.get("fields", {}).get(FIELD, ())}
        except (AttributeError, KeyError, TypeError) as error:
            raise UnavailableError(f"The answer to _search is not OpenSearch's. {_CHECK}") from error

    def _ask(self, ask: Callable[[], T]) -> T:
        """Ask again, as long as a body is sent again, while OpenSearch is busy or away."""
        backoff = Backoff(self._options.patience, self._options.stop)
        while True:
            try:
                return ask()
            except TransientError as error:
                self._options.throttle.push_back()
                backoff.wait(error)

    def _prepare_index(self) -> None:
        """Have the field in the mapping, which may be strict, and everything in sight that was written before."""
        name = self._index.name
        if self._index.is_data_stream:
            raise SpecError(
                f"{self._index.requested!r} is a data stream, which takes each document once and for all: leave "
                "skip_unchanged out. Nothing was written."
            )
        try:
            # Of a field that is there this changes nothing, or is refused where it is another one.
            self._target.put(f"{self._name}/_mapping", {"properties": {FIELD: MAPPING}})
        except TransientError:
            raise
        except ServiceError as error:
            is_there = self._index.fields.get(FIELD) == MAPPING["type"]
            if not (is_there and isinstance(error, NOT_ALLOWED)):
                raise SpecError(
                    f"skip_unchanged keeps a digest of each document in the field {FIELD!r}, which {name!r} cannot "
                    f"have: {error} Nothing was written. Give the index this field, as "
                    f"{msgspec.json.encode(MAPPING).decode()}, before its first document, or leave skip_unchanged out."
                ) from error
        try:
            self._ask(partial(self._find_versions, [_NOBODY], [self._index.routing]))
            self._ask(partial(self._find_stamps, [_NOBODY]))
        except TransientError:
            raise
        except ServiceError as error:
            raise SpecError(
                f"skip_unchanged looks up what {name!r} has, which is refused: {error} Nothing was written. Give the "
                "OpenSearch user the rights indices:data/read/mget* and indices:data/read/search, or leave "
                "skip_unchanged out."
            ) from error
        note = try_refresh(self._target, name)
        if note is not None:
            log.warning("%s What no search sees yet is written again.", note)


def _stamp(digest: str, version: int) -> str:
    return f"{digest}:{version}"


def _read_version(document: dict[str, Any]) -> int:
    """Return the version of a document; one without an answer gets a stamp that no version ever fits."""
    if document.get("found") is False:
        return _ABSENT
    version = document.get("_version")
    return version if isinstance(version, int) and document.get("found") is True else _UNKNOWN


def _build_key(target: OpenSearchTarget, index: IndexInfo) -> bytes:
    """Return what all digests of an index depend on: another index or another pipeline makes other documents."""
    material = {
        "format": _FORMAT,
        "index": index.uuid,
        "routing": index.routing,
        "pipelines": [(name, _read_pipeline(target, name)) for name in index.pipelines],
    }
    return blake2b(_encode_sorted(material), digest_size=32).digest()


def _read_pipeline(target: OpenSearchTarget, name: str) -> Any:
    try:
        return target.get(f"_ingest/pipeline/{quote(name, safe='')}")
    except NOT_ALLOWED as error:
        log.warning(
            "The ingest pipeline %s cannot be read, so a change of it goes unnoticed, and documents that are unchanged "
            "do not pass through it again: %s",
            name,
            error,
        )
        return None
