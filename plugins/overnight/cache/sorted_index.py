"""Entries by digest, in files that are sorted by it: a look-up reads the row groups that its digests fall into."""

from __future__ import annotations

import logging
from bisect import bisect_left
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from itertools import groupby
from typing import Any, Final, NamedTuple

import pyarrow as arrow
from pyarrow import compute, parquet

from overnight.cache.digests import DIGEST_BYTES
from overnight.cache.files import DIGEST, DamagedCacheError, Files, make_name, open_writer
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
BATCH_ROWS: Final = 1 << 20
"""Rows whose digests are searched together."""
KEPT_ROWS: Final = 1 << 20
"""Rows of small files whose digests stay in memory between look-ups: 16 MiB."""
RANGE_DIGESTS: Final = 1 << 12
"""Digests that are looked for together."""
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
        self._kept: dict[str, list[_Group]] = {}

    def add(self, digests: Sequence[bytes], columns: Mapping[str, Sequence[Any]], created: int) -> str:
        """
        Write a file with new rows; they are found by every look-up that begins after this returns.

        :param digests: Each once.
        :param created: Milliseconds since 1970.
        :return: The file's name.
        """
        values = {"digest": digests, **columns, "created": [created] * len(digests)}
        table = arrow.table(
            {name: arrow.array(values[name], self.schema.field(name).type) for name in self.schema.names}
        )
        name = make_name()
        self.files.put(name, serialize(table.sort_by("digest")))
        return name

    def find(self, digests: Collection[bytes]) -> dict[bytes, tuple[Any, ...]]:
        """
        Return the rows of those digests that are there, as tuples of the columns.

        :param digests: Each once.
        :raises DamagedCacheError: a file is not what was written.
        """
        asked = list(digests)
        rows = self.look_up(arrow.array(asked, DIGEST))
        there = rows.column(0).is_valid().to_pylist()
        values = zip(*(column.to_pylist() for column in rows.columns), strict=True)
        return {digest: row for digest, row, is_there in zip(asked, values, there, strict=True) if is_there}

    def look_up(self, digests: arrow.FixedSizeBinaryArray) -> arrow.Table:
        """
        Return a row for each of some digests, in their order: the columns, all null where a digest is not there.

        Memory is bounded by the digests asked for, :data:`BATCH_ROWS` and :data:`KEPT_ROWS`.

        :param digests: One may be there several times.
        :raises DamagedCacheError: a file is not what was written.
        """
        found = self.schema.empty_table()
        if len(digests):
            pieces: list[arrow.Table] = []
            for table in self._search_all(digests.take(compute.sort_indices(digests))):
                pieces.append(table)
                if sum(map(len, pieces)) > max(2 * len(digests), ROW_GROUP):
                    pieces = [_keep_last(pieces)]
            if pieces:
                found = _order(pieces)
        rows = compute.index_in(digests, value_set=found.column("digest").combine_chunks())
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
        rows = _keep_last([table.replace_schema_metadata(None) for table in tables])
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

    def _search_all(self, wanted: arrow.FixedSizeBinaryArray) -> Iterator[arrow.Table]:
        """Yield the rows of all files whose digests are wanted, those of a later file after those of an earlier one."""
        searched: set[str] = set()
        is_complete = False
        while not is_complete:
            listed = self.files.list_names()
            self._kept = {name: self._kept[name] for name in listed if name in self._kept}
            names = [name for name in listed if name not in searched]
            gone: set[str] = set()
            for groups in self._read_batches(names, wanted, gone):
                yield from self._read_matches(_match(groups, wanted), gone)
            if gone:
                # They were merged into others since they were listed.
                log.debug("%s are gone; the files are listed again", gone)
            searched.update(set(names) - gone)
            is_complete = not gone

    def _read_batches(
        self, names: Sequence[str], wanted: arrow.FixedSizeBinaryArray, gone: set[str]
    ) -> Iterator[list[_Group]]:
        """
        Yield the digests of files, as many as are searched together.

        :param gone: Gets the names of files that are not there any more.
        """
        batch: list[_Group] = []
        for name in names:
            try:
                for group in self._read_groups(name, wanted):
                    batch.append(group)
                    if sum(len(one.digests) for one in batch) >= BATCH_ROWS:
                        yield batch
                        batch = []
            except MissingFileError:
                gone.add(name)
        if batch:
            yield batch

    def _read_groups(self, name: str, wanted: arrow.FixedSizeBinaryArray) -> Iterator[_Group]:
        """Yield the digests of a file by its row groups; of a large one those that any digest falls into."""
        if name in self._kept:
            yield from self._kept[name]
            return
        with self.files.open(name) as file:
            room = KEPT_ROWS - sum(len(group.digests) for groups in self._kept.values() for group in groups)
            fences = _read_fences(file, self.files.build_uri(name))
            if file.metadata.num_rows <= room:
                self._kept[name] = [_read_group(file, name, number) for number in range(len(fences))]
                yield from self._kept[name]
                return
            ends = [*(_find(wanted, fence) for fence in fences[1:]), len(wanted)]
            start = _find(wanted, fences[0]) if fences else 0
            for number, end in enumerate(ends[: len(fences)]):
                if start < end:
                    yield _read_group(file, name, number)
                start = end

    def _read_matches(self, matches: Iterable[tuple[_Group, arrow.Array]], gone: set[str]) -> Iterator[arrow.Table]:
        """Yield rows of row groups, given which."""
        for name, groups in groupby(matches, key=lambda match: match[0].name):
            try:
                with self.files.open(name) as file:
                    for group, rows in groups:
                        table = file.read_row_group(group.number, [*self._columns, "created"]).take(rows)
                        yield table.add_column(0, self.schema.field("digest"), group.digests.take(rows))
            except MissingFileError:
                gone.add(name)


