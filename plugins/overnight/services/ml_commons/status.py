"""From ML Commons' tasks, and the remote jobs inside of them, to the states of the lifecycle."""

from __future__ import annotations

import re
from collections.abc import Mapping
from datetime import UTC, datetime, timedelta
from typing import Any, Final

from overnight.jobs import FailureCause, JobCounts, JobError, JobState, JobStatus
from overnight.services.ml_commons.connection import created_at, plain
from overnight.services.openai.status import read_status

STUCK_AFTER: Final = timedelta(minutes=15)
"""How long a batch prediction may be CREATED without a remote job before it counts as lost."""

_ML_STATES: Final = {
    "CREATED": JobState.QUEUED,
    "RUNNING": JobState.RUNNING,
    "COMPLETED": JobState.SUCCEEDED,
    "COMPLETED_WITH_ERROR": JobState.PARTIAL,
    "FAILED": JobState.FAILED,
    "EXPIRED": JobState.EXPIRED,
    "CANCELLING": JobState.CANCELLING,
    "CANCELLED": JobState.CANCELLED,
    # The cluster gave up asking; the job is at the remote service as before.
    "UNREACHABLE": JobState.RUNNING,
}

# SageMaker, Cohere and Bedrock, case and punctuation aside; OpenAI's batches have a reader of their own.
_REMOTE_STATES: Final = {
    "submitted": JobState.QUEUED,
    "scheduled": JobState.QUEUED,
    "validating": JobState.QUEUED,
    "queued": JobState.QUEUED,
    "inprogress": JobState.RUNNING,
    "processing": JobState.RUNNING,
    "running": JobState.RUNNING,
    "stopping": JobState.CANCELLING,
    "cancelling": JobState.CANCELLING,
    "canceling": JobState.CANCELLING,
    "stopped": JobState.CANCELLED,
    "cancelled": JobState.CANCELLED,
    "canceled": JobState.CANCELLED,
    "complete": JobState.SUCCEEDED,
    "completed": JobState.SUCCEEDED,
    "partiallycompleted": JobState.PARTIAL,
    "partialcompleted": JobState.PARTIAL,
    "failed": JobState.FAILED,
    "expired": JobState.EXPIRED,
}

# Of the first pattern that is found in an error.
_BLAMES: Final = (
    (
        FailureCause.CREDENTIALS,
        r"access key|secret|credential|signature|access ?denied|not authorized|region must not be null",
    ),
    (FailureCause.CREDENTIALS, r"status code: 40[13]|expired ?token|invalid_api_key|incorrect api key"),
    (FailureCause.LIMITS, r"rejected execution|indexing pressure|circuit_breaking|data too large|limit exceeded|quota"),
    (
        FailureCause.SERVICE,
        r"internal ?server ?error|capacityerror|status code: 5\d\d|connect timed out|connection refused",
    ),
    (
        FailureCause.INPUT,
        r"does not exist|no ?such ?key|no results for path|missing property|json|parse|field_?map|mapper",
    ),
    (
        FailureCause.INPUT,
        r"can't find class|connection pool shut down|version conflict|cannot be null|null value|algorithmerror",
    ),
)


def read_prediction(task: Mapping[str, Any], now: datetime | None = None) -> JobStatus:
    """
    Translate a batch prediction.

    What the remote service says counts before the task's own state, which stays RUNNING after a cancel, reads COMPLETED
    over failed lines, and stays UNREACHABLE when the service is back.
    """
    remote = plain(task.get("remote_job") or {})
    word = str(task.get("state"))
    if remote.get("object") == "batch":
        return read_status(remote)
    status = remote.get("TransformJobStatus") or remote.get("status") or remote.get("Status")
    if isinstance(status, str) and (state := _REMOTE_STATES.get(re.sub(r"[^a-z]", "", status.lower()))):
        return _with_errors(state, status, remote, task)
    if word == "CREATED" and not remote:
        age = (now or datetime.now(UTC)) - created_at(task, datetime.now(UTC))
        if age > STUCK_AFTER:
            text = f"The task has been CREATED for {age}, and no remote job came of it."
            return _failed(word, text, FailureCause.SERVICE)
    return _with_errors(_ML_STATES.get(word, JobState.RUNNING), word, remote, task)


def read_ingestion(task: Mapping[str, Any], boots: tuple[datetime, ...] = ()) -> JobStatus:
    """
    Translate a batch ingestion, which is CREATED until it is COMPLETED or FAILED.

    :param boots: When the cluster's nodes were started. A task that is older than all of them died with its node; the
        plugin leaves it CREATED for ever.
    """
    word = str(task.get("state"))
    if word == "CREATED":
        since = created_at(task, datetime.now(UTC))
        if boots and since < min(boots):
            text = "Every node was restarted since the ingestion began: it died with its node. A part may be indexed."
            return _failed(word, text, FailureCause.SERVICE)
        return JobStatus(state=JobState.RUNNING, raw=word)
    return _with_errors(_ML_STATES.get(word, JobState.RUNNING), word, {}, task)


def parse_cause(text: str) -> FailureCause | None:
    """Say who can mend a failed task, from its error's words; ``None`` when they do not tell."""
    return next((cause for cause, pattern in _BLAMES if re.search(pattern, text, re.IGNORECASE)), None)


def _with_errors(state: JobState, word: str, remote: Mapping[str, Any], task: Mapping[str, Any]) -> JobStatus:
    text = next(
        (str(value) for name in ("FailureReason", "message", "Message", "error") if (value := remote.get(name))),
        str(task.get("error") or ""),
    )
    counts = _counts(remote)
    if state is JobState.SUCCEEDED and counts.failed:
        state = JobState.PARTIAL
    if state is JobState.FAILED:
        return _failed(word, text or "The service does not say why.", parse_cause(text), counts)
    return JobStatus(state=state, raw=word, counts=counts, errors=(JobError(message=text),) if text else ())


def _failed(word: str, text: str, cause: FailureCause | None, counts: JobCounts | None = None) -> JobStatus:
    return JobStatus(
        state=JobState.FAILED,
        raw=word,
        counts=counts or JobCounts(),
        errors=(JobError(message=text),),
        cause=cause,
    )


def _counts(remote: Mapping[str, Any]) -> JobCounts:
    counts = remote.get("request_counts")
    if not isinstance(counts, dict) or not isinstance(counts.get("total"), int):
        return JobCounts()
    return JobCounts(total=counts["total"], succeeded=counts.get("completed"), failed=counts.get("failed"))
