"""A database on disk that goes with the work it is for."""

from __future__ import annotations

import sqlite3
import tempfile
from pathlib import Path
from types import TracebackType
from typing import Self

from overnight.storage_errors import StorageError

_CACHE_KIB = 4 << 10


class TemporaryDatabase:
    """
    A temporary SQLite database in a folder of its own: any number of rows, the same memory.

    As a context manager it deletes everything, and says what to do when its disk is full.

    :param parent: Where the folder is made; the system's folder for temporary files when ``None``.
    """

    def __init__(self, parent: str | None = None) -> None:
        self._folder = tempfile.TemporaryDirectory(prefix="overnight-", dir=parent)
        self._connection = sqlite3.connect(Path(self._folder.name, "rows.db"), isolation_level=None)
        # Nothing here outlives the process, so there is nothing to protect against a crash.
        for pragma in ("journal_mode=OFF", "synchronous=OFF", "locking_mode=EXCLUSIVE", f"cache_size=-{_CACHE_KIB}"):
            self._connection.execute(f"PRAGMA {pragma}")
        self._connection.execute("BEGIN")
        self.execute = self._connection.execute
        self.execute_all = self._connection.executemany

    @property
    def folder(self) -> str:
        """A folder for further files that are deleted with it."""
        return self._folder.name

    def close(self) -> None:
        """Delete everything."""
        self._connection.close()
        self._folder.cleanup()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()
        if isinstance(error, sqlite3.OperationalError):
            raise StorageError(
                f"The temporary database of ids in {Path(self.folder).parent} cannot be written: {error}. Make "
                "room there, or set spool_dir to another folder."
            ) from None
