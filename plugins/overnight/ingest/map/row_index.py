"""
Ids, exactly: which were seen, and where the rows of a join's other sources are. Any number, the same memory.

The first ids are kept in memory; when these are too many they go into a database on disk, and so do all later ones.
Ids come in blocks, each of which is one statement or few.
"""

from __future__ import annotations

import os
import tempfile
from collections.abc import Iterator, Sequence
from itertools import chain, repeat
from typing import BinaryIO, Final, NamedTuple

from overnight.ingest.map.temporary_database import TemporaryDatabase
from overnight.ingest.read.lines import LineBlock

_PAGE = 1_000
_MEMORY_BYTES: Final = 8 << 20
_KEY_BYTES: Final = 100
"""What an id in memory takes beside its own bytes, about."""
_NOTED: Final = 64
_LOOKED_UP: Final = 256


class FoundRows(NamedTuple):
    """
    Rows of a source in columns, in the order of the source.

    :param files: The number of each one's file in the source.
    :param offsets: And the others: as of :class:`~overnight.ingest.read.lines.LineBlock`.
    """

    files: Sequence[int] = ()
    offsets: Sequence[int] = ()
    ends: Sequence[int] = ()
    numbers: Sequence[int] = ()
    keys: Sequence[bytes] = ()


class RowIndex(TemporaryDatabase):
    """
    A temporary database of ids and byte offsets.

    :param sources: The numbers of the sources whose rows are looked up by id.
    :param folder: Where it is kept; the system's folder for temporary files when ``None``.
    """

    def __init__(self, sources: tuple[int, ...] = (), folder: str | None = None) -> None:
        super().__init__(folder)
        self.execute("CREATE TABLE seen (id BLOB PRIMARY KEY, number INT) WITHOUT ROWID")
        for source in sources:
            self.execute(
                f"CREATE TABLE rows_{source:d}"
                " (id BLOB PRIMARY KEY, file INT, start INT, stop INT, line INT) WITHOUT ROWID"
            )
        self._spools: list[BinaryIO] = []
        self._recent: set[bytes] | None = set()
        """The ids seen, as long as they are few; ``None`` when they are in the database."""
        self._room = _MEMORY_BYTES
        self._number = 0

    def spool(self) -> BinaryIO:
        """Return a new temporary file, that goes with the index."""
        descriptor, _ = tempfile.mkstemp(dir=self.folder)
        spool = os.fdopen(descriptor, "w+b")
        self._spools.append(spool)
        return spool

    def see(self, key: bytes) -> bool:
        """Note an id; ``False`` when it was noted before."""
        return not self.see_all((key,))

    def see_all(self, keys: Sequence[bytes | None]) -> list[int]:
        """Note ids, and return the numbers of those that were noted before; ``None`` is no id."""
        if self._recent is None:
            return self._insert(keys)
        new = set(keys)
        new.discard(None)
        if len(new) == len(keys) and self._recent.isdisjoint(new):
            repeated: list[int] = []
        else:
            repeated = []
            found: set[bytes] = set()
            for number, key in enumerate(keys):
                if key is None:
                    continue
                if key in found or key in self._recent:
                    repeated.append(number)
                found.add(key)
        before = len(self._recent)
        self._recent |= new  # type: ignore[arg-type] # None was taken out
        if len(self._recent) > before:
            self._room -= sum(map(len, new)) + _KEY_BYTES * (len(self._recent) - before)  # type: ignore[arg-type]
        if self._room < 0:
            self._spill()
        return repeated

    def _spill(self) -> None:
        """Put the ids that are in memory into the database; in their order, which is the cheapest."""
        if self._recent is None:
            return
        recent, self._recent = self._recent, None
        self._insert(sorted(recent))

    def _insert(self, keys: Sequence[bytes | None]) -> list[int]:
        first = self._number
        self._number += len(keys)
        noted = [(key, first + number) for number, key in enumerate(keys) if key is not None]
        insert = "INSERT INTO seen VALUES (?, ?) ON CONFLICT DO NOTHING"
        if self.execute_all(insert, noted).rowcount == len(noted):
            return []
        find = "SELECT number FROM seen WHERE id = ?"
        return [number - first for key, number in noted if self.execute(find, (key,)).fetchone()[0] != number]

    def add_all(self, source: int, keys: Sequence[bytes | None], file: int, lines: LineBlock) -> list[int]:
        """
        Note where rows of a source are, and return the numbers of those whose id the source has already.

        :param keys: The rows' ids; ``None`` is no id.
        :param file: The number of the rows' file in the source.
        """
        rows = zip(keys, repeat(file), lines.offsets, lines.ends, lines.numbers, strict=False)
        noted = [row for row in rows if row[0] is not None]
        new = 0
        for first in range(0, len(noted), _NOTED):
            part = noted[first : first + _NOTED]
            values = ",".join(repeat("(?, ?, ?, ?, ?)", len(part)))
            insert = f"INSERT INTO rows_{source:d} VALUES {values} ON CONFLICT DO NOTHING"  # noqa: S608
            new += self.execute(insert, (*chain.from_iterable(part),)).rowcount
        if new == len(noted):
            return []
        find = f"SELECT file, start FROM rows_{source:d} WHERE id = ?"  # noqa: S608
        return [
            number
            for number, (key, offset) in enumerate(zip(keys, lines.offsets, strict=True))
            if key is not None and self.execute(find, (key,)).fetchone() != (file, offset)
        ]

    def find_all(self, source: int, keys: Sequence[bytes]) -> FoundRows:
        """Return where the rows of these ids, all different, are that a source has."""
        found: list[tuple[int, int, int, int, bytes]] = []
        for first in range(0, len(keys), _LOOKED_UP):
            part = keys[first : first + _LOOKED_UP]
            # Few sizes, so that SQLite compiles few statements.
            size = 1 << (len(part) - 1).bit_length()
            query = (
                f"SELECT file, start, stop, line, id FROM rows_{source:d} "  # noqa: S608
                f"WHERE id IN ({','.join(repeat('?', size))})"
            )
            found += self.execute(query, (*part, *repeat(None, size - len(part))))
        found.sort()
        return FoundRows(*zip(*found, strict=True))

    def unseen(self, source: int) -> Iterator[bytes]:
        """Yield the ids of a source's rows that were not seen; ids may be noted meanwhile."""
        self._spill()
        query = (
            f"SELECT id FROM rows_{source:d} "  # noqa: S608
            f"WHERE id > ? AND id NOT IN (SELECT id FROM seen) ORDER BY id LIMIT {_PAGE:d}"
        )
        last = b""
        while page := self.execute(query, (last,)).fetchall():
            for (key,) in page:
                yield key
            last = page[-1][0]

    def close(self) -> None:
        """Delete everything."""
        for spool in self._spools:
            spool.close()
        super().close()
