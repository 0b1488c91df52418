"""What Azure OpenAI says of an ingestion job, and of a call that failed, in our words."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Final

from overnight.errors import (
    CredentialsError,
    NotFoundError,
    RateLimitedError,
    RequestRefusedError,
    ServiceError,
    TransientError,
    UnavailableError,
)
from overnight.jobs import FailureCause, JobCounts, JobError, JobState, JobStatus

MAX_ERRORS: Final = 20
MAX_WARNINGS: Final = 20
"""How many are carried along; a status travels by XCom."""
MAX_TEXT: Final = 1_000

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


@dataclass(frozen=True)
class Meaning:
    """
    What an error code of the service comes to.

    :param error: The exception when a call is refused with it.
    :param blame: Who can mend a job that failed with it.
    :param remedy: What a user can do.
    """

    error: type[ServiceError]
    cause: FailureCause
    remedy: str


MEANINGS: Final[Mapping[str, Meaning]] = {
    "conflict": Meaning(
        RequestRefusedError,
        FailureCause.INPUT,
        "Something of this name is in use: look for an index or indexer named after the job in the search service.",
    ),
    "contentFilter": Meaning(
        RequestRefusedError, FailureCause.INPUT, "The safety system refuses the content; take it out of the container."
    ),
    "fileImportFailed": Meaning(
        RequestRefusedError,
        FailureCause.INPUT,
        "A document could not be read: check its format, and that the connection's storage credentials may read it.",
    ),
    "forbidden": Meaning(
        CredentialsError,
        FailureCause.CREDENTIALS,
        "Give the key, or the managed identity, of the connection its role at Azure OpenAI, the search service and the "
        "storage account.",
    ),
    "internalFailure": Meaning(UnavailableError, FailureCause.SERVICE, "The service broke; a retry may succeed."),
    "invalidPayload": Meaning(
        RequestRefusedError,
        FailureCause.INPUT,
        "Check the operator's parameters and the connection's fields against the Ingestion Jobs reference.",
    ),
    "itemDoesAlreadyExist": Meaning(
        RequestRefusedError,
        FailureCause.INPUT,
        "Delete the index or indexer named after the job from the search service, and clear the task.",
    ),
    "jsonlValidationFailed": Meaning(RequestRefusedError, FailureCause.INPUT, "Mend the JSON Lines in the container."),
    "notFound": Meaning(
        NotFoundError,
        FailureCause.INPUT,
        "Check the endpoint, the storage container, the search service and the embedding deployment of the connection.",
    ),
    "quotaExceeded": Meaning(
        RequestRefusedError,
        FailureCause.LIMITS,
        "No waiting mends it: raise the embedding deployment's quota or the search service's tier, or ingest less.",
    ),
    "serviceUnavailable": Meaning(
        UnavailableError, FailureCause.SERVICE, "The service is down for now; a retry may succeed."
    ),
    "tooManyRequests": Meaning(
        RateLimitedError,
        FailureCause.SERVICE,
        "The account's rate limit is reached; a retry after a while may succeed.",
    ),
    "unauthorized": Meaning(
        CredentialsError,
        FailureCause.CREDENTIALS,
        "Check the API key in the connection, and that it belongs to the endpoint.",
    ),
    "unexpectedEntityState": Meaning(
        RequestRefusedError,
        FailureCause.INPUT,
        "A resource is not in a state that allows this: see whether the search service and the storage account are "
        "running, and clear the task.",
    ),
}
"""The error codes of 2023-10-01-preview: https://learn.microsoft.com/rest/api/azureopenai/ingestion-jobs/create."""

_BY_CODE = {code.lower(): meaning for code, meaning in MEANINGS.items()} | {
    # The gateway in front of the service puts the status where the code belongs.
    "401": MEANINGS["unauthorized"],
    "403": MEANINGS["forbidden"],
    "404": MEANINGS["notFound"],
    "429": MEANINGS["tooManyRequests"],
}
FINAL_CODES: Final = frozenset({"quotaExceeded"})
"""Codes that no waiting mends even when they come with a 429 or 503."""


def get_meaning(code: str | None) -> Meaning | None:
    """Return what an error code means, however it is capitalised; ``None`` for one that is not in the reference."""
    return _BY_CODE.get(code.lower()) if code else None


def explained(error: ServiceError) -> ServiceError:
    """Return the error that the service's code asks for, whatever status came with it, with its remedy."""
    meaning = get_meaning(error.code)
    if meaning is None:
        return error
    text = str(error) if meaning.remedy in str(error) else f"{error} {meaning.remedy}"
    kind = meaning.error
    if issubclass(kind, TransientError):
        wait = error.retry_after if isinstance(error, TransientError) else None
        return kind(text, status=error.status, code=error.code, retry_after=wait)
    status = 404 if kind is NotFoundError else error.status
    return kind(text, status=status, code=error.code)


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
    blames = (meaning.cause for error in errors if (meaning := get_meaning(error.code)))
    # A failure that says nothing is none of the input's.
    cause = next(blames, None) if errors else FailureCause.SERVICE
    warnings = job.get("warnings")
    texts = [scrub(str(text))[:MAX_TEXT] for text in warnings] if isinstance(warnings, list) else []
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
    text = scrub(str(error.get("message") or code or "no message"))[:MAX_TEXT]
    inner = _inner_codes(error.get("innererror"))
    if inner:
        text = f"{text} ({' > '.join(inner)})"
    meaning = get_meaning(code)
    if meaning is not None:
        text = f"{text} {meaning.remedy}"
    target = scrub(str(error["target"]))[:MAX_TEXT] if error.get("target") else None
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
