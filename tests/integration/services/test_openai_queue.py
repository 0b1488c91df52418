"""More batches than a model's queue holds: each waits for its turn, and the queue never holds more than it may."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import httpx
import pytest
from airflow.sdk.exceptions import TaskDeferred

from overnight.operators.openai import OpenAIBatchOperator
from overnight.sandbox.emulator.launch import launch
from overnight.sandbox.process import free_port, start, wait_ready
from overnight.services.openai.scan import scan
from overnight.triggers.room import RoomTrigger

from .conftest import Bench

MODEL = "text-embedding-3-small"
PARTS = 12
DOCUMENTS = 40


class _State(dict[str, Any]):
    def set(self, key: str, value: Any) -> None:
        self[key] = value


@dataclass
class Task:
    """One mapped task: executed, deferred and resumed as Airflow does it, with one operator per try and resumption."""

    build: Callable[[], OpenAIBatchOperator]
    run_id: str
    map_index: int
    state: _State = field(default_factory=_State)
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

    async def run(self, workers: asyncio.Semaphore) -> dict[str, Any]:
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

    def step(self, event: Any) -> dict[str, Any]:
        operator = self.build()
        return (
            operator.execute(self.context) if event is None else operator.execute_complete(self.context, event.payload)
        )


@pytest.fixture
def openai_url(tmp_path: Path) -> Iterator[str]:
    """An emulator of the test's own: the peak of its queue is judged."""
    starting = launch("openai", tmp_path / "emulator", free_port())
    process = start(starting)
    try:
        wait_ready(starting, process)
        yield f"{starting.url}/v1"
    finally:
        process.stop()


def run_all(tasks: Sequence[Task], triggerers: int) -> list[dict[str, Any]]:
    """
    Run tasks side by side.

    :param triggerers: Each is an event loop of its own, and has a poller and governors of its own as a process has.
    """

    async def run_some(some: Sequence[Task]) -> list[dict[str, Any]]:
        workers = asyncio.Semaphore(4)
        return await asyncio.gather(*(task.run(workers) for task in some))

    with ThreadPoolExecutor(triggerers) as pool:
        shares = pool.map(lambda number: asyncio.run(run_some(tasks[number::triggerers])), range(triggerers))
        return [outcome for share in shares for outcome in share]


@pytest.mark.parametrize(
    ("budget", "limits", "triggerers"),
    [
        pytest.param(3, {}, 1, id="the users budget"),
        pytest.param(3, {}, 2, id="the users budget with two triggerers"),
        pytest.param(None, {"enqueued_check": "create"}, 1, id="refused at creation"),
        pytest.param(None, {"enqueued_check": "validation"}, 2, id="failed in validation"),
    ],
)
def test_all_parts_are_done_and_the_queue_is_never_over(
    bench: Bench,
    monkeypatch: pytest.MonkeyPatch,
    budget: int | None,
    limits: dict[str, Any],
    triggerers: int,
    tmp_path: Any,
) -> None:
    connection = {"conn_type": "overnight_openai", "host": bench.url, "password": "sandbox"}
    monkeypatch.setenv("AIRFLOW_CONN_OPENAI_DEFAULT", json.dumps(connection))
    uris = [bench.build(DOCUMENTS, name=f"part-{number}").parts[0].uri for number in range(PARTS)]
    each = scan(uris[0], "/v1/embeddings").tokens
    room = 3 * each + 1
    bench.set("limits", **({"enqueued_tokens": room, **limits} if limits else {}))
    # Each batch takes a while, so that the queue fills.
    bench.set("pace", validating=0.05, lines_per_second=DOCUMENTS)

    def build(uri: str) -> Callable[[], OpenAIBatchOperator]:
        return lambda: OpenAIBatchOperator(
            task_id="embed",
            input_uri=uri,
            endpoint="/v1/embeddings",
            aws_conn_id=None,
            deferrable=True,
            poll_interval=0.3,
            budget={"tokens": room} if budget else None,
        )

    tasks = [Task(build(uri), str(tmp_path), number) for number, uri in enumerate(uris)]

    outcomes = run_all(tasks, triggerers)

    assert [outcome["status"]["state"] for outcome in outcomes] == ["succeeded"] * PARTS
    assert {outcome["status"]["counts"]["succeeded"] for outcome in outcomes} == {DOCUMENTS}
    assert len({outcome["ref"]["id"] for outcome in outcomes}) == PARTS
    assert any(task.rooms for task in tasks)
    queue = httpx.get(f"{bench.admin}/queue").raise_for_status().json()[MODEL]
    assert queue["enqueued"] == 0
    # Of two triggerers that know nothing of each other, one may be over by one part.
    assert 0 < queue["peak"] <= room + (each if budget and triggerers > 1 else 0)
    if budget:
        # Nothing was refused: each part was posted once.
        assert len(bench.requests("POST", "/v1/batches")) == PARTS
