"""A trigger of these tests. The triggerer imports it by name, so its folder has to be on its path."""

from __future__ import annotations

import asyncio
import os
from pathlib import Path

from overnight.triggers.job import JobTrigger

GATE = Path(os.environ["OVERNIGHT_TEST_FOLDER"]) / "may-cancel"


class LateTrigger(JobTrigger):
    """Cancels only when the gate is there."""

    async def _cancel(self) -> None:
        while not GATE.exists():  # noqa: ASYNC110 - made by another process
            await asyncio.sleep(0.1)
        await super()._cancel()
