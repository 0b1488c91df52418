"""How the end of a job reaches Airflow: the XCom it leaves, and the exception it raises."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any, Final

from airflow.sdk.exceptions import AirflowFailException, AirflowNotFoundException
from pydantic import ValidationError

from overnight.errors import OvernightError, QueueDeadlineError, shorten
from overnight.validation import describe_faults

if TYPE_CHECKING:
    from overnight.jobs import JobRecord, JobRef, JobStatus, ResultManifest

QUEUED_KEY: Final = "queued"
"""The key of the XCom that says why a job waits, or waited, for room in its service's queue."""
MAX_REFUSAL: Final = 8_000
"""Characters of a refusal: more than one quoted text, since it may name many faulty lines."""


def build_outcome(
    ref: JobRef, status: JobStatus | None = None, results: ResultManifest | None = None, *, former_rounds: int = 0
) -> dict[str, Any]:
    """
    Return the XCom of every task that has to do with a job: references and counts, never results.

    :param former_rounds: How many rounds before this one were submitted, of which nothing is said here.
    """
    return {
        "ref": ref.model_dump(mode="json"),
        "status": status.model_dump(mode="json") if status is not None else None,
        "results": results.model_dump(mode="json") if results is not None else None,
        **_count_rounds(former_rounds),
    }


def build_queued(
    record: JobRecord, error: QueueDeadlineError | None = None, *, former_rounds: int = 0
) -> dict[str, Any] | None:
    """
    Return what an XCom says of a job that waits at our side for room in its service's queue, or did.

    :param error: There was no room in time, and the job was not submitted.
    :param former_rounds: As for :func:`build_outcome`.
    :return: ``seconds`` of the wait are ``None`` while it lasts; ``None`` for a job that did not wait.
    """
    from overnight.jobs import JobState  # noqa: PLC0415 - not at parse

    request = record.queued
    if request is None:
        return None
    ended_at = datetime.now(UTC) if error is not None else record.submitted_at
    return {
        "service": request.service,
        "name": request.name,
        "state": JobState.QUEUED.value if record.is_waiting else None,
        "seconds": round((ended_at - request.since).total_seconds(), 1) if ended_at is not None else None,
        "reason": shorten(str(error)) if error is not None else request.why,
        **_count_rounds(former_rounds),
    }


def _count_rounds(former: int) -> dict[str, int]:
    return {"former_rounds": former} if former else {}


@contextmanager
def failing_for_good() -> Iterator[None]:
    """Turn what no retry can mend into Airflow's fail-without-retry exception; the original is its cause."""
    try:
        yield
    except AirflowNotFoundException as error:
        # Airflow's own words are "The conn_id `x` isn't defined"; at the next try it is not there either.
        raise AirflowFailException(
            f"{shorten(str(error)).rstrip('.')}. Create the connection, or name another that is there."
        ) from None
    except ValidationError as error:
        # Neither the values nor the exception that quotes them.
        raise AirflowFailException(
            f"{describe_faults(error)}. Correct what this task is given ({error.title})."
        ) from None
    except OvernightError as error:
        if error.retryable:
            error.args = (shorten(str(error), MAX_REFUSAL), *error.args[1:])
            raise
        raise AirflowFailException(shorten(str(error), MAX_REFUSAL)) from error
