"""Running the emulator as a process."""

from __future__ import annotations

import socket

import uvicorn

from overnight.sandbox.openai.connections import DroppableProtocol
from overnight.sandbox.sagemaker.app import create_app
from overnight.sandbox.sagemaker.settings import Settings

_KEEP_ALIVE = 75
"""Seconds an idle connection stays open: longer than clients wait between two polls."""
_GRACE = 2
"""Seconds that calls in flight get when the process is asked to end."""


def serve(settings: Settings, *, host: str, port: int) -> None:
    """
    Serve until SIGINT or SIGTERM.

    :param port: 0 for any free one, which is then printed as the only line on standard output.
    :raises OSError: When the port is taken.
    """
    config = uvicorn.Config(
        create_app(settings),
        host=host,
        port=port,
        http=DroppableProtocol,
        ws="none",
        lifespan="on",
        log_level="warning",
        access_log=False,
        proxy_headers=False,
        timeout_keep_alive=_KEEP_ALIVE,
        server_header=False,
        timeout_graceful_shutdown=_GRACE,
    )
    with socket.create_server((host, port), backlog=512) as listener:
        if port == 0:
            # It listens already: whoever connects now waits until the application is up.
            print(listener.getsockname()[1], flush=True)  # noqa: T201 - the command's output
        uvicorn.Server(config).run(sockets=[listener])
