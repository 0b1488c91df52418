"""Entries by digest, in files that are sorted by it: a look-up reads the row groups that its digests fall into."""

from __future__ import annotations

import logging
from array import array
from collections.abc import Iterator, Mapping, Sequence
from itertools import groupby, pairwise
from operator import attrgetter
from typing import Final

import pyarrow as arrow
from pyarrow import compute, parquet

from overnight.cache.digest_columns import DigestColumns, KeptDigests, Match, RowGroup, build_column
from overnight.cache.digests import DIGEST_BYTES
from overnight.cache.files import DIGEST, DamagedCacheError, Files, make_name, open_writer
from overnight.cache.places import read_digests
from overnight.storage import Storage
from overnight.storage_errors import MissingFileError

log = logging.getLogger(__name__)

ROW_GROUP: Final = 1 << 16
"""Rows that are read at once."""
MERGE_FILES: Final = 32
"""With more small files than this in a folder, they are merged."""
DROPPED_SHARE: Final = 4
"""A file is written anew when one of so many of its rows, or more, may go."""
MERGED_ROWS: Final = 1 << 19
"""Rows of a merged file; merging them takes some 100 MB."""
KEPT_ROWS: Final = 1 << 20
"""Rows of small files whose digests stay in memory between look-ups: 24 MiB."""
_AT: Final = arrow.field("at", arrow.uint64())
"""Of a row that was found: the place of its digest among those that are looked up."""
_FENCES: Final = b"fences"
"""In a file's metadata: the first digest of each row group, in hex."""


