"""What a decision about a job says: the sentences from which a user learns what became of it, and what to do."""

from __future__ import annotations

from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from overnight.errors import JobCancelledError, JobFailedError, JobLostError, OvernightError, RequestRefusedError
from overnight.jobs import FailureCause, FoundJob, JobCounts, JobRecord, JobRef, JobState, JobStatus, ResultManifest
from overnight.jobs.allowance import Allowance
from overnight.jobs.evaluate import evaluate, evaluate_for_watcher, evaluate_results
from overnight.jobs.poller import PollEnd, PollOutcome
from overnight.jobs.queue import Amount, QueueRequest
from overnight.jobs.record import Ending
from overnight.jobs.resume import Attach, Submit, adopt, build_unknown_text, resume

REF = JobRef(service="openai", id="batch_1", conn_id="openai_default")
SPEC = "a" * 16
THEN = datetime(2026, 11, 1, tzinfo=UTC)
WAITING = QueueRequest(service="openai", conn_id="openai_default", queue="m", name="n", amount=Amount(), since=THEN)
KEPT = (
    "More items are without a result than allowed_failures=0 permits. {}, listed in this task's XCom. Raise "
    "allowed_failures and clear the task to go on with them, and submit only the others again."
)


def status(state: JobState, **facts: Any) -> JobStatus:
    return JobStatus(state=state, raw=state.value, **facts)


def record(**facts: Any) -> JobRecord:
    facts = {"generation": 3, "fingerprint": SPEC, "intent_at": THEN, "ref": REF, "submitted_at": None} | facts
    return JobRecord(**facts)


def found(**facts: Any) -> FoundJob:
    facts = {"ref": REF, "generation": 3, "fingerprint": SPEC, "created_at": THEN, "state": JobState.RUNNING} | facts
    return FoundJob(**facts)


@pytest.mark.parametrize(
    ("ended", "kind", "text"),
    [
        (
            status(JobState.PARTIAL, counts=JobCounts(total=3, succeeded=2)),
            JobFailedError,
            KEPT.format("The good results are paid for and there"),
        ),
        (
            status(JobState.EXPIRED, counts=JobCounts(total=3, succeeded=2)),
            JobFailedError,
            KEPT.format("2 items were finished in time, are paid for and there"),
        ),
        (status(JobState.EXPIRED), JobLostError, "The service ran out of time; a retry submits the work again."),
        (
            status(JobState.CANCELLED),
            JobCancelledError,
            "It was not this task that cancelled it, so no retry submits it again; clear the task to do so.",
        ),
        (
            status(JobState.FAILED, cause=FailureCause.SERVICE),
            JobLostError,
            "The fault is the service's; a retry submits the work again.",
        ),
        (
            status(JobState.FAILED, cause=FailureCause.INPUT),
            JobFailedError,
            "The fault is in the input. Mend that and clear the task.",
        ),
        (status(JobState.FAILED), JobFailedError, "Mend that and clear the task."),
    ],
    ids=lambda value: str(value.state) if isinstance(value, JobStatus) else None,
)
def test_the_end_of_a_job_is_said_with_its_remedy(ended: JobStatus, kind: type[OvernightError], text: str) -> None:
    error = evaluate(REF, PollOutcome(PollEnd.ENDED, ended), Allowance.parse(0)).error
    assert type(error) is kind
    assert str(error) == f"openai job batch_1 ended {ended.describe()}. {text}"


def test_a_job_that_was_never_known_is_a_404() -> None:
    error = evaluate(REF, PollOutcome(PollEnd.UNKNOWN, message="No such job."), Allowance.parse(0)).error
    assert isinstance(error, RequestRefusedError)
    assert (str(error), error.status) == (f"No such job. {build_unknown_text(REF)}", 404)
    with pytest.raises(RequestRefusedError) as caught:
        resume(record(), None, SPEC)
    assert (str(caught.value), caught.value.status) == (build_unknown_text(REF), 404)


def test_results_that_lack_items_are_said_with_their_remedy() -> None:
    results = ResultManifest(ref=REF, counts=JobCounts(total=3, succeeded=2))
    evaluation = evaluate_results(REF, results, Allowance.parse(0))
    kept = KEPT.format("What was collected is paid for and there")
    assert str(evaluation.error) == (
        f"openai job batch_1 ended, and results were collected of 2 of its 3 items. {kept}"
    )
    assert evaluation.releases_job is False


