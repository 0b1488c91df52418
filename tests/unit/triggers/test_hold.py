"""A trigger's event does not come before Airflow has seen the deferring worker end."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from datetime import UTC, datetime
from unittest.mock import AsyncMock, Mock

import pytest
from airflow.triggers.base import BaseTrigger

from overnight.jobs import JobRef
from overnight.jobs.queue import Amount, QueueRequest
from overnight.triggers import hold, room
from overnight.triggers.hold import HOLD_SECONDS, hold_event
from overnight.triggers.job import JobTrigger
from overnight.triggers.room import RoomTrigger


def job_trigger() -> JobTrigger:
    ref = JobRef(service="openai", id="batch_1", conn_id="openai_default")
    return JobTrigger(ref=ref.model_dump(mode="json"), poll_interval=60)


def room_trigger() -> RoomTrigger:
    request = QueueRequest(
        service="openai", conn_id="openai_default", queue="m", name="n", amount=Amount(), since=datetime.now(UTC)
    )
    return RoomTrigger(request=request.model_dump(mode="json"), interval=60)


@pytest.mark.parametrize("make", [job_trigger, room_trigger])
@pytest.mark.parametrize("trigger_id", [7, None], ids=["in a triggerer", "in dag.test()"])
async def test_an_event_that_is_there_at_once_is_held_in_a_triggerer(
    make: Callable[[], BaseTrigger], trigger_id: int | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    waits: list[float] = []

    async def sleep(seconds: float) -> None:
        waits.append(seconds)

    monkeypatch.setattr(hold.asyncio, "sleep", sleep)
    monkeypatch.setattr(JobTrigger, "_wait", AsyncMock(side_effect=KeyError("no connection")))
    monkeypatch.setattr(room, "_get_governor", Mock(side_effect=KeyError("no connection")))
    trigger = make()
    trigger.trigger_id = trigger_id
    assert len([event async for event in trigger.run()]) == 1
    assert len(waits) == (trigger_id is not None)
    assert all(0 < waited <= HOLD_SECONDS for waited in waits)


async def test_an_event_that_comes_late_is_not_held() -> None:
    trigger = job_trigger()
    trigger.trigger_id = 7
    await asyncio.wait_for(hold_event(trigger, asyncio.get_running_loop().time() - HOLD_SECONDS), timeout=1)


@pytest.mark.parametrize(
    ("option", "seconds"),
    [("60.5", 60.5), ("0", 0), ("-1", 0), ("soon", HOLD_SECONDS), ("inf", HOLD_SECONDS), ("nan", HOLD_SECONDS)],
)
async def test_an_option_says_how_long_an_event_is_held(
    option: str, seconds: float, monkeypatch: pytest.MonkeyPatch
) -> None:
    waits: list[float] = []

    async def sleep(seconds: float) -> None:
        waits.append(seconds)

    monkeypatch.setattr(hold.asyncio, "sleep", sleep)
    monkeypatch.setattr(hold.asyncio, "get_running_loop", lambda: Mock(time=lambda: 1000.0))
    monkeypatch.setenv("AIRFLOW__OVERNIGHT__EVENT_HOLD_SECONDS", option)
    trigger = job_trigger()
    trigger.trigger_id = 7
    await hold_event(trigger, 1000.0)
    assert waits == [seconds]
