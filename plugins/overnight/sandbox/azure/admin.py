"""``/_sandbox/…``: what a user of the emulator, not of the API, can see and change while it runs. It wants no key."""

from __future__ import annotations

from pathlib import PurePosixPath
from typing import Any

import orjson
from fastapi import APIRouter, Request

from overnight.sandbox.azure.errors import invalid
from overnight.sandbox.azure.state import State
from overnight.sandbox.emulator.requests import ADMIN
from overnight.sandbox.emulator.sections import Sections


def admin_router(state: State) -> APIRouter:
    """Return the routes."""
    router = APIRouter(prefix=ADMIN)
    sections = Sections(
        state.settings,
        state.draws,
        ("faults", "quirks", "pace"),
        beside=("blobs", "clock", "requests", "health"),
    )

    @router.get("/health")
    def health() -> dict[str, Any]:
        return {"status": "ok", "unfinished_jobs": sum(not job.is_over for job in state.jobs.all())}

    @router.get("/clock")
    def clock() -> dict[str, Any]:
        return {"now": state.clock.now(), "offset": state.clock.offset}

    @router.post("/clock")
    async def advance(request: Request) -> dict[str, Any]:
        seconds = (await _object(request)).get("advance")
        if not isinstance(seconds, int | float) or isinstance(seconds, bool) or seconds < 0:
            raise invalid("advance", "Seconds, 0 or more, are expected.")
        state.clock.advance(seconds)
        return clock()

    @router.get("/requests")
    async def requests(method: str | None = None, path: str | None = None) -> dict[str, Any]:
        return {"value": state.requests.public(method=method, path=path)}

    @router.delete("/requests")
    async def forget() -> dict[str, Any]:
        state.requests.clear()
        return await requests()

    @router.put("/blobs/{container}/{name:path}")
    async def put_blob(container: str, name: str, request: Request) -> dict[str, Any]:
        parts = PurePosixPath(container, name).parts
        if ".." in parts or len(parts) < 2:
            raise invalid("name", "That is not a blob's name.")
        target = state.blobs.joinpath(*parts)
        target.parent.mkdir(parents=True, exist_ok=True)
        size = target.write_bytes(await request.body())
        return {"container": container, "name": name, "bytes": size}

    sections.add_routes(router, _object)
    return router


async def _object(request: Request) -> dict[str, Any]:
    try:
        body = orjson.loads(await request.body())
    except orjson.JSONDecodeError:
        body = None
    if not isinstance(body, dict):
        raise invalid("body", "A JSON object is expected.")
    return body
