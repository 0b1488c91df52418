"""A request on its way in, and its answer on its way out, whole or not."""

from __future__ import annotations

from starlette.datastructures import MutableHeaders
from starlette.responses import Response
from starlette.types import Message, Receive, Scope, Send

from overnight.sandbox.emulator.connections import drop
from overnight.sandbox.emulator.requests import Seen


class Exchange:
    """
    What an emulator's outermost middleware hands to the application in the server's place.

    :param seen: Gets the status of the application's answer, and loses its fault when that cannot strike.
    """

    def __init__(self, scope: Scope, receive: Receive, send: Send, seen: Seen) -> None:
        self.seen = seen
        self.is_cut = False
        self._scope = scope
        self._receive = receive
        self._send = send
        self._body_is_read = False
        self._left = 0

    async def receive(self) -> Message:
        """Pass a part of the request on."""
        message = await self._receive()
        self._body_is_read = not message.get("more_body", False)
        return message

    async def send(self, message: Message) -> None:
        """Pass a part of the application's answer on."""
        self._note(message)
        await self._pass(message)

    async def swallow(self, message: Message) -> None:
        """Keep the application's answer from being sent."""
        self._note(message)

    async def halve(self, message: Message) -> None:
        """Send the first half of a body whose whole length was promised; an answer without one goes out whole."""
        if message["type"] == "http.response.start":
            self._note(message)
            self._plan(parse_length(message) // 2)
            await self._pass(message)
        elif not self.is_cut:
            await self._pass(message)
        elif self._left:
            await self._pass({"type": "http.response.body", "body": self._half(message), "more_body": True})

    async def refuse(self, answer: Response) -> None:
        """Answer in the application's place, once the request is read to its end."""
        await self.drain()
        await answer(self._scope, self.receive, self._pass)

    async def drain(self) -> None:
        """Read the request to its end: a client in the middle of an upload would never see an answer."""
        while not self._body_is_read:
            await self.receive()

    async def drop(self) -> None:
        """Close the connection."""
        await drop(self._scope, self._receive)

    async def _pass(self, message: Message) -> None:
        await self._send(message)

    def _plan(self, length: int) -> None:
        """Settle how much of the body is sent; all of it when that is nothing."""
        self._left = length
        self.is_cut = length > 0
        if not self.is_cut:
            self.seen.fault = None

    def _half(self, message: Message) -> bytes:
        """Return what the client still gets of a part of the body."""
        body: bytes = message.get("body", b"")[: self._left]
        self._left -= len(body)
        return body

    def _note(self, message: Message) -> None:
        if message["type"] == "http.response.start":
            self.seen.status = message["status"]


def parse_length(message: Message) -> int:
    """Return the length of the body that the start of an answer promises; 0 when it does not."""
    return int(MutableHeaders(raw=list(message["headers"])).get("content-length", "0"))
