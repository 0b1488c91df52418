"""Time that passes only while somebody waits."""

from __future__ import annotations

import threading

import pytest

from overnight.ingest.write import bulk


class Clock(threading.Event):
    """
    Stands in for the clock of the bulk writer, and for the event that ends its waiting: waiting for it takes no time.

    A wait is as long as it may be at most: the random part of a back-off is left out.
    """

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        super().__init__()
        self.now = 0.0
        self.waits: list[float] = []
        monkeypatch.setattr(bulk.time, "monotonic", lambda: self.now)
        monkeypatch.setattr(bulk.random, "uniform", lambda _low, high: high)

    def wait(self, timeout: float | None = None) -> bool:
        assert timeout is not None
        assert len(self.waits) < 1_000, "it waits for ever"
        self.waits.append(timeout)
        self.now += timeout
        return self.is_set()
