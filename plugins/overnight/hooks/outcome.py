"""How the end of a job reaches Airflow: the XCom it leaves, and the exception it raises."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, Final

from airflow.sdk.exceptions import AirflowFailException, AirflowNotFoundException
from pydantic import ValidationError

from overnight.errors import OvernightError, shorten
from overnight.jobs import JobRef, JobStatus, ResultManifest

MAX_REFUSAL: Final = 8_000
"""Characters of a refusal: more than one quoted text, since it may name many faulty lines."""


def build_outcome(
    ref: JobRef, status: JobStatus | None = None, results: ResultManifest | None = None
) -> dict[str, Any]:
    """Return the XCom of every task that has to do with a job: references and counts, never results."""
    return {
        "ref": ref.model_dump(mode="json"),
        "status": status.model_dump(mode="json") if status is not None else None,
        "results": results.model_dump(mode="json") if results is not None else None,
    }


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
    except (OvernightError, ValidationError) as error:
        if isinstance(error, OvernightError) and error.retryable:
            error.args = (shorten(str(error), MAX_REFUSAL), *error.args[1:])
            raise
        raise AirflowFailException(shorten(str(error), MAX_REFUSAL)) from error
