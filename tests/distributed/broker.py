"""PostgreSQL and Redis on free ports, from the packages ``postgresql`` and ``redis-server`` of Debian or Ubuntu."""

from __future__ import annotations

import os
import shutil
import subprocess
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import psycopg2
import redis

from overnight.sandbox.errors import ServiceStartError
from overnight.sandbox.opensearch.access import run_as
from overnight.sandbox.process import LOCALHOST, Launch, ProcessId, free_port, start

REMEDY = "Install it with:  apt-get install --no-install-recommends postgresql redis-server"
READY_SECONDS = 60.0
USER = "overnight"


@contextmanager
def postgresql() -> Iterator[str]:
    """
    Run an empty database while the ``with`` lasts.

    :return: Its address for SQLAlchemy.
    :raises ServiceStartError: It is not installed, or does not start.
    """
    port, user = free_port(), run_as()
    bin_folder = _find_postgresql()
    # PostgreSQL refuses root, and the user that it runs as must be able to enter every folder above its own.
    folder = Path(tempfile.mkdtemp(prefix="overnight-postgresql-", dir="/tmp"))
    if user is not None:
        os.chown(folder, user, user)
    data = folder / "data"
    try:
        made = subprocess.run(
            [bin_folder / "initdb", "-D", data, "-U", USER, "-A", "trust", "-E", "UTF8", "--no-sync", "--locale=C"],
            cwd=folder,
            user=user,
            group=user,
            extra_groups=None if user is None else (),
            capture_output=True,
            text=True,
            check=False,
        )
        if made.returncode:
            raise ServiceStartError(f"initdb failed: {made.stderr[-2000:]}")
        process = start(
            Launch(
                name="postgresql",
                argv=(
                    *(
                        str(bin_folder / "postgres"),
                        "-D",
                        str(data),
                        "-p",
                        str(port),
                        "-h",
                        LOCALHOST,
                        "-k",
                        str(folder),
                    ),
                    # What a test writes is not needed after a power cut.
                    *("-c", "fsync=off", "-c", "max_connections=300"),
                ),
                url=f"postgresql://{LOCALHOST}:{port}",
                health="",
                cwd=folder,
                log=folder / "postgresql.log",
                user=user,
            )
        )
        try:
            address = f"{USER}@{LOCALHOST}:{port}/postgres"
            _wait(process, "postgresql", lambda: psycopg2.connect(f"postgresql://{address}").close())
            yield f"postgresql+psycopg2://{address}"
        finally:
            process.stop()
    finally:
        shutil.rmtree(folder, ignore_errors=True)


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
        _wait(process, "redis", redis.Redis.from_url(url).ping)
        yield url
    finally:
        process.stop()


def _find_postgresql() -> Path:
    found = sorted(Path("/usr/lib/postgresql").glob("*/bin/initdb"))
    on_path = shutil.which("initdb")
    if found:
        return found[-1].parent
    if on_path:
        return Path(on_path).resolve().parent
    raise ServiceStartError(f"PostgreSQL's initdb was not found. {REMEDY}")


def _wait(process: ProcessId, name: str, look: Callable[[], object]) -> None:
    """Look until a server answers."""
    deadline = time.monotonic() + READY_SECONDS
    while True:
        try:
            look()
        except (psycopg2.OperationalError, redis.ConnectionError) as error:
            if process.find() is None or time.monotonic() > deadline:
                raise ServiceStartError(f"{name} did not start: {error}") from error
            time.sleep(0.1)
        else:
            return
