"""What stands before the API: requests are recorded, and some of them go wrong."""

from __future__ import annotations

import asyncio
import random
import re
from collections import Counter

import orjson
from starlette.datastructures import MutableHeaders
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from overnight.sandbox.llamacloud.settings import Faults, FileFault, Settings
from overnight.sandbox.openai.connections import drop
from overnight.sandbox.openai.decisions import unit
from overnight.sandbox.openai.faults import ADMIN, Requests, Seen
from overnight.sandbox.openai.settings import BatchFault, HttpFault

HTTP_FAULTS = ("timeout", "rate_limited", "server_error", "lost_answer", "cut_body")
_FATES = ("batch_failed", "batch_stuck", "batch_throttled")


def hits(fault: FileFault, seed: int, kind: str, name: str) -> bool:
    """Say whether a file is hit, however often and in whatever order that is asked."""
    if not fault.share or unit(seed, kind, name) >= fault.share:
        return False
    return not fault.name or re.search(fault.name, name) is not None


class Decisions:
    """
    The draws for requests and batches: a sequence for each fault, so that switching one on leaves the others alone.

    :param seed: The emulator's.
    """

    def __init__(self, seed: int) -> None:
        self._seed = seed
        self.reset()

    def reset(self) -> None:
        """Start every sequence and every count of ``times`` anew."""
        self._draws: dict[str, random.Random] = {}
        self._hits: Counter[str] = Counter()

    def http(self, faults: Faults, method: str, path: str) -> str | None:
        """Return the fault that hits a request, if any."""
        for kind in HTTP_FAULTS:
            fault: HttpFault = getattr(faults, kind)
            matches = (not fault.methods or method in fault.methods) and re.search(fault.path, path)
            if matches and self._hit(kind, fault):
                return kind
        return None

    def fate(self, faults: Faults) -> str | None:
        """Return what becomes of a batch that is created now, if it is anything out of the ordinary."""
        return next((kind for kind in _FATES if self._hit(kind, getattr(faults, kind))), None)

    def _hit(self, kind: str, fault: HttpFault | BatchFault) -> bool:
        if not fault.share or (fault.times is not None and self._hits[kind] >= fault.times):
            return False
        draw = self._draws.setdefault(kind, random.Random(f"{self._seed}:{kind}"))  # noqa: S311 - not a secret
        if draw.random() >= fault.share:
            return False
        self._hits[kind] += 1
        return True


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
        answer = _Answer(send, seen)
        match seen.fault:
            case "timeout":
                await asyncio.sleep(faults.timeout_seconds)
                await _drain(receive)
                await drop(scope, receive)
            case "rate_limited":
                await _drain(receive)
                await answer.refuse(429, "Rate limit exceeded", {"retry-after": f"{faults.retry_after:g}"})
            case "server_error":
                await _drain(receive)
                await answer.refuse(faults.server_error_status, "Internal server error")
            case "lost_answer":
                await self._app(scope, receive, answer.swallow)
                await drop(scope, receive)
            case "cut_body":
                await self._app(scope, receive, answer.halve)
                if answer.is_cut:
                    await drop(scope, receive)
            case _:
                await self._app(scope, receive, answer.pass_on)


class _Answer:
    """One answer on its way out, whole or not."""

    def __init__(self, send: Send, seen: Seen) -> None:
        self.is_cut = False
        self._seen = seen
        self._send = send
        self._left = 0

    async def refuse(self, status: int, detail: str, headers: dict[str, str] | None = None) -> None:
        body = orjson.dumps({"detail": detail})
        said = {"content-type": "application/json", "content-length": str(len(body)), **(headers or {})}
        raw = [(name.encode(), value.encode()) for name, value in said.items()]
        await self.pass_on({"type": "http.response.start", "status": status, "headers": raw})
        await self.pass_on({"type": "http.response.body", "body": body})

    async def pass_on(self, message: Message) -> None:
        self._note(message)
        await self._send(message)

    async def swallow(self, message: Message) -> None:
        self._note(message)

    async def halve(self, message: Message) -> None:
        """Send the first half of a body whose whole length was promised; an answer without one goes out whole."""
        if message["type"] == "http.response.start":
            self._note(message)
            self._left = int(MutableHeaders(raw=list(message["headers"])).get("content-length", "0")) // 2
            self.is_cut = self._left > 0
            if not self.is_cut:
                self._seen.fault = None
            await self._send(message)
        elif not self.is_cut:
            await self._send(message)
        elif self._left:
            body = message.get("body", b"")[: self._left]
            self._left -= len(body)
            await self._send({"type": "http.response.body", "body": body, "more_body": True})

    def _note(self, message: Message) -> None:
        if message["type"] == "http.response.start":
            self._seen.status = message["status"]


async def _drain(receive: Receive) -> None:
    while (await receive()).get("more_body", False):
        pass
