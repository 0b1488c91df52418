"""What a batch object of OpenAI, Azure OpenAI and compatible servers says, in our words."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Any

from overnight.jobs import FailureCause, JobCounts, JobError, JobState, JobStatus
from overnight.services.openai.connection import LIMIT_CODES

MAX_ERRORS = 20
"""How many of a failed batch's errors are carried along; a status travels by XCom."""

_STATES = {
    "validating": JobState.QUEUED,
    "queued": JobState.QUEUED,
    "pending": JobState.QUEUED,
    "created": JobState.QUEUED,
    "in_progress": JobState.RUNNING,
    "running": JobState.RUNNING,
    "processing": JobState.RUNNING,
    "finalizing": JobState.RUNNING,
    "completed": JobState.SUCCEEDED,
    "succeeded": JobState.SUCCEEDED,
    "failed": JobState.FAILED,
    "error": JobState.FAILED,
    "expired": JobState.EXPIRED,
    "cancelling": JobState.CANCELLING,
    "canceling": JobState.CANCELLING,
    "cancelled": JobState.CANCELLED,
    "canceled": JobState.CANCELLED,
}

_ENDS = {
    "cancelled_at": JobState.CANCELLED,
    "expired_at": JobState.EXPIRED,
    "failed_at": JobState.FAILED,
    "completed_at": JobState.SUCCEEDED,
}

_CREDENTIALS_CODES = frozenset(
    {"invalid_api_key", "input_no_permissions", "permission_denied", "unauthorized", "organization_deactivated"}
)
# The file that was uploaded is gone or unreadable there: not the fault of what is in it.
_SERVICE_CODES = frozenset(
    {
        "batch_failed",
        "file_not_found",
        "input_file_expired",
        "input_no_longer_accessible",
        "internal_error",
        "internal_server_error",
        "server_error",
        "service_unavailable",
        "timeout",
    }
)
_INPUT_CODES = frozenset(
    {
        "duplicate_custom_id",
        "empty_file",
        "empty_batch",
        "file_too_large",
        "input_modified",
        "invalid_custom_id",
        "invalid_file",
        "invalid_file_format",
        "invalid_json_line",
        "invalid_method",
        "invalid_request",
        "invalid_request_error",
        "invalid_url",
        "invalid_value",
        "mismatched_model",
        "missing_required_parameter",
        "model_mismatch",
        "model_not_found",
        "url_mismatch",
    }
)


def moment(value: Any) -> datetime | None:
    """Read a Unix time in seconds; 0 and anything else that is not one reads as absent."""
    if isinstance(value, bool) or not isinstance(value, int | float) or value <= 0:
        return None
    try:
        return datetime.fromtimestamp(value, UTC)
    except (ValueError, OverflowError, OSError):
        return None


def read_state(batch: Mapping[str, Any]) -> JobState:
    """
    Translate ``status``, with the request counts where the word alone says too little.

    A word that is not known is read from the batch's timestamps; a batch without an end is running, and the
    task's deadline bounds it.
    """
    word = str(batch.get("status") or "").strip().lower().replace("-", "_")
    state = _STATES.get(word)
    if state is None:
        state = next((end for name, end in _ENDS.items() if moment(batch.get(name))), JobState.RUNNING)
    if state is JobState.SUCCEEDED:
        counts = _counts(batch)
        unfinished = counts.total is not None and counts.succeeded is not None and counts.succeeded < counts.total
        if counts.failed or unfinished:
            return JobState.PARTIAL
    return state


def read_status(batch: Mapping[str, Any]) -> JobStatus:
    """Translate a batch object; whatever a server leaves out reads as unknown."""
    state = read_state(batch)
    counts = _counts(batch)
    errors = _errors(batch)
    return JobStatus(
        state=state,
        raw=str(batch.get("status")),
        counts=counts,
        progress=_progress(counts),
        errors=tuple(errors[:MAX_ERRORS]),
        cause=parse_cause(errors) if state is JobState.FAILED else None,
        results_expire_at=_lapse(batch) if state.is_terminal else None,
    )


def parse_cause(errors: list[JobError]) -> FailureCause | None:
    """
    Say who can mend a failed batch, from its errors; ``None`` when they do not tell.

    Codes: https://learn.microsoft.com/azure/ai-services/openai/how-to/batch and
    https://github.com/openai/openai-python/issues/2084. The first error that tells decides.
    """
    if not errors:
        # Nothing was found wrong with the input: the server broke, or was started anew in the middle.
        return FailureCause.SERVICE
    for error in errors:
        code = (error.code or "").lower()
        for cause, codes in (
            (FailureCause.LIMITS, LIMIT_CODES),
            (FailureCause.CREDENTIALS, _CREDENTIALS_CODES),
            (FailureCause.SERVICE, _SERVICE_CODES),
            (FailureCause.INPUT, _INPUT_CODES),
        ):
            if code in codes:
                return cause
        if error.line is not None or error.param is not None:
            return FailureCause.INPUT
    return None


def _counts(batch: Mapping[str, Any]) -> JobCounts:
    raw = batch.get("request_counts")
    if not isinstance(raw, dict):
        return JobCounts()
    total, completed, failed = (_count(raw.get(name)) for name in ("total", "completed", "failed"))
    if not total and not completed and not failed:
        # All zeros is what a server says before it has counted, and what some say for ever.
        return JobCounts()
    return JobCounts(total=total or None, succeeded=completed, failed=failed)


def _count(value: Any) -> int | None:
    return value if isinstance(value, int) and not isinstance(value, bool) and value >= 0 else None


def _progress(counts: JobCounts) -> float | None:
    if not counts.total:
        return None
    return min(((counts.succeeded or 0) + (counts.failed or 0)) / counts.total, 1.0)


def _errors(batch: Mapping[str, Any]) -> list[JobError]:
    raw = batch.get("errors")
    data = raw.get("data") if isinstance(raw, dict) else raw
    if not isinstance(data, list):
        return []
    errors = []
    for item in data:
        if isinstance(item, dict):
            code, param, line = item.get("code"), item.get("param"), _count(item.get("line"))
            errors.append(
                JobError(
                    code=str(code) if code else None,
                    message=str(item.get("message") or code or "no message"),
                    param=str(param) if param else None,
                    line=line,
                )
            )
        elif item:
            errors.append(JobError(message=str(item)))
    return errors


def _lapse(batch: Mapping[str, Any]) -> datetime | None:
    """Some servers repeat ``output_expires_after``; the anchor is the result file's creation, near the end."""
    asked = batch.get("output_expires_after")
    seconds = _count(asked.get("seconds")) if isinstance(asked, dict) else None
    ended = next((at for name in _ENDS if (at := moment(batch.get(name)))), None)
    return moment(ended.timestamp() + seconds) if seconds and ended else None
