"""What Airflow does around a deferred task, in one call."""

from __future__ import annotations

import asyncio
from typing import Any


def to_event(trigger: Any) -> dict[str, Any]:
    async def collect() -> list[Any]:
        return [event async for event in trigger.run()]

    (event,) = asyncio.run(collect())
    return event.payload
