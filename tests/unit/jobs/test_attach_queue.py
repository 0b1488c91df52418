"""One try at a job that the service's queue, or the user's budget, has no room for."""

from __future__ import annotations

import logging
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from job_fakes import FakeService, MemoryStore, Spec, client
from overnight.errors import (
    QueueDeadlineError,
    RateLimitedError,
    RequestRefusedError,
    ServiceError,
    SpecError,
    UnavailableError,
)
from overnight.jobs import JobKey, JobRecord, JobRef, JobState, JobStatus
from overnight.jobs.attach import Attempt, JobOwner
from overnight.jobs.poller import PollEnd, PollOutcome
from overnight.jobs.queue import Amount, Budget, ListedJob, QueueFull, QueueRequest
from overnight.jobs.record import Ending
from overnight.jobs.wait_settings import WaitSettings
from overnight.transport.flow import Flow
from unit.jobs.test_attach import FINGERPRINT, KEY, OWNER, SPEC, THEN

FULL = QueueFull("Limit: 100.", Budget(tokens=100), retry_after=30.0)
FAILED = PollOutcome(PollEnd.ENDED, JobStatus(state=JobState.FAILED, raw="full"), answered=True)


class Queue(FakeService):
    """A service with a queue for each model; it refuses what ``refusals`` say, in turn."""

    queue_units = frozenset({"tokens", "jobs"})

    def __init__(self, *refusals: ServiceError | None, listed: list[ListedJob] | None = None) -> None:
        super().__init__()
        self.refusals = list(refusals)
        self.listed = listed or []

    def get_queue(self, spec: Spec) -> tuple[str, Amount]:
        return f"m-{spec.work}", Amount(tokens=10)

    def list_queue(self, queue: str) -> Flow[list[ListedJob]]:
        self.events.append(("list", queue))
        return self.listed
        yield

    def submit(self, spec: Spec, key: JobKey) -> Flow[JobRef]:
        self.events.append(("submit", key.generation))
        refusal = self.refusals.pop(0) if self.refusals else None
        if refusal is not None:
            raise refusal
        return self.ref(f"job-{key.generation}")
        yield

    def find_refusal(self, answer: ServiceError | JobStatus) -> QueueFull | None:
        if isinstance(answer, RateLimitedError):
            return FULL
        return FULL if isinstance(answer, JobStatus) and answer.raw == "full" else None


def attempt(service: FakeService, store: MemoryStore | None, owner: JobOwner = OWNER, **facts: Any) -> Attempt[Spec]:
    settings = WaitSettings.parse(**facts)
    return Attempt(owner, client(service), store, settings=settings, log=logging.getLogger(__name__))


def get_request(record: JobRecord | None) -> QueueRequest:
    assert record is not None
    assert record.is_waiting
    assert record.queued is not None
    return record.queued


def wait(service: Queue, store: MemoryStore | None = None, **facts: Any) -> JobRecord:
    return attempt(service, store if store is not None else MemoryStore(), **facts).attach_or_submit(SPEC)


def test_a_refused_job_waits_and_its_record_says_for_what() -> None:
    service, store = Queue(RateLimitedError("429")), MemoryStore()
    before = datetime.now(UTC)
    record = wait(service, store)
    request = get_request(store.get())
    assert record == store.get()
    assert (request.service, request.conn_id, request.queue, request.name) == ("fake", "now", "m-w", KEY.name)
    assert (request.amount, request.budget, request.learnt) == (Amount(tokens=10), Budget(), Budget(tokens=100))
    assert (request.refusals, request.reason, request.alone) == (1, "Limit: 100.", False)
    assert request.not_before is not None
    assert before <= request.since <= datetime.now(UTC)
    assert before.timestamp() + 30.0 <= request.not_before <= datetime.now(UTC).timestamp() + 30.0
    assert (record.deferred_with, record.generation, record.key) == (2, 0, KEY)


def test_another_failure_of_the_submit_is_none_of_the_queues() -> None:
    store = MemoryStore()
    with pytest.raises(UnavailableError):
        wait(Queue(UnavailableError("503")), store)
    kept = store.get()
    assert kept is not None
    assert kept.queued is None


