"""``/_sandbox/…``: what a user of the emulator, not of the API, can see and change while it runs. It wants no key."""

from __future__ import annotations

from typing import Any

import orjson
from fastapi import APIRouter, Request

from overnight.sandbox.emulator.requests import ADMIN
from overnight.sandbox.emulator.sections import Sections
from overnight.sandbox.openai.errors import ApiError, invalid_type
from overnight.sandbox.openai.state import State


def admin_router(state: State) -> APIRouter:
    """Return the routes."""
    router = APIRouter(prefix=ADMIN)
    sections = Sections(
        state.settings,
        state.decisions,
        ("faults", "quirks", "limits", "pace"),
        beside=("clock", "requests", "queue", "health"),
    )

    @router.get("/health")
    def health() -> dict[str, Any]:
        return {"status": "ok", "unfinished_batches": len(state.batches.unfinished())}

    @router.get("/clock")
    def clock() -> dict[str, Any]:
        return {"now": state.clock.now(), "offset": state.clock.offset}

    @router.post("/clock")
    async def advance(request: Request) -> dict[str, Any]:
        body = await _object(request)
        seconds = body.get("advance")
        if not isinstance(seconds, int | float) or isinstance(seconds, bool) or seconds < 0:
            raise invalid_type("advance", "decimal of seconds, 0 or more", seconds)
        state.clock.advance(seconds)
        return clock()

    @router.get("/requests")
    async def requests(method: str | None = None, path: str | None = None) -> dict[str, Any]:
        return {"object": "list", "data": state.requests.public(method=method, path=path)}

    @router.delete("/requests")
    async def forget() -> dict[str, Any]:
        state.requests.clear()
        return await requests()

    @router.get("/queue")
    def queue() -> dict[str, Any]:
        return state.queue.public()

    sections.add_routes(router, _object)
    return router


async def _object(request: Request) -> dict[str, Any]:
    try:
        body = orjson.loads(await request.body())
    except orjson.JSONDecodeError as error:
        raise ApiError(400, f"The body is not JSON: {error}") from error
    if not isinstance(body, dict):
        raise invalid_type("body", "object", body)
    return body
