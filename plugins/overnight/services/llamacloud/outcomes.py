"""What became of each file of a batch: the service maps files to jobs, and the jobs say how they ended."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Any, Final

from overnight.errors import NotFoundError, shorten
from overnight.services.llamacloud.answers import (
    JOBS_PER_CALL,
    MAX_ID,
    Record,
    batched,
    get_files_path,
    get_jobs,
    list_all,
)
from overnight.services.llamacloud.sources import FILE_TAG, URI_TAG
from overnight.services.tags import TAG_PREFIX
from overnight.transport.flow import Flow

WINDOW: Final = 20 * JOBS_PER_CALL
"""Jobs looked at before asking whether the rest matters: while one of them is at work, it does not."""

_OVER: Final = frozenset({"COMPLETED", "FAILED", "CANCELLED"})


class FileState(StrEnum):
    """How a file ended."""

    SUCCEEDED = "succeeded"
    FAILED = "failed"
    CANCELLED = "cancelled"
    MISSING = "missing"
    """The service says nothing of it."""


@dataclass(frozen=True, slots=True)
class FileOutcome:
    """
    One file of a batch that is over.

    :param file_id: The directory file, which is what the service correlates by.
    :param source_uri: Where it was uploaded from; ``None`` for a file of the user's own directory.
    :param metadata: The user's, without our tags.
    """

    file_id: str
    name: str
    state: FileState
    source_uri: str | None = None
    source_file_id: str | None = None
    metadata: Mapping[str, Any] = field(default_factory=dict)
    job_id: str | None = None
    error: str | None = None


@dataclass(frozen=True)
class Jobs:
    """
    How the jobs of finished batches are.

    :param by_id: Those that were looked at.
    :param all_over: Whether every one of them has ended, and so every one was looked at.
    """

    by_id: Mapping[str, Record]
    all_over: bool


def job_ids(batch: Record) -> list[str]:
    """Return the jobs that a batch made of its files."""
    return [str(result["job_reference"]["id"]) for result in _results(batch) if result.get("job_reference")]


def look_at_jobs(job_type: str, ids: Sequence[str], *, every: bool = False) -> Flow[Jobs]:
    """
    Look at jobs, a window at a time, until one is found that is still at work.

    :param every: Look at all of them.
    """
    found: dict[str, Record] = {}
    all_over = True
    for some in batched(ids, WINDOW):
        jobs = yield from get_jobs(job_type, some)
        found |= {str(job["id"]): job for job in jobs}
        all_over = all_over and all(job["status"] in _OVER for job in jobs)
        if not all_over and not every:
            break
    return Jobs(found, all_over)


def outcomes(batch: Record, jobs: Mapping[str, Record]) -> Flow[list[FileOutcome]]:
    """
    Say how every file of a batch that is over ended.

    :param batch: With its results, where the service gives them.
    :param jobs: The jobs of the batch, all over.
    """
    results = {str(result["source_directory_file_id"]): result for result in _results(batch)}
    try:
        listed = yield from list_all(get_files_path(str(batch["source_directory_id"])), {})
    except NotFoundError:
        # An ephemeral directory was cleaned up; the results outlive it.
        listed = []
    files = {str(file["id"]): file for file in listed}
    return [_outcome(one, files.get(one, {}), results.get(one), batch, jobs) for one in {**files, **results}]


def _outcome(
    file_id: str, file: Record, result: Record | None, batch: Record, jobs: Mapping[str, Record]
) -> FileOutcome:
    state, job_id, error = _end(result, batch, jobs)
    metadata = read_metadata(file)
    return FileOutcome(
        file_id=file_id,
        name=shorten(str(file.get("display_name") or file_id), MAX_ID),
        state=state,
        source_uri=_get_text(metadata, URI_TAG),
        source_file_id=_get_text(metadata, FILE_TAG),
        metadata={key: value for key, value in metadata.items() if not key.startswith(TAG_PREFIX)},
        job_id=job_id,
        error=error,
    )


def _end(result: Record | None, batch: Record, jobs: Mapping[str, Record]) -> tuple[FileState, str | None, str | None]:
    if result is None:
        return FileState.MISSING, None, f"{batch['id']} ended {batch['status']} without a word about this file"
    reference = result.get("job_reference")
    if not reference:
        if result.get("error_message"):
            return FileState.FAILED, None, shorten(str(result["error_message"]))
        return FileState.MISSING, None, f"{batch['id']} ended {batch['status']} without a job for this file"
    job_id = str(reference["id"])
    job = jobs.get(job_id)
    if job is None:
        return FileState.MISSING, job_id, f"the service no longer has {job_id}"
    if job["status"] == "COMPLETED":
        return FileState.SUCCEEDED, job_id, None
    state = FileState.CANCELLED if job["status"] == "CANCELLED" else FileState.FAILED
    return state, job_id, shorten(str(job.get("error_message") or f"{job_id} ended {job['status']}"))


def read_metadata(file: Record) -> dict[str, Any]:
    """Return the metadata of a directory's file; none where the service gives none."""
    metadata = file.get("metadata")
    return metadata if isinstance(metadata, dict) else {}


def _get_text(metadata: Mapping[str, Any], name: str) -> str | None:
    value = metadata.get(name)
    return value if isinstance(value, str) else None


def _results(batch: Record) -> list[Record]:
    results = batch.get("results")
    return results if isinstance(results, list) else []