def test_with_a_budget_nothing_is_submitted_before_its_turn() -> None:
    service = Queue()
    request = get_request(wait(service, budget={"tokens": 50}))
    assert (request.budget, request.refusals, request.reason) == (Budget(tokens=50), 0, "")
    assert service.asked("submit") == []


def test_a_job_over_the_whole_budget_is_refused() -> None:
    store = MemoryStore()
    with pytest.raises(SpecError, match="takes 10 tokens, and budget allows 5"):
        wait(Queue(), store, budget={"tokens": 5})


def test_a_budget_in_a_unit_that_the_queue_is_not_counted_in_is_refused() -> None:
    with pytest.raises(SpecError, match="the queue of fake is not counted in instances. Give it in tokens or jobs"):
        wait(Queue(), budget={"instances": 1})


def test_an_admitted_job_is_submitted_and_remembers_its_place() -> None:
    service, store = Queue(), MemoryStore()
    settled = attempt(service, store, budget={"tokens": 50})
    admitted = settled.wait_for_room(settled.attach_or_submit(SPEC))
    assert admitted.alone
    record = settled.attach_or_submit(SPEC, admitted=admitted)
    assert (record.job.id, record.queued, record.deferred_with) == ("job-0", admitted, None)
    assert record == store.get()


def test_an_admission_of_another_generation_submits_nothing() -> None:
    service, store = Queue(), MemoryStore()
    settled = attempt(service, store, budget={"tokens": 50})
    other = get_request(settled.attach_or_submit(SPEC)).model_copy(update={"name": OWNER.key(1, FINGERPRINT).name})
    assert settled.attach_or_submit(SPEC, admitted=other).is_waiting
    assert service.asked("submit") == []


def test_a_retry_waits_on_with_its_age_and_what_the_service_said() -> None:
    store = MemoryStore()
    first = get_request(wait(Queue(RateLimitedError("429")), store))
    aged = first.model_copy(update={"since": THEN, "alone": True, "not_before": 7.0, "refusals": 3})
    kept = store.get()
    assert kept is not None
    store.set(kept.model_copy(update={"queued": aged}))
    service = Queue()
    assert get_request(wait(service, store)) == aged
    assert service.asked("submit") == []


@pytest.mark.parametrize(("max_tries", "is_kept"), [(1, True), (2, True), (3, False)])
def test_only_clearing_the_task_puts_it_last(max_tries: int, is_kept: bool) -> None:
    store = MemoryStore()
    kept = wait(Queue(RateLimitedError("429")), store)
    aged = get_request(kept).model_copy(update={"since": THEN})
    store.set(kept.model_copy(update={"queued": aged}))
    owner = JobOwner(dag_id="d", task_id="t", run_id="r", started_at=THEN, max_tries=max_tries)
    request = get_request(wait(Queue(), store, owner=owner))
    assert (request.since == THEN) is is_kept
    assert (request.refusals, request.learnt) == ((1, Budget(tokens=100)) if is_kept else (0, Budget()))


def test_an_admitted_job_that_is_refused_keeps_its_age() -> None:
    service, store = Queue(RateLimitedError("429"), RateLimitedError("429")), MemoryStore()
    settled = attempt(service, store)
    kept = settled.attach_or_submit(SPEC)
    admitted = get_request(kept).model_copy(update={"since": THEN})
    request = get_request(settled.attach_or_submit(SPEC, admitted=admitted))
    assert (request.since, request.refusals) == (THEN, 2)


def test_without_records_a_job_waits_all_the_same() -> None:
    service = Queue()
    settled = attempt(service, None, budget={"tokens": 50})
    record = settled.attach_or_submit(SPEC)
    assert get_request(record).name == KEY.name
    admitted = get_request(record).model_copy(update={"alone": True})
    assert settled.attach_or_submit(SPEC, admitted=admitted).job.id == "job-0"


def test_the_wait_for_room_ends_at_the_queues_deadline_and_the_next_try_waits_anew() -> None:
    service = Queue(RateLimitedError("429"), listed=[ListedJob("b", Amount(tokens=100))])
    store = MemoryStore()
    settled = attempt(service, store, queue_deadline=60, poll_interval=7)
    kept = settled.attach_or_submit(SPEC)
    late = kept.model_copy(update={"queued": get_request(kept).model_copy(update={"since": THEN, "not_before": None})})
    with pytest.raises(QueueDeadlineError):
        settled.wait_for_room(late)
    assert service.asked("list") == [("list", "m-w")]
    record = store.get()
    assert record is not None
    assert (record.queued, record.deferred_with, record.intent_at) == (None, None, kept.intent_at)


