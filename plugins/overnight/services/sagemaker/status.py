"""From DescribeTransformJob's answer to a job status."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any, Final

from overnight.errors import shorten
from overnight.jobs import FailureCause, JobCounts, JobError, JobState, JobStatus
from overnight.services.sagemaker.causes import get_cause
from overnight.services.sagemaker.results import TransformOutputs

UNKNOWN: Final = "Overnight does not know this reason; its text is SageMaker's."
MAX_NAMED: Final = 10
"""How many inputs without an output a status names; the results name all of them."""

STATES: Final[Mapping[str, JobState]] = {
    "InProgress": JobState.RUNNING,
    "Completed": JobState.SUCCEEDED,
    "Failed": JobState.FAILED,
    "Stopping": JobState.CANCELLING,
    "Stopped": JobState.CANCELLED,
}

_REASON = re.compile(r"(?P<code>[A-Za-z]+(?:Error|Exception|Exceeded))\s*:\s*(?P<message>.+)", re.DOTALL)


def read_state(word: object) -> JobState:
    """Translate ``TransformJobStatus``; a word from the future reads as running, and the task's deadline bounds it."""
    return STATES.get(str(word), JobState.RUNNING)


def read_status(job: Mapping[str, Any], made: TransformOutputs | None = None, note: str | None = None) -> JobStatus:
    """
    Translate a job.

    :param made: What came of its inputs; ``None`` when it is not over, or S3 does not say.
    :param note: Why S3 does not say.
    """
    word = str(job.get("TransformJobStatus"))
    state = read_state(word)
    errors = [*_reason(job), *([JobError(code="OutputsUnknown", message=note)] if note else [])]
    counts = JobCounts()
    if made is not None:
        counts = made.counts
        if made.missing and made.outputs and state in (JobState.FAILED, JobState.SUCCEEDED):
            state = JobState.PARTIAL
        elif made.missing and state is JobState.SUCCEEDED:
            state = JobState.FAILED
        errors += _missing(made)
    unsuccessful = state in (JobState.FAILED, JobState.PARTIAL)
    reason = str(job.get("FailureReason") or "")
    known = get_cause(reason) if unsuccessful else None
    return JobStatus(
        state=state,
        raw=word,
        counts=counts,
        progress=1.0 if state is JobState.SUCCEEDED else None,
        errors=tuple(errors),
        cause=known.cause if known is not None else None,
        warnings=(known.remedy if known is not None else UNKNOWN,) if unsuccessful and reason else (),
    )


def parse_cause(reason: str) -> FailureCause | None:
    """Say who can mend a failed job, from its ``FailureReason``; ``None`` when the table of causes has none of it."""
    known = get_cause(reason)
    return known.cause if known is not None else None


def _reason(job: Mapping[str, Any]) -> list[JobError]:
    reason = shorten(str(job.get("FailureReason") or "").strip())
    if not reason:
        return []
    found = _REASON.fullmatch(reason)
    return [JobError(code=found["code"], message=found["message"]) if found else JobError(message=reason)]


def _missing(made: TransformOutputs) -> list[JobError]:
    errors = [JobError(code="NoOutput", message=f"{uri} has no output") for uri in made.missing[:MAX_NAMED]]
    if len(made.missing) > MAX_NAMED:
        errors.append(JobError(code="NoOutput", message=f"{len(made.missing) - MAX_NAMED} more have none"))
    return errors
