"""
Ids, exactly: which were seen, and where the rows of a join's other sources are. Any number, the same memory.

The first ids are kept in memory; when these are too many they go into a database on disk, and so do all later ones.
Ids come in blocks, each of which is one statement.
"""

from __future__ import annotations

import os
import tempfile
from collections.abc import Iterable, Iterator, Sequence
from itertools import repeat
from typing import BinaryIO, Final, NamedTuple

from overnight.ingest.map.temporary_database import TemporaryDatabase

_PAGE = 1_000
_MEMORY_BYTES: Final = 8 << 20
_KEY_BYTES: Final = 100
"""What an id in memory takes beside its own bytes, about."""
_LOOKED_UP: Final = 256


class Place(NamedTuple):
    """Where a row is: the file's number in its source, the line's number, and its bytes."""

    file: int
    line: int
    offset: int
    end: int


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
                " (id BLOB PRIMARY KEY, file INT, line INT, start INT, stop INT) WITHOUT ROWID"
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

    def add_all(self, source: int, keys: Sequence[bytes], places: Sequence[Place]) -> list[int]:
        """Note where rows of a source are, and return the numbers of those whose id the source has already."""
        insert = f"INSERT INTO rows_{source:d} VALUES (?, ?, ?, ?, ?) ON CONFLICT DO NOTHING"  # noqa: S608
        rows = [(key, *place) for key, place in zip(keys, places, strict=True)]
        if self.execute_all(insert, rows).rowcount == len(rows):
            return []
        return [
            number
            for number, (key, place) in enumerate(zip(keys, places, strict=True))
            if self.find_all(source, (key,))[key] != place
        ]

    def find_all(self, source: int, keys: Sequence[bytes]) -> dict[bytes, Place]:
        """Return where the rows of these ids are that a source has."""
        query = (
            f"SELECT id, file, line, start, stop FROM rows_{source:d} "  # noqa: S608
            f"WHERE id IN ({','.join(repeat('?', _LOOKED_UP))})"
        )
        found: dict[bytes, Place] = {}
        for first in range(0, len(keys), _LOOKED_UP):
            part: Iterable[bytes | None] = keys[first : first + _LOOKED_UP]
            if len(keys) - first < _LOOKED_UP:
                part = (*part, *repeat(None, _LOOKED_UP - (len(keys) - first)))
            found.update((key, Place(*place)) for key, *place in self.execute(query, tuple(part)))
        return found

    def unseen(self, source: int) -> Iterator[tuple[bytes, Place]]:
        """Yield a source's rows whose id was not seen; ids may be noted meanwhile."""
        self._spill()
        query = (
            f"SELECT id, file, line, start, stop FROM rows_{source:d} "  # noqa: S608
            f"WHERE id > ? AND id NOT IN (SELECT id FROM seen) ORDER BY id LIMIT {_PAGE:d}"
        )
        last = b""
        while page := self.execute(query, (last,)).fetchall():
            for key, *place in page:
                yield key, Place(*place)
            last = page[-1][0]

    def close(self) -> None:
        """Delete everything."""
        for spool in self._spools:
            spool.close()
        super().close()
