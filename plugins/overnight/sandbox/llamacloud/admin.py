"""``/_sandbox/…``: what a user of the emulator, not of the API, can see and change while it runs. It wants no key."""

from __future__ import annotations

from typing import Annotated, Any

from fastapi import APIRouter, Body
from pydantic import BaseModel, Field, ValidationError

from overnight.sandbox.llamacloud.access import Emulator
from overnight.sandbox.llamacloud.errors import Refusal
from overnight.sandbox.llamacloud.settings import Faults, Limits, Pace
from overnight.sandbox.openai.faults import ADMIN

router = APIRouter(prefix=ADMIN)

_SECTIONS: dict[str, type[BaseModel]] = {"faults": Faults, "limits": Limits, "pace": Pace}


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
    # On the event loop, as what adds to them is: a thread would find them changing under its hands.
    return {"items": state.requests.public(method, path)}


@router.delete("/requests")
async def forget(state: Emulator) -> dict[str, Any]:
    """Forget the requests so far."""
    state.requests.clear()
    return {"items": []}


@router.get("/{section}")
def show(section: str, state: Emulator) -> dict[str, Any]:
    """Return the faults, the limits or the pace."""
    return _section(state, section).model_dump(mode="json")


@router.put("/{section}")
def replace(section: str, state: Emulator, values: Annotated[dict[str, Any], Body()]) -> dict[str, Any]:
    """Set a section anew."""
    _section(state, section)
    return _change(state, section, values)


@router.patch("/{section}")
def merge(section: str, state: Emulator, values: Annotated[dict[str, Any], Body()]) -> dict[str, Any]:
    """Change some of a section."""
    return _change(state, section, _section(state, section).model_dump(mode="json") | values)


def _section(state: Emulator, name: str) -> BaseModel:
    if name not in _SECTIONS:
        raise Refusal(404, f"There is no {ADMIN}/{name}; there are {', '.join(_SECTIONS)}, clock, requests, health.")
    section: BaseModel = getattr(state.settings, name)
    return section


def _change(state: Emulator, name: str, values: dict[str, Any]) -> dict[str, Any]:
    try:
        section = _SECTIONS[name].model_validate(values)
    except ValidationError as error:
        raise Refusal(400, f"{name} cannot be set: {error}") from error
    setattr(state.settings, name, section)
    if name == "faults":
        state.decisions.reset()
    return section.model_dump(mode="json")
