"""What a batch ingestion leaves: documents in the index, and no file."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from overnight.jobs import JobRef, ResultManifest


def build_result_manifest(ref: JobRef, task: Mapping[str, Any]) -> ResultManifest:
    """Return a manifest without files and counts; ``detail`` has the task's times, in milliseconds."""
    detail = {name: task[name] for name in ("create_time", "last_update_time") if type(task.get(name)) is int}
    return ResultManifest(ref=ref, detail=detail)
