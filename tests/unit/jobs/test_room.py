"""Waiting for room in a queue: in a worker on a clock of the test's own, and for many on one event loop."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Collection
from contextlib import asynccontextmanager
from datetime import UTC, datetime, timedelta
from types import SimpleNamespace
from typing import Any

import pytest

from job_fakes import FakeService, client, drive
from overnight.errors import (
    CredentialsError,
    NotFoundError,
    QueueDeadlineError,
    RateLimitedError,
    RequestRefusedError,
    ServiceError,
    SpecError,
    UnavailableError,
    UnsupportedError,
)
from overnight.jobs import room
from overnight.jobs.client import JobClient
from overnight.jobs.queue import Amount, Budget, ListedJob, QueueFull, QueueRequest
from overnight.jobs.room import SharedGovernor, wait_for_room
from overnight.transport.flow import Flow, Pause

BEGIN = datetime(2026, 1, 1, tzinfo=UTC)
NOW = BEGIN.timestamp()
FULL = [ListedJob("b0", Amount(tokens=95))]
ROOM = [ListedJob("b0", Amount(tokens=90))]
STATE = "queued here: 95 of 100 tokens are in the fake queue 'm' of now, this job needs 10 tokens"


def request(name: str = "w", *, age: int = 0, **fields: Any) -> QueueRequest:
    facts = {"budget": Budget(tokens=100), "amount": Amount(tokens=10), "since": BEGIN - timedelta(seconds=age)}
    return QueueRequest(service="fake", conn_id="now", queue="m", name=name, **(facts | fields))


class Queueing(FakeService):
    """Answers each look at its queue with the next of ``lists``, the last one for ever; an exception is raised."""

    def __init__(self, *lists: Collection[ListedJob] | Exception) -> None:
        super().__init__()
        self.lists = list(lists)
        self.looked = asyncio.Event()

    def list_queue(self, queue: str) -> Flow[Collection[ListedJob]]:
        self.events.append(("list", queue))
        self.looked.set()
        answer = self.lists.pop(0) if len(self.lists) > 1 else self.lists[0]
        if isinstance(answer, Exception):
            raise answer
        return answer
        yield


class Lines:
    """A log that keeps its lines."""

    def __init__(self) -> None:
        self.lines: list[str] = []

    def info(self, event: str, *args: Any) -> None:
        self.lines.append(event % args)

    warning = info


class Worker:
    """A process that waits for nothing else, on a clock that its pauses move."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.now = NOW
        self.pauses: list[float] = []
        self.log = Lines()
        monkeypatch.setattr(room, "time", SimpleNamespace(time=lambda: self.now))

    def wait(self, service: Queueing, asked: QueueRequest, *, until: float | None = None) -> QueueRequest:
        def on_call(call: Any) -> None:
            assert isinstance(call, Pause)
            assert len(self.pauses) < 100, "it waits for ever"
            self.pauses.append(call.seconds)
            self.now += call.seconds

        flow = wait_for_room(service, asked, until=until, interval=30.0, log=self.log)
        waited: QueueRequest = drive(flow, on_call)
        return waited


@pytest.fixture
def worker(monkeypatch: pytest.MonkeyPatch) -> Worker:
    return Worker(monkeypatch)


