"""Polling: what a deadline does, when a 404 is believed, and what no answer can break."""

from __future__ import annotations

import logging
import time
from collections.abc import Iterator
from typing import Any

import pytest

from job_fakes import FakeService, client, drive
from overnight.errors import (
    CredentialsError,
    NotFoundError,
    RequestRefusedError,
    SpecError,
    UnavailableError,
    UnsupportedError,
)
from overnight.jobs import FoundJob, JobKey, JobRecord, JobRef, JobState, JobStatus
from overnight.jobs.poller import PollEnd, Poller, PollOutcome, Wait
from overnight.jobs.wait import CONFIRM_WAITS, poll, poll_once, request_cancellation, wait_for_end
from overnight.transport.flow import Pause, Within

REF = JobRef(service="openai", id="batch_1", conn_id="openai_default")


class Service:
    """One that is always running when it is looked at; ``answer`` is what it says to a cancellation."""

    def __init__(self, answer: JobStatus | Exception) -> None:
        self.answer = answer
        self.asked = 0

    def status(self, ref: JobRef) -> Iterator[Any]:
        return JobStatus(state=JobState.RUNNING, raw="in_progress")
        yield

    def cancel(self, ref: JobRef) -> Iterator[Any]:
        self.asked += 1
        if isinstance(self.answer, Exception):
            raise self.answer
        return self.answer
        yield


def at_the_deadline(service: Any, *, cancel_on_deadline: bool = True) -> PollOutcome:
    flow = wait_for_end(
        service,
        REF,
        poll_interval=1,
        deadline=time.time() - 1,
        patience=60,
        cancel_on_deadline=cancel_on_deadline,
        log=logging.getLogger(__name__),
    )
    return drive(flow)


def test_a_job_that_misses_its_deadline_is_cancelled() -> None:
    over = at_the_deadline(Service(JobStatus(state=JobState.CANCELLING, raw="cancelling")))
    assert (over.end, over.cancelled) == (PollEnd.DEADLINE, True)
    assert "Asked for the cancellation" in over.message


def test_a_job_that_ends_as_it_is_cancelled_counts_as_ended() -> None:
    status = JobStatus(state=JobState.SUCCEEDED, raw="completed")
    assert at_the_deadline(Service(status)) == PollOutcome(PollEnd.ENDED, status, answered=True)


def test_a_job_that_could_not_be_cancelled_is_not_taken_for_cancelled() -> None:
    over = at_the_deadline(Service(UnavailableError("503")))
    assert (over.end, over.cancelled) == (PollEnd.DEADLINE, False)
    assert "may still be running" in over.message


def test_a_job_that_is_to_be_spared_is_not_cancelled() -> None:
    service = Service(JobStatus(state=JobState.CANCELLING, raw="cancelling"))
    over = at_the_deadline(service, cancel_on_deadline=False)
    assert (over.end, over.cancelled, service.asked) == (PollEnd.DEADLINE, False, 0)


RUNNING = JobStatus(state=JobState.RUNNING, raw="running")
GONE = NotFoundError("no such job", status=404)
FAKE = JobRef(service="fake", id="job-0", conn_id="now")
KEY = JobKey(dag_id="d", task_id="t", run_id="r", fingerprint="0" * 16)
RECORD = JobRecord.intent(KEY)


def pauses_of(flow: Iterator[Any]) -> tuple[Any, list[float]]:
    pauses: list[float] = []

    def on_call(call: Any) -> None:
        pauses.append((call.call if isinstance(call, Within) else call).seconds)

    return drive(flow, on_call), pauses


@pytest.mark.parametrize("times", range(1, len(CONFIRM_WAITS) + 1))
def test_a_404_that_passes_is_no_loss(times: int) -> None:
    service = FakeService(*[GONE] * times, RUNNING)
    assert pauses_of(poll(service, FAKE)) == (RUNNING, list(CONFIRM_WAITS[:times]))


def test_a_404_that_stays_is_believed_after_a_while() -> None:
    service = FakeService(GONE)
    with pytest.raises(NotFoundError):
        drive(poll(service, FAKE, record=RECORD))
    assert len(service.asked("status")) == len(service.asked("find")) == len(CONFIRM_WAITS) + 1
    assert sum(CONFIRM_WAITS) >= 30
    assert service.asked("find")[0][1:] == (KEY, RECORD.intent_at, RECORD)


def listed(**facts: Any) -> FoundJob:
    facts = {"ref": FAKE, "generation": 0, "fingerprint": "0" * 16, "created_at": RECORD.intent_at} | facts
    return FoundJob(state=JobState.RUNNING, **facts)


def test_a_job_that_is_listed_is_not_lost() -> None:
    with pytest.raises(UnavailableError, match="lists fake job job-0 as running"):
        drive(poll(FakeService(GONE, found=listed()), FAKE, record=RECORD))


def test_another_job_in_the_list_says_nothing_of_this_one() -> None:
    other = listed(ref=FAKE.model_copy(update={"id": "job-1"}))
    with pytest.raises(NotFoundError):
        drive(poll(FakeService(GONE, found=other), FAKE, record=RECORD))


