"""Middleware of the API: it maps Azure's paths, records requests and injects faults."""

from __future__ import annotations

import asyncio
import re
import secrets
from urllib.parse import unquote

from fastapi.responses import JSONResponse
from starlette.datastructures import MutableHeaders
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from overnight.sandbox.emulator.connections import close
from overnight.sandbox.emulator.exchange import Exchange, parse_length
from overnight.sandbox.emulator.requests import ADMIN, Requests, SeenRequest
from overnight.sandbox.openai.decisions import Decisions
from overnight.sandbox.openai.errors import ApiError, server_error
from overnight.sandbox.openai.settings import Settings

_AZURE = re.compile(r"^/openai(?:/v1)?(?:/deployments/(?P<deployment>[^/]+))?(?P<rest>/.*)$")


class FaultyFront:
    """
    ASGI middleware; the outermost.

    :param settings: Its faults and quirks are read anew for each request.
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
        _normalise(scope)
        seen = self._requests.add(scope)
        faults = self._settings.faults
        if faults.latency:
            await asyncio.sleep(faults.latency)
        seen.fault = self._decisions.http(faults, scope["method"], scope["path"])
        exchange = _Exchange(scope, receive, send, seen)
        await self._serve(scope, exchange)
        if self._settings.quirks.drop_after_error and exchange.sent_status >= 400:
            close(scope)

    async def _serve(self, scope: Scope, exchange: _Exchange) -> None:
        faults, fault = self._settings.faults, exchange.seen.fault
        match fault:
            case "timeout":
                await asyncio.sleep(faults.timeout_seconds)
                await exchange.drop()
            case "rate_limited":
                message = "Rate limit reached for requests. Please try again later."
                retry = {"Retry-After": f"{faults.retry_after:g}"}
                error = ApiError(429, message, type="requests", code="rate_limit_exceeded", headers=retry)
                await exchange.refuse(_answer(error))
            case "server_error":
                await exchange.refuse(_answer(server_error(faults.server_error_status)))
            case "server_error_after":
                await self._app(scope, exchange.receive, exchange.swallow)
                await exchange.refuse(_answer(server_error(faults.server_error_status)))
            case "lost_answer" | "lost_create":
                await self._app(scope, exchange.receive, exchange.swallow)
                await exchange.drop()
            case "cut_body":
                await self._app(scope, exchange.receive, exchange.halve)
                if exchange.is_cut:
                    await exchange.drop()
            case "broken_json":
                await self._app(scope, exchange.receive, exchange.shorten)
            case _:
                await self._app(scope, exchange.receive, exchange.send)


class _Exchange(Exchange):
    """With the headers that all of OpenAI's answers have."""

    def __init__(self, scope: Scope, receive: Receive, send: Send, seen: SeenRequest) -> None:
        super().__init__(scope, receive, send, seen)
        self.sent_status = 0
        self._organization = seen.organization

    async def shorten(self, message: Message) -> None:
        """Send half of a JSON body as if it were all of it; any other answer goes out whole."""
        if message["type"] == "http.response.start":
            self._note(message)
            headers = MutableHeaders(raw=list(message["headers"]))
            is_json = message["status"] < 400 and headers.get("content-type", "").startswith("application/json")
            self._plan(parse_length(message) // 2 if is_json else 0)
            if self.is_cut:
                headers["content-length"] = str(self._left)
            await self._pass({**message, "headers": headers.raw})
        elif not self.is_cut:
            await self._pass(message)
        elif self._left:
            body = self._half(message)
            await self._pass({"type": "http.response.body", "body": body, "more_body": self._left > 0})

    async def _pass(self, message: Message) -> None:
        if message["type"] == "http.response.start":
            self.sent_status = message["status"]
            if self.sent_status >= 400:
                await self.drain()
            headers = MutableHeaders(raw=list(message.get("headers", [])))
            headers["x-request-id"] = f"req_{secrets.token_hex(16)}"
            headers["openai-version"] = "2020-10-01"
            if self._organization is not None:
                headers["openai-organization"] = self._organization
            message = {**message, "headers": headers.raw}
        await super()._pass(message)


def _answer(error: ApiError) -> JSONResponse:
    return JSONResponse(error.body, status_code=error.status, headers=error.headers)


def _normalise(scope: Scope) -> None:
    """Turn ``/openai/deployments/x/embeddings`` and ``/openai/v1/files`` into OpenAI's own paths."""
    found = _AZURE.match(scope["path"])
    scope["by_deployment"] = found is not None
    scope["deployment"] = None
    if found is not None:
        scope["path"] = "/v1" + found["rest"]
        scope["raw_path"] = scope["path"].encode()
        scope["deployment"] = unquote(found["deployment"]) if found["deployment"] else None