def test_a_record_that_does_not_wait_cannot_be_waited_for() -> None:
    settled = attempt(Queue(), MemoryStore())
    with pytest.raises(ValueError, match="does not wait for room"):
        settled.wait_for_room(settled.attach_or_submit(SPEC))


def test_a_job_that_failed_for_a_full_queue_waits_as_the_next_generation() -> None:
    service, store = Queue(), MemoryStore()
    settled = attempt(service, store)
    record = settled.attach_or_submit(SPEC)
    conclusion = settled.conclude(record, FAILED)
    assert (conclusion.refusal, conclusion.error, conclusion.results, conclusion.ref) == (FULL, None, None, record.job)
    kept = store.get()
    assert kept is not None
    assert (kept.ending, kept.ended_with, kept.ref, kept.answered) == (Ending.FINISHED, 2, record.job, True)
    prepared: list[Spec] = []

    def prepare(spec: Spec) -> Spec:
        prepared.append(spec)
        return spec.model_copy(update={"work": "checked"})

    again = settled.queue_again(record, FULL, SPEC, prepare)
    assert (again.generation, again.fingerprint, prepared) == (1, FINGERPRINT, [SPEC])
    request = get_request(store.get())
    assert (request.name, request.refusals, request.queue) == (OWNER.key(1, FINGERPRINT).name, 1, "m-checked")


def test_the_next_generation_of_a_job_that_waited_before_keeps_its_age() -> None:
    settled = attempt(Queue(), MemoryStore(), budget={"tokens": 50})
    waiting = settled.attach_or_submit(SPEC)
    admitted = get_request(waiting).model_copy(update={"since": THEN, "refusals": 1})
    record = settled.attach_or_submit(SPEC, admitted=admitted)
    request = get_request(settled.queue_again(record, FULL, SPEC))
    assert (request.since, request.refusals) == (THEN, 2)


def test_a_job_that_is_too_large_by_itself_ends_the_wait() -> None:
    settled = attempt(Queue(), MemoryStore(), budget={"tokens": 50})
    waiting = settled.attach_or_submit(SPEC)
    alone = get_request(waiting).model_copy(update={"alone": True})
    record = settled.attach_or_submit(SPEC, admitted=alone)
    small = QueueFull("Limit: 5.", Budget(tokens=5))
    with pytest.raises(RequestRefusedError, match="Cut the input into smaller parts"):
        settled.queue_again(record, small, SPEC)


@pytest.mark.parametrize(
    ("outcome", "refusal"),
    [
        (FAILED, FULL),
        (PollOutcome(PollEnd.ENDED, JobStatus(state=JobState.FAILED, raw="bad")), None),
        (PollOutcome(PollEnd.ENDED, JobStatus(state=JobState.SUCCEEDED, raw="full")), None),
        (PollOutcome(PollEnd.LOST, message="404"), None),
    ],
)
def test_only_a_failed_job_can_have_found_the_queue_full(outcome: PollOutcome, refusal: QueueFull | None) -> None:
    assert attempt(Queue(), None).find_refusal(outcome) == refusal


def test_what_waits_no_more_is_written_down() -> None:
    store = MemoryStore()
    settled = attempt(Queue(RateLimitedError("429")), store)
    settled.stop_waiting(settled.attach_or_submit(SPEC))
    kept = store.get()
    assert kept is not None
    assert (kept.queued, kept.deferred_with, kept.ref) == (None, None, None)


def test_a_queue_deadline_counts_from_when_the_job_began_to_wait() -> None:
    request = get_request(wait(Queue(RateLimitedError("429"))))
    assert (
        WaitSettings.parse(queue_deadline=90).get_queue_deadline(request)
        == (request.since + timedelta(seconds=90)).timestamp()
    )
    assert WaitSettings.parse(queue_deadline=None).get_queue_deadline(request) is None
