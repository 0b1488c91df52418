"""``/_sandbox/…``: what a user of the emulator, not of the API, can see and change while it runs. It wants no key."""

from __future__ import annotations

from typing import Any

import orjson
from fastapi import APIRouter, Request
from pydantic import BaseModel, ValidationError

from overnight.sandbox.openai.errors import ApiError, invalid_type
from overnight.sandbox.openai.faults import ADMIN
from overnight.sandbox.openai.settings import Faults, Limits, Pace, Quirks
from overnight.sandbox.openai.state import State

_SECTIONS: dict[str, type[BaseModel]] = {"faults": Faults, "quirks": Quirks, "limits": Limits, "pace": Pace}


def admin_router(state: State) -> APIRouter:
    """Return the routes."""
    router = APIRouter(prefix=ADMIN)

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
    def requests(method: str | None = None, path: str | None = None) -> dict[str, Any]:
        return {"object": "list", "data": state.requests.public(method, path)}

    @router.delete("/requests")
    def forget() -> dict[str, Any]:
        state.requests.clear()
        return requests()

    @router.get("/{section}")
    def show(section: str) -> dict[str, Any]:
        return _section(state, section).model_dump(mode="json")

    @router.put("/{section}")
    async def replace(section: str, request: Request) -> dict[str, Any]:
        _section(state, section)
        return _change(state, section, await _object(request))

    @router.patch("/{section}")
    async def merge(section: str, request: Request) -> dict[str, Any]:
        current = _section(state, section).model_dump(mode="json")
        return _change(state, section, current | await _object(request))

    return router


def _section(state: State, name: str) -> BaseModel:
    if name not in _SECTIONS:
        raise ApiError(404, f"There is no {ADMIN}/{name}; there are {', '.join(_SECTIONS)}, clock, requests, health.")
    section: BaseModel = getattr(state.settings, name)
    return section


def _change(state: State, name: str, values: dict[str, Any]) -> dict[str, Any]:
    try:
        section = _SECTIONS[name].model_validate(values)
    except ValidationError as error:
        raise ApiError(400, f"{name} cannot be set: {error}") from error
    setattr(state.settings, name, section)
    if name == "faults":
        state.decisions.reset()
    return section.model_dump(mode="json")


async def _object(request: Request) -> dict[str, Any]:
    try:
        body = orjson.loads(await request.body())
    except orjson.JSONDecodeError as error:
        raise ApiError(400, f"The body is not JSON: {error}") from error
    if not isinstance(body, dict):
        raise invalid_type("body", "object", body)
    return body