def test_a_list_that_is_not_there_either_is_a_wrong_address() -> None:
    with pytest.raises(RequestRefusedError, match="address is wrong"):
        drive(poll(FakeService(GONE, found=NotFoundError("no such path", status=404)), FAKE, record=RECORD))


@pytest.mark.parametrize("error", [UnavailableError("503"), CredentialsError("401", status=401)])
def test_a_list_that_cannot_be_read_leaves_it_open(error: Exception) -> None:
    with pytest.raises(type(error)):
        drive(poll(FakeService(GONE, found=error), FAKE, record=RECORD))


@pytest.mark.parametrize("error", [RequestRefusedError("400", status=400), UnsupportedError("405", status=405)])
def test_a_service_without_a_list_is_asked_for_the_job_alone(error: Exception) -> None:
    assert drive(poll(FakeService(GONE, RUNNING, found=error), FAKE, record=RECORD)) == RUNNING
    with pytest.raises(NotFoundError):
        drive(poll(FakeService(GONE, found=error), FAKE, record=RECORD))


@pytest.mark.parametrize(
    ("error", "end"),
    [
        (KeyError("status"), PollEnd.SILENT),
        (AttributeError("'NoneType' object has no attribute 'get'"), PollEnd.SILENT),
        (UnavailableError("503"), PollEnd.SILENT),
        (SpecError("the connection lacks a host"), PollEnd.REFUSED),
        (CredentialsError("401", status=401), PollEnd.REFUSED),
        (GONE, PollEnd.UNKNOWN),
    ],
)
def test_whatever_a_poll_raises_is_the_pollers_to_decide(error: Exception, end: PollEnd) -> None:
    poller = Poller(FAKE, poll_interval=1, patience=0)
    outcome = drive(poll_once(FakeService(error), FAKE, poller, logging.getLogger(__name__)))
    assert outcome.end is end


def test_one_answer_that_cannot_be_read_does_not_end_the_wait() -> None:
    poller = Poller(FAKE, poll_interval=1)
    step = drive(poll_once(FakeService(TypeError("str")), FAKE, poller, logging.getLogger(__name__)))
    assert isinstance(step, Wait)


def test_an_answer_that_cannot_be_read_is_not_quoted_at_length(caplog: pytest.LogCaptureFixture) -> None:
    def unreadable(text: str) -> Exception:
        try:
            return ValueError(JobStatus.model_validate({"state": text, "raw": ""}))
        except ValueError as error:
            return error

    poller = Poller(FAKE, poll_interval=1, patience=0)
    for error in (unreadable("sk-secret" * 100_000), ValueError("x" * 1_000_000)):
        outcome = drive(poll_once(FakeService(error), FAKE, poller, logging.getLogger(__name__)))
        assert len(outcome.message) < 1_000
    assert "sk-secret" not in caplog.text
    assert len(caplog.text) < 10_000


def test_every_call_of_a_poll_is_bounded_by_the_deadline() -> None:
    class Asking(FakeService):
        def status(self, ref: JobRef) -> Any:
            yield Pause(0.0)
            return RUNNING

    calls: list[Within] = []
    poller = Poller(FAKE, poll_interval=1, deadline=time.time() + 50)
    drive(poll_once(Asking(), FAKE, poller, logging.getLogger(__name__)), calls.append)
    (call,) = calls
    assert 0 < call.seconds <= 50


def test_the_first_answer_is_reported_once() -> None:
    answers: list[str] = []
    service = FakeService(RUNNING, RUNNING, JobStatus(state=JobState.SUCCEEDED, raw="done"))
    options = {"poll_interval": 1, "deadline": None, "patience": 60, "cancel_on_deadline": True}
    log = logging.getLogger(__name__)
    flow = wait_for_end(service, FAKE, log=log, on_answer=lambda: answers.append("yes"), **options)
    assert client(service).run(flow).end is PollEnd.ENDED
    assert answers == ["yes"]


def test_each_answer_is_handed_on() -> None:
    seen: list[JobState] = []
    service = FakeService(RUNNING, UnavailableError("busy"), JobStatus(state=JobState.SUCCEEDED, raw="done"))
    options = {"poll_interval": 1, "deadline": None, "patience": 60, "cancel_on_deadline": True}
    log = logging.getLogger(__name__)
    flow = wait_for_end(service, FAKE, log=log, on_status=lambda status: seen.append(status.state), **options)
    client(service).run(flow)
    assert seen == [JobState.RUNNING, JobState.SUCCEEDED]


def test_a_job_that_stalls_is_warned_of(caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Poller, "STALLED_AFTER", 0.0)
    poller = Poller(FAKE, poll_interval=1)
    for _ in range(4):
        drive(poll_once(FakeService(), FAKE, poller, logging.getLogger(__name__)))
    assert [record.levelname for record in caplog.records if "has not moved" in record.message] == ["WARNING"]


@pytest.mark.parametrize("error", [UnsupportedError("no"), KeyError("status"), UnavailableError("503")])
def test_a_cancellation_that_fails_is_described_and_not_raised(error: Exception) -> None:
    assert "fake job job-0" in drive(request_cancellation(Service(error), FAKE))  # type: ignore[arg-type]