class SortedIndex:
    """
    An append-only map from digests to rows, as sorted files in one folder.

    Of several rows of a digest the one that was created last counts.

    :param uri: The folder.
    :param columns: What a row has beside ``digest`` and ``created`` (milliseconds since 1970).
    """

    def __init__(self, storage: Storage, uri: str, columns: Mapping[str, arrow.DataType]) -> None:
        self._columns = list(columns)
        self.schema = arrow.schema({"digest": DIGEST, **columns, "created": arrow.int64()})
        self.files = Files(storage, uri, self.schema)
        self._kept = KeptDigests()

    def add(self, digests: arrow.FixedSizeBinaryArray, columns: Mapping[str, arrow.Array], created: int) -> str:
        """
        Write a file with new rows; they are found by every look-up that begins after this returns.

        :param created: Milliseconds since 1970.
        :return: The file's name.
        """
        created_at = arrow.repeat(arrow.scalar(created, arrow.int64()), len(digests))
        table = arrow.table({"digest": digests, **columns, "created": created_at}, schema=self.schema)
        name = make_name()
        self.files.put(name, serialize(table.sort_by("digest")))
        return name

    def look_up(self, digests: bytes | bytearray) -> arrow.Table:
        """
        Return a row for each of some digests, in their order: the columns, all null where a digest is not there.

        Memory is bounded by the digests asked for, :data:`ROW_GROUP` and :data:`KEPT_ROWS`.

        :param digests: One behind the other; one may be there several times.
        :raises DamagedCacheError: a file is not what was written.
        """
        wanted, order = DigestColumns.of(digests).arrange()
        found = arrow.schema([_AT, *self.schema]).empty_table()
        if wanted.count:
            pieces: list[arrow.Table] = []
            for at, table in self._search(wanted):
                pieces.append(table.add_column(0, _AT, order.take(at)))
                if sum(map(len, pieces)) > max(2 * wanted.count, ROW_GROUP):
                    pieces = [_keep_last(pieces, _AT.name)]
            if pieces:
                found = _order(pieces)
        places = build_column(array("Q", range(wanted.count)))
        # Of several rows of a digest that is the first one, which was created last.
        rows = compute.index_in(places, value_set=found.column(_AT.name).combine_chunks())
        return found.select(self._columns).take(rows)

    def merge(self) -> int:
        """
        Merge small files into one, when there are many: each costs a look-up some calls.

        The merged file is there before the others go, and their rows are in both for that time. A reader that finds one
        gone lists the folder again. Somebody else who merges at the same time writes some rows once more.

        :return: How many files were merged.
        :raises DamagedCacheError: a file is not what was written.
        """
        names = self.files.list_names()
        if len(names) <= MERGE_FILES:
            return 0
        merged: list[str] = []
        tables: list[arrow.Table] = []
        for name in names:
            try:
                with self.files.open(name) as file:
                    _read_fences(file, self.files.build_uri(name))
                    count = file.metadata.num_rows
                    if count < ROW_GROUP and count + sum(map(len, tables)) <= MERGED_ROWS:
                        tables.append(file.read())
                        merged.append(name)
            except MissingFileError:
                log.debug("%s is gone: somebody else is merging", name)
                return 0
        if len(merged) <= MERGE_FILES // 2:
            return 0
        rows = _keep_last([table.replace_schema_metadata(None) for table in tables], "digest")
        self.files.put(make_name(), serialize(rows.sort_by("digest")))
        for name in merged:
            self.files.delete(name)
        return len(merged)

    def drop(self, before: int) -> int:
        """
        Drop rows that were created before a time, where they are a good part of their file (:data:`DROPPED_SHARE`).

        What is left of a file is there before the file goes, as with :meth:`merge`, and readers and writers may go on
        meanwhile. Memory is bounded by one file.

        :param before: Milliseconds since 1970.
        :return: How many rows were dropped.
        :raises DamagedCacheError: a file is not what was written.
        """
        dropped = 0
        for name in self.files.list_names():
            try:
                dropped += self._drop(name, before)
            except MissingFileError:
                log.debug("%s is gone: it was merged, or somebody else is dropping rows", name)
        return dropped

    def _drop(self, name: str, before: int) -> int:
        with self.files.open(name) as file:
            _read_fences(file, self.files.build_uri(name))
            count = file.metadata.num_rows
            limit = arrow.scalar(before, arrow.int64())
            old = sum(
                compute.sum(compute.less(file.read_row_group(number, ["created"]).column(0), limit)).as_py() or 0
                for number in range(file.metadata.num_row_groups)
            )
            if not old or old * DROPPED_SHARE < count:
                return 0
            groups = (file.read_row_group(number) for number in range(file.metadata.num_row_groups))
            left = [group.filter(compute.greater_equal(group.column("created"), limit)) for group in groups]
        rows = arrow.concat_tables(left).replace_schema_metadata(None)
        if len(rows):
            self.files.put(make_name(), serialize(rows))
        self.files.delete(name)
        return int(old)

    def _search(self, wanted: DigestColumns) -> Iterator[tuple[arrow.UInt64Array, arrow.Table]]:
        """Yield rows of all files whose digests are wanted, with the places of these; some rows may come twice."""
        searched: set[str] = set()
        is_complete = False
        while not is_complete:
            names = self.files.list_names()
            if not self._kept.names <= set(names):
                self._kept = KeptDigests()
            names = [name for name in names if name not in searched]
            gone: set[str] = set()
            for name, matches in groupby(self._match(names, wanted, gone), key=attrgetter("group.name")):
                try:
                    with self.files.open(name) as file:
                        for match in matches:
                            group = file.read_row_group(match.group.number, [*self._columns, "created"])
                            yield match.places, group.take(match.rows)
                except MissingFileError:
                    gone.add(name)
            if gone:
                # They were merged into others since they were listed.
                log.debug("%s are gone; the files are listed again", gone)
            searched.update(set(names) - gone)
            is_complete = not gone

    def _match(self, names: Sequence[str], wanted: DigestColumns, gone: set[str]) -> Iterator[Match]:
        """
        Yield the row groups of files in which any of some digests is.

        :param gone: Gets the names of files that are not there any more.
        """
        large: list[str] = []
        for name in names:
            if name not in self._kept.names:
                try:
                    if not self._keep(name):
                        large.append(name)
                except MissingFileError:
                    gone.add(name)
        yield from self._kept.find(wanted)
        for name in large:
            try:
                yield from self._match_large(name, wanted)
            except MissingFileError:
                gone.add(name)

    def _keep(self, name: str) -> bool:
        """Read the digests of a file and keep them, if there is room."""
        with self.files.open(name) as file:
            fences = _read_fences(file, self.files.build_uri(name))
            if self._kept.count + file.metadata.num_rows > KEPT_ROWS:
                return False
            self._kept.add(name, [_read_digests(file, number) for number in range(len(fences))])
        return True

    def _match_large(self, name: str, wanted: DigestColumns) -> Iterator[Match]:
        """Yield the same of one file, of which only those row groups are read that any digest falls into."""
        with self.files.open(name) as file:
            fences = _read_fences(file, self.files.build_uri(name))
            firsts = [int.from_bytes(fence[: DIGEST_BYTES // 2], "big") for fence in fences]
            for number, (first, last) in enumerate(pairwise([*firsts, (1 << 64) - 1])):
                between = wanted.find_between(first, last)
                if between:
                    places, rows = _read_digests(file, number).find(wanted.slice(between))
                    yield Match(RowGroup(name, number), compute.add(places, between.start), rows)


def _read_digests(file: parquet.ParquetFile, number: int) -> DigestColumns:
    return DigestColumns.of(read_digests(file.read_row_group(number, ["digest"]).column(0).combine_chunks()))


def _order(pieces: Sequence[arrow.Table]) -> arrow.Table:
    """Return all rows, those that were created last first; of the same time, those of the last piece."""
    rows = arrow.concat_tables(reversed(pieces)).combine_chunks()
    created = rows.column("created")
    if compute.all(compute.less_equal(created.slice(1), created.slice(0, max(len(rows) - 1, 0)))).as_py() is False:
        # A stable sort.
        rows = rows.sort_by([("created", "descending")])
    return rows


def _keep_last(pieces: Sequence[arrow.Table], name: str) -> arrow.Table:
    """Return, for each value of a column, the row that was created last."""
    rows = _order(pieces)
    values = rows.column(name).combine_chunks()
    first = compute.equal(compute.index_in(values, value_set=values), arrow.array(range(len(rows)), arrow.int32()))
    return rows.filter(first)


def serialize(table: arrow.Table) -> arrow.Buffer:
    """
    Return the file of a table.

    :param table: Sorted by ``digest``.
    """
    digests = table.column("digest")
    fences = "".join(digests[row].as_py().hex() for row in range(0, len(table), ROW_GROUP))
    sink = arrow.BufferOutputStream()
    with open_writer(sink, table.schema.with_metadata({_FENCES: fences.encode()})) as writer:
        writer.write_table(table, row_group_size=ROW_GROUP)
    return sink.getvalue()


def _read_fences(file: parquet.ParquetFile, uri: str) -> list[bytes]:
    text = (file.schema_arrow.metadata or {}).get(_FENCES, b"").decode()
    size = 2 * DIGEST_BYTES
    fences = [bytes.fromhex(text[start : start + size]) for start in range(0, len(text), size)]
    if len(fences) != file.metadata.num_row_groups:
        raise DamagedCacheError(f"{uri} is no file of this cache. Move it away.")
    return fences
