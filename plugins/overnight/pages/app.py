"""The FastAPI app behind the page: what it shows, to whom, and the cancellation of a job that no task waits for."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any, Final

from airflow.api_fastapi.auth.managers.models.resource_details import DagAccessEntity
from airflow.api_fastapi.common.db.common import SessionDep
from airflow.api_fastapi.core_api.security import GetUserDep
from airflow.sdk.exceptions import AirflowNotFoundException
from fastapi import FastAPI, HTTPException, Query, Request, Response, status
from fastapi.responses import HTMLResponse, JSONResponse, StreamingResponse
from fastapi.staticfiles import StaticFiles
from jinja2 import Environment, FileSystemLoader, StrictUndefined
from pydantic import BaseModel, ConfigDict
from starlette.middleware.base import RequestResponseEndpoint

from overnight.errors import OvernightError
from overnight.hooks.job import hook_for
from overnight.jobs import JobRef, JobState
from overnight.jobs.wait import request_cancellation
from overnight.pages import runs
from overnight.pages.access import require, select_readable
from overnight.pages.jobs import JobRow, list_dag_ids, list_jobs
from overnight.storage_errors import MissingFileError

_HERE: Final = Path(__file__).parent
HEADERS: Final = {
    "Content-Security-Policy": (
        "default-src 'none'; style-src 'self'; script-src 'self'; connect-src 'self'; img-src 'self'; "
        "form-action 'self'; base-uri 'none'; frame-ancestors 'self'"
    ),
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "same-origin",
    "Cache-Control": "no-store",
}

_html = Environment(
    loader=FileSystemLoader(_HERE / "html"),
    autoescape=True,
    undefined=StrictUndefined,
    trim_blocks=True,
    lstrip_blocks=True,
)

Text = Annotated[str, Query(max_length=1_000)]


class Job(BaseModel):
    """A job, by the task instance that it belongs to and the key of its record there."""

    model_config = ConfigDict(extra="forbid")

    dag_id: str
    run_id: str
    task_id: str
    map_index: int = -1
    key: str


def create_app() -> FastAPI:
    """Return the app, to be mounted in Airflow's API server."""
    app = FastAPI(title="Overnight", docs_url=None, redoc_url=None, openapi_url=None)
    app.mount("/static", StaticFiles(directory=_HERE / "static"), name="static")
    app.middleware("http")(_add_headers)
    app.exception_handler(OvernightError)(_refuse)
    app.exception_handler(AirflowNotFoundException)(_refuse)
    app.get("/", response_class=HTMLResponse)(show_jobs)
    app.get("/run", response_class=HTMLResponse)(show_run)
    app.get("/run/dead-letters")(download_dead_letters)
    app.get("/status")(get_status)
    app.post("/cancel")(cancel)
    return app


async def _add_headers(request: Request, call_next: RequestResponseEndpoint) -> Response:
    response = await call_next(request)
    response.headers.update(HEADERS)
    return response


def _refuse(request: Request, error: Exception) -> Response:
    del request
    return JSONResponse({"detail": str(error)}, status.HTTP_502_BAD_GATEWAY)


def show_jobs(  # noqa: PLR0917 - FastAPI passes them by name
    user: GetUserDep,
    session: SessionDep,
    dag_id: Text = "",
    service: Text = "",
    state: Text = "",
    text: Text = "",
) -> HTMLResponse:
    """Show the jobs of the DAGs whose task instances the user may read."""
    readable = select_readable(user, DagAccessEntity.TASK_INSTANCE, list_dag_ids(session), session)
    rows = list_jobs(session, readable)
    chosen = [
        row
        for row in rows
        if dag_id in ("", row.dag_id)
        and service in ("", row.service)
        and state in ("", row.label)
        and text.lower() in f"{row.job_id} {row.run_id} {row.task_id} {row.error}".lower()
    ]
    return _page(
        "jobs.html",
        rows=chosen,
        count=len(rows),
        filters={"dag_id": dag_id, "service": service, "state": state, "text": text},
        dag_ids=sorted(readable),
        services=sorted({row.service for row in rows if row.service}),
        states=["submitting", "queued here", "unknown", *(str(each) for each in JobState)],
    )


