"""``/_sandbox/…``: what a user of the emulator, not of the API, can see and change while it runs. It wants no key."""

from __future__ import annotations

from pathlib import PurePosixPath
from typing import Any

import orjson
from fastapi import APIRouter, Request
from pydantic import BaseModel, ValidationError

from overnight.sandbox.azure.errors import ApiError, invalid
from overnight.sandbox.azure.settings import Faults, Pace, Quirks
from overnight.sandbox.azure.state import State
from overnight.sandbox.openai.faults import ADMIN

_SECTIONS: dict[str, type[BaseModel]] = {"faults": Faults, "quirks": Quirks, "pace": Pace}


def admin_router(state: State) -> APIRouter:
    """Return the routes."""
    router = APIRouter(prefix=ADMIN)

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
    def requests(method: str | None = None, path: str | None = None) -> dict[str, Any]:
        return {"value": state.requests.public(method, path)}

    @router.delete("/requests")
    def forget() -> dict[str, Any]:
        state.requests.clear()
        return requests()

    @router.put("/blobs/{container}/{name:path}")
    async def put_blob(container: str, name: str, request: Request) -> dict[str, Any]:
        parts = PurePosixPath(container, name).parts
        if ".." in parts or len(parts) < 2:
            raise invalid("name", "That is not a blob's name.")
        target = state.blobs.joinpath(*parts)
        target.parent.mkdir(parents=True, exist_ok=True)
        size = target.write_bytes(await request.body())
        return {"container": container, "name": name, "bytes": size}

    @router.get("/{section}")
    def show(section: str) -> dict[str, Any]:
        return _section(state, section).model_dump(mode="json")

    @router.patch("/{section}")
    async def merge(section: str, request: Request) -> dict[str, Any]:
        values = _section(state, section).model_dump(mode="json") | await _object(request)
        return _change(state, section, values)

    @router.put("/{section}")
    async def replace(section: str, request: Request) -> dict[str, Any]:
        _section(state, section)
        return _change(state, section, await _object(request))

    return router


def _section(state: State, name: str) -> BaseModel:
    if name not in _SECTIONS:
        known = f"{', '.join(_SECTIONS)}, blobs, clock, requests, health"
        raise ApiError("notFound", f"There is no {ADMIN}/{name}; there are {known}.")
    section: BaseModel = getattr(state.settings, name)
    return section


def _change(state: State, name: str, values: dict[str, Any]) -> dict[str, Any]:
    try:
        section = _SECTIONS[name].model_validate(values)
    except ValidationError as error:
        raise invalid(name, f"{name} cannot be set: {error}") from error
    setattr(state.settings, name, section)
    if name == "faults":
        state.draws.reset()
    return section.model_dump(mode="json")


async def _object(request: Request) -> dict[str, Any]:
    try:
        body = orjson.loads(await request.body())
    except orjson.JSONDecodeError:
        body = None
    if not isinstance(body, dict):
        raise invalid("body", "A JSON object is expected.")
    return body
