"""Redis on a free port, from the package ``redis-server`` of Debian or Ubuntu."""

from __future__ import annotations

import shutil
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import redis

from overnight.sandbox.errors import ServiceStartError
from overnight.sandbox.process import LOCALHOST, Launch, ProcessId, free_port, start
from patience import PATIENCE

REMEDY = "Install it with:  apt-get install --no-install-recommends redis-server"


@contextmanager
def redis_server(folder: Path) -> Iterator[str]:
    """
    Run an empty Redis while the ``with`` lasts.

    :return: Its address.
    :raises ServiceStartError: It is not installed, or does not start.
    """
    program = shutil.which("redis-server")
    if program is None:
        raise ServiceStartError(f"redis-server was not found. {REMEDY}")
    port = free_port()
    folder.mkdir(parents=True, exist_ok=True)
    url = f"redis://{LOCALHOST}:{port}/0"
    process = start(
        Launch(
            name="redis",
            argv=(program, "--port", str(port), "--bind", LOCALHOST, "--save", "", "--dir", str(folder)),
            url=url,
            health="",
            cwd=folder,
            log=folder / "redis.log",
        )
    )
    try:
        _wait(process, redis.Redis.from_url(url))
        yield url
    finally:
        process.stop()


def _wait(process: ProcessId, client: redis.Redis) -> None:
    """Look until the server answers."""
    deadline = time.monotonic() + PATIENCE
    while True:
        try:
            client.ping()
        except redis.ConnectionError as error:
            if process.find() is None or time.monotonic() > deadline:
                raise ServiceStartError(f"Redis did not start: {error}") from error
            time.sleep(0.1)
        else:
            return
