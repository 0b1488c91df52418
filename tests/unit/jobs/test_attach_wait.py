"""The wait of one try: for a trigger that cancels, for the job's end, and what that end comes to."""

from __future__ import annotations

import logging
import time
from types import SimpleNamespace
from typing import Any

import pytest

from job_fakes import FakeService, MemoryStore, Silent, Spec
from overnight.errors import JobFailedError, UnavailableError
from overnight.jobs import JobCounts, JobRecord, JobRef, JobState, ResultManifest, attach
from overnight.jobs.attach import Attempt, Conclusion
from overnight.jobs.client import JobClient
from overnight.jobs.poller import PollEnd, PollOutcome
from overnight.jobs.record import Ending
from overnight.jobs.wait import CANCEL_SECONDS
from overnight.jobs.wait_settings import WaitSettings
from overnight.transport.flow import Within
from unit.jobs.test_attach import GONE, KEY, OWNER, SPEC, attempt, record, status


def counts(total: int, succeeded: int) -> JobCounts:
    return JobCounts(total=total, succeeded=succeeded)


class Noting(Silent):
    """Keeps the calls that it is given; the pauses move a clock."""

    def __init__(self) -> None:
        self.pauses: list[float] = []

    def _carry_out(self, call: Any) -> Any:
        self.pauses.append((call.call if isinstance(call, Within) else call).seconds)


def paused(service: FakeService, store: MemoryStore, monkeypatch: pytest.MonkeyPatch, **facts: Any) -> Noting:
    """Attach or submit on a clock that the pauses move, and return them."""
    transport = Noting()
    clock = SimpleNamespace(monotonic=lambda: sum(transport.pauses), time=time.time)
    monkeypatch.setattr(attach, "time", clock)
    settings = WaitSettings.parse(**facts)
    settled: Attempt[Spec] = Attempt(
        OWNER, JobClient(service, transport), store, settings=settings, log=logging.getLogger(__name__)
    )
    settled.attach_or_submit(SPEC)
    return transport


