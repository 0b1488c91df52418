"""Starting an emulator in a process of its own."""

from __future__ import annotations

import sys
from pathlib import Path

from overnight.sandbox.process import LOCALHOST, Launch


def launch(name: str, folder: Path, port: int, *arguments: str, health: str = "/_sandbox/health") -> Launch:
    """
    Return how to start an emulator.

    :param name: Of its package in :mod:`overnight.sandbox`.
    :param folder: Where it keeps everything; made when it is missing.
    :param arguments: Further ones of its command.
    """
    folder.mkdir(parents=True, exist_ok=True)
    url = f"http://{LOCALHOST}:{port}"
    return Launch(
        name=name,
        argv=(
            *(sys.executable, "-m", f"overnight.sandbox.{name}"),
            *("--host", LOCALHOST, "--port", str(port), "--data-dir", str(folder)),
            *arguments,
        ),
        url=url,
        health=f"{url}{health}",
        cwd=folder,
        log=folder / f"{name}.log",
    )