def show_run(user: GetUserDep, session: SessionDep, dag_id: Text, run_id: Text, text: Text = "") -> HTMLResponse:
    """Show a run's jobs, its report, the documents that were not indexed, and what a search finds."""
    require(user, "GET", DagAccessEntity.TASK_INSTANCE, dag_id, session)
    require(user, "GET", DagAccessEntity.XCOM, dag_id, session)
    report = runs.find_report(session, dag_id, run_id)
    settings = runs.find_settings(session, dag_id, run_id)
    files, hits, refusal = [], None, ""
    if report is not None:
        storage = runs.open_storage(settings)
        for number, uri in enumerate(report.dead_letter_uris):
            try:
                files.append((number, uri, runs.read_first(uri, storage), ""))
            except (OvernightError, OSError, AirflowNotFoundException) as error:
                files.append((number, uri, [], str(error)))
        if text.strip():
            try:
                hits = runs.search_run(report, settings, text)
            except (OvernightError, AirflowNotFoundException) as error:
                refusal = str(error)
    jobs = [row for row in list_jobs(session, [dag_id]) if row.run_id == run_id]
    return _page(
        "run.html",
        dag_id=dag_id,
        run_id=run_id,
        report=report,
        rows=jobs,
        files=files,
        shown=runs.SHOWN,
        text=text,
        hits=hits,
        refusal=refusal,
    )


def download_dead_letters(
    user: GetUserDep, session: SessionDep, dag_id: Text, run_id: Text, number: Annotated[int, Query(ge=0)]
) -> StreamingResponse:
    """
    Return a file of documents that were not indexed, by its number in the run's report.

    :raises HTTPException: 403 without the right to read the DAG's XComs, 404 when the report has no such file,
        or it was deleted.
    """
    require(user, "GET", DagAccessEntity.XCOM, dag_id, session)
    report = runs.find_report(session, dag_id, run_id)
    if report is None or number >= len(report.dead_letter_uris):
        raise HTTPException(status.HTTP_404_NOT_FOUND, "The run's report has no such file.")
    uri = report.dead_letter_uris[number]
    name = f"dead-letters-{number}.jsonl"
    try:
        content = runs.read_bytes(uri, runs.open_storage(runs.find_settings(session, dag_id, run_id)))
    except MissingFileError as error:
        raise HTTPException(status.HTTP_404_NOT_FOUND, "The file was deleted.") from error
    return StreamingResponse(
        content,
        media_type="application/x-ndjson",
        headers={"Content-Disposition": f'attachment; filename="{name}"'},
    )


def get_status(user: GetUserDep, session: SessionDep, job: Annotated[Job, Query()]) -> dict[str, Any]:
    """
    Ask the service about a job that is not over.

    :raises HTTPException: 403 without the right to read the DAG's task instances, 404 when there is no such job.
    """
    require(user, "GET", DagAccessEntity.TASK_INSTANCE, job.dag_id, session)
    ref = _find(session, job)
    with hook_for(ref).client() as client:
        answer = client.run(client.service.status(ref))
    return {
        "state": str(answer.state),
        "is_over": answer.state.is_terminal,
        "share": answer.get_share_done(),
        "total": answer.counts.total,
        "failed": answer.counts.failed,
        "text": answer.describe(),
    }


def cancel(user: GetUserDep, session: SessionDep, job: Job) -> dict[str, str]:
    """
    Cancel a job that no task waits for. Of one that a task waits for, the task is marked failed by Airflow's own API.

    :raises HTTPException: 403 without the right to change the DAG's task instances, 404 when there is no such job, 409
        when its task is not over: it would submit the job again.
    """
    require(user, "PUT", DagAccessEntity.TASK_INSTANCE, job.dag_id, session)
    row = _find_row(session, job)
    if row.is_awaited:
        raise HTTPException(status.HTTP_409_CONFLICT, "A task waits for this job: mark the task failed instead.")
    ref = _find(session, job)
    with hook_for(ref).client() as client:
        return {"text": client.run(request_cancellation(client.service, ref))}


def _find_row(session: SessionDep, job: Job) -> JobRow:
    place = (job.dag_id, job.run_id, job.task_id, job.map_index)
    for row in list_jobs(session, only=place):
        if row.key == job.key:
            return row
    raise HTTPException(status.HTTP_404_NOT_FOUND, "There is no such job.")


def _find(session: SessionDep, job: Job) -> JobRef:
    row = _find_row(session, job)
    if row.job_id is None:
        raise HTTPException(status.HTTP_404_NOT_FOUND, "The job is not submitted yet.")
    return JobRef(service=row.service, id=row.job_id, conn_id=row.conn_id)


def _page(name: str, **values: Any) -> HTMLResponse:
    # Relative, since Airflow may have a path in front of its own.
    return HTMLResponse(_html.get_template(name).render(root="./", up="../", **values))
