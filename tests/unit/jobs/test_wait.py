"""What a watch does when the deadline passes."""

from __future__ import annotations

import logging
import time
from collections.abc import Iterator
from typing import Any

import pytest

from overnight.errors import UnavailableError
from overnight.jobs import JobRef, JobState, JobStatus
from overnight.jobs.poller import PollEnd, PollOutcome
from overnight.jobs.wait import wait_for_end

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
    with pytest.raises(StopIteration) as stop:
        next(flow)
    return stop.value.value


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
