"""Dropping a connection, which no ASGI message can ask for."""

from __future__ import annotations

import asyncio
from typing import Any, ClassVar

from starlette.types import Scope
from uvicorn.protocols.http.h11_impl import H11Protocol


class DroppableProtocol(H11Protocol):
    """Uvicorn's HTTP protocol, remembering which transport belongs to which peer."""

    transports: ClassVar[dict[Any, asyncio.Transport]] = {}

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        """Remember the transport."""
        super().connection_made(transport)
        self.transports[transport.get_extra_info("peername")] = transport

    def connection_lost(self, exc: Exception | None) -> None:
        """Forget the transport."""
        self.transports.pop(self.transport.get_extra_info("peername"), None)
        super().connection_lost(exc)


def drop(scope: Scope) -> None:
    """Close the connection a request came by; what was already written still arrives."""
    transport = DroppableProtocol.transports.get(tuple(scope["client"] or ()))
    if transport is None:
        raise RuntimeError("connections can only be dropped when the emulator runs by overnight.sandbox.openai.serve")
    transport.close()
