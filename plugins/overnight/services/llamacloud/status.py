"""From the statuses of several batches to one job status."""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Sequence
from datetime import UTC, datetime
from typing import Any, Final

from overnight.jobs import FailureCause, JobCounts, JobError, JobState, JobStatus
from overnight.services.llamacloud.answers import Record
from overnight.services.llamacloud.causes import sum_up
from overnight.services.llamacloud.outcomes import FileOutcome, FileState

MAX_ERRORS: Final = 20
"""How many files' errors are carried along; a status travels by XCom."""

_THROTTLED: Final = "THROTTLED"
_WAITING: Final = frozenset({"PENDING", _THROTTLED})
THROTTLED_REASON: Final = (
    "LlamaCloud holds the batch back (THROTTLED) while the account has as many files at work as it may; it goes on by "
    "itself."
)
_OVER: Final = frozenset({"COMPLETED", "FAILED", "CANCELLED"})


def is_over(batch: Record) -> bool:
    """Whether the service is done with a batch. The jobs it made may still be at work."""
    return str(batch.get("status")) in _OVER


def is_throttled(batches: Sequence[Record]) -> bool:
    """Whether the service holds a batch back."""
    return any(batch.get("status") == _THROTTLED for batch in batches)


def lacks_results(batch: Record) -> bool:
    """Whether a batch is COMPLETED and does not say yet what became of its files, as the API allows."""
    return batch.get("status") == "COMPLETED" and not isinstance(batch.get("results"), list)


def parse_moment(value: Any) -> datetime | None:
    """Read a date and time; one without a zone is in UTC."""
    try:
        read = datetime.fromisoformat(str(value))
    except ValueError:
        return None
    return read if read.tzinfo is not None else read.replace(tzinfo=UTC)


def raw_word(batches: Sequence[Record]) -> str:
    """Return the service's word, or ``2 COMPLETED, 1 RUNNING`` where the batches differ."""
    words = Counter(str(batch.get("status")) for batch in batches)
    if len(words) == 1:
        return next(iter(words))
    return ", ".join(f"{count} {word}" for word, count in sorted(words.items()))


def mapping_state(batches: Sequence[Record]) -> JobState:
    """
    Return the state as far as the batches alone tell; what became of their files is not looked at.

    THROTTLED is queued: the service holds the batch back until the account has less at work.
    """
    words = {str(batch.get("status")) for batch in batches}
    if not words <= _OVER:
        return JobState.QUEUED if words <= _WAITING else JobState.RUNNING
    if "CANCELLED" in words:
        return JobState.CANCELLED
    if words == {"FAILED"}:
        return JobState.FAILED
    return JobState.PARTIAL if "FAILED" in words else JobState.SUCCEEDED


def working_status(batches: Sequence[Record], jobs: Collection[Record], total: int) -> JobStatus:
    """
    Return the status while every file has a job and some of the jobs are at work.

    :param jobs: Those that were looked at: the counts are at least this.
    """
    ends = Counter(str(job["status"]) for job in jobs)
    succeeded, failed = ends["COMPLETED"], ends["FAILED"] + ends["CANCELLED"]
    return JobStatus(
        state=JobState.RUNNING,
        raw=f"{raw_word(batches)}, files at work",
        counts=JobCounts(total=total, succeeded=succeeded, failed=failed),
        progress=(succeeded + failed) / total if total else None,
    )


def ended_status(batches: Sequence[Record], files: Sequence[FileOutcome]) -> JobStatus:
    """
    Return the status when every batch and every job is over.

    COMPLETED says only that every file was given a job: files that failed or are missing make the job PARTIAL. A
    file's job that was cancelled makes it CANCELLED, as a cancelled batch does.
    """
    tally = Counter(file.state for file in files)
    bad = [file for file in files if file.state is not FileState.SUCCEEDED]
    state = mapping_state(batches)
    if state is JobState.SUCCEEDED and tally[FileState.CANCELLED]:
        state = JobState.CANCELLED
    elif state in (JobState.SUCCEEDED, JobState.PARTIAL) and bad:
        state = JobState.PARTIAL if tally[FileState.SUCCEEDED] else JobState.FAILED
    cause, warnings = (None, ()) if state is not JobState.FAILED else _get_cause(batches, bad)
    return JobStatus(
        state=state,
        raw=raw_word(batches),
        counts=to_counts(tally),
        progress=1.0,
        errors=tuple(JobError(message=f"{file.name}: {file.error}", param=file.file_id) for file in bad[:MAX_ERRORS]),
        cause=cause,
        warnings=warnings,
    )


def to_counts(tally: Counter[FileState]) -> JobCounts:
    """Count files; what is neither succeeded nor failed is missing."""
    return JobCounts(
        total=tally.total(),
        succeeded=tally[FileState.SUCCEEDED],
        failed=tally[FileState.FAILED] + tally[FileState.CANCELLED],
    )


def _get_cause(batches: Sequence[Record], bad: Sequence[FileOutcome]) -> tuple[FailureCause | None, tuple[str, ...]]:
    """Return who can mend a job without any result, and how."""
    if all(batch.get("status") == "FAILED" for batch in batches):
        # A batch fails only when its orchestration does; files that fail leave it COMPLETED.
        return FailureCause.SERVICE, ("The service could not give the files out to jobs; submit again.",)
    cause, remedy = sum_up(file.error or "" for file in bad)
    return cause, (remedy,)
