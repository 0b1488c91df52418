"""Where downloads are kept between runs, and how two processes share them."""

from __future__ import annotations

import fcntl
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import platformdirs


def cache_dir() -> Path:
    """Return the folder of the cache: ``OVERNIGHT_CACHE``, or this platform's place for caches."""
    override = os.environ.get("OVERNIGHT_CACHE")
    return Path(override).expanduser() if override else Path(platformdirs.user_cache_dir("overnight"))


@contextmanager
def exclusive(path: Path) -> Iterator[None]:
    """
    Hold a lock on ``path`` among all processes of this machine, waiting for it where necessary.

    The kernel lets go of it when its holder dies, so there is no stale lock to clear away. The file itself stays.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("ab") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        yield