class TestInAWorker:
    @pytest.mark.parametrize(("listed", "alone"), [([], True), (ROOM, False)])
    def test_where_there_is_room_nothing_is_waited_for(
        self, worker: Worker, listed: list[ListedJob], alone: bool
    ) -> None:
        service = Queueing(listed)
        assert worker.wait(service, request()) == request(alone=alone)
        assert (service.events, worker.pauses, worker.log.lines) == ([("list", "m")], [], [])

    def test_looks_again_after_an_interval_and_says_once_why_it_waits(self, worker: Worker) -> None:
        fuller = [ListedJob("b0", Amount(tokens=96))]
        service = Queueing(FULL, FULL, fuller, ROOM)
        assert not worker.wait(service, request()).alone
        assert worker.pauses == [30.0] * 3
        assert worker.log.lines == [f"w is {STATE}."]

    def test_the_last_look_falls_on_the_deadline(self, worker: Worker) -> None:
        with pytest.raises(QueueDeadlineError) as caught:
            worker.wait(Queueing(FULL), request(reason="Limit: 100."), until=NOW + 70)
        assert worker.pauses == [30.0, 30.0, 10.0]
        text = str(caught.value)
        assert text.startswith("The fake queue 'm' of now had no room for the job from 2026-01-01T00:00:00+00:00 to ")
        assert f" (queue_deadline). Nothing was submitted. Last, it was {STATE}. The service said: Limit: 100. " in text
        assert text.endswith(" then clear the task.")

    def test_room_on_the_deadline_counts(self, worker: Worker) -> None:
        assert worker.wait(Queueing(FULL, FULL, ROOM), request(), until=NOW + 40).name == "w"
        assert worker.pauses == [30.0, 10.0]

    def test_a_look_that_fails_for_a_moment_ends_nothing(self, worker: Worker) -> None:
        service = Queueing(UnavailableError("503"), RateLimitedError("429"), ROOM)
        assert worker.wait(service, request()).name == "w"
        assert worker.pauses == [30.0, 30.0]
        assert worker.log.lines == [
            f"The fake queue 'm' of now cannot be looked at just now: {why}" for why in ("503", "429")
        ]

    def test_a_queue_that_nobody_could_look_at_until_the_deadline_has_no_state(self, worker: Worker) -> None:
        with pytest.raises(QueueDeadlineError) as caught:
            worker.wait(Queueing(UnavailableError("503")), request(), until=NOW)
        assert "Nothing was submitted. Raise queue_deadline" in str(caught.value)
        assert worker.pauses == []

    @pytest.mark.parametrize("error", [UnsupportedError("no"), NotFoundError("404"), RequestRefusedError("400")])
    def test_without_a_list_a_job_that_was_refused_is_sent_to_ask_again(
        self, worker: Worker, error: ServiceError
    ) -> None:
        refused = request().with_refusal(QueueFull("full"), NOW)
        state = "queued here: the fake queue 'm' of now is full, this job needs 10 tokens"
        assert worker.wait(Queueing(error), refused) == refused.model_copy(update={"alone": True, "state": state})
        assert worker.pauses == [30.0, 30.0]
        assert worker.log.lines == ["w is queued here: the fake queue 'm' of now is full, this job needs 10 tokens."]

    def test_a_queue_that_may_not_be_looked_at_is_an_error(self, worker: Worker) -> None:
        with pytest.raises(CredentialsError):
            worker.wait(Queueing(CredentialsError("401", status=401)), request())


class Bench:
    """A governor for many, its connection and its waiters."""

    def __init__(self, *lists: Collection[ListedJob] | Exception) -> None:
        self.service = Queueing(*lists)
        self.failing: list[Exception] = []
        self.entered = self.left = 0
        self.log = Lines()
        self.governor = SharedGovernor(self._connect, "m")

    @asynccontextmanager
    async def _connect(self) -> AsyncIterator[JobClient[Any]]:
        if self.failing:
            raise self.failing.pop(0)
        self.entered += 1
        try:
            yield client(self.service)
        finally:
            self.left += 1

    def wait(self, asked: QueueRequest, **facts: Any) -> asyncio.Task[QueueRequest]:
        facts = {"until": None, "interval": 0.001, "log": self.log} | facts
        return asyncio.create_task(self.governor.wait(asked, **facts))

    async def looks(self, number: int) -> None:
        """Return when the queue was looked at so often."""
        async with asyncio.timeout(60):
            while len(self.service.events) < number:
                self.service.looked.clear()
                await self.service.looked.wait()

    async def idle(self) -> None:
        """Return when nothing goes on any more."""
        assert self.governor._rounds is not None
        await asyncio.wait_for(self.governor._rounds, 60)


