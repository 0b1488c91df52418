"""A process that reads, writes and cleans a cache, and is killed at a line of its own code: for tests."""

from __future__ import annotations

import os
import signal
import sys
from collections.abc import Callable
from datetime import datetime, timedelta
from pathlib import Path
from types import FrameType
from typing import Any

from overnight.cache import open_cache, sorted_index
from overnight.cache.digests import compute_digest
from overnight.retention import CacheRetention, clean_cache, plan_cache
from overnight.storage import Storage

BATCHES = 2
ENTRIES = 40
_COUNTED = (
    "overnight/cache/", "overnight/retention/", "overnight/storage.py", "fsspec/implementations/local.py",
    "pyarrow/parquet/core.py",
)  # fmt: skip


def make_entries(batch: int) -> dict[bytes, bytes]:
    return {
        compute_digest(b"%d %d" % (batch, number)): b"answer %d of batch %d " % (number, batch) + bytes(5_000)
        for number in range(ENTRIES)
    }


def read_all(folder: Path, batches: range) -> dict[bytes, bytes]:
    """Return every answer that is found, as a run would."""
    cache = open_cache(str(folder), Storage())
    keys = [key for batch in batches for key in make_entries(batch)]
    return dict(cache.read((place, key) for key, place in cache.find(keys).items()))


def work(folder: Path, first: int, kill_at: int | None) -> int:
    """
    Read what is there and add some batches; return how many lines that took.

    :param kill_at: The line at which the process kills itself.
    """

    def read_and_add() -> None:
        # The last ones: to read all would take ever more of the lines.
        read_all(folder, range(max(first - BATCHES, 0), first + BATCHES))
        for batch in range(first, first + BATCHES):
            add(folder, make_entries(batch))
            with (folder / "committed").open("a") as file:
                file.write(f"{batch}\n")
            open_cache(str(folder), Storage()).merge()

    # Some runs merge what the runs before have added.
    sorted_index.MERGE_FILES = 4  # type: ignore[misc]
    return _count_lines(read_and_add, kill_at)


def add(folder: Path, entries: dict[bytes, bytes]) -> None:
    """Add entries, as a batch would."""
    with open_cache(str(folder), Storage()).open_writer() as writer:
        for key, answer in entries.items():
            writer.add(key, answer)


def clean(folder: Path, cutoff: datetime, now: datetime, kill_at: int | None) -> int:
    """
    Let what was added before a time expire, and delete what expired three days ago; return how many lines it took.

    :param now: What time it is.
    :param kill_at: The line at which the process kills itself.
    """

    def plan_and_clean() -> None:
        retention = CacheRetention(now - cutoff, timedelta(days=3))
        clean_cache(plan_cache(str(folder), Storage(), retention, now), Storage())

    return _count_lines(plan_and_clean, kill_at)


def _count_lines(act: Callable[[], None], kill_at: int | None) -> int:
    lines = 0

    def count(frame: FrameType, event: str, argument: Any) -> Any:
        nonlocal lines
        if not any(part in frame.f_code.co_filename for part in _COUNTED):
            return None
        lines += 1
        if lines == kill_at:
            os.kill(os.getpid(), signal.SIGKILL)
        return count

    sys.settrace(count)
    try:
        act()
    finally:
        sys.settrace(None)
    return lines
