"""The emulator's notion of time, which can be put forward so that nobody waits a day for an expiry."""

from __future__ import annotations

import time

from overnight.sandbox.emulator.database import Database


class Clock:
    """
    Unix time plus an offset that survives a restart.

    :param database: Where the offset is kept.
    """

    def __init__(self, database: Database) -> None:
        self._database = database
        self._offset = float(database.get("clock_offset") or 0.0)

    @property
    def offset(self) -> float:
        """Seconds ahead of the machine's clock."""
        return self._offset

    def now(self) -> int:
        """Return the time as the API's timestamps give it."""
        return int(time.time() + self._offset)

    def advance(self, seconds: float) -> None:
        """Put the clock forward. It cannot go back: what has expired has expired."""
        self._offset += seconds
        self._database.set("clock_offset", repr(self._offset))
