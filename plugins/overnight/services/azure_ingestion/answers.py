"""The calls about ingestion jobs, with checked answers and each error as the kind that its code says."""

from __future__ import annotations

from typing import Any, Final
from urllib.parse import quote

from overnight.errors import NotFoundError, ServiceError, UnavailableError
from overnight.jobs import JobRef
from overnight.services.azure_ingestion.causes import explain
from overnight.services.azure_ingestion.connection import JOBS
from overnight.transport.flow import Flow
from overnight.transport.http import HttpAnswer, HttpCall

MAX_ID: Final = 256
"""Characters of a listed id that is looked at; ours are far shorter."""
STATUS_KEPT_HOURS: Final = 48
"""How long the service knows a job after its end."""


def ask(call: HttpCall) -> Flow[Any]:
    """Carry out one call, with each error raised as the kind that it is."""
    try:
        return (yield call)
    except ServiceError as error:
        # Not chained: the text has it all, and the code decides what kind of error it is.
        raise explain(error) from None


def list_jobs() -> Flow[list[dict[str, Any]]]:
    """Return the jobs that are running or ended in the last 48 hours."""
    answer = yield from ask(HttpCall("GET", JOBS))
    value = answer.get("value") if isinstance(answer, dict) else None
    if isinstance(answer, dict) and "value" in answer and value is None:
        # An empty list, as some serializers write it.
        return []
    if not isinstance(value, list):
        raise UnavailableError("The list of ingestion jobs has no value; does something else answer at this address?")
    return [job for job in value if isinstance(job, dict) and _is_id(job.get("id"))]


def find_job(job_id: str) -> Flow[dict[str, Any] | None]:
    """Return the job with an id, ``None`` when the service has none."""
    try:
        answer = yield from ask(HttpCall("GET", get_job_path(job_id)))
    except NotFoundError:
        return None
    if not isinstance(answer, dict):
        raise UnavailableError(f"The answer about {job_id} is not a job.")
    return answer


def get_job(ref: JobRef) -> Flow[tuple[dict[str, Any], float | None]]:
    """
    Return a job, and the seconds after which the service wants to be asked again.

    :raises NotFoundError: the service does not know it (any more).
    """
    try:
        answer: HttpAnswer = yield from ask(HttpCall("GET", get_job_path(ref.id), whole=True))
    except NotFoundError as error:
        raise NotFoundError(
            f"Azure OpenAI does not know {ref} (any more). It keeps a job for {STATUS_KEPT_HOURS} hours after its "
            "end and then forgets it: if the job ended well, its index of the same name is still in the search "
            f"service. Otherwise see whether the connection {ref.conn_id} still points at the right resource.",
            status=error.status,
            code=error.code,
        ) from None
    if not isinstance(answer.body, dict) or not isinstance(answer.body.get("status"), str):
        raise UnavailableError(f"The service's answer about {ref} is not a job.")
    return answer.body, answer.retry_after


def get_job_path(job_id: str) -> str:
    """Return the path of a job."""
    return f"{JOBS}/{quote(job_id, safe='')}"


def _is_id(value: Any) -> bool:
    return isinstance(value, str) and 0 < len(value) <= MAX_ID
