"""A job from a script: started again it goes on with its job, and pays for another only when it is asked to."""

from __future__ import annotations

import logging
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from job_fakes import FakeService, MemoryStore, Spec, client
from overnight.errors import JobFailedError, RateLimitedError, RequestRefusedError
from overnight.jobs import FailureCause, JobKey, JobRef, JobState, JobStatus, run
from overnight.jobs.attach import Conclusion
from overnight.jobs.queue import Amount, Budget, ListedJob, QueueFull
from overnight.jobs.record import Ending
from overnight.jobs.runner import SEARCHED, begin, run_attempt
from overnight.jobs.wait_settings import WaitSettings
from overnight.transport.flow import Flow
from unit.jobs.test_attach_queue import Queue

SPEC = Spec()
DONE = JobStatus(state=JobState.SUCCEEDED, raw="done")
FAILED = JobStatus(state=JobState.FAILED, raw="bad", cause=FailureCause.INPUT)


def start(service: FakeService, store: MemoryStore, **facts: Any) -> Conclusion:
    return run(SPEC, client=client(service), records=store, name="n", **facts)


def get_generations(service: FakeService) -> list[int]:
    return [generation for _, generation in service.asked("submit")]


def test_returns_the_job_and_where_its_results_are(caplog: pytest.LogCaptureFixture) -> None:
    service, store = FakeService(DONE), MemoryStore()
    with caplog.at_level(logging.INFO, "overnight.jobs"):
        done = start(service, store)
    assert (done.ref.id, done.status, done.error) == ("job-0", DONE, None)
    assert done.results is not None
    assert done.results.ref == done.ref
    kept = store.get()
    assert kept is not None
    assert kept.ending is Ending.ACCEPTED
    assert {line.name for line in caplog.records} == {"overnight.jobs"}


def test_is_looked_for_by_its_name_a_week_back() -> None:
    service = FakeService(DONE)
    before = datetime.now(UTC)
    start(service, MemoryStore())
    _, key, since, _ = service.asked("find")[0]
    assert key == JobKey(dag_id="script", task_id="n", run_id="", fingerprint=SPEC.fingerprint("now"))
    assert before - SEARCHED <= since <= datetime.now(UTC) - SEARCHED
    assert timedelta(days=7) == SEARCHED


def test_started_after_a_success_it_submits_nothing_unless_asked_to() -> None:
    service, store = FakeService(DONE), MemoryStore()
    assert start(service, store, again=True).ref.id == "job-0"
    assert start(service, store).ref.id == "job-0"
    assert start(service, store, again=True).ref.id == "job-1"
    assert start(service, store).ref.id == "job-1"
    assert start(service, store, again=True).ref.id == "job-2"
    assert get_generations(service) == [0, 1, 2]


def test_asked_to_submit_again_it_goes_on_with_a_job_that_is_not_over() -> None:
    service, store = FakeService(DONE), MemoryStore()
    start(service, store)
    kept = store.get()
    assert kept is not None
    store.set(kept.model_copy(update={"ending": None, "ended_with": None}))
    assert start(service, store, again=True).ref.id == "job-0"
    assert get_generations(service) == [0]


@pytest.mark.parametrize(("again", "generations"), [(False, [0]), (True, [0, 1])])
def test_a_job_that_was_handed_over_counts_as_a_success(again: bool, generations: list[int]) -> None:
    service, store = FakeService(DONE), MemoryStore()
    start(service, store)
    kept = store.get()
    assert kept is not None
    store.set(kept.ended(Ending.HANDED_OVER, 0))
    start(service, store, again=again)
    assert get_generations(service) == generations


def test_a_job_that_ended_badly_raises_and_the_next_start_has_another() -> None:
    service, store = FakeService(FAILED), MemoryStore()
    with pytest.raises(JobFailedError, match="job-0"):
        start(service, store)
    service.statuses = [DONE]
    assert start(service, store).ref.id == "job-1"


