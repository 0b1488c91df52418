"""From Azure OpenAI's ingestion job to a job status."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Final

from overnight.errors import shorten
from overnight.jobs import FailureCause, JobCounts, JobError, JobState, JobStatus
from overnight.services.azure_ingestion.causes import get_cause
from overnight.transport.errors import add_remedy

MAX_ERRORS: Final = 20
MAX_WARNINGS: Final = 20
"""How many are carried along; a status travels by XCom."""

_STATES = {
    "notrunning": JobState.QUEUED,
    "running": JobState.RUNNING,
    "succeeded": JobState.SUCCEEDED,
    "failed": JobState.FAILED,
    "canceled": JobState.CANCELLED,
    "cancelled": JobState.CANCELLED,
}
_LAST_STAGE = "indexing"
_ENDED_WELL = frozenset({JobState.SUCCEEDED, JobState.PARTIAL})


def read_state(job: Mapping[str, Any]) -> JobState:
    """
    Translate ``status``, which later previews capitalise, with the stage counts where the word alone says too little.

    A word that is not known reads as running: the task's deadline bounds it.
    """
    state = _STATES.get(str(job.get("status") or "").lower(), JobState.RUNNING)
    counts = _counts(job, state)
    return JobState.PARTIAL if state is JobState.SUCCEEDED and counts.failed else state


def read_status(
    job: Mapping[str, Any], *, scrub: Callable[[str], str] = str, poll_after: float | None = None
) -> JobStatus:
    """
    Translate an ingestion job; whatever is missing reads as unknown.

    The counts are of the Indexing stage, which is what ends up in the index. The progress is the mean of all stages.

    :param scrub: Takes credentials out of the service's words.
    :param poll_after: What the answer's ``Retry-After`` said.
    """
    state = read_state(job)
    errors = _errors(job.get("error"), scrub)
    blames = (known.cause for error in errors if (known := get_cause(error.code)))
    # A failure that says nothing is none of the input's.
    cause = next(blames, None) if errors else FailureCause.SERVICE
    warnings = job.get("warnings")
    texts = [shorten(scrub(str(text))) for text in warnings] if isinstance(warnings, list) else []
    return JobStatus(
        state=state,
        raw=str(job.get("status")),
        counts=_counts(job, state),
        progress=_progress(job, state),
        errors=tuple(errors[:MAX_ERRORS]),
        cause=cause if state is JobState.FAILED else None,
        warnings=tuple(texts[:MAX_WARNINGS]),
        poll_after=poll_after,
    )


@dataclass(frozen=True)
class Stage:
    """How far one stage of a job is: documents while Preprocessing, chunks while Indexing."""

    name: str
    total: int
    processed: int


def stages(job: Mapping[str, Any]) -> list[Stage]:
    """Return a job's stages in the service's order."""
    progress = job.get("progress")
    listed = progress.get("stageProgress") if isinstance(progress, dict) else None
    return [
        Stage(str(stage.get("name")), _number(stage.get("totalItems")), _number(stage.get("processedItems")))
        for stage in (listed if isinstance(listed, list) else [])
        if isinstance(stage, dict)
    ]


def _counts(job: Mapping[str, Any], state: JobState) -> JobCounts:
    last = next((stage for stage in stages(job) if stage.name.lower() == _LAST_STAGE and stage.total), None)
    if last is None:
        return JobCounts()
    # While it runs, what is not processed is still to come.
    succeeded = min(last.processed, last.total)
    return JobCounts(
        total=last.total, succeeded=succeeded, failed=last.total - succeeded if state in _ENDED_WELL else None
    )


def _progress(job: Mapping[str, Any], state: JobState) -> float | None:
    if state in _ENDED_WELL:
        return 1.0
    shares = [min(stage.processed / stage.total, 1.0) if stage.total else 0.0 for stage in stages(job)]
    return sum(shares) / len(shares) if shares else None


def _number(value: Any) -> int:
    return value if isinstance(value, int) and not isinstance(value, bool) and value > 0 else 0


def _errors(error: Any, scrub: Callable[[str], str]) -> list[JobError]:
    """Return an error and its details, each with its remedy."""
    if not isinstance(error, dict):
        return []
    code = str(error["code"]) if error.get("code") else None
    text = shorten(scrub(str(error.get("message") or code or "no message")))
    inner = _inner_codes(error.get("innererror"))
    if inner:
        text = f"{text} ({' > '.join(inner)})"
    known = get_cause(code)
    if known is not None:
        text = add_remedy(text, known.remedy)
    target = shorten(scrub(str(error["target"]))) if error.get("target") else None
    details = error.get("details")
    found = [JobError(code=code, message=text, param=target)]
    for detail in details if isinstance(details, list) else []:
        found += _errors(detail, scrub)
    return found


def _inner_codes(inner: Any) -> list[str]:
    codes = []
    while isinstance(inner, dict):
        if inner.get("code"):
            codes.append(str(inner["code"]))
        inner = inner.get("innererror")
    return codes
