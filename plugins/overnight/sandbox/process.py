"""Server processes: started, waited for, and ended, without ever taking another process for one of ours."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import time
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path

import httpx
import psutil

from overnight.sandbox.errors import ServiceStartError

LOCALHOST = "127.0.0.1"
POLL_SECONDS = 0.1
STOP_SECONDS = 15.0
LOG_TAIL_LINES = 15

_CLOCK_TOLERANCE = 1.5
"""Seconds. A start time is reckoned from the boot time, which moves a little when the clock is set."""


@dataclass(frozen=True)
class Launch:
    """
    How to start one server.

    :param name: What messages call it.
    :param health: The URL that answers 200 once the server is ready.
    :param log: Gets what the process prints.
    :param environ: Set on top of this process's environment; ``None`` takes a variable away.
    :param user: The uid and gid to drop to, or ``None`` to stay who we are.
    :param ready_within: Seconds after which a silent server has failed.
    """

    name: str
    argv: tuple[str, ...]
    url: str
    health: str
    cwd: Path
    log: Path
    environ: Mapping[str, str | None] = field(default_factory=dict)
    user: int | None = None
    ready_within: float = 60.0


@dataclass(frozen=True)
class ProcessId:
    """
    A process beyond doubt: numbers are used again, a number with its start time is not.

    :param started: Seconds since the epoch.
    """

    pid: int
    started: float

    @classmethod
    def of(cls, pid: int) -> ProcessId:
        """Identify a process that is known to run."""
        return cls(pid, psutil.Process(pid).create_time())

    def find(self) -> psutil.Process | None:
        """Return the process if it still runs; a zombie does not."""
        try:
            process = psutil.Process(self.pid)
            same = abs(process.create_time() - self.started) < _CLOCK_TOLERANCE
        except psutil.NoSuchProcess:
            return None
        return process if same and _runs(process) else None

    def stop(self, timeout: float = STOP_SECONDS) -> bool:
        """
        End the process with SIGTERM, and what is left of it and its children after ``timeout`` seconds with SIGKILL.

        :return: Whether it ran.
        """
        process = self.find()
        if process is not None:
            family = [process, *_descendants(process)]
            _signal(process, signal.SIGTERM)
            for survivor in _wait(family, timeout):
                _signal(survivor, signal.SIGKILL)
            _wait(family, timeout)
        child = _children.get(self.pid)
        if child is not None and child.poll() is not None:
            del _children[self.pid]
        return process is not None


def start(launch: Launch) -> ProcessId:
    """
    Start a server in a session of its own, so that the terminal's Ctrl-C is left to us to pass on.

    :raises ServiceStartError: The program cannot be executed.
    """
    launch.log.parent.mkdir(parents=True, exist_ok=True)
    environ = {**os.environ, **launch.environ}
    with launch.log.open("ab") as log:
        try:
            process = subprocess.Popen(  # noqa: S603 - the command is ours
                launch.argv,
                cwd=launch.cwd,
                env={name: value for name, value in environ.items() if value is not None},
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
                start_new_session=True,
                user=launch.user,
                group=launch.user,
                extra_groups=None if launch.user is None else (),
            )
        except OSError as error:
            raise ServiceStartError(f"{launch.name} cannot be started: {error}") from error
    _children[process.pid] = process
    return ProcessId.of(process.pid)


def wait_ready(launch: Launch, process: ProcessId, still_wanted: Callable[[], bool] = lambda: True) -> float:
    """
    Wait until a started server answers its health check.

    :param still_wanted: Asked between two checks; the wait ends when it says no.
    :return: Seconds waited.
    :raises ServiceStartError: It ended, or was not ready in time; the text has the last lines of its log.
    """
    began = time.monotonic()
    with httpx.Client(timeout=2.0, trust_env=False) as client:
        while (waited := time.monotonic() - began) < launch.ready_within:
            if not still_wanted():
                return waited
            try:
                if client.get(launch.health).is_success:
                    return waited
            except httpx.TransportError:
                pass
            if process.find() is None:
                raise ServiceStartError(f"{launch.name} ended while it was starting. {_log_tail(launch.log)}")
            time.sleep(POLL_SECONDS)
    raise ServiceStartError(f"{launch.name} was not ready in {waited:.0f} s. {_log_tail(launch.log)}")


def free_port(preferred: int = 0) -> int:
    """Return ``preferred`` if nothing listens there, else a port that is free now."""
    for port in (preferred, 0):
        with socket.socket() as sock:
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            try:
                sock.bind((LOCALHOST, port))
            except OSError:
                continue
            return int(sock.getsockname()[1])
    raise ServiceStartError(f"No port is free on {LOCALHOST}.")


_children: dict[int, subprocess.Popen[bytes]] = {}
"""What this process started. ``subprocess`` wants each one's end collected through the object that began it."""


def _descendants(process: psutil.Process) -> list[psutil.Process]:
    try:
        return process.children(recursive=True)
    except psutil.NoSuchProcess:
        return []


def _runs(process: psutil.Process) -> bool:
    """Whether a process has not ended; a zombie, which waits for a parent that may never ask, has."""
    try:
        return process.is_running() and process.status() != psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return False


def _wait(processes: list[psutil.Process], timeout: float) -> list[psutil.Process]:
    """Wait until processes have ended, and return those that have not after ``timeout`` seconds."""
    deadline = time.monotonic() + timeout
    while (alive := [process for process in processes if _runs(process)]) and time.monotonic() < deadline:
        time.sleep(POLL_SECONDS / 5)
    return alive


def _signal(process: psutil.Process, number: signal.Signals) -> None:
    with suppress(psutil.NoSuchProcess):
        process.send_signal(number)


def _log_tail(log: Path) -> str:
    if not log.is_file():
        return "It left no log."
    lines = log.read_text("utf-8", errors="replace").splitlines()[-LOG_TAIL_LINES:]
    return f"The end of {log}:\n" + "\n".join(lines)
