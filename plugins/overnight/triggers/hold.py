"""How soon a trigger may yield its event."""

from __future__ import annotations

import asyncio
from typing import Final

from airflow.triggers.base import BaseTrigger

HOLD_SECONDS: Final = 4.0
"""Seconds from the start of a trigger to its event, at least.

Airflow (up to 3.3.2) takes a task that resumes before the executor has reported the end of the worker that deferred it
for one that was killed, and a try is spent (https://github.com/apache/airflow/issues/72716). A remote job seldom ends
that soon; the executor of a busy machine reports seconds late.
"""


async def hold_event(trigger: BaseTrigger, started: float) -> None:
    """
    Wait until the event of a trigger may come; one that runs in no triggerer (``dag.test()``) has nothing to wait for.

    :param started: The event loop's time at which the trigger started to run.
    """
    if trigger.trigger_id is not None:
        await asyncio.sleep(max(0.0, started + HOLD_SECONDS - asyncio.get_running_loop().time()))
