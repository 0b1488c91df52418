"""Redis on a free port, from the package ``redis-server`` of Debian or Ubuntu."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import redis

from overnight.sandbox.errors import ServiceStartError
from overnight.sandbox.process import LOCALHOST, Launch, free_port, start
from patience import wait_until_answers

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
        wait_until_answers(process, "Redis", redis.Redis.from_url(url).ping, redis.ConnectionError)
        yield url
    finally:
        process.stop()
