"""
Delete from an index what its source no longer has.

The ids of the index and those of the source are put into a temporary database, sorted there, and compared side by side:
any number of documents takes the same memory. A document is deleted by the very write that was seen, so one that
somebody writes meanwhile stays, and one that was written after the run began (:class:`Baseline`) is not even tried.
"""

from __future__ import annotations

import heapq
import logging
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from itertools import groupby
from operator import itemgetter
from typing import Any, Final

import msgspec

from overnight.errors import SpecError
from overnight.ingest.map.rows import RowReader
from overnight.ingest.map.temporary_database import TemporaryDatabase
from overnight.ingest.read.sources import Source, SourceReader
from overnight.ingest.report.mirror_report import DeletesRefusedError, MirrorReport
from overnight.ingest.write.opensearch_sink import OpenSearchSink
from overnight.ingest.write.sink import IndexInfo, Sink
from overnight.ingest.write.stored import Baseline, StoredDocument, delete_documents, read_baseline, scan
from overnight.ingest.write.target import OpenSearchTarget
from overnight.jobs.allowance import Allowance
from overnight.storage import Storage

log = logging.getLogger(__name__)

SAMPLE: Final = 20
_encode = msgspec.json.Encoder().encode


@dataclass(frozen=True)
class MirrorOptions:
    """
    How an index is made to mirror its source.

    :param max_deletes: How many documents may be deleted, of those that the index has in the scope.
    :param scope: A query for the documents that are this source's, where an index has those of others, too.
    :param deletes_uri: A JSON Lines file with each document that the source does not have; it is written before
        anything is deleted.
    :param dry_run: Delete nothing.
    :param baseline: What the index had when the run began: what was written later is left.
    :param keeps: Whether a document that the source does not have is left all the same, by its id.
    :param unreadable: What the source has beside its lines, and whose ids nobody knows.
    :param spool_dir: Folder of the temporary database.
    """

    max_deletes: Allowance
    scope: Mapping[str, Any] | None = None
    deletes_uri: str | None = None
    dry_run: bool = False
    baseline: Baseline | None = None
    keeps: Callable[[str], bool] = lambda _id: False
    unreadable: int = 0
    spool_dir: str | None = None


def read_sync_baseline(sink: Sink, index: IndexInfo) -> Baseline:
    """
    Note what an index has before a run that ends with deletes.

    :raises SpecError: its documents cannot be deleted by their ids, or cannot be counted.
    """
    return read_baseline(_get_target(sink, index), index)


def _get_target(sink: Sink, index: IndexInfo) -> OpenSearchTarget:
    if not isinstance(sink, OpenSearchSink):
        raise SpecError("sync deletes from an OpenSearch index, and from no other sink. Leave it out.")
    if index.is_data_stream:
        raise SpecError(
            f"{index.requested!r} is a data stream, whose documents cannot be deleted by their ids: leave sync out, "
            "and let an index policy delete old backing indices. Nothing was written or deleted."
        )
    return sink.target


def mirror(
    index: IndexInfo,
    sources: Iterable[tuple[Source, RowReader]],
    *,
    sink: Sink,
    reader: SourceReader,
    options: MirrorOptions,
) -> MirrorReport:
    """
    Delete the documents of an index that none of the sources has.

    :param sources: With what reads the ids of their lines. A line that a load rejects has its id all the same.
    :return: What was found and deleted.
    :raises DeletesRefusedError: more is to be deleted than ``max_deletes``, or a line has no readable id and any
        document could be its. Nothing was deleted.
    :raises ServiceError: OpenSearch refuses, or stays away; some may have been deleted.
    """
    target = _get_target(sink, index)
    with _Comparison(options.spool_dir) as comparison:
        for source, rows in sources:
            comparison.add_source(_read_ids(source, rows, reader))
        note = sink.refresh(index)  # a scan sees what a search does
        if note is not None:
            log.warning("%s They are not compared.", note)
        comparison.add_index(scan(target, index, options.scope))
        found = comparison.compare(index, options)
        if found.extra and options.deletes_uri is not None:
            _write_list(options.deletes_uri, comparison.read_extra(), reader.storage)
            found = found.model_copy(update={"uri": options.deletes_uri})
        elif options.deletes_uri is not None:
            reader.storage.delete(options.deletes_uri)  # of an earlier try
        refusal = _refuse(found, options)
        if refusal is not None:
            found = found.model_copy(update={"refusal": refusal})
        if options.dry_run or not found.extra:
            return found
        if refusal is not None:
            raise DeletesRefusedError(refusal, found)
        outcome = delete_documents(target, index, comparison.read_extra())
    sink.refresh(index)
    return found.model_copy(update={"deleted": outcome.deleted, "changed": outcome.changed})


