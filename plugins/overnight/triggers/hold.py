"""How soon a trigger may yield its event."""

from __future__ import annotations

import asyncio
import math
from typing import Final

from airflow.sdk.configuration import conf
from airflow.sdk.exceptions import AirflowConfigException
from airflow.triggers.base import BaseTrigger

from overnight.hooks.executor import SECTION

HOLD_OPTION: Final = "event_hold_seconds"
HOLD_SECONDS: Final = 10.0
"""Seconds from the start of a trigger to its event, at least, unless the option says otherwise.

Airflow (up to 3.3.2) takes a task that resumes before the executor has reported the end of the worker that deferred it
for one that was killed, and a try is spent (https://github.com/apache/airflow/issues/72716). A remote job seldom ends
that soon; the executor of two busy processors was seen to report six seconds late, and often is one or two.
"""


async def hold_event(trigger: BaseTrigger, started: float) -> None:
    """
    Wait until the event of a trigger may come; one that runs in no triggerer (``dag.test()``) has nothing to wait for.

    The option ``[overnight] event_hold_seconds`` says how long, where executors are further behind than that. It is
    left out of account when it is no finite number: the job is over, and its task must know.

    :param started: The event loop's time at which the trigger started to run.
    """
    if trigger.trigger_id is None:
        return
    try:
        hold = conf.getfloat(SECTION, HOLD_OPTION, fallback=HOLD_SECONDS)
    except AirflowConfigException as error:
        trigger.log.warning("%s", error)
        hold = HOLD_SECONDS
    if not math.isfinite(hold):
        trigger.log.warning("[%s] %s is %s. Set it to a number of seconds.", SECTION, HOLD_OPTION, hold)
        hold = HOLD_SECONDS
    await asyncio.sleep(max(0.0, started + hold - asyncio.get_running_loop().time()))
