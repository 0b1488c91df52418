"""The sandbox as a whole: what runs in one folder, remembered in a file, started and stopped together."""

from __future__ import annotations

import os
import shlex
import shutil
import signal
import threading
from collections.abc import Iterable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from types import FrameType

import msgspec
from rich.console import Console

from overnight.sandbox import DEFAULT_OPENSEARCH
from overnight.sandbox.cache import exclusive
from overnight.sandbox.errors import SandboxError, ServiceStartError
from overnight.sandbox.process import Launch, ProcessId, free_port, start, wait_ready
from overnight.sandbox.services import Plan, Service

STATE = "state.json"
WATCH_SECONDS = 0.5


class Running(msgspec.Struct, frozen=True):
    """
    One started service, as the state file remembers it.

    :param environment: The variables that point clients at it.
    """

    name: str
    process: ProcessId
    url: str
    log: str
    environment: dict[str, str]


class State(msgspec.Struct, frozen=True):
    """
    What was started in a folder.

    :param supervisor: The ``up`` that stays in the foreground, where there is one; stopping is its work.
    """

    supervisor: ProcessId | None
    services: tuple[Running, ...]


@dataclass(frozen=True)
class Status:
    """One service of a sandbox, and whether it runs."""

    service: Running
    alive: bool


class Sandbox:
    """
    The services that run in one folder.

    :param folder: Holds their files, their logs and the state file.
    :param console: Where progress goes.
    """

    def __init__(self, folder: Path, *, console: Console | None = None) -> None:
        self.folder = folder.absolute()
        self._console = console or Console(quiet=True)
        self._file = self.folder / STATE
        self._stopping = threading.Event()

    def up(
        self,
        services: Iterable[Service],
        *,
        ml_commons: bool = False,
        opensearch_version: str = DEFAULT_OPENSEARCH,
        stay: bool = False,
    ) -> None:
        """
        Start services and wait until every one is ready; when one fails, none is left running.

        :param stay: Stay until SIGINT, SIGTERM, SIGHUP or :meth:`down` comes, then stop everything.
        :raises SandboxError: Something already runs here, a service did not start, or one ended by itself.
        """
        chosen = tuple(services)
        ports = {service.name: free_port(service.port) for service in chosen}
        for service in chosen:
            if ports[service.name] != (service.port or ports[service.name]):
                self._console.print(
                    f"Port {service.port} is taken: {service.name} takes {ports[service.name]}.", highlight=False
                )
        plan = Plan(self.folder, ports, ml_commons, opensearch_version, keep=True, console=self._console)
        with ExitStack() as lock:
            lock.enter_context(exclusive(self.folder / ".lock"))
            self._refuse_second()
            launches = [(service, service.prepare(plan)) for service in chosen]
            with self._signals():
                try:
                    self._start(launches, plan, ProcessId.of(os.getpid()) if stay else None)
                    lock.close()
                    if stay:
                        self._watch()
                except BaseException:
                    self._stop_services()
                    raise
                if self._stopping.is_set():
                    self._stop_services()
                    if not stay:
                        raise SandboxError("Stopped before everything was ready.")

    def down(self) -> tuple[str, ...]:
        """
        Stop everything that runs here, the ``up`` in the foreground too.

        :return: The names of the services that ran.
        """
        state = self._read()
        ran = tuple(status.service.name for status in self.status() if status.alive)
        if state is not None:
            if state.supervisor is not None and state.supervisor.pid != os.getpid():
                # It stops its services when it is told to; should it not, they are stopped below.
                state.supervisor.stop(timeout=30.0)
            self._stop_services(state)
        return ran

    def purge(self) -> None:
        """Stop everything and delete the folder, with every document and file in it."""
        self.down()
        if not self.folder.is_dir():
            return
        for entry in self.folder.iterdir():
            # A node that root runs can live elsewhere, behind a link.
            if entry.is_symlink() and entry.is_dir():
                shutil.rmtree(entry.resolve())
        shutil.rmtree(self.folder)

    def status(self) -> tuple[Status, ...]:
        """Return what was started here, and whether it still runs."""
        state = self._read()
        if state is None:
            return ()
        return tuple(Status(service, service.process.find() is not None) for service in state.services)

    def environment(self) -> dict[str, str]:
        """
        Return the variables that point clients at what runs here.

        :raises SandboxError: Nothing runs here.
        """
        alive = [status.service for status in self.status() if status.alive]
        if not alive:
            raise SandboxError(f"No sandbox runs in {self.folder}: start it with  overnight sandbox up --detach")
        variables: dict[str, str] = {}
        for service in alive:
            variables |= service.environment
        return variables

    def _start(self, launches: list[tuple[Service, Launch]], plan: Plan, supervisor: ProcessId | None) -> None:
        services: list[Running] = []
        for service, launch in launches:
            if self._stopping.is_set():
                return
            environment = service.environment(plan.ports[service.name])
            services.append(Running(service.name, start(launch), launch.url, str(launch.log), environment))
            # After each one: whatever happens next, ``down`` finds it.
            self._write(State(supervisor, tuple(services)))
        for (_, launch), running in zip(launches, services, strict=True):
            seconds = wait_ready(launch, running.process, lambda: not self._stopping.is_set())
            if self._stopping.is_set():
                return
            self._console.print(f"{running.name}: {running.url} ({seconds:.1f} s)", highlight=False)

    def _watch(self) -> None:
        if not self._stopping.is_set():
            self._console.print("Ready. Ctrl-C stops everything.")
        while not self._stopping.wait(WATCH_SECONDS):
            ended = [status.service for status in self.status() if not status.alive]
            if ended:
                names = ", ".join(f"{service.name} (log: {service.log})" for service in ended)
                raise ServiceStartError(f"Ended by itself: {names}. The others were stopped.")

    def _stop_services(self, state: State | None = None) -> None:
        state = state or self._read()
        if state is not None:
            for service in reversed(state.services):
                service.process.stop()
        self._file.unlink(missing_ok=True)

    def _refuse_second(self) -> None:
        alive = [status.service.name for status in self.status() if status.alive]
        if alive:
            raise SandboxError(
                f"{', '.join(alive)} already running in {self.folder}: stop it with  overnight sandbox down, "
                "or choose another --dir."
            )

    def _read(self) -> State | None:
        try:
            return msgspec.json.decode(self._file.read_bytes(), type=State)
        except FileNotFoundError:
            return None
        except msgspec.DecodeError as error:
            raise SandboxError(f"{self._file} is not a state file ({error}): delete it.") from error

    def _write(self, state: State) -> None:
        partial = self._file.with_suffix(".partial")
        partial.write_bytes(msgspec.json.encode(state))
        partial.replace(self._file)

    @contextmanager
    def _signals(self) -> Iterator[None]:
        """Turn the signals that end a program into a wish to stop, so that nothing is cut off half-way."""
        if threading.current_thread() is not threading.main_thread():
            yield
            return

        def stop(number: int, frame: FrameType | None) -> None:  # noqa: ARG001 - the handler's signature
            self._stopping.set()

        numbers = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
        before = {number: signal.signal(number, stop) for number in numbers}
        try:
            yield
        finally:
            for number, handler in before.items():
                signal.signal(number, handler)


def export_lines(variables: dict[str, str], *, export: bool = False) -> list[str]:
    """Write variables as lines that a POSIX shell can evaluate."""
    prefix = "export " if export else ""
    return [f"{prefix}{name}={shlex.quote(value)}" for name, value in variables.items()]
