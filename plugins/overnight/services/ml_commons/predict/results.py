"""Where the remote service of a batch prediction put its results."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

from overnight.errors import MAX_TEXT, shorten
from overnight.jobs import JobRef, ResultFile, ResultManifest
from overnight.services.ml_commons.status import get_remote, read_prediction
from overnight.services.openai.status import read_usage

_DETAILS = (
    "id", "status", "endpoint", "model", "job_id", "output_dataset_id", "TransformJobName", "TransformJobArn",
    "TransformJobStatus", "TransformInput", "TransformOutput", "FailureReason",
)  # fmt: skip


def build_result_manifest(ref: JobRef, task: Mapping[str, Any]) -> ResultManifest:
    """Return what a task's remote job says of its files, counts and parameters."""
    remote = get_remote(task)
    usage = read_usage(remote.get("usage"))
    return ResultManifest(
        ref=ref,
        files=tuple(_files(remote)),
        counts=read_prediction(task).counts,
        detail={name: _bound(remote[name]) for name in _DETAILS if remote.get(name) is not None}
        | ({"usage": usage} if usage else {}),
    )


def _files(remote: Mapping[str, Any]) -> list[ResultFile]:
    files = []
    for kind, field in (("output", "output_file_id"), ("error", "error_file_id"), ("input", "input_file_id")):
        if (file_id := _get_text(remote, field)) is not None:
            files.append(ResultFile(kind=kind, uri=f"openai://{file_id}"))
    if (output := _get_text(remote, "TransformOutput", "S3OutputPath")) is not None:
        files.append(ResultFile(kind="output", uri=f"{output.rstrip('/')}/"))
    if (source := _get_text(remote, "TransformInput", "DataSource", "S3DataSource", "S3Uri")) is not None:
        files.append(ResultFile(kind="input", uri=source))
    return files


def _get_text(value: Any, *names: str) -> str | None:
    """Return the text at a path of names; ``None`` where there is none, or one too long to be a URI."""
    for name in names:
        value = value.get(name) if isinstance(value, dict) else None
    return value if isinstance(value, str) and 0 < len(value) <= MAX_TEXT else None


def _bound(value: Any) -> Any:
    """Return a value of the remote service's answer, as shortened text when it is a long one."""
    text = json.dumps(value)
    return value if len(text) <= MAX_TEXT else shorten(value if isinstance(value, str) else text)
