"""Whom a node runs as, and what that user can read. OpenSearch refuses to run as root."""

from __future__ import annotations

import os
import stat
from pathlib import Path

NOBODY = 65534
"""The uid and gid that a node of root's drops to."""


def run_as() -> int | None:
    """Return the uid to run a node as: ``None``, ourselves, unless we are root."""
    return NOBODY if os.geteuid() == 0 else None


def reachable(folder: Path) -> bool:
    """Whether every user of this machine may enter ``folder`` and all folders above it."""
    folder = folder.resolve()
    return all(path.stat().st_mode & stat.S_IXOTH for path in (folder, *folder.parents))


def open_up(folder: Path) -> None:
    """Let every user of this machine read what lies below ``folder``, whatever our umask was."""
    for path in (folder, *folder.rglob("*")):
        if not path.is_symlink():
            mode = path.stat().st_mode
            # As chmod's a+rX: what we may enter or run, all may.
            path.chmod(stat.S_IMODE(mode) | 0o444 | (0o111 if mode & stat.S_IXUSR else 0))