class _Group(NamedTuple):
    """The digests of one row group of a file, which are sorted."""

    name: str
    number: int
    digests: arrow.FixedSizeBinaryArray


def _read_group(file: parquet.ParquetFile, name: str, number: int) -> _Group:
    return _Group(name, number, file.read_row_group(number, ["digest"]).column(0).combine_chunks())


def _match(groups: Sequence[_Group], wanted: arrow.FixedSizeBinaryArray) -> Iterator[tuple[_Group, arrow.Array]]:
    """
    Yield row groups with the rows in them whose digests are wanted, if there are any.

    :param wanted: Sorted. What is wanted is taken range by range, all groups at once: a small table of what is looked
        for stays in the processor's cache, and is built once.
    """
    starts = range(0, len(wanted), RANGE_DIGESTS)
    fences = [wanted[start].as_py() for start in starts[1:]]
    cuts = [[0, *(_find(group.digests, fence) for fence in fences), len(group.digests)] for group in groups]
    found: list[list[arrow.Array]] = [[] for _ in groups]
    for number, start in enumerate(starts):
        slices = [
            group.digests.slice(cut[number], cut[number + 1] - cut[number])
            for group, cut in zip(groups, cuts, strict=True)
        ]
        is_there = compute.is_in(arrow.chunked_array(slices, DIGEST), value_set=wanted.slice(start, RANGE_DIGESTS))
        first = 0
        for at, piece in enumerate(slices):
            rows = compute.indices_nonzero(is_there.slice(first, len(piece)))
            first += len(piece)
            if len(rows):
                found[at].append(compute.add(rows, arrow.scalar(cuts[at][number], arrow.uint64())))
    for group, pieces in zip(groups, found, strict=True):
        if pieces:
            yield group, arrow.concat_arrays(pieces)


def _order(pieces: Sequence[arrow.Table]) -> arrow.Table:
    """Return all rows, those that were created last first; of the same time, those of the last piece."""
    rows = arrow.concat_tables(reversed(pieces)).combine_chunks()
    created = rows.column("created")
    if compute.all(compute.less_equal(created.slice(1), created.slice(0, max(len(rows) - 1, 0)))).as_py() is False:
        # A stable sort.
        rows = rows.sort_by([("created", "descending")])
    return rows


def _keep_last(pieces: Sequence[arrow.Table]) -> arrow.Table:
    """Return the row of each digest that was created last."""
    rows = _order(pieces)
    digests = rows.column("digest").combine_chunks()
    first = compute.equal(compute.index_in(digests, value_set=digests), arrow.array(range(len(rows)), arrow.int32()))
    return rows.filter(first)


def serialize(table: arrow.Table) -> arrow.Buffer:
    """
    Return the file of a table.

    :param table: Sorted by ``digest``, each of which is there once.
    """
    digests = table.column("digest")
    fences = "".join(digests[row].as_py().hex() for row in range(0, len(table), ROW_GROUP))
    sink = arrow.BufferOutputStream()
    with open_writer(sink, table.schema.with_metadata({_FENCES: fences.encode()})) as writer:
        writer.write_table(table, row_group_size=ROW_GROUP)
    return sink.getvalue()


def _find(digests: arrow.FixedSizeBinaryArray, digest: bytes) -> int:
    """Return where a digest is among sorted ones, or would be."""
    raw, first = memoryview(digests.buffers()[1]), digests.offset

    def get(at: int) -> bytes:
        return bytes(raw[(first + at) * DIGEST_BYTES : (first + at + 1) * DIGEST_BYTES])

    return bisect_left(range(len(digests)), digest, key=get)


def _read_fences(file: parquet.ParquetFile, uri: str) -> list[bytes]:
    text = (file.schema_arrow.metadata or {}).get(_FENCES, b"").decode()
    size = 2 * DIGEST_BYTES
    fences = [bytes.fromhex(text[start : start + size]) for start in range(0, len(text), size)]
    if len(fences) != file.metadata.num_row_groups:
        raise DamagedCacheError(f"{uri} is no file of this cache. Move it away.")
    return fences
