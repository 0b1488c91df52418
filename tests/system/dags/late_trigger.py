"""A trigger of these tests. The triggerer imports it by name, so its folder has to be on its path."""

from __future__ import annotations

import asyncio

from overnight.triggers.job import JobTrigger


class LateTrigger(JobTrigger):
    """Cancels late."""

    async def _cancel(self) -> None:
        await asyncio.sleep(10)
        await super()._cancel()
