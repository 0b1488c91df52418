"""The cache: answers in the order in which they came, and two indexes that lead to them."""

from __future__ import annotations

import time
from collections.abc import Callable, Collection, Iterable, Iterator, Sequence
from itertools import groupby
from operator import attrgetter
from types import TracebackType
from typing import Final, NamedTuple, Self

import pyarrow as arrow
from pyarrow import compute, parquet

from overnight.cache.digests import DIGEST_BYTES, take_digests
from overnight.cache.files import DIGEST, FORMAT, SUFFIX, DamagedCacheError, Files, make_name, open_writer
from overnight.cache.places import Place, Places, build_digests, read_digests
from overnight.cache.sorted_index import SortedIndex
from overnight.storage import Storage
from overnight.storage_errors import MissingFileError

FILE_BYTES: Final = 32 << 20
"""Bytes of the answers in one file, before they are compressed; about what a writer has in memory."""
GROUP_BYTES: Final = 1 << 20
"""Bytes of the answers in one row group: what is read for one answer."""

_ANSWERS: Final = arrow.schema({"key": DIGEST, "answer": arrow.large_binary()})


class RenderedLines(NamedTuple):
    """
    What several lines were rendered to.

    :param ids: Digests of the documents' ids, one behind the other; zeros for a line that is not known.
    :param keys: Of their answers, in the same way.
    :param unknown: The places of the lines that are not known.
    """

    ids: bytearray
    keys: bytearray
    unknown: list[int]

    def set(self, places: Sequence[int], ids: bytes, keys: bytes) -> None:
        """
        Set what some lines are rendered to.

        :param places: Rising, each once.
        :param ids: Of these lines only.
        :param keys: The same.
        """
        for column, values in ((self.ids, ids), (self.keys, keys)):
            if len(values) == len(column):
                column[:] = values
                continue
            for number, at in enumerate(places):
                start = number * DIGEST_BYTES
                column[at * DIGEST_BYTES : (at + 1) * DIGEST_BYTES] = values[start : start + DIGEST_BYTES]

    def take(self, places: Sequence[int]) -> RenderedLines:
        """
        Return the same of some lines only, all of which are known.

        :param places: Rising, each once.
        """
        ids, keys = (bytearray(take_digests(column, places)) for column in (self.ids, self.keys))
        return RenderedLines(ids, keys, [])


class AnswerCache:
    """
    Answers by key, in any folder or object store. Nothing in it is ever changed, so readers and writers need no locks.

    An answer whose file was deleted, or marked as unneeded, is not found. What was found before the mark can be read as
    long as the file is there.

    :param uri: The folder.
    """

    def __init__(self, uri: str, storage: Storage) -> None:
        self._storage = storage
        self._uri = f"{uri.rstrip('/')}/{FORMAT}"
        self.answers = Files(storage, f"{self._uri}/answers", _ANSWERS)
        self.keys = SortedIndex(storage, f"{self._uri}/keys", {"file": arrow.string(), "row": arrow.uint32()})
        self._names: frozenset[str] = frozenset()
        # Names in the index that were not among the files when these were last listed: neither do they come back.
        self._gone: set[str] = set()

    def find(self, keys: Collection[bytes]) -> dict[bytes, Place]:
        """
        Return where the answers of those keys are that have one. One whose file was deleted is none.

        :param keys: Each once.
        :raises DamagedCacheError: a file of the cache is not what was written.
        """
        asked = list(keys)
        places = self.look_up(b"".join(asked))
        return {key: place for key, place in zip(asked, places, strict=True) if place is not None}

    def look_up(self, keys: bytes | bytearray) -> Places:
        """
        Return where the answers of keys are, in the order of the keys.

        :param keys: One behind the other; one may be there several times.
        :raises DamagedCacheError: a file of the cache is not what was written.
        """
        rows = self.keys.look_up(keys)
        names, rows_of_files = rows.column("file").combine_chunks().dictionary_encode(), rows.column("row")
        named = set(names.dictionary.to_pylist())
        if not named <= self._names | self._gone:
            self._names = frozenset(self.answers.list_names())
            self._gone |= named - self._names
        return Places(build_digests(keys), names, rows_of_files.combine_chunks(), self._names)

    def open_writer(self) -> AnswerWriter:
        """Return a writer. What it is given can be found when it is closed without an error, and not before."""
        return AnswerWriter(self.answers, self.keys)

    def read(self, wanted: Iterable[tuple[Place, bytes]]) -> Iterator[tuple[bytes, bytes]]:
        """
        Yield keys and answers, each file's row groups read once.

        :param wanted: Places, each with the key that its answer must have.
        :raises DamagedCacheError: an answer is not where it was, or another one is there.
        """
        for name, places in groupby(sorted(wanted), key=lambda one: one[0].file):
            try:
                with self.answers.open(name) as file:
                    yield from _read(file, [(place.row, key) for place, key in places], self.answers.build_uri(name))
            except MissingFileError as error:
                raise DamagedCacheError(
                    f"{error} It was deleted from the cache. Clear the task that looked it up, or start overnight run "
                    "with another --work: what is not in the cache is sent then."
                ) from error

    def rendered(self, template: bytes) -> RenderedIndex:
        """
        Return what lines of documents were rendered to by one template.

        :param template: Digest of everything that decides what a line is rendered to.
        """
        return RenderedIndex(self._open_documents(template.hex()))

    def merge(self) -> int:
        """
        Merge small files of keys, and of documents; readers and writers may go on meanwhile.

        :return: How many files were merged.
        :raises DamagedCacheError: a file is not what was written.
        """
        return self.keys.merge() + sum(documents.merge() for documents in self._list_documents())

    def drop(self, before: int) -> int:
        """
        Drop what was added before a time from the indexes; the files that hold the answers stay.

        Mark these first (:meth:`Files.mark`): of several answers of a key the last one is dropped while an earlier one
        may still be there, which must not count again.

        :param before: Milliseconds since 1970.
        :return: How many rows were dropped.
        :raises DamagedCacheError: a file is not what was written.
        """
        return self.keys.drop(before) + sum(documents.drop(before) for documents in self._list_documents())

    def _list_documents(self) -> list[SortedIndex]:
        try:
            files = self._storage.list_files(f"{self._uri}/documents/*/*{SUFFIX}").files
        except MissingFileError:
            files = ()
        return [self._open_documents(template) for template in sorted({file.uri.rsplit("/", 2)[1] for file in files})]

    def _open_documents(self, template: str) -> SortedIndex:
        return SortedIndex(self._storage, f"{self._uri}/documents/{template}", {"id": DIGEST, "key": DIGEST})


