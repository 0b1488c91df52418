"""Who may ask, and for which project."""

from __future__ import annotations

import secrets
from collections.abc import Callable
from typing import Annotated, TypeAlias

from fastapi import Depends, Query, Request

from overnight.sandbox.llamacloud.errors import ApiError
from overnight.sandbox.llamacloud.state import State
from overnight.sandbox.llamacloud.store import Record


def _state(request: Request) -> State:
    state: State = request.app.state.emulator
    return state


Emulator: TypeAlias = Annotated[State, Depends(_state)]


def _project(
    request: Request, state: Emulator, project_id: str | None = None, organization_id: str | None = None
) -> str:
    scheme, _, key = request.headers.get("authorization", "").partition(" ")
    if scheme.lower() != "bearer" or not key:
        raise ApiError(401, "Not authenticated", {"WWW-Authenticate": "Bearer"})
    if not secrets.compare_digest(key.strip().encode(), state.settings.api_key.get_secret_value().encode()):
        raise ApiError(401, "Invalid API Key", {"WWW-Authenticate": "Bearer"})
    if organization_id not in (None, state.settings.organization_id):
        raise ApiError(403, f"No access to organization {organization_id}")
    if project_id not in (None, state.settings.project_id, *state.settings.projects):
        raise ApiError(403, f"No access to project {project_id}")
    return project_id or state.settings.project_id


Project: TypeAlias = Annotated[str, Depends(_project)]
"""The project a request is about, once its key has been checked."""


class Page:
    """The paging parameters of a list."""

    def __init__(
        self,
        state: Emulator,
        page_size: Annotated[int, Query(ge=1)] = 50,
        page_token: str | None = None,
    ) -> None:
        self.size = min(page_size, state.settings.limits.page_size)
        self.token = page_token


Paging: TypeAlias = Annotated[Page, Depends(Page)]


def listed(found: tuple[list[Record], str | None], public: Callable[[Record], Record] = dict) -> Record:
    """Return a page as the API gives it."""
    items, following = found
    return {"items": [public(item) for item in items], "next_page_token": following, "total_size": None}
