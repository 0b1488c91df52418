"""Many waiters, one client: lists answer everybody, and one job's trouble is nobody else's."""

from __future__ import annotations

import asyncio
import logging
import time
from collections import Counter
from collections.abc import Collection, Mapping
from contextvars import ContextVar
from datetime import datetime
from types import SimpleNamespace
from typing import Any

import pytest

from overnight.errors import CredentialsError, RateLimitedError, ServiceError, SpecError, UnavailableError
from overnight.jobs import FoundJob, JobKey, JobRef, JobState, JobStatus, ResultManifest, shared_poller
from overnight.jobs.client import JobClient
from overnight.jobs.poller import PollEnd, Poller, PollOutcome
from overnight.jobs.service import JobSpec, Service
from overnight.jobs.shared_poller import SharedPoller
from overnight.transport.flow import Flow, Transport

log = logging.getLogger(__name__)


@pytest.fixture(autouse=True)
def _no_gap(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(shared_poller, "MIN_GAP", 0.0)


class Account(Transport[Any, Any]):
    """A service's jobs, and what was asked for."""

    def __init__(self) -> None:
        self.states: dict[str, JobState] = {}
        self.unlisted: set[str] = set()
        self.calls: Counter[str] = Counter()
        self.errors: dict[str, Exception] = {}
        self.closed = 0
        self.until_over = 2
        self.called = asyncio.Event()

    async def reach(self, **calls: int) -> None:
        """Wait until so many calls of each kind were made."""
        while any(self.calls[call] < count for call, count in calls.items()):
            self.called.clear()
            await self.called.wait()

    def send(self, call: Any) -> Any:
        raise AssertionError("a triggerer does not block")

    async def asend(self, call: Any) -> Any:
        self.calls[call] += 1
        self.called.set()
        await asyncio.sleep(0)
        if call in self.errors:
            raise self.errors[call]
        if call == "list":
            if self.calls["list"] >= self.until_over:
                self.states = dict.fromkeys(self.states, JobState.SUCCEEDED)
            return {job: state for job, state in self.states.items() if job not in self.unlisted}
        return self.states[call]

    def close(self) -> None:
        raise AssertionError("only the async side was used")

    async def aclose(self) -> None:
        self.closed += 1


class Listing(Service[JobSpec]):
    name = "listing"

    def list_statuses(self, wanted: Collection[str]) -> Flow[Mapping[str, JobStatus]]:
        states = yield "list"
        return {job: JobStatus(state=state, raw=state.value) for job, state in states.items()}

    def status(self, ref: JobRef) -> Flow[JobStatus]:
        state = yield ref.id
        return JobStatus(state=state, raw=state.value)

    def find(self, key: JobKey, since: datetime, *args: Any, **kwargs: Any) -> Flow[FoundJob | None]:
        raise NotImplementedError
        yield

    def submit(self, spec: JobSpec, key: JobKey) -> Flow[JobRef]:
        raise NotImplementedError
        yield

    def results(self, ref: JobRef) -> Flow[ResultManifest]:
        raise NotImplementedError
        yield


class Paged(Listing):
    """One whose list, newest first, is read until nothing but others comes."""

    def list_statuses(self, wanted: Collection[str]) -> Flow[Mapping[str, JobStatus]]:
        states = yield "list"
        newest = list(states)[::-1]
        seen: dict[str, JobStatus] = {}
        for start in range(0, len(newest), 10):
            page = newest[start : start + 10]
            if not set(page) & set(wanted):
                break
            seen |= {job: JobStatus(state=states[job], raw=states[job].value) for job in page}
        return seen


class Silent(Listing):
    """One without a list."""

    def list_statuses(self, wanted: Collection[str]) -> Flow[Mapping[str, JobStatus]]:
        return (yield from Service.list_statuses(self, wanted))


class Bench:
    def __init__(self, service: type[Listing] = Listing) -> None:
        self.account = Account()
        self.connections = 0
        self.failing: Exception | None = None
        self.service = service
        self.poller = SharedPoller(self.connect)

    async def connect(self) -> JobClient[Any]:
        self.connections += 1
        if self.failing is not None:
            raise self.failing
        return JobClient(self.service("c"), self.account)

    def wait(self, job: str, **facts: Any) -> asyncio.Task[PollOutcome]:
        self.account.states.setdefault(job, JobState.RUNNING)
        ref = JobRef(service="listing", id=job, conn_id="c")
        facts = {"poll_interval": 0.001, "patience": 60.0, **facts}
        return asyncio.create_task(self.poller.wait(Poller(ref, **facts), log))


async def test_a_thousand_jobs_are_answered_from_one_list_and_one_client() -> None:
    bench = Bench()
    waits = [bench.wait(f"job-{number}") for number in range(1000)]
    outcomes = await asyncio.gather(*waits)
    assert {outcome.end for outcome in outcomes} == {PollEnd.ENDED}
    assert bench.connections == 1
    # One more call for each that ended: the list lacks what only the job itself says.
    assert sum(bench.account.calls.values()) - bench.account.calls["list"] == 1000
    assert bench.account.calls["list"] <= 3
    await bench.poller.aclose()
    assert bench.account.closed == 1


async def test_those_who_wait_for_older_jobs_are_answered_from_the_list_too() -> None:
    bench = Bench(Paged)
    bench.account.until_over = 1_000
    for number in range(100):
        bench.account.states[f"job-{number}"] = JobState.RUNNING
    newer = [bench.wait(f"job-{number}", poll_interval=3600.0) for number in range(30, 100)]
    await bench.account.reach(list=1)
    older = [bench.wait(f"job-{number}", poll_interval=3600.0) for number in range(30)]
    await bench.account.reach(list=2)
    for _ in range(50):
        await asyncio.sleep(0)
    assert bench.account.calls == Counter({"list": 2})
    for wait in (*newer, *older):
        wait.cancel()
    await asyncio.gather(*newer, *older, return_exceptions=True)
    await bench.poller.aclose()


async def test_the_interval_counts_from_the_start_of_a_list_that_takes_long(monkeypatch: pytest.MonkeyPatch) -> None:
    clock = {"now": 1000.0}
    monkeypatch.setattr(shared_poller, "time", SimpleNamespace(time=time.time, monotonic=lambda: clock["now"]))

    class Slow(Listing):
        def list_statuses(self, wanted: Collection[str]) -> Flow[Mapping[str, JobStatus]]:
            statuses = yield from super().list_statuses(wanted)
            clock["now"] += 20.0
            return statuses

    bench = Bench(Slow)
    bench.account.until_over = 1_000
    waits = [bench.wait(f"job-{number}", poll_interval=30.0) for number in range(10)]
    await bench.account.reach(list=1)
    for _ in range(50):
        await asyncio.sleep(0)
    # The poller's own jitter is a tenth.
    assert [27.0 <= waiter.due - 1000.0 <= 33.0 for waiter in bench.poller._waiters] == [True] * 10
    for wait in waits:
        wait.cancel()
    await asyncio.gather(*waits, return_exceptions=True)
    await bench.poller.aclose()


async def test_a_few_of_many_are_asked_for_singly() -> None:
    bench = Bench()
    bench.account.until_over = 1_000
    many = [bench.wait(f"job-{number}", poll_interval=3600.0) for number in range(1_000)]
    await bench.account.reach(list=1)
    few = [bench.wait(f"new-{number}", poll_interval=3600.0) for number in range(9)]
    await bench.account.reach(**{f"new-{number}": 1 for number in range(9)})
    assert bench.account.calls == Counter({"list": 1, **{f"new-{number}": 1 for number in range(9)}})
    for wait in (*many, *few):
        wait.cancel()
    await asyncio.gather(*many, *few, return_exceptions=True)
    await bench.poller.aclose()


async def test_a_list_that_was_refused_is_tried_again_later(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(shared_poller, "LIST_AGAIN", 0.0)
    bench = Bench()
    bench.account.until_over = 1_000
    bench.account.errors["list"] = ServiceError("no list", status=404)
    waits = [bench.wait(f"job-{number}") for number in range(6)]
    await bench.account.reach(list=2)
    for wait in waits:
        wait.cancel()
    await asyncio.gather(*waits, return_exceptions=True)
    await bench.poller.aclose()


async def test_what_the_list_lacks_is_asked_for_singly() -> None:
    bench = Bench()
    bench.account.unlisted = {"job-3"}
    outcomes = await asyncio.gather(*(bench.wait(f"job-{number}") for number in range(6)))
    assert {outcome.end for outcome in outcomes} == {PollEnd.ENDED}
    assert bench.account.calls["job-3"] >= 2
    await bench.poller.aclose()


async def test_a_service_without_a_list_is_asked_job_by_job() -> None:
    bench = Bench(Silent)
    waits = [bench.wait(f"job-{number}") for number in range(6)]
    for job in bench.account.states:
        bench.account.states[job] = JobState.SUCCEEDED
    await asyncio.gather(*waits)
    assert bench.account.calls == Counter({f"job-{number}": 1 for number in range(6)})
    await bench.poller.aclose()


@pytest.mark.parametrize("error", [CredentialsError("may not list", status=403), ServiceError("no list", status=404)])
async def test_a_list_that_is_refused_is_done_without(error: ServiceError) -> None:
    bench = Bench()
    bench.account.errors["list"] = error
    waits = [bench.wait(f"job-{number}") for number in range(6)]
    for job in bench.account.states:
        bench.account.states[job] = JobState.SUCCEEDED
    assert {outcome.end for outcome in await asyncio.gather(*waits)} == {PollEnd.ENDED}
    assert bench.account.calls["list"] == 1
    await bench.poller.aclose()


async def test_one_jobs_odd_answer_reaches_its_waiter_only() -> None:
    bench = Bench(Silent)
    waits = [bench.wait(f"job-{number}", patience=0.0) for number in range(6)]
    for job in bench.account.states:
        bench.account.states[job] = JobState.SUCCEEDED
    bench.account.errors["job-2"] = KeyError("status")
    outcomes = await asyncio.gather(*waits)
    assert [outcome.end for outcome in outcomes] == [*[PollEnd.ENDED] * 2, PollEnd.SILENT, *[PollEnd.ENDED] * 3]
    assert "could not be read: KeyError" in outcomes[2].message
    await bench.poller.aclose()


async def test_a_list_that_cannot_be_read_is_done_without() -> None:
    bench = Bench()
    bench.account.errors["list"] = KeyError("data")
    waits = [bench.wait(f"job-{number}") for number in range(6)]
    for job in bench.account.states:
        bench.account.states[job] = JobState.SUCCEEDED
    assert {outcome.end for outcome in await asyncio.gather(*waits)} == {PollEnd.ENDED}
    await bench.poller.aclose()


async def test_retry_after_holds_for_all_jobs_of_the_connection() -> None:
    bench = Bench(Silent)
    first = bench.wait("job-0")
    bench.account.errors["job-0"] = RateLimitedError("slow down", retry_after=3600.0)
    await bench.account.called.wait()
    second = bench.wait("job-1")
    for _ in range(50):
        await asyncio.sleep(0)
    assert bench.account.calls == Counter({"job-0": 1})
    for wait in (first, second):
        wait.cancel()
    await asyncio.gather(first, second, return_exceptions=True)
    await bench.poller.aclose()


async def test_patience_ends_as_it_does_for_one_job() -> None:
    bench = Bench()
    bench.account.errors["list"] = UnavailableError("down")
    outcomes = await asyncio.gather(*(bench.wait(f"job-{number}", patience=0.0) for number in range(5)))
    assert {outcome.end for outcome in outcomes} == {PollEnd.SILENT}
    await bench.poller.aclose()


async def test_a_deadline_ends_one_waiter_and_the_others_go_on() -> None:
    bench = Bench()
    bench.account.until_over = 10
    late = bench.wait("late", deadline=1.0)
    others = [bench.wait(f"job-{number}") for number in range(5)]
    assert (await late).end is PollEnd.DEADLINE
    assert {outcome.end for outcome in await asyncio.gather(*others)} == {PollEnd.ENDED}
    await bench.poller.aclose()


async def test_a_connection_that_is_wrong_fails_its_waiters_and_is_looked_up_again_for_the_next() -> None:
    bench = Bench()
    bench.failing = SpecError("there is no such connection")
    with pytest.raises(SpecError, match="no such connection"):
        await bench.wait("job-0")
    bench.failing = None
    bench.account.states["job-1"] = JobState.SUCCEEDED
    assert (await bench.wait("job-1")).end is PollEnd.ENDED
    await bench.poller.aclose()


async def test_a_cancelled_waiter_is_forgotten() -> None:
    bench = Bench(Silent)
    wait = bench.wait("job-0", poll_interval=3600.0)
    await bench.account.called.wait()
    wait.cancel()
    await asyncio.gather(wait, return_exceptions=True)
    assert not bench.poller._waiters
    await bench.poller.aclose()


async def test_a_line_is_logged_when_something_changed_and_not_for_each_poll(caplog: pytest.LogCaptureFixture) -> None:
    bench = Bench()
    bench.account.until_over = 30
    with caplog.at_level(logging.INFO):
        await asyncio.gather(*(bench.wait(f"job-{number}") for number in range(5)))
    lines = [record.getMessage() for record in caplog.records if "job-0 is" in record.getMessage()]
    assert lines == ["listing job job-0 is running.", "listing job job-0 is succeeded."]
    await bench.poller.aclose()


async def test_what_is_too_much_for_one_round_is_logged_in_the_next_ones(
    caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(shared_poller, "LINES_PER_ROUND", 2)
    bench = Bench()
    bench.account.until_over = 30
    by_round: list[int] = []
    round_ = SharedPoller._round

    async def note(self: SharedPoller, due: Any) -> None:
        before = len(caplog.records)
        await round_(self, due)
        by_round.append(len(caplog.records) - before)

    monkeypatch.setattr(SharedPoller, "_round", note)
    with caplog.at_level(logging.INFO):
        await asyncio.gather(*(bench.wait(f"job-{number}") for number in range(5)))
    # At their end all of them are.
    assert [lines for lines in by_round if lines] == [2, 2, 1, 5]
    assert len({record.getMessage() for record in caplog.records}) == 10
    await bench.poller.aclose()


async def test_a_failing_list_of_many_jobs_is_not_logged_for_all_of_them_at_once(
    caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(shared_poller, "LINES_PER_ROUND", 2)
    bench = Bench()
    bench.account.errors["list"] = UnavailableError("down")
    outcomes = await asyncio.gather(*(bench.wait(f"job-{number}", patience=0.0) for number in range(5)))
    assert {outcome.end for outcome in outcomes} == {PollEnd.SILENT}
    assert sum("failed: down" in record.getMessage() for record in caplog.records) == 2
    await bench.poller.aclose()


@pytest.mark.parametrize(("seconds", "gap"), [(0.0, 1.0), (0.4, 1.0), (1.5, 3.0), (60.0, 5.0)])
def test_a_round_that_took_long_is_not_followed_at_once_by_the_next(
    seconds: float, gap: float, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(shared_poller, "MIN_GAP", 1.0)
    assert shared_poller._get_gap(seconds) == gap


async def test_what_a_task_remembers_is_read_for_a_call_about_its_job_alone_and_not_for_the_list() -> None:
    bench = Bench()
    bench.account.until_over = 10
    recalled: list[str] = []

    async def wait(job: str) -> PollOutcome:
        bench.account.states[job] = JobState.RUNNING
        ref = JobRef(service="listing", id=job, conn_id="c")
        return await bench.poller.wait(Poller(ref, poll_interval=0.001), log, lambda: recalled.append(job))

    jobs = [f"job-{number}" for number in range(5)]
    await asyncio.gather(*map(wait, jobs))
    assert bench.account.calls["list"] >= 10
    assert sum(bench.account.calls[job] for job in jobs) == len(recalled)
    assert set(recalled) == set(jobs)
    await bench.poller.aclose()


OWNER: ContextVar[str] = ContextVar("OWNER", default="nobody")


class OwnedLog:
    """Notes in whose context a line was logged, as Airflow does to find the trigger's own log."""

    def __init__(self) -> None:
        self.lines: list[tuple[str, str]] = []

    def info(self, event: str, *args: Any) -> None:
        self.lines.append((OWNER.get(), event % args))

    warning = info


@pytest.mark.parametrize("service", [Listing, Silent])
async def test_a_line_is_logged_in_the_context_of_the_trigger_that_it_is_about(service: type[Listing]) -> None:
    bench = Bench(service)
    log = OwnedLog()

    async def wait(job: str) -> None:
        OWNER.set(job)
        ref = JobRef(service="listing", id=job, conn_id="c")
        await bench.poller.wait(Poller(ref, poll_interval=0.001), log)

    jobs = [f"job-{number}" for number in range(6)]
    bench.account.states = dict.fromkeys(jobs, JobState.SUCCEEDED)
    bench.account.errors["job-3"] = UnavailableError("down")
    waits = [asyncio.create_task(wait(job)) for job in jobs]
    await asyncio.gather(*(waits[number] for number in range(6) if number != 3))
    waits[3].cancel()
    await asyncio.gather(waits[3], return_exceptions=True)
    about = {(owner, owner in line) for owner, line in log.lines if "one by one" not in line}
    assert about == {(job, True) for job in jobs}
    await bench.poller.aclose()
