"""Running an emulator as a process."""

from __future__ import annotations

import socket

import uvicorn
from starlette.types import ASGIApp

from overnight.sandbox.emulator.connections import DroppableProtocol

_KEEP_ALIVE = 75
"""Seconds an idle connection stays open: longer than clients wait between two polls."""
_GRACE = 2
"""Seconds that requests in flight get when the process is asked to end."""


class _Server(uvicorn.Server):
    """Says on standard output which port it was given, once it answers there."""

    def __init__(self, config: uvicorn.Config, announce: int | None) -> None:
        super().__init__(config)
        self._announce = announce

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        await super().startup(sockets)
        if self._announce is not None and self.started:
            print(self._announce, flush=True)  # noqa: T201 - the command's output


def serve(app: ASGIApp, *, host: str, port: int, log_level: str = "warning") -> None:
    """
    Serve until SIGINT or SIGTERM.

    :param port: 0 for any free one, which is then printed as the only line on standard output.
    :raises OSError: When the port is taken.
    """
    config = uvicorn.Config(
        app,
        host=host,
        port=port,
        http=DroppableProtocol,
        ws="none",
        lifespan="on",
        log_level=log_level,
        access_log=False,
        proxy_headers=False,
        timeout_keep_alive=_KEEP_ALIVE,
        server_header=False,
        timeout_graceful_shutdown=_GRACE,
    )
    with socket.create_server((host, port), backlog=512) as listener:
        announced = listener.getsockname()[1] if port == 0 else None
        _Server(config, announced).run(sockets=[listener])
