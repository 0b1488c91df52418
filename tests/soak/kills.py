"""Killing what the plan says, and starting again what was killed, while everything else goes on."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import dataclass, field

import psutil

from distributed.deployment import PARTS, Deployment

from .plan import PlannedKill
from .servers import Crashing

Note = Callable[[str], None]
"""Writes a line of the timeline."""


@dataclass
class Killer:
    """
    What is killed and when it comes back.

    :param plan: Kills without an end.
    :param note: Gets a line for each kill and each start.
    """

    airflow: Deployment
    node: Crashing
    plan: Iterator[PlannedKill]
    note: Note
    count: int = 0
    is_done: threading.Event = field(default_factory=threading.Event)
    _next: PlannedKill = field(init=False)
    _due: float = field(init=False)
    _down: dict[str, float] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self._draw()

    def run(self, is_over: threading.Event) -> None:
        """
        Keep everything running until ``is_over``, and kill what is due until :attr:`is_done`.

        For a thread of its own: how long Airflow takes for an answer must not decide when something is killed.
        """
        while not is_over.is_set():
            if not self.is_done.is_set() and time.monotonic() >= self._due:
                self._kill(self._next)
                self._draw()
            self._restore()
            is_over.wait(0.1)

    def _restore(self) -> None:
        """Start what was killed and has been down for long enough, and what ended by itself."""
        for name in self.airflow.ended():
            # A service manager would start it again.
            self.note(f"{name} ended by itself")
            self.airflow.kill(name)
            self._down[name] = 0.0
        if not self.node.runs and "node" not in self._down:
            self.note("the node ended by itself")
            self._down["node"] = 0.0
        for name, since in list(self._down.items()):
            if time.monotonic() >= since:
                del self._down[name]
                self.note(f"start {name}")
                if name == "node":
                    self.node.start()
                else:
                    self.airflow.start(name)

    def _draw(self) -> None:
        self._next = next(self.plan)
        self._due = time.monotonic() + self._next.after

    def _kill(self, kill: PlannedKill) -> None:
        if kill.victim == "task":
            self._kill_task(kill)
            return
        names = ["node"] if kill.victim == "node" else [name for name in PARTS if name.startswith(kill.victim)]
        name = names[int(kill.pick * len(names))]
        if name in self._down:
            self.note(f"{name} is down already")
            return
        self.count += 1
        self.note(f"kill {name}")
        self._down[name] = time.monotonic() + kill.down
        if name == "node":
            self.node.kill()
        else:
            self.airflow.kill(name)

    def _kill_task(self, kill: PlannedKill) -> None:
        """Kill the process of one task, as the kernel does that runs out of memory; its worker lives on."""
        tasks = [task for name in PARTS if name.startswith("worker") for task in self.airflow.tasks(name)]
        if not tasks:
            self.note("no task runs that could be killed")
            return
        task = tasks[int(kill.pick * len(tasks))]
        with suppress(psutil.NoSuchProcess):
            self.count += 1
            self.note(f"kill task process {task.pid}")
            task.kill()
