"""What is written down while jobs wait for room: little, however often the queue changes."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Collection
from contextlib import asynccontextmanager
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from overnight.jobs import room
from overnight.jobs.queue import Amount, Budget, ListedJob, QueueRequest
from overnight.jobs.room import LOG_SECONDS, SharedGovernor, wait_for_room
from overnight.transport.flow import Flow, Pause

BEGIN = datetime(2026, 1, 1, tzinfo=UTC)


class Log:
    """Keeps the lines."""

    def __init__(self) -> None:
        self.lines: list[str] = []
        self.twice = asyncio.Event()

    def info(self, text: str, *arguments: Any) -> None:
        self.lines.append(text % arguments)
        if len(self.lines) == 2:
            self.twice.set()

    warning = info


class Queue:
    """A service, and a client of it, whose queue holds one amount of tokens after the other; the last one stays."""

    def __init__(self, *tokens: int) -> None:
        self._tokens = list(tokens)

    @property
    def service(self) -> Any:
        return self

    def list_queue(self, _: str) -> Flow[Collection[ListedJob]]:
        used = self._tokens.pop(0) if len(self._tokens) > 1 else self._tokens[0]
        return [ListedJob("b", Amount(tokens=used))]
        yield

    async def arun(self, flow: Flow[Any]) -> Any:
        try:
            next(flow)
        except StopIteration as ended:
            return ended.value
        raise AssertionError("it makes no calls")


def request(name: str, age: int = 0) -> QueueRequest:
    return QueueRequest(
        service="openai",
        conn_id="c",
        queue="m",
        name=name,
        amount=Amount(tokens=60),
        since=BEGIN - timedelta(seconds=age),
        budget=Budget(tokens=100),
    )


def test_a_job_that_waits_says_why_once_and_then_every_hour(monkeypatch: pytest.MonkeyPatch) -> None:
    clock = [BEGIN.timestamp()]
    monkeypatch.setattr(room.time, "time", lambda: clock[0])
    log = Log()
    queue: Any = Queue(50, 60, 70, 50, 60, 40)
    pauses = 0
    for pause in wait_for_room(queue, request("w"), until=None, interval=LOG_SECONDS / 4, log=log):
        assert isinstance(pause, Pause)
        pauses += 1
        clock[0] += LOG_SECONDS / 4
    assert pauses == 5
    first, after_an_hour = log.lines
    assert first == "w is queued here: 50 of 100 tokens are in the openai queue 'm' of c, this job needs 60 tokens."
    assert "60 of 100 tokens" in after_an_hour


def test_a_job_behind_others_speaks_up_when_it_is_the_next() -> None:
    async def wait() -> dict[str, list[str]]:
        logs = {"old": Log(), "young": Log()}
        queue = Queue(50, 60, 55, 40, 90)

        @asynccontextmanager
        async def connect() -> AsyncIterator[Any]:
            yield queue

        governor = SharedGovernor(connect, "m")
        waits = {
            name: asyncio.create_task(governor.wait(request(name, age), until=None, interval=0.001, log=logs[name]))
            for name, age in (("old", 9), ("young", 1))
        }
        await waits["old"]
        await logs["young"].twice.wait()
        waits["young"].cancel()
        return {name: log.lines for name, log in logs.items()}

    lines = asyncio.run(wait())
    waiting, admitted = lines["old"]
    assert "this job needs 60 tokens." in waiting
    assert admitted.startswith("There is room for old")
    behind, following = lines["young"]
    assert behind.endswith("; 1 waits before it.")
    assert following.endswith("this job needs 60 tokens.")
