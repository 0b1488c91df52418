"""S3 on this machine: moto's server, in a process of its own."""

from __future__ import annotations

import sys
from pathlib import Path

from overnight.sandbox.process import LOCALHOST, Launch


def launch(folder: Path, port: int) -> Launch:
    """
    Return how to start moto's server.

    Its buckets live in its memory and end with it; objects of more than a few MB lie in unnamed temporary files.
    """
    folder.mkdir(parents=True, exist_ok=True)
    url = f"http://{LOCALHOST}:{port}"
    return Launch(
        name="s3",
        argv=(sys.executable, "-m", "moto.server", "-H", LOCALHOST, "-p", str(port)),
        url=url,
        health=f"{url}/moto-api/data.json",
        cwd=folder,
        log=folder / "s3.log",
        # A request is a line of its log otherwise, and a load makes many thousands.
        environ={"MOTO_PORT": str(port), "TMPDIR": str(folder)},
    )