def _refuse(found: MirrorReport, options: MirrorOptions) -> str | None:
    """Say why the documents that the source does not have must not be deleted; ``None`` when they may be."""
    if not found.extra:
        return None
    named = f" Every one is named in {found.uri}." if found.uri is not None else ""
    which = f"{', '.join(map(repr, found.sample))}{' …' if found.extra > len(found.sample) else ''}.{named}"
    if found.unreadable:
        return (
            f"{found.extra:,} documents of {found.index!r} are not in the source, and {found.unreadable:,} of its "
            "lines have no id that can be read: these documents may be theirs. Nothing was deleted. Correct the lines "
            f"(the dead letters name them), or leave sync out. The documents are {which}"
        )
    if options.max_deletes.allows(found.extra, found.in_index):
        return None
    empty = " The source has no document at all." if not found.in_source else ""
    return (
        f"{found.extra:,} of the {found.in_index:,} documents of {found.index!r} are not in the source, more than "
        f"max_deletes={options.max_deletes} lets be deleted. Nothing was deleted.{empty} If that is right, raise "
        f"max_deletes for one run. The documents are {which}"
    )


def _read_ids(source: Source, rows: RowReader, reader: SourceReader) -> Iterator[bytes | None]:
    """Yield the id of each line of a source; ``None`` for a line whose id cannot be read."""
    for file in source.files:
        for line in reader.lines(file):
            row = rows.read(line)
            if not row.is_blank:
                yield row.key


def _write_list(uri: str, documents: Iterator[StoredDocument], storage: Storage) -> None:
    with storage.open(uri, "wb") as file:
        for document in documents:
            routing = {"routing": document.routing} if document.routing is not None else {}
            file.write(_encode({"id": document.id, **routing}) + b"\n")


class _Comparison(TemporaryDatabase):
    """A temporary database of the ids of both sides."""

    def __init__(self, folder: str | None) -> None:
        super().__init__(folder)
        # Tables are filled in the order of arrival and sorted once: one that is sorted while it is filled is
        # read and written all over.
        self.execute("CREATE TABLE source (id BLOB)")
        for name in ("stored", "extra"):
            self.execute(f"CREATE TABLE {name} (id BLOB, routing TEXT, shard INT, sequence INT, term INT)")
        self._unreadable = 0

    def add_source(self, ids: Iterator[bytes | None]) -> None:
        """Note the ids of a source."""
        self.execute_all("INSERT INTO source VALUES (?)", self._count_unreadable(ids))

    def _count_unreadable(self, ids: Iterator[bytes | None]) -> Iterator[tuple[bytes]]:
        for key in ids:
            if key is None:
                self._unreadable += 1
            else:
                yield (key,)

    def add_index(self, documents: Iterator[StoredDocument]) -> None:
        """Note the documents of the index; one that comes again counts as it was last."""
        rows = ((document.id.encode(), *document[1:]) for document in documents)
        self.execute_all("INSERT INTO stored VALUES (?, ?, ?, ?, ?)", rows)

    def compare(self, index: IndexInfo, options: MirrorOptions) -> MirrorReport:
        """Note which documents of the index the source does not have, and count."""
        counts: Counter[str] = Counter()
        sample: list[str] = []
        for is_in_source, documents in self._merge():
            counts["in_source"] += is_in_source
            counts["not_indexed"] += is_in_source and not documents
            counts["in_index"] += len(documents)
            for document in documents if not is_in_source else ():
                if options.baseline is not None and options.baseline.is_newer(index, document):
                    counts["newer"] += 1
                elif options.keeps(document.id):
                    counts["kept"] += 1
                else:
                    counts["extra"] += 1
                    sample += [document.id] if len(sample) < SAMPLE else []
                    row = (document.id.encode(), *document[1:])
                    self.execute("INSERT INTO extra VALUES (?, ?, ?, ?, ?)", row)
        return MirrorReport(
            index=index.name,
            in_source=counts["in_source"],
            in_index=counts["in_index"],
            not_indexed=counts["not_indexed"],
            extra=counts["extra"],
            newer=counts["newer"],
            kept=counts["kept"],
            unreadable=self._unreadable + options.unreadable,
            max_deletes=str(options.max_deletes),
            sample=tuple(sample),
        )

    def read_extra(self) -> Iterator[StoredDocument]:
        """Yield the documents that the source does not have, in the order of their ids."""
        yield from map(_to_document, self.execute("SELECT * FROM extra ORDER BY rowid"))

    def _merge(self) -> Iterator[tuple[bool, list[StoredDocument]]]:
        """Yield for each id whether the source has it, and the documents that have it: one for each routing at most."""
        source = self.execute("SELECT id, NULL, NULL, NULL, NULL FROM source ORDER BY id")
        # SQLite takes the other columns from the row with the maximum.
        stored = self.execute(
            "SELECT id, routing, shard, MAX(sequence), term FROM stored GROUP BY id, shard ORDER BY id"
        )
        for _, group in groupby(heapq.merge(source, stored, key=itemgetter(0)), key=itemgetter(0)):
            is_in_source, documents = False, []
            for row in group:
                if row[2] is None:
                    is_in_source = True
                else:
                    documents.append(_to_document(row))
            yield is_in_source, documents


def _to_document(row: tuple[Any, ...]) -> StoredDocument:
    return StoredDocument(row[0].decode(), *row[1:])
