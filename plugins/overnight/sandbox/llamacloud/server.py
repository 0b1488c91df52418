"""Running the emulator as a process."""

from __future__ import annotations

import socket

import uvicorn

from overnight.sandbox.llamacloud.app import create_app
from overnight.sandbox.llamacloud.settings import Settings
from overnight.sandbox.openai.connections import DroppableProtocol

_KEEP_ALIVE = 75
"""Seconds an idle connection stays open: longer than clients wait between two polls."""
_GRACE = 2
"""Seconds that requests in flight get when the process is asked to end."""


def serve(settings: Settings, *, host: str, port: int, log_level: str = "warning") -> None:
    """
    Serve until SIGINT or SIGTERM.

    :raises OSError: When the port is taken.
    """
    config = uvicorn.Config(
        create_app(settings),
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
        uvicorn.Server(config).run(sockets=[listener])
