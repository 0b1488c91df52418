"""What the triggerer does to a trigger, and what the trigger makes of it."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from typing import Any

import pytest

from overnight.jobs import JobRef, JobState, JobStatus
from overnight.triggers import job
from overnight.triggers.job import JobTrigger

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
        echo={"a": 1},
    )
    path, arguments = made.serialize()
    assert path == "overnight.triggers.job.JobTrigger"
    assert JobTrigger(**arguments).serialize() == (path, arguments)
