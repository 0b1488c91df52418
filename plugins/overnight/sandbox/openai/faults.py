"""What stands before the API: Azure's paths are put right, requests are recorded, and some of them go wrong."""

from __future__ import annotations

import asyncio
import re
import secrets
from collections import deque
from dataclasses import asdict, dataclass
from typing import Any
from urllib.parse import unquote

import orjson
from starlette.datastructures import Headers, MutableHeaders
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from overnight.sandbox.openai.connections import close, drop
from overnight.sandbox.openai.decisions import Decisions
from overnight.sandbox.openai.errors import ApiError, server_error
from overnight.sandbox.openai.settings import Settings

ADMIN = "/_sandbox"
_AZURE = re.compile(r"^/openai(?:/v1)?(?:/deployments/(?P<deployment>[^/]+))?(?P<rest>/.*)$")
_REMEMBERED = 20_000


@dataclass
class Seen:
    """
    A request, for the record; never its credentials or its body.

    :param status: Of the answer the API gave, which a fault may have kept from arriving; ``None`` when it gave none.
    """

    number: int
    method: str
    path: str
    organization: str | None
    project: str | None
    status: int | None = None
    fault: str | None = None


class Requests:
    """The last requests, oldest first."""

    def __init__(self) -> None:
        self._seen: deque[Seen] = deque(maxlen=_REMEMBERED)
        self._count = 0

    def add(self, scope: Scope) -> Seen:
        """Record a request that has just come in."""
        headers = Headers(scope=scope)
        self._count += 1
        seen = Seen(
            self._count,
            scope["method"],
            scope["path"],
            headers.get("openai-organization"),
            headers.get("openai-project"),
        )
        self._seen.append(seen)
        return seen

    def public(self, method: str | None, path: str | None) -> list[dict[str, Any]]:
        """Return the recorded requests of a method and a path."""
        return [asdict(seen) for seen in self._seen if method in (None, seen.method) and path in (None, seen.path)]

    def clear(self) -> None:
        """Forget them; the numbers go on."""
        self._seen.clear()


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
        if fault == "timeout":
            await asyncio.sleep(faults.timeout_seconds)
            await exchange.drop()
        elif fault == "rate_limited":
            message = "Rate limit reached for requests. Please try again later."
            retry = {"Retry-After": f"{faults.retry_after:g}"}
            await exchange.refuse(ApiError(429, message, type="requests", code="rate_limit_exceeded", headers=retry))
        elif fault == "server_error":
            await exchange.refuse(server_error(faults.server_error_status))
        elif fault in ("lost_answer", "lost_create", "server_error_after"):
            await self._app(scope, exchange.receive, exchange.swallow)
            if fault == "server_error_after":
                await exchange.refuse(server_error(faults.server_error_status))
            else:
                await exchange.drop()
        elif fault in ("cut_body", "broken_json"):
            await self._app(scope, exchange.receive, exchange.halve)
        else:
            await self._app(scope, exchange.receive, exchange.send)


class _Exchange:
    """One request on its way in, and its answer on its way out, whole or not."""

    def __init__(self, scope: Scope, receive: Receive, send: Send, seen: Seen) -> None:
        self.seen = seen
        self.sent_status = 0
        self._scope = scope
        self._receive = receive
        self._send = send
        self._body_is_read = False
        self._left = 0
        self._whole = False

    async def receive(self) -> Message:
        message = await self._receive()
        self._body_is_read = not message.get("more_body", False)
        return message

    async def send(self, message: Message) -> None:
        if message["type"] == "http.response.start":
            self.seen.status = message["status"]
            message = await self._started(message)
        await self._send(message)

    async def swallow(self, message: Message) -> None:
        if message["type"] == "http.response.start":
            self.seen.status = message["status"]

    async def refuse(self, error: ApiError) -> None:
        """Answer in the API's place."""
        body = orjson.dumps(error.body)
        headers = MutableHeaders(error.headers)
        headers["content-type"] = "application/json"
        headers["content-length"] = str(len(body))
        start: Message = {"type": "http.response.start", "status": error.status, "headers": headers.raw}
        await self._send(await self._started(start))
        await self._send({"type": "http.response.body", "body": body})

    async def drop(self) -> None:
        await drop(self._scope, self._receive)

    async def halve(self, message: Message) -> None:
        """Send half the body: in a smaller complete answer, or in one that breaks off."""
        breaks_off = self.seen.fault == "cut_body"
        if message["type"] == "http.response.start":
            self.seen.status = message["status"]
            message = await self._started(message)
            headers = MutableHeaders(raw=message["headers"])
            length = int(headers.get("content-length", "0"))
            json = headers.get("content-type", "").startswith("application/json")
            self._whole = length < 2 or (not breaks_off and (message["status"] >= 400 or not json))
            self._left = length // 2
            if self._whole:
                self.seen.fault = None
            elif not breaks_off:
                headers["content-length"] = str(self._left)
            await self._send(message)
        elif self._whole:
            await self._send(message)
        elif self._left:
            body = message.get("body", b"")[: self._left]
            self._left -= len(body)
            await self._send({"type": "http.response.body", "body": body, "more_body": breaks_off or self._left > 0})
            if breaks_off and not self._left:
                await self.drop()

    async def _started(self, message: Message) -> Message:
        """Add the headers that all of OpenAI's answers have."""
        self.sent_status = message["status"]
        if self.sent_status >= 400:
            await self._drain()
        headers = MutableHeaders(raw=list(message.get("headers", [])))
        headers["x-request-id"] = f"req_{secrets.token_hex(16)}"
        headers["openai-version"] = "2020-10-01"
        if self.seen.organization is not None:
            headers["openai-organization"] = self.seen.organization
        return {**message, "headers": headers.raw}

    async def _drain(self) -> None:
        """Read a refused request to its end: a client in the middle of an upload would never see the answer."""
        while not self._body_is_read:
            await self.receive()


def _normalise(scope: Scope) -> None:
    """Turn ``/openai/deployments/x/embeddings`` and ``/openai/v1/files`` into OpenAI's own paths."""
    found = _AZURE.match(scope["path"])
    scope["by_deployment"] = found is not None
    scope["deployment"] = None
    if found is not None:
        scope["path"] = "/v1" + found["rest"]
        scope["raw_path"] = scope["path"].encode()
        scope["deployment"] = unquote(found["deployment"]) if found["deployment"] else None
