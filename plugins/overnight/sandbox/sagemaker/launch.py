"""Starting the emulator in a process of its own."""

from __future__ import annotations

import json
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from overnight.sandbox.process import LOCALHOST, Launch


def launch(folder: Path, port: int, s3_endpoint: str, settings: Mapping[str, Any] | None = None) -> Launch:
    """
    Return how to start the emulator.

    :param s3_endpoint: The S3 that jobs read and write.
    :param settings: Further :class:`~overnight.sandbox.sagemaker.Settings`.
    """
    folder.mkdir(parents=True, exist_ok=True)
    url = f"http://{LOCALHOST}:{port}"
    return Launch(
        name="sagemaker",
        argv=(
            *(sys.executable, "-m", "overnight.sandbox.sagemaker"),
            *("--host", LOCALHOST, "--port", str(port), "--data-dir", str(folder)),
            *("--s3-endpoint", s3_endpoint, "--settings", json.dumps(settings or {})),
        ),
        url=url,
        health=f"{url}/healthz",
        cwd=folder,
        log=folder / "sagemaker.log",
    )
