"""Middleware of the API: it records requests and injects faults."""

from __future__ import annotations

import asyncio
import re

from fastapi.responses import JSONResponse
from starlette.types import ASGIApp, Receive, Scope, Send

from overnight.sandbox.emulator.draws import Draws, unit
from overnight.sandbox.emulator.exchange import Exchange
from overnight.sandbox.emulator.requests import ADMIN, Requests
from overnight.sandbox.llamacloud.settings import Faults, FileFault, Settings

HTTP_FAULTS = ("timeout", "rate_limited", "server_error", "lost_answer", "cut_body")
_FATES = ("batch_failed", "batch_stuck", "batch_throttled")


def hits(fault: FileFault, seed: int, kind: str, name: str) -> bool:
    """Say whether a file is hit, however often and in whatever order that is asked."""
    if not fault.share or unit(seed, kind, name) >= fault.share:
        return False
    return not fault.name or re.search(fault.name, name) is not None


class Decisions(Draws):
    """The draws for requests and batches."""

    def http(self, faults: Faults, method: str, path: str) -> str | None:
        """Return the fault that hits a request, if any."""
        return self.first(HTTP_FAULTS, faults, method, path)

    def fate(self, faults: Faults) -> str | None:
        """Return what becomes of a batch that is created now, if it is anything out of the ordinary."""
        return next((kind for kind in _FATES if self.hits(kind, getattr(faults, kind))), None)


class FaultyFront:
    """
    ASGI middleware; the outermost.

    :param settings: Its faults are read anew for each request.
    """

    def __init__(self, app: ASGIApp, *, settings: Settings, decisions: Decisions, requests: Requests) -> None:
        self._app = app
        self._settings = settings
        self._decisions = decisions
        self._requests = requests

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve one request, or see to it that it goes wrong."""
        if scope["type"] != "http" or scope["path"].startswith(ADMIN):
            await self._app(scope, receive, send)
            return
        seen = self._requests.add(scope)
        faults = self._settings.faults
        await asyncio.sleep(faults.latency)
        seen.fault = self._decisions.http(faults, scope["method"], scope["path"])
        exchange = Exchange(scope, receive, send, seen)
        match seen.fault:
            case "timeout":
                await asyncio.sleep(faults.timeout_seconds)
                await exchange.drain()
                await exchange.drop()
            case "rate_limited":
                retry = {"retry-after": f"{faults.retry_after:g}"}
                await _refuse(exchange, 429, "Rate limit exceeded", retry)
            case "server_error":
                await _refuse(exchange, faults.server_error_status, "Internal server error")
            case "lost_answer":
                await self._app(scope, exchange.receive, exchange.swallow)
                await exchange.drop()
            case "cut_body":
                await self._app(scope, exchange.receive, exchange.halve)
                if exchange.is_cut:
                    await exchange.drop()
            case _:
                await self._app(scope, exchange.receive, exchange.send)


async def _refuse(exchange: Exchange, status: int, detail: str, headers: dict[str, str] | None = None) -> None:
    exchange.seen.status = status
    await exchange.refuse(JSONResponse({"detail": detail}, status_code=status, headers=headers))
