"""From a batch object of OpenAI, Azure OpenAI or a compatible server to a job status."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from typing import Any, Final

import orjson

from overnight.errors import shorten
from overnight.jobs import FailureCause, JobCounts, JobError, JobState, JobStatus
from overnight.jobs.cause import Cause
from overnight.services.openai.causes import get_cause
from overnight.services.openai.result_line import Outcome, Result

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


def parse_moment(value: Any) -> datetime | None:
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
    state = _STATES.get(_get_word(batch))
    if state is None:
        state = next((end for name, end in _ENDS.items() if parse_moment(batch.get(name))), JobState.RUNNING)
    if state is JobState.SUCCEEDED:
        if "output_file_id" in batch and not batch["output_file_id"]:
            # Over, and there is nothing to fetch: no request has a result.
            return JobState.FAILED
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
    warnings = []
    if _get_word(batch) not in _STATES:
        word = shorten(_quote(batch.get("status")), 80)
        warnings.append(f"The service calls the batch {word}, which Overnight does not know: {state}.")
    cause = None
    if state is JobState.FAILED:
        cause, remedy = _get_cause(errors)
        if not errors and _STATES.get(_get_word(batch)) is JobState.SUCCEEDED:
            # Its requests failed, and only its error file says why: another batch may fail alike, and is paid for.
            cause, remedy = _sum_up([], [])
        warnings.append(remedy)
    return JobStatus(
        state=state,
        raw=shorten(str(batch.get("status")), 80),
        counts=counts,
        progress=_progress(counts),
        errors=tuple(errors[:MAX_ERRORS]),
        cause=cause,
        results_expire_at=_get_expiry(batch) if state.is_terminal else None,
        warnings=tuple(warnings),
    )


def with_error_lines(status: JobStatus, lines: Sequence[Result], *, has_output: bool) -> JobStatus:
    """
    Correct the status of a completed batch by the lines of its error file.

    :param status: What the batch object alone says.
    :param lines: Of the error file, as many as were read.
    :param has_output: Whether the batch names an output file. Without one nothing succeeded, and the error file says
        why.
    """
    failed = [line.outcome for line in lines if line.outcome.outcome != Outcome.BROKEN]
    if has_output and not failed:
        return status
    errors = [
        JobError(
            code=one.code, message=one.message or f"status {one.status}" if one.message or one.status else "failed"
        )
        for one in failed
    ]
    counts = status.counts
    if not has_output:
        rows = [get_cause(one.code, one.status) for one in failed]
        cause, remedy = _sum_up(rows, errors)
        return status.model_copy(
            update={
                "state": JobState.FAILED,
                "errors": (status.errors + tuple(errors))[:MAX_ERRORS],
                "cause": cause,
                "counts": counts.model_copy(update={"succeeded": 0}),
                "warnings": (
                    "The service calls the batch completed, and there is no output file: no request has a result.",
                    remedy,
                ),
            }
        )
    most = max(counts.failed or 0, len(failed))
    update: dict[str, Any] = {"failed": most}
    if counts.total is not None:
        update["succeeded"] = min(counts.succeeded or 0, max(counts.total - most, 0))
    if most == (counts.failed or 0):
        return status.model_copy(update={"errors": (status.errors + tuple(errors))[:MAX_ERRORS]})
    return status.model_copy(
        update={
            "state": JobState.PARTIAL,
            "counts": counts.model_copy(update=update),
            "errors": (status.errors + tuple(errors))[:MAX_ERRORS],
            "warnings": (
                *status.warnings,
                f"The service counts {counts.failed or 0} failed requests; its error file has {len(failed)} or more.",
            ),
        }
    )


def read_usage(value: Any) -> dict[str, int]:
    """
    Return what a batch used, in tokens as the service counts them: ``input``, ``output``, ``cached_input`` …

    The names are without the word "token": Airflow shows no value of an XCom whose name has it.

    :param value: ``usage`` of a batch, or of the body of one answer.
    :return: Nothing where it does not say what was used.
    """
    if not isinstance(value, dict):
        return {}
    usage: dict[str, int] = {}
    for name, sources in _USAGE.items():
        for source in sources:
            found: Any = value
            for step in source:
                found = found.get(step) if isinstance(found, dict) else None
            if (count := _count(found)) is not None:
                usage[name] = count
                break
    # All zeros is what a server says that does not count.
    return usage if any(usage.values()) else {}


_USAGE: Final[Mapping[str, tuple[tuple[str, ...], ...]]] = {
    "input": (("input_tokens",), ("prompt_tokens",)),
    "cached_input": (("input_tokens_details", "cached_tokens"), ("prompt_tokens_details", "cached_tokens")),
    "output": (("output_tokens",), ("completion_tokens",)),
    "reasoning_output": (
        ("output_tokens_details", "reasoning_tokens"),
        ("completion_tokens_details", "reasoning_tokens"),
    ),
    "total": (("total_tokens",),),
}


def _get_word(batch: Mapping[str, Any]) -> str:
    return str(batch.get("status") or "").strip().lower().replace("-", "_")


def _get_cause(errors: Sequence[JobError]) -> tuple[FailureCause | None, str]:
    """Return who can mend a failed batch, and how; ``None`` when its errors do not say."""
    if not errors:
        # Nothing was found wrong with the input: the server broke, or was started anew in the middle.
        return FailureCause.SERVICE, "The service does not say why the batch failed."
    return _sum_up([get_cause(error.code) for error in errors], errors)


def _sum_up(rows: Sequence[Cause | None], errors: Sequence[JobError]) -> tuple[FailureCause | None, str]:
    """Let the first error that is known decide; one that names a line or a parameter is about the input."""
    for row, error in zip(rows, errors, strict=True):
        if row is not None:
            return row.cause, row.remedy
        if error.line is not None or error.param is not None:
            return FailureCause.INPUT, "Mend the request; the service refuses it as it is."
    if not errors:
        return None, "The service does not say why. Look at the batch's page there."
    return None, (
        f"Overnight does not know what this error means: {shorten(str(errors[0]), 500)} It is not retried; clear the "
        "task once its cause is mended."
    )


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
    """Read a batch's errors, whatever shape a server gives them: what is there is quoted, never dropped."""
    raw = batch.get("errors") or batch.get("error")
    if not raw:
        return []
    if isinstance(raw, dict):
        data = raw.get("data")
        # A list object without items says nothing; one without data may itself be the error.
        items = data if "data" in raw else [raw] if raw.keys() - {"object"} else []
    else:
        items = raw
    if not items:
        return []
    return [_error(item) for item in (items if isinstance(items, list) else [items]) if item]


def _error(item: Any) -> JobError:
    if not isinstance(item, dict):
        return JobError(message=shorten(item if isinstance(item, str) else _quote(item)))
    code, param = item.get("code") or item.get("type"), item.get("param")
    message = item.get("message") or item.get("errorMessage") or item.get("detail")
    return JobError(
        code=shorten(str(code), 200) if code else None,
        message=shorten(str(message) if message else str(code) if code else _quote(item)),
        param=shorten(str(param), 200) if param else None,
        line=_count(item.get("line")),
    )


def _quote(value: Any) -> str:
    try:
        return orjson.dumps(value, default=repr).decode()
    except (TypeError, ValueError):
        return repr(value)


def _get_expiry(batch: Mapping[str, Any]) -> datetime | None:
    """Some servers repeat ``output_expires_after``; the anchor is the result file's creation, near the end."""
    asked = batch.get("output_expires_after")
    seconds = _count(asked.get("seconds")) if isinstance(asked, dict) else None
    ended = next((at for name in _ENDS if (at := parse_moment(batch.get(name)))), None)
    return parse_moment(ended.timestamp() + seconds) if seconds and ended else None