@pytest.fixture
def _no_gap(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(room, "MIN_GAP", 0.0)


@pytest.mark.usefixtures("_no_gap")
class TestOnAnEventLoop:
    async def test_a_client_is_open_only_while_somebody_waits(self) -> None:
        bench = Bench([])
        assert await bench.wait(request()) == request(alone=True)
        await bench.idle()
        assert (bench.entered, bench.left) == (1, 1)
        assert bench.log.lines == ["There is room for w in the fake queue 'm' of now."]
        assert set(bench.service.events) == {("list", "m")}

    async def test_the_oldest_goes_first_and_the_others_are_said_to_wait(self) -> None:
        bench = Bench(ROOM)
        young, old = bench.wait(request("young", age=1)), bench.wait(request("old", age=9))
        assert (await old).name == "old"
        await bench.looks(3)
        assert not young.done()
        bench.service.lists = [[ListedJob("b1", Amount(tokens=10), "old")]]
        assert not (await young).alone
        await bench.idle()
        assert bench.entered == 1
        state = "queued here: 90 of 100 tokens are in the fake queue 'm' of now, this job needs 10 tokens"
        assert bench.log.lines == [
            "There is room for old in the fake queue 'm' of now.",
            f"young is {state}.",
            "There is room for young in the fake queue 'm' of now.",
        ]

    async def test_a_deadline_ends_one_wait_and_gives_its_place_up(self) -> None:
        bench = Bench(FULL)
        ahead = bench.wait(request("ahead", age=9), until=NOW)
        with pytest.raises(QueueDeadlineError) as caught:
            await ahead
        assert f" Last, it was {STATE}. " in str(caught.value)
        assert bench.governor._governor.is_idle
        behind = bench.wait(request("behind"))
        await bench.looks(2)
        assert bench.log.lines == [f"ahead is {STATE}.", f"behind is {STATE}."]
        bench.service.lists = [ROOM]
        assert (await behind).name == "behind"

    async def test_a_wrong_connection_fails_all_and_is_looked_up_again_for_the_next(self) -> None:
        bench = Bench([])
        bench.failing = [SpecError("there is no such connection")]
        waits = [bench.wait(request(name)) for name in "ab"]
        for wait in waits:
            with pytest.raises(SpecError, match="no such connection"):
                await wait
        assert (await bench.wait(request("c"))).name == "c"

    async def test_a_queue_that_may_not_be_looked_at_fails_all(self) -> None:
        bench = Bench(CredentialsError("401", status=401))
        with pytest.raises(CredentialsError):
            await bench.wait(request())
        await bench.idle()
        assert (bench.entered, bench.left) == (1, 1)

    async def test_a_connection_that_cannot_be_looked_up_for_a_moment_ends_nobodys_wait(self) -> None:
        bench = Bench([])
        bench.failing = [OSError("no route")] * 2
        assert (await bench.wait(request())).name == "w"
        said = "The fake queue 'm' of now cannot be looked at just now: OSError: no route"
        assert bench.log.lines[:-1] == [said] * 2

    async def test_a_look_that_fails_for_a_moment_ends_nobodys_wait(self) -> None:
        bench = Bench(UnavailableError("503"), FULL, ROOM)
        assert (await bench.wait(request())).name == "w"
        assert bench.log.lines == [
            "The fake queue 'm' of now cannot be looked at just now: 503",
            f"w is {STATE}.",
            "There is room for w in the fake queue 'm' of now.",
        ]
        assert bench.entered == 1

    async def test_a_trigger_that_another_has_replaced_leaves_it_its_place(self) -> None:
        bench = Bench(FULL)
        replaced, present = bench.wait(request()), bench.wait(request())
        await bench.looks(1)
        replaced.cancel()
        await asyncio.gather(replaced, return_exceptions=True)
        bench.service.lists = [ROOM]
        assert (await asyncio.wait_for(present, 60)).name == "w"

    async def test_who_comes_is_decided_about_before_the_interval_is_over(self) -> None:
        bench = Bench(ROOM)
        first = bench.wait(request("a", age=9, amount=Amount(tokens=50)), interval=3600.0)
        await bench.looks(1)
        # It is the older one, and there is room for it.
        assert (await asyncio.wait_for(bench.wait(request("b", age=99), interval=3600.0), 60)).name == "b"
        first.cancel()
        await asyncio.gather(first, return_exceptions=True)
        await bench.idle()
        assert bench.left == 1


async def test_those_who_come_together_are_decided_about_together(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(room, "MIN_GAP", 0.05)
    bench = Bench(FULL)
    waits = [bench.wait(request("a", age=1), interval=3600.0)]
    await bench.looks(1)
    bench.service.lists = [ROOM]
    # The younger one comes first; without a gap it would be admitted alone.
    waits += [bench.wait(request(name, age=age), interval=3600.0) for name, age in (("b", 2), ("c", 3))]
    done, _ = await asyncio.wait(waits, return_when=asyncio.FIRST_COMPLETED, timeout=60)
    assert [one.result().name for one in done] == ["c"]
    for one in waits:
        one.cancel()
    await asyncio.gather(*waits, return_exceptions=True)