def test_a_watcher_says_what_it_waited_for_and_which_task_to_clear() -> None:
    ended = status(JobState.PARTIAL, counts=JobCounts(total=3, succeeded=2))
    error = evaluate_for_watcher(REF, PollOutcome(PollEnd.ENDED, ended), Allowance.parse("5%")).error
    assert str(error) == (
        f"openai job batch_1 ended {ended.describe()}. More items are without a result than allowed_failures=5 % "
        "permits; raise it and clear this task to accept that. This task only waits for the job: clear the task that "
        "submitted it to have the work redone."
    )
    gone = evaluate_for_watcher(REF, PollOutcome(PollEnd.LOST, message="404."), Allowance.parse(0)).error
    assert str(gone).startswith("404. The service does not know openai job batch_1. This task only waits")


def test_failures_that_are_counted_alone_decide() -> None:
    ended = status(JobState.PARTIAL, counts=JobCounts(total=10, failed=1))
    assert evaluate(REF, PollOutcome(PollEnd.ENDED, ended), Allowance.parse(1)).error is None
    assert evaluate(REF, PollOutcome(PollEnd.ENDED, ended), Allowance.parse(0)).error is not None


@pytest.mark.parametrize(
    ("decide", "expected"),
    [
        (
            lambda: resume(record(ref=None), None, SPEC),
            Submit(3, "the last try ended before it recorded a job"),
        ),
        (
            lambda: resume(record(ref=None, queued=WAITING), None, SPEC),
            Submit(3, "its job has waited for room in the queue"),
        ),
        (
            lambda: resume(record(ending=Ending.FINISHED), None, SPEC),
            Submit(4, "openai job batch_1 was finished with; this is a new run of the task"),
        ),
        (
            lambda: resume(record(answered=True), None, SPEC),
            Submit(4, "openai job batch_1, submitted at 2026-11-01T00:00:00+00:00, is gone from the service"),
        ),
        (
            lambda: resume(record(answered=True, submitted_at=THEN + timedelta(hours=1)), None, SPEC),
            Submit(4, "openai job batch_1, submitted at 2026-11-01T01:00:00+00:00, is gone from the service"),
        ),
        (
            lambda: resume(record(), status(JobState.CANCELLING), SPEC),
            Submit(4, "openai job batch_1 was cancelled"),
        ),
        (
            lambda: resume(record(ending=Ending.HANDED_OVER), status(JobState.SUCCEEDED), SPEC),
            Submit(4, "openai job batch_1 is over and was handed over; this is a new run of the task"),
        ),
        (
            lambda: resume(record(), status(JobState.FAILED), "b" * 16, "restart"),
            Submit(4, "openai job batch_1 was submitted with another spec"),
        ),
        (
            lambda: resume(record(), status(JobState.RUNNING), SPEC),
            Attach(REF, 3, THEN, "openai job batch_1 was submitted by an earlier try and is running"),
        ),
        (
            lambda: resume(record(ending=Ending.ACCEPTED, ended_with=0), status(JobState.SUCCEEDED), SPEC),
            Attach(REF, 3, THEN, "openai job batch_1 was submitted by an earlier try and is succeeded"),
        ),
        (lambda: adopt(None, 3, SPEC), Submit(3, "the service lists no such job either")),
        (
            lambda: adopt(found(generation=2, state=JobState.FAILED), 3, SPEC),
            Submit(3, "the service lists only openai job batch_1 of an earlier generation, which is over"),
        ),
        (lambda: adopt(found(state=JobState.CANCELLED), 3, SPEC), Submit(4, "openai job batch_1 was cancelled")),
        (
            lambda: adopt(found(), 3, SPEC),
            Attach(REF, 3, THEN, "openai job batch_1 was created by an earlier try that died before recording it"),
        ),
        (
            lambda: adopt(found(generation=2), 3, SPEC),
            Attach(REF, 2, THEN, "openai job batch_1 of an earlier generation is not on record, and running"),
        ),
    ],
    ids=lambda value: getattr(value, "why", ""),
)
def test_a_next_step_says_why(decide: Callable[[], Attach | Submit], expected: Attach | Submit) -> None:
    assert decide() == expected
