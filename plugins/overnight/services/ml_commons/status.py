"""Parse ML Commons' tasks, and the remote jobs in them, into statuses."""

from __future__ import annotations

import re
from collections.abc import Mapping
from datetime import UTC, datetime, timedelta
from typing import Any, Final

from overnight.errors import MAX_TEXT, shorten
from overnight.jobs import FailureCause, JobCounts, JobError, JobState, JobStatus
from overnight.jobs.cause import Cause
from overnight.services.ml_commons.answers import created_at, plain
from overnight.services.ml_commons.causes import get_cause
from overnight.services.openai.status import read_status
from overnight.transport.errors import add_remedy

STUCK_AFTER: Final = timedelta(minutes=15)
"""How long a batch prediction may be CREATED without a remote job before it counts as lost."""

UNKNOWN: Final = "(Overnight does not know this error; its text is the service's.)"
PARTLY_INDEXED: Final = (
    "A part of the documents may be in the index already. With an _id in the field_map another run writes them again; "
    "without one it doubles them, so delete them first."
)

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


def get_remote(task: Mapping[str, Any]) -> dict[str, Any]:
    """Return a task's remote job with whole numbers as ints; empty while, or where, there is none."""
    remote = task.get("remote_job")
    return plain(remote) if isinstance(remote, dict) else {}


def read_prediction(task: Mapping[str, Any], now: datetime | None = None) -> JobStatus:
    """
    Translate a batch prediction.

    What the remote service says counts before the task's own state, which stays RUNNING after a cancel, reads COMPLETED
    over failed lines, and stays UNREACHABLE when the service is back.
    """
    remote = get_remote(task)
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
            return _failed(word, text, Cause(FailureCause.SERVICE, True, ""))
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
            text = "Every node was restarted since the ingestion began: it died with its node."
            lost = _failed(word, text, Cause(FailureCause.SERVICE, True, ""))
            return lost.model_copy(update={"warnings": (PARTLY_INDEXED,)})
        return JobStatus(state=JobState.RUNNING, raw=word)
    status = _with_errors(_ML_STATES.get(word, JobState.RUNNING), word, {}, task)
    if status.state.is_terminal and status.state is not JobState.SUCCEEDED:
        # Bulks are sent one after the other, and what the first ones indexed stays.
        return status.model_copy(update={"warnings": (*status.warnings, PARTLY_INDEXED)})
    return status


def parse_cause(text: str) -> FailureCause | None:
    """Say who can mend a failed task, from its error's words; ``None`` when the table of causes has none of them."""
    known = get_cause(text)
    return known.cause if known is not None else None


def _with_errors(state: JobState, word: str, remote: Mapping[str, Any], task: Mapping[str, Any]) -> JobStatus:
    text = next(
        (str(value) for name in ("FailureReason", "message", "Message", "error") if (value := remote.get(name))),
        str(task.get("error") or ""),
    )
    text = shorten(text)
    counts = _counts(remote)
    if state is JobState.SUCCEEDED and counts.failed:
        state = JobState.PARTIAL
    if state is JobState.FAILED:
        return _failed(word, text or "The service does not say why.", counts=counts)
    return JobStatus(state=state, raw=word, counts=counts, errors=(JobError(message=text),) if text else ())


def _failed(word: str, text: str, known: Cause | None = None, counts: JobCounts | None = None) -> JobStatus:
    known = known or get_cause(text)
    remedy = known.remedy if known is not None else UNKNOWN
    return JobStatus(
        state=JobState.FAILED,
        raw=word,
        counts=counts or JobCounts(),
        errors=(JobError(message=add_remedy(shorten(text, MAX_TEXT - len(remedy) - 2), remedy)),),
        cause=known.cause if known is not None else None,
    )


def _counts(remote: Mapping[str, Any]) -> JobCounts:
    counts = remote.get("request_counts")
    if not isinstance(counts, dict):
        return JobCounts()
    names = {"total": "total", "completed": "succeeded", "failed": "failed"}
    read = {ours: value for name, ours in names.items() if type(value := counts.get(name)) is int and value >= 0}
    return JobCounts(**read) if "total" in read else JobCounts()
