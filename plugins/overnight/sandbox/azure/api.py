"""The routes of Azure OpenAI: https://learn.microsoft.com/rest/api/azureopenai/ingestion-jobs, 2023-10-01-preview."""

from __future__ import annotations

import secrets
from typing import Any, Final

import orjson
from fastapi import APIRouter, Depends, Request
from fastapi.responses import JSONResponse
from starlette.concurrency import run_in_threadpool

from overnight.sandbox.azure.errors import ApiError, invalid
from overnight.sandbox.azure.jobs import Job
from overnight.sandbox.azure.requests import check_body, check_headers, check_id
from overnight.sandbox.azure.state import State

PREFIX: Final = "/openai/extensions/on-your-data/ingestion-jobs"
API_VERSION: Final = "2023-10-01-preview"


def api_router(state: State) -> APIRouter:
    """Return the routes; each wants the key and the API version."""
    router = APIRouter(prefix=PREFIX, dependencies=[Depends(_check_caller(state))])

    @router.put("/{job_id}")
    async def create(job_id: str, request: Request) -> JSONResponse:
        check_id(job_id)
        headers = check_headers(request.headers)
        try:
            body = orjson.loads(await request.body())
        except orjson.JSONDecodeError:
            raise invalid("body", "The request body is not JSON.") from None
        settings = check_body(body)
        if body.get("id") not in (None, job_id):
            raise invalid("id", "The id in the body is not the id in the path.")
        job = await run_in_threadpool(_create, state, job_id, settings, headers)
        return _answer(state, job)

    @router.get("/{job_id}")
    def get(job_id: str) -> JSONResponse:
        return _answer(state, state.jobs.get(job_id))

    @router.get("")
    def show_all() -> dict[str, Any]:
        return {"value": [job.public(state.settings.quirks) for job in state.jobs.all()]}

    return router


def _create(state: State, job_id: str, settings: dict[str, Any], headers: dict[str, str]) -> Job:
    now = state.jobs.now()
    job = Job(id=job_id, settings=settings, headers=headers, run_at=now + state.settings.pace.queued)
    known = {existing.id for existing in state.jobs.all()}
    if job_id not in known:
        # Only a job that is new draws a fate.
        job.fate = state.draws.job_fate(state.settings.faults)
    return state.jobs.create(job)


def _answer(state: State, job: Job) -> JSONResponse:
    wait = state.settings.quirks.retry_after
    headers = {"Retry-After": f"{wait:g}"} if wait is not None and not job.is_over else None
    return JSONResponse(job.public(state.settings.quirks), headers=headers)


def _check_caller(state: State) -> Any:
    async def check(request: Request) -> None:
        key = request.headers.get("api-key", "")
        if not secrets.compare_digest(key.encode(), state.settings.api_key.get_secret_value().encode()):
            message = "Access denied due to invalid subscription key or wrong API endpoint."
            if state.settings.faults.repeat_credentials:
                message += f" The key was {key}."
            raise ApiError("unauthorized", message, target="api-key")
        if request.query_params.get("api-version") != API_VERSION:
            raise ApiError("notFound", "Resource not found.", target="api-version")

    return check
