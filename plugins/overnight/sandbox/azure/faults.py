"""Middleware of the API: it records requests and injects faults."""

from __future__ import annotations

import asyncio

from starlette.requests import Request
from starlette.responses import JSONResponse
from starlette.types import ASGIApp, Receive, Scope, Send

from overnight.sandbox.azure.errors import ApiError
from overnight.sandbox.azure.state import State
from overnight.sandbox.emulator.exchange import Exchange
from overnight.sandbox.emulator.requests import ADMIN


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
        exchange = Exchange(scope, receive, send, seen)
        match seen.fault:
            case "timeout":
                await asyncio.sleep(faults.timeout_seconds)
                await exchange.drop()
            case "refused":
                answer = self._refusal(scope)
                seen.status = answer.status_code
                await exchange.refuse(answer)
            case "refused_after":
                await self._app(scope, exchange.receive, exchange.swallow)
                await exchange.refuse(self._refusal(scope))
            case "lost_answer":
                await self._app(scope, exchange.receive, exchange.swallow)
                await exchange.drop()
            case _:
                await self._app(scope, exchange.receive, exchange.send)

    def _refusal(self, scope: Scope) -> JSONResponse:
        faults = self._state.settings.faults
        error = ApiError(faults.refused_code)
        headers = {"Retry-After": f"{faults.retry_after:g}"} if error.status in (429, 503) else None
        if faults.repeat_credentials:
            error.message += f" The request had {dict(Request(scope).headers)}"
        return JSONResponse(error.body, status_code=error.status, headers=headers)
