"""Ids on disk: which were seen, and where the rows of a join's other sources are. Any number, the same memory."""

from __future__ import annotations

import os
import sqlite3
import tempfile
from collections.abc import Iterator
from pathlib import Path
from types import TracebackType
from typing import BinaryIO, NamedTuple, Self

from overnight.storage_errors import StorageError

_CACHE_KIB = 4 << 10
_PAGE = 1_000


class Place(NamedTuple):
    """Where a row is: the file's number in its source, the line's number, and its bytes."""

    file: int
    line: int
    offset: int
    end: int


class RowIndex:
    """
    A temporary database of ids and byte offsets.

    :param sources: The numbers of the sources whose rows are looked up by id.
    :param folder: Where it is kept; the system's folder for temporary files when ``None``.
    """

    def __init__(self, sources: tuple[int, ...] = (), folder: str | None = None) -> None:
        self._folder = tempfile.TemporaryDirectory(prefix="overnight-", dir=folder)
        self._database = sqlite3.connect(Path(self._folder.name, "rows.db"), isolation_level=None)
        # Nothing here outlives the process, so there is nothing to protect against a crash.
        for pragma in ("journal_mode=OFF", "synchronous=OFF", "locking_mode=EXCLUSIVE", f"cache_size=-{_CACHE_KIB}"):
            self._database.execute(f"PRAGMA {pragma}")
        self._database.execute("CREATE TABLE seen (id BLOB PRIMARY KEY) WITHOUT ROWID")
        for source in sources:
            self._database.execute(
                f"CREATE TABLE rows_{source:d}"
                " (id BLOB PRIMARY KEY, file INT, line INT, start INT, stop INT) WITHOUT ROWID"
            )
        self._database.execute("BEGIN")
        self._execute = self._database.execute
        self._spools: list[BinaryIO] = []

    def spool(self) -> BinaryIO:
        """Return a new temporary file, that goes with the index."""
        descriptor, _ = tempfile.mkstemp(dir=self._folder.name)
        spool = os.fdopen(descriptor, "w+b")
        self._spools.append(spool)
        return spool

    def see(self, key: bytes) -> bool:
        """Note an id; ``False`` when it was noted before."""
        return self._execute("INSERT INTO seen VALUES (?) ON CONFLICT DO NOTHING", (key,)).rowcount == 1

    def add(self, source: int, key: bytes, place: Place) -> bool:
        """Note where a source's row is; ``False``, and nothing changed, when the source has the id already."""
        insert = f"INSERT INTO rows_{source:d} VALUES (?, ?, ?, ?, ?) ON CONFLICT DO NOTHING"  # noqa: S608
        return self._execute(insert, (key, *place)).rowcount == 1

    def find(self, source: int, key: bytes) -> Place | None:
        """Return where a source's row with this id is."""
        query = f"SELECT file, line, start, stop FROM rows_{source:d} WHERE id = ?"  # noqa: S608
        found = self._execute(query, (key,)).fetchone()
        return Place(*found) if found is not None else None

    def unseen(self, source: int) -> Iterator[tuple[bytes, Place]]:
        """Yield a source's rows whose id was not seen; ids may be noted meanwhile."""
        query = (
            f"SELECT id, file, line, start, stop FROM rows_{source:d} "  # noqa: S608
            f"WHERE id > ? AND id NOT IN seen ORDER BY id LIMIT {_PAGE:d}"
        )
        last = b""
        while page := self._execute(query, (last,)).fetchall():
            for key, *place in page:
                yield key, Place(*place)
            last = page[-1][0]

    def close(self) -> None:
        """Delete everything."""
        self._database.close()
        for spool in self._spools:
            spool.close()
        self._folder.cleanup()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()
        if isinstance(error, sqlite3.OperationalError):
            raise StorageError(
                f"The temporary database of ids in {Path(self._folder.name).parent} cannot be written: {error}. Make "
                "room there, or set spool_dir to another folder."
            ) from None
