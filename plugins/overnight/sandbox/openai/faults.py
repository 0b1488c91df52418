"""What stands before the API: Azure's paths are put right, requests are recorded, and some of them go wrong."""

from __future__ import annotations

import asyncio
import re
from collections import deque
from dataclasses import asdict, dataclass
from typing import Any
from urllib.parse import unquote

import orjson
from starlette.datastructures import Headers, MutableHeaders
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from overnight.sandbox.openai.connections import drop
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
        answer = _Answer(scope, send, seen, drop_errors=self._settings.quirks.drop_after_error)
        await self._serve(scope, receive, answer)

    async def _serve(self, scope: Scope, receive: Receive, answer: _Answer) -> None:
        faults, fault = self._settings.faults, answer.seen.fault
        if fault == "timeout":
            await asyncio.sleep(faults.timeout_seconds)
            drop(scope)
        elif fault == "rate_limited":
            await _drain(receive)
            message = "Rate limit reached for requests. Please try again later."
            retry = {"Retry-After": f"{faults.retry_after:g}"}
            await answer.refuse(ApiError(429, message, type="requests", code="rate_limit_exceeded", headers=retry))
        elif fault == "server_error":
            await _drain(receive)
            await answer.refuse(server_error(faults.server_error_status))
        elif fault in ("lost_answer", "lost_create", "server_error_after"):
            await self._app(scope, receive, answer.swallow)
            if fault == "server_error_after":
                await answer.refuse(server_error(faults.server_error_status))
            else:
                drop(scope)
        elif fault in ("cut_body", "broken_json"):
            await self._app(scope, receive, answer.halve)
        else:
            await self._app(scope, receive, answer.pass_on)


class _Answer:
    """One answer on its way out, whole or not."""

    def __init__(self, scope: Scope, send: Send, seen: Seen, *, drop_errors: bool) -> None:
        self.seen = seen
        self._scope = scope
        self._send = send
        self._drop_errors = drop_errors
        self._left = 0
        self._whole = False

    async def refuse(self, error: ApiError) -> None:
        body = orjson.dumps(error.body)
        headers = {"content-type": "application/json", "content-length": str(len(body)), **error.headers}
        raw = [(name.lower().encode(), value.encode()) for name, value in headers.items()]
        await self.pass_on({"type": "http.response.start", "status": error.status, "headers": raw})
        await self.pass_on({"type": "http.response.body", "body": body})

    async def pass_on(self, message: Message) -> None:
        if message["type"] == "http.response.start":
            self.seen.status = message["status"]
        await self._send(message)
        if self._drop_errors and self.seen.status is not None and self.seen.status >= 400 and _is_last(message):
            drop(self._scope)

    async def swallow(self, message: Message) -> None:
        if message["type"] == "http.response.start":
            self.seen.status = message["status"]

    async def halve(self, message: Message) -> None:
        """Send half the body: of a smaller complete answer, or of one that breaks off."""
        if message["type"] == "http.response.start":
            self.seen.status = message["status"]
            headers = MutableHeaders(raw=list(message["headers"]))
            length = int(headers.get("content-length", "0"))
            broken = self.seen.fault == "broken_json"
            json = headers.get("content-type", "").startswith("application/json")
            self._whole = length < 2 or (broken and (message["status"] >= 400 or not json))
            self._left = length // 2
            if self._whole:
                self.seen.fault = None
            elif broken:
                headers["content-length"] = str(self._left)
            await self._send({**message, "headers": headers.raw})
            return
        if self._whole:
            await self._send(message)
            return
        if self._left == 0:
            return
        body = message.get("body", b"")[: self._left]
        self._left -= len(body)
        broken = self.seen.fault == "broken_json"
        await self._send({"type": "http.response.body", "body": body, "more_body": self._left > 0 or not broken})
        if self._left == 0 and not broken:
            drop(self._scope)


def _normalise(scope: Scope) -> None:
    """Turn ``/openai/deployments/x/embeddings`` and ``/openai/v1/files`` into OpenAI's own paths."""
    found = _AZURE.match(scope["path"])
    scope["by_deployment"] = found is not None
    scope["deployment"] = None
    if found is not None:
        scope["path"] = "/v1" + found["rest"]
        scope["raw_path"] = scope["path"].encode()
        scope["deployment"] = unquote(found["deployment"]) if found["deployment"] else None


def _is_last(message: Message) -> bool:
    return message["type"] == "http.response.body" and not message.get("more_body", False)


async def _drain(receive: Receive) -> None:
    while True:
        message = await receive()
        if message["type"] != "http.request" or not message.get("more_body", False):
            return
