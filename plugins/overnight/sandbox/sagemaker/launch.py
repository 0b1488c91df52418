"""Starting the emulator in a process of its own."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from overnight.sandbox.emulator import launch as emulator
from overnight.sandbox.process import Launch


def launch(folder: Path, port: int, s3_endpoint: str, settings: Mapping[str, Any] | None = None) -> Launch:
    """
    Return how to start the emulator.

    :param s3_endpoint: The S3 that jobs read and write.
    :param settings: Further :class:`~overnight.sandbox.sagemaker.Settings`.
    """
    arguments = ("--s3-endpoint", s3_endpoint, "--settings", json.dumps(settings or {}))
    return emulator.launch("sagemaker", folder, port, *arguments, health="/healthz")
