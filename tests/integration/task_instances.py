"""Mapped task instances side by side, without a scheduler: executed, deferred and resumed as Airflow does it."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from datetime import UTC, datetime
from types import SimpleNamespace
from typing import Any

from airflow.sdk.exceptions import TaskDeferred

from overnight.triggers.room import RoomTrigger

WORKERS = 4
"""Steps of tasks at the same time."""


class State(dict[str, Any]):
    """A task state store."""

    def set(self, key: str, value: Any) -> None:
        self[key] = value


@dataclass
class Task:
    """
    One task instance.

    :param build: Makes the operator, anew for every try and resumption.
    :param rooms: How often it was deferred to wait for room.
    """

    build: Callable[[], Any]
    run_id: str
    map_index: int = -1
    state: State = field(default_factory=State)
    rooms: int = 0

    @property
    def context(self) -> Any:
        ti = SimpleNamespace(
            dag_id="d",
            task_id="embed",
            run_id=self.run_id,
            map_index=self.map_index,
            max_tries=0,
            xcom_push=lambda *, key, value: None,
        )
        return {"ti": ti, "dag_run": SimpleNamespace(start_date=datetime.now(UTC)), "task_state_store": self.state}

    async def run(self, workers: asyncio.Semaphore) -> Any:
        event: Any = None
        while True:
            try:
                async with workers:
                    return await asyncio.to_thread(self.step, event)
            except TaskDeferred as deferred:
                trigger = deferred.trigger
            self.rooms += isinstance(trigger, RoomTrigger)
            path, arguments = trigger.serialize()
            assert path.endswith(type(trigger).__name__)
            (event,) = [event async for event in type(trigger)(**arguments).run()]

    def step(self, event: Any = None) -> Any:
        operator = self.build()
        return (
            operator.execute(self.context) if event is None else operator.execute_complete(self.context, event.payload)
        )


def run_all(
    tasks: Sequence[Task], triggerers: int = 1, *, waiting: int = 0, let_go: Callable[[], object] = lambda: None
) -> list[Any]:
    """
    Run tasks to their end and return their XComs.

    :param triggerers: Each is an event loop of its own, and has a poller and governors of its own as a process has.
    :param let_go: Called when so many tasks (``waiting``) wait for room: to let a service go on that was held.
    """

    async def run_some(some: Sequence[Task]) -> list[Any]:
        workers = asyncio.Semaphore(WORKERS)
        return await asyncio.gather(*(task.run(workers) for task in some))

    with ThreadPoolExecutor(triggerers) as pool:
        shares = [pool.submit(asyncio.run, run_some(tasks[number::triggerers])) for number in range(triggerers)]
        try:
            while sum(task.rooms > 0 for task in tasks) < waiting and not any(share.done() for share in shares):
                time.sleep(0.05)
        finally:
            # Also when pytest's time is up: the pool ends only after its tasks.
            let_go()
    found: list[Any] = [None] * len(tasks)
    for number, share in enumerate(shares):
        found[number::triggerers] = share.result()
    return found
