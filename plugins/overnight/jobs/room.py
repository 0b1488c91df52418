"""Waiting for room in a service's queue: blocking in a worker, or for many at once on a triggerer's event loop."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Collection
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any, Final, TypeAlias

from overnight.errors import (
    NotFoundError,
    OvernightError,
    QueueDeadlineError,
    RequestRefusedError,
    TransientError,
    UnsupportedError,
)
from overnight.jobs.client import JobClient
from overnight.jobs.governor import Governor, WaitingState
from overnight.jobs.queue import ListedJob, QueueRequest
from overnight.jobs.service import Service
from overnight.jobs.wait import Logger, describe_unexpected
from overnight.transport.flow import Flow, Pause

Connect: TypeAlias = Callable[[], AbstractAsyncContextManager[JobClient[Any]]]

LOG_SECONDS: Final = 3600.0
"""What is in the queue changes all the time; a job that is not the next says no more often than this why it waits."""
MIN_GAP: Final = 1.0
"""Seconds between two rounds at least, so that those who come together are decided about together."""


def wait_for_room(
    service: Service[Any], request: QueueRequest, *, until: float | None, interval: float, log: Logger
) -> Flow[QueueRequest]:
    """
    Wait until a job may be submitted, in a process that waits for nothing else.

    :param until: Epoch seconds, or ``None`` for ever.
    :param interval: Seconds between two looks at the queue.
    :return: The request, with whether it is alone in the queue.
    :raises QueueDeadlineError: there was no room until then.
    :raises ServiceError: the queue cannot be looked at, for good.
    """
    governor = Governor()
    governor.join(request, time.time())
    reason = _Reason()
    while True:
        try:
            listed = yield from _list_queue(service, request.queue)
        except TransientError as error:
            log.warning("The %s cannot be looked at just now: %s", request.where, error)
        else:
            decided = governor.decide(listed, time.time())
            if request.name in decided.admitted:
                return request.model_copy(update={"alone": decided.admitted[request.name], "state": reason.text})
            if reason.is_news(decided.states[request.name], time.time()):
                log.info("%s is %s.", request.name, reason.text)
        now = time.time()
        if until is not None and now >= until:
            raise build_deadline_error(request, reason.text)
        yield Pause(min(interval, until - now) if until is not None else interval)


@dataclass
class _Reason:
    """Why a job waits, and when that was written down."""

    text: str = ""
    is_next: bool = False
    logged_at: float | None = None

    def is_news(self, state: WaitingState, now: float) -> bool:
        """Keep the state, and say whether it is worth a line: the first, that it is the next, and one an hour."""
        became_next = state.place == 0 and not self.is_next
        self.text, self.is_next = state.text, state.place == 0
        if self.logged_at is not None and not became_next and now - self.logged_at < LOG_SECONDS:
            return False
        self.logged_at = now
        return True


@dataclass(eq=False)
class _Waiter:
    request: QueueRequest
    interval: float
    log: Logger
    turn: asyncio.Future[bool]
    reason: _Reason = field(default_factory=_Reason)


class SharedGovernor:
    """
    One governor of a queue for everybody in this process who waits for room in it.

    It belongs to one event loop. It looks at the queue while somebody waits, and has a client only then. Whom it has
    admitted it remembers longer, until the service's list shows the job.

    :param connect: Enters a client of the service.
    :param queue: Which of the service's queues.
    """

    def __init__(self, connect: Connect, queue: str) -> None:
        self._connect = connect
        self._queue = queue
        self._governor = Governor()
        self._waiters: dict[str, _Waiter] = {}
        self._wake = asyncio.Event()
        self._rounds: asyncio.Task[None] | None = None

    async def wait(self, request: QueueRequest, *, until: float | None, interval: float, log: Logger) -> QueueRequest:
        """
        Wait until a job may be submitted; the parameters are those of :func:`wait_for_room`.

        :raises QueueDeadlineError: there was no room until then.
        :raises OvernightError: the connection is unusable, or the queue cannot be looked at for good.
        """
        waiter = _Waiter(request, interval, log, asyncio.get_running_loop().create_future())
        self._waiters[request.name] = waiter
        self._governor.join(request, time.time())
        self._wake.set()
        if self._rounds is None or self._rounds.done():
            self._rounds = asyncio.create_task(self._run())
        try:
            async with asyncio.timeout(max(until - time.time(), 0.0) if until is not None else None):
                alone = await waiter.turn
        except TimeoutError:
            raise build_deadline_error(request, waiter.reason.text) from None
        finally:
            # A trigger that a restarted one has replaced must not take its place away.
            if self._waiters.get(request.name) is waiter:
                del self._waiters[request.name]
                self._governor.leave(request.name)
                self._wake.set()
        return request.model_copy(update={"alone": alone, "state": waiter.reason.text})

    async def _run(self) -> None:
        while self._waiters:
            try:
                async with self._connect() as client:
                    while self._waiters:
                        await self._look(client)
                        await self._pause()
            except OvernightError as error:
                # The connection or its rights are wrong: each waiter's task fails for that.
                for name, waiter in self._waiters.items():
                    # Else the next round would admit those who wait no more, and nobody else.
                    self._governor.leave(name)
                    if not waiter.turn.done():
                        waiter.turn.set_exception(error)
                self._waiters.clear()
            except Exception as error:
                # A secrets backend or Airflow's API that is away for a while ends nobody's waiting.
                for waiter in self._waiters.values():
                    text = describe_unexpected(error)
                    waiter.log.warning("The %s cannot be looked at just now: %s", waiter.request.where, text)
                await self._pause()

    async def _pause(self) -> None:
        """Wait for the next round: an interval, or until somebody comes or goes."""
        if not self._waiters:
            return
        pause = min(waiter.interval for waiter in self._waiters.values())
        self._wake.clear()
        try:
            await asyncio.wait_for(self._wake.wait(), pause)
        except TimeoutError:
            return
        # Those who come together are waited for, and decided about together.
        await asyncio.sleep(min(MIN_GAP, pause))

    async def _look(self, client: JobClient[Any]) -> None:
        try:
            listed = await client.arun(_list_queue(client.service, self._queue))
        except TransientError as error:
            for waiter in self._waiters.values():
                waiter.log.warning("The %s cannot be looked at just now: %s", waiter.request.where, error)
            return
        decided = self._governor.decide(listed, time.time())
        for name, alone in decided.admitted.items():
            waiter = self._waiters.pop(name)
            if not waiter.turn.done():
                waiter.log.info("There is room for %s in the %s.", name, waiter.request.where)
                waiter.turn.set_result(alone)
        for name, state in decided.states.items():
            waiter = self._waiters[name]
            if waiter.reason.is_news(state, time.time()):
                waiter.log.info("%s is %s.", name, state.text)


def build_deadline_error(request: QueueRequest, state: str) -> QueueDeadlineError:
    """Return the error of a job that there was no room for in time."""
    since = request.since.astimezone(UTC).isoformat(timespec="seconds")
    until = datetime.now(UTC).isoformat(timespec="seconds")
    why = f" Last, it was {state}." if state else ""
    said = f" The service said: {request.reason}" if request.reason else ""
    return QueueDeadlineError(
        f"The {request.where} had no room for the job from {since} to {until} (queue_deadline). Nothing was "
        f"submitted.{why}{said} Raise queue_deadline or the account's limit, or let fewer jobs wait; then "
        "clear the task."
    )


def _list_queue(service: Service[Any], queue: str) -> Flow[Collection[ListedJob] | None]:
    """Return the jobs in a queue; ``None`` where the service does not list them."""
    try:
        listed: Collection[ListedJob] = yield from service.list_queue(queue)
    except (UnsupportedError, NotFoundError, RequestRefusedError):
        return None
    return listed
