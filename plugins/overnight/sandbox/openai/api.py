"""OpenAI's routes."""

from __future__ import annotations

import secrets
from typing import Any

import orjson
from fastapi import APIRouter, Depends, Request, Response
from fastapi.responses import FileResponse
from starlette.concurrency import run_in_threadpool

from overnight.sandbox.openai.batches import ENDPOINTS
from overnight.sandbox.openai.errors import ApiError, invalid_type, invalid_value, out_of_range
from overnight.sandbox.openai.models import answer
from overnight.sandbox.openai.state import State
from overnight.sandbox.openai.upload import receive_file

_MAX_BATCHES_LISTED = 100
_MAX_FILES_LISTED = 10_000
_CREATED = 1_700_000_000


def api_router(state: State) -> APIRouter:
    """Return the routes under ``/v1``; each wants the key."""
    router = APIRouter(prefix="/v1", dependencies=[Depends(_authentication(state))])
    _add_files(router, state)
    _add_batches(router, state)
    _add_models(router, state)
    return router


def _add_files(router: APIRouter, state: State) -> None:
    @router.post("/files")
    async def create_file(request: Request) -> dict[str, Any]:
        return (await receive_file(request, state)).public()

    @router.get("/files")
    def list_files(request: Request) -> dict[str, Any]:
        query = request.query_params
        order = query.get("order", "desc")
        if order not in ("asc", "desc"):
            raise invalid_value("order", order, ["asc", "desc"])
        page = state.files.page(
            after=query.get("after"),
            limit=_limit(query.get("limit"), default=_MAX_FILES_LISTED, high=_MAX_FILES_LISTED),
            newest_first=order == "desc",
            purpose=query.get("purpose"),
        )
        return page.public()

    @router.get("/files/{file_id}")
    def get_file(file_id: str) -> dict[str, Any]:
        return state.files.get(file_id).public()

    @router.delete("/files/{file_id}")
    def delete_file(file_id: str) -> dict[str, Any]:
        state.files.delete(file_id)
        return {"object": "file", "id": file_id, "deleted": True}

    @router.get("/files/{file_id}/content")
    def get_content(file_id: str, request: Request) -> Response:
        record = state.files.get(file_id)
        if state.settings.quirks.ignore_range:
            request.scope["headers"] = [pair for pair in request.scope["headers"] if pair[0] != b"range"]
        return FileResponse(state.files.path(file_id), media_type="application/octet-stream", filename=record.filename)


def _add_batches(router: APIRouter, state: State) -> None:
    @router.post("/batches")
    async def create_batch(request: Request) -> dict[str, Any]:
        body = await _json(request, state)
        record = await run_in_threadpool(
            state.batches.create,
            body,
            state.settings,
            by_deployment=request.scope["by_deployment"],
            draw=lambda: state.decisions.fate(state.settings.faults),
            admit=state.queue.admit,
        )
        return record.public(state.settings.quirks)

    @router.get("/batches")
    def list_batches(request: Request) -> dict[str, Any]:
        query = request.query_params
        limit = _limit(query.get("limit"), default=20, high=_MAX_BATCHES_LISTED)
        quirks = state.settings.quirks
        return state.batches.page(after=query.get("after"), limit=limit, quirks=quirks).public()

    @router.get("/batches/{batch_id}")
    def get_batch(batch_id: str) -> dict[str, Any]:
        return state.batches.get(batch_id).public(state.settings.quirks)

    @router.post("/batches/{batch_id}/cancel")
    def cancel_batch(batch_id: str) -> dict[str, Any]:
        quirks = state.settings.quirks
        return state.batches.cancel(batch_id, quirks).public(quirks)


def _add_models(router: APIRouter, state: State) -> None:
    for endpoint in ENDPOINTS:
        _add_endpoint(router, state, endpoint)

    @router.get("/models")
    def list_models() -> dict[str, Any]:
        return {"object": "list", "data": [_model(name) for name in state.settings.models]}

    @router.get("/models/{name}")
    def get_model(name: str) -> dict[str, Any]:
        if state.settings.model(name) is None:
            raise ApiError(404, f"The model '{name}' does not exist", param="model", code="model_not_found")
        return _model(name)


def _add_endpoint(router: APIRouter, state: State, endpoint: str) -> None:
    @router.post(endpoint.removeprefix("/v1"))
    async def synchronous(request: Request) -> dict[str, Any]:
        body = await _json(request, state)
        deployment = request.scope["deployment"]
        if deployment is not None and isinstance(body, dict):
            body["model"] = deployment
        done = await run_in_threadpool(
            answer,
            endpoint,
            body,
            state.settings,
            now=state.clock.now(),
            any_model=request.scope["by_deployment"],
        )
        return done.body


def _authentication(state: State) -> Any:
    async def authenticate(request: Request) -> None:
        scheme, _, token = request.headers.get("authorization", "").partition(" ")
        key = token.strip() if scheme.lower() == "bearer" else request.headers.get("api-key", "")
        if not key:
            message = (
                "You didn't provide an API key. You need to provide your API key in an Authorization header using "
                "Bearer auth (i.e. Authorization: Bearer YOUR_KEY), or in an api-key header."
            )
            raise ApiError(401, message)
        if not secrets.compare_digest(key.encode(), state.settings.api_key.get_secret_value().encode()):
            raise ApiError(401, "Incorrect API key provided.", code="invalid_api_key")

    return authenticate


async def _json(request: Request, state: State) -> Any:
    body = bytearray()
    async for chunk in request.stream():
        body += chunk
        if len(body) > state.settings.limits.request_bytes:
            raise ApiError(413, "The request's body is too large.")
    try:
        return orjson.loads(body)
    except orjson.JSONDecodeError:
        message = "We could not parse the JSON body of your request. The OpenAI API expects a JSON payload."
        raise ApiError(400, message) from None


def _limit(given: str | None, *, default: int, high: int) -> int:
    if given is None:
        return default
    try:
        limit = int(given)
    except ValueError:
        raise invalid_type("limit", "integer", given) from None
    if not 1 <= limit <= high:
        raise out_of_range("limit", limit, 1, high)
    return limit


def _model(name: str) -> dict[str, Any]:
    return {"id": name, "object": "model", "created": _CREATED, "owned_by": "overnight-sandbox"}
