"""The trigger of a job that waits, at our side, for room in its service's queue."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from typing import Any, Final, TypeAlias
from weakref import WeakKeyDictionary

from airflow.triggers.base import BaseTrigger, TriggerEvent

from overnight.errors import OvernightError, QueueDeadlineError, RequestRefusedError, TransientError, shorten
from overnight.jobs import JobRef
from overnight.jobs.client import JobClient
from overnight.jobs.model import VERSION
from overnight.jobs.queue import QueueRequest
from overnight.jobs.room import SharedGovernor
from overnight.jobs.wait import describe_unexpected
from overnight.triggers.hold import hold_event
from overnight.triggers.shared import shared_poller

_Governors: TypeAlias = dict[tuple[str, str, str], SharedGovernor]

_by_loop: Final[WeakKeyDictionary[asyncio.AbstractEventLoop, _Governors]] = WeakKeyDictionary()

ROOM: Final = "room"
"""The key by which an event of this trigger is known."""


class RoomTrigger(BaseTrigger):
    """
    Wait until there is room for a job in its service's queue, and it is this job's turn.

    It submits nothing, and has nothing to cancel: the task does that, on a worker, after the event. All triggers of
    a process that wait for the same queue share one governor.

    :param request: The waiting job, as :class:`~overnight.jobs.queue.QueueRequest` dumps it.
    :param interval: Seconds between two looks at the queue.
    :param until: Epoch seconds until which it waits, or ``None``. It is an argument of the trigger because it goes on
        counting while triggerers restart.
    :param context: Comes back in the event.
    """

    def __init__(
        self,
        *,
        request: dict[str, Any],
        interval: float,
        until: float | None = None,
        context: dict[str, Any] | None = None,
    ) -> None:
        super().__init__()
        self.request = QueueRequest.model_validate(request)
        self.interval = interval
        self.until = until
        self.context = context

    def serialize(self) -> tuple[str, dict[str, Any]]:
        """Return the class path and the arguments that make this trigger again in another process."""
        return (
            f"{type(self).__module__}.{type(self).__qualname__}",
            {
                "request": self.request.model_dump(mode="json"),
                "interval": self.interval,
                "until": self.until,
                "context": self.context,
            },
        )

    async def run(self) -> AsyncIterator[TriggerEvent]:
        """Yield exactly one event; whatever goes wrong becomes an event, too."""
        started = asyncio.get_running_loop().time()
        event: dict[str, Any] = {"version": VERSION, "context": self.context, "error": None}
        try:
            governor = _get_governor(self.request)
            request = await governor.wait(self.request, until=self.until, interval=self.interval, log=self.log)
            event[ROOM] = request.model_dump(mode="json")
        except OvernightError as error:
            kind = "deadline" if isinstance(error, QueueDeadlineError) else "transient" if error.retryable else "final"
            event |= {ROOM: None, "error": kind, "message": shorten(str(error))}
        except Exception as error:
            self.log.exception("The wait for room in the %s broke off.", self.request.where)
            text = f"The wait for room in the {self.request.where} broke off: {describe_unexpected(error)}."
            event |= {ROOM: None, "error": "transient", "message": text}
        await hold_event(self, started)
        yield TriggerEvent(event)


def parse_admission(event: Mapping[str, Any]) -> QueueRequest:
    """
    Return the admitted request of an event of :class:`RoomTrigger`.

    :raises QueueDeadlineError: there was no room in time.
    :raises TransientError: the wait broke off; a retry waits on.
    :raises RequestRefusedError: the queue cannot be looked at; a retry would not either.
    """
    match event.get("error"):
        case None:
            return QueueRequest.model_validate(event[ROOM])
        case "deadline":
            raise QueueDeadlineError(event.get("message", ""))
        case "transient":
            raise TransientError(event.get("message", ""))
        case _:
            raise RequestRefusedError(event.get("message", ""))


def _get_governor(request: QueueRequest) -> SharedGovernor:
    """Return this process's governor of a queue. It stays: it knows who was admitted and is not listed yet."""
    governors = _by_loop.setdefault(asyncio.get_running_loop(), {})
    # The poller's client is the connection's only one in this process; a job's id is no part of its key.
    ref = JobRef(service=request.service, conn_id=request.conn_id, id=request.name)

    @asynccontextmanager
    async def connect() -> AsyncIterator[JobClient[Any]]:
        async with shared_poller(ref) as shared:
            yield await shared.client()

    key = (request.service, request.conn_id, request.queue)
    if key not in governors:
        governors[key] = SharedGovernor(connect, request.queue)
    return governors[key]
