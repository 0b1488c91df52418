"""Dropping a connection, which no ASGI message can ask for."""

from __future__ import annotations

import asyncio
from typing import Any, ClassVar

from starlette.types import Receive, Scope
from uvicorn.protocols.http.h11_impl import H11Protocol


class DroppableProtocol(H11Protocol):
    """Uvicorn's HTTP protocol, remembering which transport belongs to which peer."""

    transports: ClassVar[dict[Any, asyncio.Transport]] = {}

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        """Remember the transport."""
        super().connection_made(transport)
        self.transports[self.client] = transport

    def connection_lost(self, exc: Exception | None) -> None:
        """Forget the transport."""
        self.transports.pop(self.client, None)
        super().connection_lost(exc)


def close(scope: Scope) -> None:
    """Close the connection a request came by; what was already written still arrives."""
    transport = DroppableProtocol.transports.get(scope["client"])
    if transport is None:
        raise RuntimeError("a connection can only be dropped under overnight.sandbox.emulator.server.serve")
    transport.close()


async def drop(scope: Scope, receive: Receive) -> None:
    """Close the connection, and wait until the server has noticed: it would send an answer of its own otherwise."""
    close(scope)
    while (await receive())["type"] != "http.disconnect":
        pass