class RenderedIndex:
    """Digests of lines to what they were rendered to, so that a line that has not changed need not be parsed again."""

    def __init__(self, index: SortedIndex) -> None:
        self.index = index

    def look_up(self, lines: bytes | bytearray) -> RenderedLines:
        """
        Return what is known of lines.

        :param lines: Their digests, one behind the other.
        """
        rows = self.index.look_up(lines)
        ids, keys = (rows.column(name).combine_chunks() for name in ("id", "key"))
        unknown = compute.indices_nonzero(ids.is_null()).to_pylist()
        return RenderedLines(read_digests(ids), read_digests(keys), unknown)

    def add(self, lines: bytes | bytearray, ids: bytes | bytearray, keys: bytes | bytearray) -> None:
        """
        Note what lines were rendered to.

        :param lines: Their digests, one behind the other; one may be there several times.
        :param ids: Digests of their documents' ids, in the same way.
        :param keys: Of their answers, in the same way.
        """
        if lines:
            self.index.add(build_digests(lines), {"id": build_digests(ids), "key": build_digests(keys)}, _now())


class AnswerWriter:
    """
    Adds answers: first the files that hold them, then the file of the index that makes them visible.

    A writer that is killed leaves files that no index names.
    """

    def __init__(self, files: Files, keys: SortedIndex, *, now: Callable[[], int] | None = None) -> None:
        self._files = files
        self._keys = keys
        self._now = now or _now
        self._places: dict[bytes, Place] = {}
        self._name = ""
        self._rows = 0
        self._bytes = 0
        self._group: list[tuple[bytes, bytes]] = []
        self._group_bytes = 0
        self._sink: arrow.BufferOutputStream | None = None
        self._writer: parquet.ParquetWriter | None = None

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if error is None:
            self._commit()

    def add(self, key: bytes, answer: bytes) -> None:
        """Take an answer; of several of one key the last counts."""
        if self._writer is None:
            self._name = make_name()
            self._sink = arrow.BufferOutputStream()
            self._writer = open_writer(self._sink, _ANSWERS, compress=("answer",))
        self._places[key] = Place(self._name, self._rows)
        self._rows += 1
        self._group.append((key, answer))
        self._group_bytes += len(answer)
        if self._group_bytes >= GROUP_BYTES:
            self._write_group()
        if self._bytes >= FILE_BYTES:
            self._close_file()

    def _write_group(self) -> None:
        if self._writer is None or not self._group:
            return
        keys, answers = zip(*self._group, strict=True)
        columns = {"key": arrow.array(keys, DIGEST), "answer": arrow.array(answers, arrow.large_binary())}
        self._writer.write_table(arrow.table(columns, schema=_ANSWERS), row_group_size=len(keys))
        self._bytes += self._group_bytes
        self._group, self._group_bytes = [], 0

    def _close_file(self) -> None:
        self._write_group()
        if self._writer is not None and self._sink is not None:
            self._writer.close()
            self._files.put(self._name, self._sink.getvalue())
        self._writer = self._sink = None
        self._rows = self._bytes = 0

    def _commit(self) -> None:
        self._close_file()
        if self._places:
            places: Sequence[Place] = list(self._places.values())
            columns = {name: arrow.array(map(attrgetter(name), places)) for name in Place._fields}
            self._keys.add(build_digests(b"".join(self._places)), columns, self._now())


def _read(file: parquet.ParquetFile, wanted: list[tuple[int, bytes]], uri: str) -> Iterator[tuple[bytes, bytes]]:
    """Yield the answers of rows, which are in order."""
    metadata = file.metadata
    first = at = 0
    for group in range(metadata.num_row_groups):
        end = first + metadata.row_group(group).num_rows
        rows: list[tuple[int, bytes]] = []
        while at < len(wanted) and wanted[at][0] < end:
            rows.append(wanted[at])
            at += 1
        if rows:
            table = file.read_row_group(group)
            keys, answers = table.column("key"), table.column("answer")
            for row, key in rows:
                if keys[row - first].as_py() != key:
                    raise DamagedCacheError(f"{uri}, row {row}, has another answer than the index says. Delete it.")
                yield key, answers[row - first].as_py()
        first = end
    if at < len(wanted):
        raise DamagedCacheError(f"{uri} has {first} rows, and the index names row {wanted[at][0]}. Delete it.")


def _now() -> int:
    return time.time_ns() // 1_000_000
