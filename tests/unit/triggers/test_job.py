"""What the triggerer does to a trigger, and what the trigger makes of it."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from typing import Any

import pytest
from airflow.sdk.exceptions import AirflowNotFoundException
from hypothesis import given
from hypothesis import strategies as st

from job_fakes import FakeService, client
from overnight.errors import MAX_TEXT, CredentialsError, SpecError, UnavailableError
from overnight.jobs import JobError, JobRef, JobState, JobStatus
from overnight.jobs.poller import PollEnd, PollOutcome
from overnight.triggers import job, shared
from overnight.triggers.job import JobTrigger, get_context, parse_event, to_event

REF = JobRef(service="openai", id="batch_1", conn_id="openai_default")


class SlowService:
    """A service whose cancellation takes a moment, and the hook and client that lead to it."""

    def __init__(self, seconds: float) -> None:
        self.seconds = seconds
        self.cancelled: list[str] = []
        self.asked, self.answered = asyncio.Event(), asyncio.Event()
        self.service = self

    @asynccontextmanager
    async def _client(self) -> AsyncIterator[SlowService]:
        yield self

    async def aclient(self) -> Any:
        return self._client()

    def cancel(self, ref: JobRef) -> Any:
        yield self.seconds
        self.cancelled.append(ref.id)
        self.answered.set()
        return JobStatus(state=JobState.CANCELLING, raw="cancelling")

    async def arun(self, flow: Any) -> Any:
        try:
            while True:
                seconds = next(flow)
                self.asked.set()
                await asyncio.sleep(seconds)
        except StopIteration as stop:
            return stop.value


@pytest.fixture
def trigger() -> JobTrigger:
    return JobTrigger(ref=REF.model_dump(mode="json"), poll_interval=60)


def use(service: SlowService, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(job, "hook_for", lambda ref: service)


async def test_a_triggerer_that_repeats_its_request_does_not_cut_off_the_cancellation(
    trigger: JobTrigger, monkeypatch: pytest.MonkeyPatch
) -> None:
    service = SlowService(0.1)
    use(service, monkeypatch)

    async def as_the_triggerer_does() -> None:
        # TriggerRunner.run_trigger swallows it here, too.
        with suppress(asyncio.CancelledError):
            await asyncio.wait_for(trigger.on_kill(), timeout=30)

    running = asyncio.create_task(as_the_triggerer_does())
    await service.asked.wait()
    for _ in range(3):
        running.cancel("__airflow_user_action__")
        await asyncio.sleep(0.01)
    await running
    await asyncio.wait_for(service.answered.wait(), timeout=60)
    assert service.cancelled == ["batch_1"]


async def test_a_service_that_never_answers_does_not_hold_the_triggerer_for_ever(
    trigger: JobTrigger, monkeypatch: pytest.MonkeyPatch
) -> None:
    service = SlowService(3600)
    use(service, monkeypatch)
    monkeypatch.setattr(job, "CANCEL_SECONDS", 0.01)
    await trigger.on_kill()
    assert service.cancelled == []


async def test_a_job_that_is_to_be_spared_is_left_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    service = SlowService(0)
    use(service, monkeypatch)
    await JobTrigger(ref=REF.model_dump(mode="json"), poll_interval=60, cancel_on_kill=False).on_kill()
    assert service.cancelled == []


def test_a_trigger_is_made_again_from_what_it_serializes() -> None:
    made = JobTrigger(
        ref=REF.model_dump(mode="json"),
        poll_interval=1.5,
        deadline=12.5,
        patience=3,
        cancel_on_kill=False,
        context={"a": 1},
    )
    path, arguments = made.serialize()
    assert path == "overnight.triggers.job.JobTrigger"
    assert JobTrigger(**arguments).serialize() == (path, arguments)


def test_the_first_versions_name_of_the_context_is_read() -> None:
    trigger = JobTrigger(ref=REF.model_dump(mode="json"), poll_interval=60, echo={"a": 1})
    assert trigger.serialize()[1]["context"] == {"a": 1}
    assert get_context({"echo": {"a": 1}}) == get_context({"context": {"a": 1}}) == {"a": 1}


def answer_polls(monkeypatch: pytest.MonkeyPatch, service: FakeService | Exception) -> None:
    """Have the trigger's hook lead to a service, or fail."""

    class Hook:
        async def aclient(self) -> Any:
            if isinstance(service, Exception):
                raise service
            return client(service)

    monkeypatch.setattr(shared, "hook_for", lambda ref: Hook())
    monkeypatch.setattr(job, "hook_for", lambda ref: Hook())