def test_the_spec_is_prepared_before_a_submit_and_only_then() -> None:
    class Keeping(FakeService):
        def submit(self, spec: Spec, key: JobKey) -> Flow[JobRef]:
            self.events.append(("prepared", spec))
            return (yield from super().submit(spec, key))

    service, store = Keeping(DONE), MemoryStore()
    prepared = Spec(work="prepared")
    for _ in range(2):
        start(service, store, prepare=lambda spec: prepared if spec == SPEC else spec)
    assert service.asked("prepared") == [("prepared", prepared)]


def test_a_script_may_do_something_between_the_submit_and_the_wait() -> None:
    service, store = FakeService(DONE), MemoryStore()
    told: list[object] = []
    attempt = begin(client(service), store, "n", WaitSettings(), on_event=told.append, on_status=told.append)
    record = attempt.attach_or_submit(SPEC)
    assert told == ["submitted"]
    done = run_attempt(attempt, SPEC, record=record)
    assert (done.ref, done.error) == (record.ref, None)
    assert told == ["submitted", DONE]
    # A start of the whole finds the same job: it has the same name.
    assert start(service, store).ref == record.ref
    assert get_generations(service) == [0]


def test_a_job_of_another_connection_is_reached_through_it() -> None:
    before, present, store = FakeService(DONE, conn_id="before"), FakeService(DONE), MemoryStore()
    start(before, store)
    connected: list[JobRef] = []

    def connect(ref: JobRef, /) -> Any:
        connected.append(ref)
        return client(before)

    with pytest.raises(RequestRefusedError, match="'before'"):
        start(present, store)
    start(present, store, connect=connect, on_changed_spec="restart")
    assert {ref.conn_id for ref in connected} == {"before"}


def test_waits_by_the_settings_that_it_is_given() -> None:
    some_failed = JobStatus(state=JobState.PARTIAL, raw="p", counts={"total": 2, "succeeded": 1, "failed": 1})
    with pytest.raises(JobFailedError, match="allowed_failures=0"):
        start(FakeService(some_failed), MemoryStore())
    assert start(FakeService(some_failed), MemoryStore(), allowed_failures=1).error is None


def test_a_job_that_the_queue_refuses_waits_and_is_submitted_when_there_is_room(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    # The transport's pauses cost no time, so a real wait for the service's Retry-After would spin.
    monkeypatch.setattr("unit.jobs.test_attach_queue.FULL", QueueFull("Limit: 100.", Budget(tokens=100)))
    service, store = Queue(RateLimitedError("429"), listed=[ListedJob("b", Amount(tokens=90))]), MemoryStore()
    service.statuses = [DONE]
    prepared: list[Spec] = []
    start(service, store, prepare=lambda spec: prepared.append(spec) or spec)
    assert [event[0] for event in service.events if event[0] in ("submit", "list")] == ["submit", "list", "submit"]
    assert get_generations(service) == [0, 0]
    assert prepared == [SPEC, SPEC]


def test_a_job_that_failed_for_a_full_queue_is_submitted_again_as_the_next_generation(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("unit.jobs.test_attach_queue.FULL", QueueFull("Limit: 100.", Budget(tokens=100)))
    service, store = Queue(), MemoryStore()
    service.statuses = [JobStatus(state=JobState.FAILED, raw="full"), DONE]
    prepared: list[Spec] = []
    done = start(service, store, prepare=lambda spec: prepared.append(spec) or spec)
    assert (done.ref.id, done.refusal) == ("job-1", None)
    assert get_generations(service) == [0, 1]
    # Once for each submit, and once when the waiting record of the second was made.
    assert prepared == [SPEC] * 3


def test_without_a_word_of_the_service_a_connection_has_one_queue_that_is_counted_in_jobs() -> None:
    service = FakeService()
    queue, amount = service.get_queue(SPEC)
    assert (queue, amount) == ("", Amount(jobs=1))
    assert service.queue_units == {"jobs"}
