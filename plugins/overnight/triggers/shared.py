"""The pollers of a triggerer process: one for each connection, shared by all triggers that wait for its jobs."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Final, TypeAlias
from weakref import WeakKeyDictionary

from overnight.hooks.job import hook_for
from overnight.hooks.metrics import set_waiting
from overnight.jobs import JobRef
from overnight.jobs.shared_poller import SharedPoller


@dataclass
class _Use:
    poller: SharedPoller
    users: int = 0


_Uses: TypeAlias = dict[tuple[str, str], _Use]

_by_loop: Final[WeakKeyDictionary[asyncio.AbstractEventLoop, _Uses]] = WeakKeyDictionary()
"""``dag.test()`` runs each trigger in a loop of its own; a client belongs to the loop that made it."""


@asynccontextmanager
async def shared_poller(ref: JobRef) -> AsyncIterator[SharedPoller]:
    """
    Enter the poller of a job's service and connection; the last to leave closes it.

    :raises SpecError: no package that is installed here knows the service.
    """
    uses = _by_loop.setdefault(asyncio.get_running_loop(), {})
    key = (ref.service, ref.conn_id)
    if key not in uses:
        uses[key] = _Use(SharedPoller(hook_for(ref).aclient))
    use = uses[key]
    use.users += 1
    set_waiting(*key, use.users)
    try:
        yield use.poller
    finally:
        use.users -= 1
        set_waiting(*key, use.users)
        if not use.users:
            # Out of the table first: who comes while it closes gets a new one.
            del uses[key]
            await use.poller.aclose()
