"""A process that reads and writes a cache, and is killed at a line of its own code: for the tests of the cache."""

from __future__ import annotations

import os
import signal
import sys
from pathlib import Path
from types import FrameType
from typing import Any

from overnight.cache import open_cache, sorted_index
from overnight.cache.digests import compute_digest
from overnight.storage import Storage

BATCHES = 2
ENTRIES = 40
_COUNTED = ("overnight/cache/", "overnight/storage.py", "fsspec/implementations/local.py", "pyarrow/parquet/core.py")


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
    lines = 0

    def count(frame: FrameType, event: str, argument: Any) -> Any:
        nonlocal lines
        if not any(part in frame.f_code.co_filename for part in _COUNTED):
            return None
        lines += 1
        if lines == kill_at:
            os.kill(os.getpid(), signal.SIGKILL)
        return count

    # Some runs merge what the runs before have added.
    sorted_index.MERGE_FILES = 4  # type: ignore[misc]
    sys.settrace(count)
    try:
        # The last ones: to read all would take ever more of the lines.
        read_all(folder, range(max(first - BATCHES, 0), first + BATCHES))
        for batch in range(first, first + BATCHES):
            with open_cache(str(folder), Storage()).open_writer() as writer:
                for key, answer in make_entries(batch).items():
                    writer.add(key, answer)
            with (folder / "committed").open("a") as file:
                file.write(f"{batch}\n")
            open_cache(str(folder), Storage()).merge()
    finally:
        sys.settrace(None)
    return lines