@pytest.mark.parametrize(
    ("error", "end"),
    [
        (KeyError("items"), PollEnd.SILENT),
        (TypeError("'NoneType' object is not iterable"), PollEnd.SILENT),
        (ValueError("x" * 60_000_000), PollEnd.SILENT),
        (UnavailableError("503"), PollEnd.SILENT),
        (CredentialsError("y" * 9_000_000, status=401), PollEnd.REFUSED),
        (SpecError("the connection lacks a host"), PollEnd.REFUSED),
    ],
    ids=lambda value: type(value).__name__ if isinstance(value, Exception) else str(value),
)
async def test_whatever_goes_wrong_becomes_one_bounded_event(
    monkeypatch: pytest.MonkeyPatch, error: Exception, end: PollEnd
) -> None:
    answer_polls(monkeypatch, FakeService(error))
    trigger = JobTrigger(ref=REF.model_dump(mode="json"), poll_interval=60, patience=0, context={"a": 1})
    (event,) = [event async for event in trigger.run()]
    assert event.payload["context"] == {"a": 1}
    assert parse_event(event.payload).end is end
    assert len(json.dumps(event.payload)) < 3 * MAX_TEXT


@pytest.mark.parametrize(
    ("error", "end"),
    [
        (AirflowNotFoundException("The conn_id `c` isn't defined"), PollEnd.SILENT),
        (SpecError("the connection lacks a host"), PollEnd.REFUSED),
    ],
)
async def test_a_connection_that_cannot_be_had_becomes_an_event_too(
    monkeypatch: pytest.MonkeyPatch, error: Exception, end: PollEnd
) -> None:
    answer_polls(monkeypatch, error)
    trigger = JobTrigger(ref=REF.model_dump(mode="json"), poll_interval=60, patience=0)
    (event,) = [event async for event in trigger.run()]
    assert parse_event(event.payload).end is end


async def test_the_event_of_a_job_with_endless_errors_is_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    errors = tuple(JobError(message="z" * 100_000) for _ in range(1_000))
    answer_polls(monkeypatch, FakeService(JobStatus(state=JobState.FAILED, raw="failed", errors=errors)))
    (event,) = [event async for event in JobTrigger(ref=REF.model_dump(mode="json"), poll_interval=60).run()]
    assert len(json.dumps(event.payload)) < 25 * MAX_TEXT


async def test_a_cancellation_without_a_connection_is_logged_and_not_raised(monkeypatch: pytest.MonkeyPatch) -> None:
    answer_polls(monkeypatch, AirflowNotFoundException("The conn_id `c` isn't defined"))
    await JobTrigger(ref=REF.model_dump(mode="json"), poll_interval=60).on_kill()


@given(
    st.builds(
        PollOutcome,
        st.sampled_from(PollEnd),
        st.none() | st.builds(JobStatus, state=st.sampled_from(JobState), raw=st.text()),
        st.text(),
        st.booleans(),
        st.booleans(),
    )
)
def test_an_event_is_read_as_it_was_written_and_a_later_versions_too(outcome: PollOutcome) -> None:
    event = json.loads(json.dumps(to_event(outcome)))
    assert parse_event(event) == parse_event({**event, "version": 99, "new": [1]}) == outcome
