"""What DescribeTransformJob says, in our words."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any, Final

from overnight.jobs import FailureCause, JobCounts, JobError, JobState, JobStatus
from overnight.services.sagemaker.objects import Yield

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
_CREDENTIALS = re.compile(
    r"access\s?denied|not authorized|(?:expired|invalid)\s?token|\bpermissions?\b|unable to assume|assume the role",
    re.IGNORECASE,
)
_LIMITS = re.compile(r"limit\s?exceeded|service limit|\bquota\b", re.IGNORECASE)
_SERVICE = re.compile(
    r"internal\s?(?:server|service)?\s?error|internal failure|capacity\s?error|insufficient.*capacity|"
    r"unable to provision|please try again",
    re.IGNORECASE,
)
_INPUT = re.compile(r"\b(?:client|algorithm)\s?error\b|unable to get response from algorithm", re.IGNORECASE)


def read_state(word: object) -> JobState:
    """Translate ``TransformJobStatus``; a word from the future reads as running, and the task's deadline bounds it."""
    return STATES.get(str(word), JobState.RUNNING)


def read_status(job: Mapping[str, Any], made: Yield | None = None, note: str | None = None) -> JobStatus:
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
        counts = JobCounts(total=made.total, succeeded=len(made.outputs), failed=len(made.missing))
        if made.missing and made.outputs and state in (JobState.FAILED, JobState.SUCCEEDED):
            state = JobState.PARTIAL
        elif made.missing and state is JobState.SUCCEEDED:
            state = JobState.FAILED
        errors += _missing(made)
    unsuccessful = state in (JobState.FAILED, JobState.PARTIAL)
    return JobStatus(
        state=state,
        raw=word,
        counts=counts,
        progress=1.0 if state is JobState.SUCCEEDED else None,
        errors=tuple(errors),
        cause=parse_cause(str(job.get("FailureReason") or "")) if unsuccessful else None,
    )


def parse_cause(reason: str) -> FailureCause | None:
    """
    Say who can mend a failed job, from its ``FailureReason``; ``None`` when it does not tell.

    A ClientError is what the container answered with a 4xx, or what could not be read; an AlgorithmError is a container
    that broke: the input or the model, which no retry mends.
    https://docs.aws.amazon.com/sagemaker/latest/dg/batch-transform-errors.html
    """
    for pattern, cause in (
        (_CREDENTIALS, FailureCause.CREDENTIALS),
        (_LIMITS, FailureCause.LIMITS),
        (_SERVICE, FailureCause.SERVICE),
        (_INPUT, FailureCause.INPUT),
    ):
        if pattern.search(reason):
            return cause
    return None


def _reason(job: Mapping[str, Any]) -> list[JobError]:
    reason = str(job.get("FailureReason") or "").strip()
    if not reason:
        return []
    found = _REASON.fullmatch(reason)
    return [JobError(code=found["code"], message=found["message"]) if found else JobError(message=reason)]


def _missing(made: Yield) -> list[JobError]:
    errors = [JobError(code="NoOutput", message=f"{uri} has no output") for uri in made.missing[:MAX_NAMED]]
    if len(made.missing) > MAX_NAMED:
        errors.append(JobError(code="NoOutput", message=f"{len(made.missing) - MAX_NAMED} more have none"))
    return errors
