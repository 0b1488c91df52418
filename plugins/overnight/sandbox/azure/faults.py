"""What stands before the API: requests are recorded, and some of them go wrong."""

from __future__ import annotations

import asyncio

from starlette.requests import Request
from starlette.responses import JSONResponse
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from overnight.sandbox.azure.errors import ApiError
from overnight.sandbox.azure.state import State
from overnight.sandbox.openai.connections import drop
from overnight.sandbox.openai.faults import ADMIN, Seen


class FaultyFront:
    """ASGI middleware; the outermost. The search routes never fail: they are there to look at what became of a job."""

    def __init__(self, app: ASGIApp, *, state: State) -> None:
        self._app = app
        self._state = state

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve one request, or see to it that it goes wrong."""
        if scope["type"] != "http" or scope["path"].startswith((ADMIN, "/indexes")):
            await self._app(scope, receive, send)
            return
        seen = self._state.requests.add(scope)
        faults = self._state.settings.faults
        if faults.latency:
            await asyncio.sleep(faults.latency)
        seen.fault = self._state.draws.request(faults, scope["method"], scope["path"])
        if seen.fault == "timeout":
            await asyncio.sleep(faults.timeout_seconds)
            await drop(scope, receive)
        elif seen.fault == "refused":
            await Request(scope, receive).body()
            await self._refuse(scope, receive, _noting(seen, send))
        elif seen.fault == "refused_after":
            await self._app(scope, receive, _noting(seen, _nowhere))
            await self._refuse(scope, receive, send)
        elif seen.fault == "lost_answer":
            await self._app(scope, receive, _noting(seen, _nowhere))
            await drop(scope, receive)
        else:
            await self._app(scope, receive, _noting(seen, send))

    async def _refuse(self, scope: Scope, receive: Receive, send: Send) -> None:
        faults = self._state.settings.faults
        error = ApiError(faults.refused_code)
        headers = {"Retry-After": f"{faults.retry_after:g}"} if error.status in (429, 503) else None
        if faults.echo_credentials:
            error.message += f" The request had {dict(Request(scope).headers)}"
        await JSONResponse(error.body, status_code=error.status, headers=headers)(scope, receive, send)


def _noting(seen: Seen, send: Send) -> Send:
    """Record the status that the API answers with."""

    async def note(message: Message) -> None:
        if message["type"] == "http.response.start":
            seen.status = message["status"]
        await send(message)

    return note


async def _nowhere(_: Message) -> None:
    """Keep an answer from being sent."""