def test_the_job_of_a_task_that_was_cleared_while_deferred_is_waited_for_until_its_trigger_has_cancelled_it(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    service = FakeService(*[status(JobState.RUNNING)] * 3, status(JobState.CANCELLING))
    store = MemoryStore(record(deferred_with=1))
    assert paused(service, store, monkeypatch).pauses == [1.0, 1.0]
    assert service.asked("submit") == [("submit", 1)]


@pytest.mark.parametrize("over", [status(JobState.SUCCEEDED), GONE])
def test_a_job_that_ends_while_its_cancellation_is_waited_for_ends_that(
    over: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("overnight.jobs.wait.CONFIRM_WAITS", ())
    service = FakeService(status(JobState.RUNNING), status(JobState.RUNNING), over)
    store = MemoryStore(record(deferred_with=1, answered=True))
    assert paused(service, store, monkeypatch).pauses == [1.0]
    assert len(service.asked("submit")) == (1 if over is GONE else 0)


def test_a_job_that_nobody_cancels_is_attached_to_after_a_while(monkeypatch: pytest.MonkeyPatch) -> None:
    service, store = FakeService(), MemoryStore(record(deferred_with=1))
    assert paused(service, store, monkeypatch).pauses == [1.0] * int(CANCEL_SECONDS + 5)
    assert service.asked("submit") == []


@pytest.mark.parametrize(("deferred_with", "cancel_on_kill"), [(1, False), (2, True), (None, True)])
def test_no_cancellation_is_waited_for_where_none_can_come(
    deferred_with: int | None, cancel_on_kill: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    service, store = FakeService(), MemoryStore(record(deferred_with=deferred_with))
    assert paused(service, store, monkeypatch, cancel_on_kill=cancel_on_kill).pauses == []
    assert len(service.asked("status")) == 1


class TestWait:
    def wait(self, service: FakeService, kept: JobRecord | None = None, **facts: Any) -> tuple[PollOutcome, Noting]:
        self.store = MemoryStore()
        transport = Noting()
        settings = WaitSettings.parse(**facts)
        settled: Attempt[Spec] = Attempt(
            OWNER, JobClient(service, transport), self.store, settings=settings, log=logging.getLogger(__name__)
        )
        return settled.wait(kept if kept is not None else record()), transport

    def test_asks_at_the_interval_and_writes_the_first_answer_down(self) -> None:
        service = FakeService(status(JobState.RUNNING), status(JobState.SUCCEEDED))
        outcome, transport = self.wait(service, deadline=None, poll_interval=40)
        assert outcome.end is PollEnd.ENDED
        (pause,) = transport.pauses
        assert 36 <= pause <= 44
        assert self.store.get() == record(answered=True)

    def test_ends_at_the_deadline_that_counts_from_the_submit(self) -> None:
        outcome, _ = self.wait(FakeService(), deadline=60)
        assert (outcome.end, outcome.cancelled) == (PollEnd.DEADLINE, True)
        outcome, _ = self.wait(FakeService(), deadline=60, cancel_on_deadline=False)
        assert (outcome.end, outcome.cancelled) == (PollEnd.DEADLINE, False)

    def test_ends_with_patience(self) -> None:
        outcome, transport = self.wait(FakeService(UnavailableError("503")), deadline=None, patience=0)
        assert (outcome.end, transport.pauses) == (PollEnd.SILENT, [])

    def test_confirms_a_loss_with_the_list_by_the_key_of_the_record(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr("overnight.jobs.wait.CONFIRM_WAITS", ())
        service = FakeService(GONE)
        outcome, _ = self.wait(service, record(answered=True), deadline=None)
        assert outcome.end is PollEnd.LOST
        assert service.asked("find")[0][1] == KEY


class TestConclude:
    def conclude(self, service: FakeService, outcome: PollOutcome, **facts: Any) -> Any:
        self.store = MemoryStore()
        return attempt(service, self.store, **facts).conclude(record(), outcome)

    @property
    def kept(self) -> tuple[Ending | None, int | None, bool]:
        kept = self.store.get()
        assert kept is not None
        return kept.ending, kept.ended_with, kept.answered

    def test_a_success_is_accepted_with_its_results(self) -> None:
        over = PollOutcome(PollEnd.ENDED, status(JobState.SUCCEEDED), answered=True)
        conclusion = self.conclude(FakeService(), over)
        assert conclusion == Conclusion(record().job, over.status, ResultManifest(ref=record().job))
        assert self.kept == (Ending.ACCEPTED, 2, True)

    def test_results_that_lack_items_fail_the_task_and_are_kept(self) -> None:
        class Short(FakeService):
            def results(self, ref: JobRef) -> Any:
                return ResultManifest(ref=ref, counts=JobCounts(total=3, succeeded=2))
                yield

        over = PollOutcome(PollEnd.ENDED, status(JobState.SUCCEEDED))
        conclusion = self.conclude(Short(), over)
        assert isinstance(conclusion.error, JobFailedError)
        assert (conclusion.ref, conclusion.status) == (record().job, over.status)
        assert conclusion.results is not None
        assert conclusion.results.counts.succeeded == 2
        assert self.store.get() is None
        assert self.conclude(Short(), over, allowed_failures=1).error is None

    def test_a_failure_for_good_releases_the_job(self) -> None:
        conclusion = self.conclude(FakeService(), PollOutcome(PollEnd.ENDED, status(JobState.FAILED)))
        assert isinstance(conclusion.error, JobFailedError)
        assert conclusion.results == ResultManifest(ref=record().job)
        assert self.kept == (Ending.FINISHED, 2, False)

    def test_allowed_failures_are_the_users(self) -> None:
        over = PollOutcome(PollEnd.ENDED, status(JobState.PARTIAL).model_copy(update={"counts": counts(3, 2)}))
        assert self.conclude(FakeService(), over).error is not None
        assert self.conclude(FakeService(), over, allowed_failures=1).error is None

    @pytest.mark.parametrize(
        "outcome",
        [PollOutcome(PollEnd.SILENT, message="s"), PollOutcome(PollEnd.DEADLINE, status(JobState.RUNNING), "late")],
    )
    def test_a_job_that_may_live_has_no_results_and_is_kept(self, outcome: PollOutcome) -> None:
        conclusion = self.conclude(FakeService(), outcome)
        assert (conclusion.results, conclusion.status) == (None, outcome.status)
        assert self.kept == (None, None, False)

    def test_results_that_cannot_be_asked_for_are_left_out(self, caplog: pytest.LogCaptureFixture) -> None:
        class Away(FakeService):
            def results(self, ref: JobRef) -> Any:
                raise UnavailableError("503")
                yield

        conclusion = self.conclude(Away(), PollOutcome(PollEnd.ENDED, status(JobState.FAILED)))
        assert (conclusion.results, type(conclusion.error)) == (None, JobFailedError)
        assert "results of fake job job-0 are is not known: 503" in caplog.text
        with pytest.raises(UnavailableError):
            self.conclude(Away(), PollOutcome(PollEnd.ENDED, status(JobState.SUCCEEDED)))
