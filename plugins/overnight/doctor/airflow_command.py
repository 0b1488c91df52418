"""Airflow's own commands, which are what a user may ask a metadata database with."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Sequence
from typing import NamedTuple

from overnight.errors import UnavailableError


class CommandAnswer(NamedTuple):
    """
    What a command printed.

    :param stderr: Its last line with something in it.
    """

    status: int
    stdout: str
    stderr: str


def run_python(arguments: Sequence[str], seconds: float) -> CommandAnswer:
    """
    Run this Python in a process of its own, which may print, hang or end as it likes.

    :raises UnavailableError: it did not end in time.
    """
    try:
        done = subprocess.run(  # noqa: S603 - the command is ours
            [sys.executable, *arguments],
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            errors="replace",
            timeout=seconds,
            check=False,
        )
    except subprocess.TimeoutExpired:
        raise UnavailableError(f"{' '.join(arguments[1:3])} did not end within {seconds:g} s.") from None
    lines = [line.strip() for line in done.stderr.splitlines() if line.strip()]
    return CommandAnswer(done.returncode, done.stdout, lines[-1] if lines else "")


def run_airflow(arguments: Sequence[str], seconds: float) -> CommandAnswer:
    """
    Run ``airflow`` of this environment.

    :raises UnavailableError: it did not end in time.
    """
    return run_python(["-m", "airflow", *arguments], seconds)
