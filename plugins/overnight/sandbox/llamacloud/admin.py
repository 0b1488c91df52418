"""``/_sandbox/…``: what a user of the emulator, not of the API, can see and change while it runs. It wants no key."""

from __future__ import annotations

from typing import Annotated, Any

from fastapi import APIRouter, Body
from pydantic import Field

from overnight.sandbox.emulator.requests import ADMIN
from overnight.sandbox.llamacloud.access import Emulator

router = APIRouter(prefix=ADMIN)


@router.get("/health")
def health() -> dict[str, Any]:
    """Say that the emulator answers."""
    return {"status": "ok"}


@router.get("/clock")
def clock(state: Emulator) -> dict[str, Any]:
    """Return the emulator's time, and how far it is ahead of the machine's."""
    return {"now": state.store.now().isoformat(), "offset": state.store.clock.offset}


@router.post("/clock")
def advance(state: Emulator, advance: Annotated[float, Body(embed=True), Field(ge=0)]) -> dict[str, Any]:
    """Put the clock forward."""
    state.store.clock.advance(advance)
    return clock(state)


@router.get("/requests")
async def requests(state: Emulator, method: str | None = None, path: str | None = None) -> dict[str, Any]:
    """Return the last requests of a method and a path."""
    return {"items": state.requests.public(method=method, path=path)}


@router.delete("/requests")
async def forget(state: Emulator) -> dict[str, Any]:
    """Forget the requests so far."""
    state.requests.clear()
    return {"items": []}


@router.get("/{section}")
def show(section: str, state: Emulator) -> dict[str, Any]:
    """Return the faults, the limits or the pace."""
    return state.sections.show(section)


@router.put("/{section}")
def replace(section: str, state: Emulator, values: Annotated[dict[str, Any], Body()]) -> dict[str, Any]:
    """Set a section anew."""
    return state.sections.replace(section, values)


@router.patch("/{section}")
def merge(section: str, state: Emulator, values: Annotated[dict[str, Any], Body()]) -> dict[str, Any]:
    """Change some of a section."""
    return state.sections.merge(section, values)
