"""Entries by digest, in files that are sorted by it: a look-up reads the row groups that its digests fall into."""

from __future__ import annotations

import logging
from bisect import bisect_left
from collections.abc import Collection, Iterator, Mapping, Sequence
from typing import Any, Final

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
MERGED_ROWS: Final = 1 << 19
"""Rows of a merged file; merging them takes some 100 MB."""
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
        self.files = Files(storage, uri)
        self._columns = list(columns)
        self.schema = arrow.schema({"digest": DIGEST, **columns, "created": arrow.int64()})

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

        Memory is bounded by the digests asked for and two row groups.

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

    def _search_all(self, wanted: arrow.FixedSizeBinaryArray) -> Iterator[arrow.Table]:
        searched: set[str] = set()
        is_complete = False
        while not is_complete:
            is_complete = True
            for name in self.files.list_names():
                if name in searched:
                    continue
                try:
                    with self.files.open(name) as file:
                        yield from _search(file, wanted, self.files.build_uri(name))
                except MissingFileError:
                    # It was merged into another one since it was listed.
                    log.debug("%s is gone; the files are listed again", name)
                    is_complete = False
                    continue
                searched.add(name)


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


def _search(file: parquet.ParquetFile, wanted: arrow.FixedSizeBinaryArray, uri: str) -> Iterator[arrow.Table]:
    """Yield the rows of a file whose digests are wanted, row group by row group."""
    fences = _read_fences(file, uri)
    raw = wanted.buffers()[1]
    ends = [bisect_left(range(len(wanted)), fence, key=lambda at: _get_digest(raw, at)) for fence in fences]
    for group, (start, end) in enumerate(zip(ends, [*ends[1:], len(wanted)], strict=True)):
        if start == end:
            continue
        keys = file.read_row_group(group, ["digest"]).column(0).combine_chunks()
        asked = wanted.slice(start, end - start)
        if len(asked) < len(keys):
            rows = compute.indices_nonzero(compute.is_in(keys, value_set=asked))
        else:
            rows = compute.index_in(asked, value_set=keys).drop_null()
        if len(rows):
            yield file.read_row_group(group).take(rows)


def _get_digest(raw: arrow.Buffer, at: int) -> bytes:
    return bytes(raw.slice(at * DIGEST_BYTES, DIGEST_BYTES))


def _read_fences(file: parquet.ParquetFile, uri: str) -> list[bytes]:
    text = (file.schema_arrow.metadata or {}).get(_FENCES, b"").decode()
    size = 2 * DIGEST_BYTES
    fences = [bytes.fromhex(text[start : start + size]) for start in range(0, len(text), size)]
    if len(fences) != file.metadata.num_row_groups:
        raise DamagedCacheError(f"{uri} is no file of this cache. Move it away.")
    return fences
