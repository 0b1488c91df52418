"""From a batch's result lines to what a common-ai operator writes down."""

from __future__ import annotations

import logging
from collections.abc import Iterator, Mapping
from typing import Any, Final, Literal, TypeAlias

import orjson
from airflow.providers.common.ai.batch.base import BatchState, BatchStatus, ExtractedOutput, RawResultItem

from overnight.errors import shorten
from overnight.jobs import JobState, JobStatus
from overnight.services.openai.result_line import LineOutcome, Outcome, Result
from overnight.services.openai.status import read_usage

log = logging.getLogger(__name__)

ProviderStatus: TypeAlias = Literal["success", "errored", "expired", "cancelled"]

_STATUSES: Final[Mapping[JobState, BatchStatus]] = {
    JobState.QUEUED: "in_progress",
    JobState.RUNNING: "in_progress",
    JobState.CANCELLING: "in_progress",
    JobState.SUCCEEDED: "completed",
    JobState.PARTIAL: "completed",
    JobState.FAILED: "failed",
    JobState.EXPIRED: "expired",
    JobState.CANCELLED: "cancelled",
}
_CANCELLED: Final = "batch_cancelled"
_MAX_TEXT: Final = 200


def to_batch_state(status: JobStatus) -> BatchState:
    """Return a status as common-ai has it. Requests that were never carried out count as the batch ended."""
    counts = status.counts
    errors = [str(error) for error in status.errors] or [
        warning for warning in status.warnings if status.state is JobState.FAILED
    ]
    known: dict[str, int] | None = None
    if counts.total is not None:
        succeeded, failed = counts.succeeded or 0, counts.failed or 0
        rest = max(counts.total - succeeded - failed, 0)
        known = {
            "succeeded": succeeded,
            "errored": failed,
            "expired": rest if status.state is JobState.EXPIRED else 0,
            "cancelled": rest if status.state is JobState.CANCELLED else 0,
        }
    return BatchState(status=_STATUSES[status.state], counts=known, error_message="; ".join(errors) or None)


def to_raw_items(results: Iterator[Result], batch_id: str) -> Iterator[RawResultItem]:
    """Yield result lines as common-ai has them; one that names no request of ours is left out, and logged."""
    for result in results:
        outcome = result.outcome
        index = _read_index(outcome.custom_id)
        if outcome.outcome == Outcome.BROKEN or index is None:
            log.warning(
                "%s: line %s of the %s file names no request of this batch, and is left out. %s",
                batch_id,
                outcome.source_line,
                outcome.source,
                shorten(outcome.message or str(outcome.custom_id), _MAX_TEXT),
            )
            continue
        yield _read_success(result, index) if outcome.outcome == Outcome.SUCCEEDED else _read_failure(outcome, index)


def extract_output(raw: RawResultItem, *, is_structured: bool) -> ExtractedOutput:
    """Return the text of an answer of either endpoint; a refusal is no output."""
    texts, refusals = _find_texts(raw.raw)
    if refusals or not texts:
        return ExtractedOutput(kind="absent", text="".join(refusals) or None)
    return ExtractedOutput(kind="json_text" if is_structured else "text", text="".join(texts))


def _read_success(result: Result, index: int) -> RawResultItem:
    body = orjson.loads(result.usable)["response"]["body"]
    usage = read_usage(body.get("usage"))
    return RawResultItem(
        custom_id=str(result.outcome.custom_id),
        index=index,
        provider_status="success",
        model=body.get("model"),
        # Of a server that does not count nothing, and not 0.
        usage={f"{name}_tokens": usage[name] for name in ("input", "output") if name in usage} or None,
        finish_reason=_read_finish_reason(body),
        error=None,
        raw=body,
    )


def _read_failure(outcome: LineOutcome, index: int) -> RawResultItem:
    status: ProviderStatus = "errored"
    if outcome.outcome == Outcome.EXPIRED:
        status = "expired"
    elif outcome.code == _CANCELLED:
        status = "cancelled"
    return RawResultItem(
        custom_id=str(outcome.custom_id),
        index=index,
        provider_status=status,
        model=None,
        usage=None,
        finish_reason=None,
        error={
            "type": "provider_error" if status == "errored" else status,
            "message": outcome.message,
            "provider_code": outcome.code or (str(outcome.status) if outcome.status is not None else None),
            "stage": "provider",
        },
        raw=None,
    )


def _read_index(custom_id: str | None) -> int | None:
    _, separator, place = (custom_id or "").rpartition("-")
    return int(place) if separator and place.isdecimal() else None


def _read_finish_reason(body: Mapping[str, Any]) -> str | None:
    choices = body.get("choices")
    if isinstance(choices, list) and choices and isinstance(choices[0], dict):
        return choices[0].get("finish_reason")
    details = body.get("incomplete_details")
    reason = details.get("reason") if isinstance(details, dict) else None
    return reason or body.get("status")


def _find_texts(body: Any) -> tuple[list[str], list[str]]:
    """Return the texts and the refusals of a chat's first choice, or of all messages of a response."""
    body = body if isinstance(body, dict) else {}
    texts, refusals = [], []
    for choice in _get_objects(body.get("choices"))[:1]:
        message = choice.get("message")
        message = message if isinstance(message, dict) else {}
        texts.append(message.get("content"))
        refusals.append(message.get("refusal"))
    for item in _get_objects(body.get("output")):
        for part in _get_objects(item.get("content")) if item.get("type") == "message" else ():
            texts.append(part.get("text"))
            refusals.append(part.get("refusal"))
    return [text for text in texts if isinstance(text, str)], [
        text for text in refusals if isinstance(text, str) and text
    ]


def _get_objects(value: Any) -> list[dict[str, Any]]:
    return [item for item in value if isinstance(item, dict)] if isinstance(value, list) else []
