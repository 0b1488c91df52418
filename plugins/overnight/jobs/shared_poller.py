"""One poller for all the jobs of one connection that a process waits for: one client, one rhythm, lists first."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable, Collection, Iterable, Mapping
from contextvars import Context, copy_context
from dataclasses import dataclass, field
from typing import Any, Final, TypeAlias

from overnight.errors import OvernightError, RateLimitedError, ServiceError, TransientError, UnavailableError
from overnight.jobs.client import JobClient
from overnight.jobs.model import JobStatus
from overnight.jobs.poller import Poller, PollOutcome, Wait
from overnight.jobs.record import JobRecord
from overnight.jobs.wait import Lines, Logger, describe_unexpected, poll, take_error, take_status, to_service_error
from overnight.transport.flow import bound

ClientFactory: TypeAlias = Callable[[], Awaitable[JobClient[Any]]]
Recall: TypeAlias = Callable[[], JobRecord | None]
"""Returns what a task remembers of its job."""

MIN_GAP: Final = 1.0
"""Seconds between two rounds at least: triggers that a triggerer starts together are answered together."""
GAP_RATIO: Final = 2.0
"""Seconds between two rounds at least, per second that the first took: reading the list of many jobs takes a while,
and is not begun again for each of those who come one after the other meanwhile."""
MAX_GAP: Final = 5.0
LIST_FROM: Final = 4
LIST_SHARE: Final = 100
"""So many due jobs, or one in so many of all that are waited for, are worth a listing; fewer are asked for singly."""
LIST_AGAIN: Final = 3600.0
"""Seconds until a list is tried again that was refused or could not be read."""
CALLS_AT_ONCE: Final = 8
LINES_PER_ROUND: Final = 100
"""Lines that a round logs at most (:class:`~overnight.jobs.wait.Lines`), beside those of the jobs that ended."""
LIST_SECONDS: Final = 300.0
"""Seconds that the calls of one listing may take together."""


@dataclass(eq=False, slots=True)
class _Waiter:
    poller: Poller
    log: Logger
    recall: Recall
    outcome: asyncio.Future[PollOutcome]
    context: Context = field(default_factory=copy_context)
    """The waiter's own, in which its lines are logged: Airflow tells triggers' logs apart by context variables."""
    due: float = 0.0


class SharedPoller:
    """
    Poll the jobs of one service and connection for everybody in this process who waits for one of them.

    Every waiter keeps its own :class:`~overnight.jobs.lifecycle.Poller`, and so its own deadline, patience and
    interval. Where the service can list its jobs, a round reads the list once and answers every waiter from it. A job
    that the list lacks, or shows as ended, is asked for singly. What one job's call raises reaches its waiter only.

    It belongs to one event loop. The client is made when the first job is waited for and closed after the last.

    :param connect: Looks the connection up and returns a client.
    """

    def __init__(self, connect: ClientFactory) -> None:
        self._connect = connect
        self._client: JobClient[Any] | None = None
        self._waiters: set[_Waiter] = set()
        self._wake = asyncio.Event()
        self._rounds: asyncio.Task[None] | None = None
        self._list_not_before = 0.0
        self._not_before = 0.0
        self._lines = Lines(LINES_PER_ROUND)

    async def wait(self, poller: Poller, log: Logger, recall: Recall = lambda: None) -> PollOutcome:
        """
        Return the end of a poller's job, or of its patience or deadline.

        :param recall: Returns what the task remembers of the job; its key is what a 404 is confirmed with. It is called
            for a call about this job alone.
        :raises OvernightError: the connection is unusable.
        """
        waiter = _Waiter(poller, log, recall, asyncio.get_running_loop().create_future())
        self._waiters.add(waiter)
        self._wake.set()
        if self._rounds is None or self._rounds.done():
            self._rounds = asyncio.create_task(self._run())
        try:
            return await waiter.outcome
        finally:
            self._waiters.discard(waiter)
            self._wake.set()

    async def client(self) -> JobClient[Any]:
        """Return the client that all rounds use."""
        if self._client is None:
            self._client = await self._connect()
        return self._client

    async def aclose(self) -> None:
        """End the rounds and close the client."""
        if self._rounds is not None:
            self._rounds.cancel()
            await asyncio.gather(self._rounds, return_exceptions=True)
            self._rounds = None
        await self._drop_client()

    async def _run(self) -> None:
        while self._waiters:
            self._wake.clear()
            now = time.monotonic()
            due = max(min(waiter.due for waiter in self._waiters), self._not_before)
            if due > now:
                try:
                    await asyncio.wait_for(self._wake.wait(), due - now)
                except TimeoutError:
                    pass
                else:
                    # Somebody came or went. Those who come together are waited for, and asked about together.
                    await asyncio.sleep(MIN_GAP)
                continue
            await self._round([waiter for waiter in self._waiters if waiter.due <= now])
            await asyncio.sleep(_get_gap(time.monotonic() - now))

    async def _round(self, due: list[_Waiter]) -> None:
        self._lines = Lines(LINES_PER_ROUND)
        try:
            client = await self.client()
        except OvernightError as error:
            for waiter in due:
                self._fail(waiter, error)
            return
        except Exception as error:
            # A secrets backend or Airflow's API that is away for a while ends nobody's waiting.
            text = f"The connection cannot be looked up just now: {describe_unexpected(error)}"
            self._deliver_error(due, UnavailableError(text))
            return
        began = time.monotonic()
        listed = await self._list(client, due)
        if listed is None:
            return
        now = time.monotonic()
        singly = []
        for waiter in list(self._waiters):
            status = listed.get(waiter.poller.ref.id)
            if status is not None and not status.state.is_terminal:
                step = waiter.context.run(take_status, waiter.poller, status, waiter.log, self._lines)
                # Reading a long list takes seconds, by which a job's end would be noticed later.
                self._go_on(waiter, step, began)
            elif status is not None or waiter.due <= now:
                singly.append(waiter)
        await self._ask_singly(client, singly)

    async def _list(self, client: JobClient[Any], due: list[_Waiter]) -> Mapping[str, JobStatus] | None:
        """Return what the service's list says; ``None`` when it is out of reach, which everybody due has learnt."""
        worthwhile = max(LIST_FROM, len(self._waiters) // LIST_SHARE)
        if len(due) < worthwhile or time.monotonic() < self._list_not_before:
            return {}
        # Not of those due alone: those who come at different times are due together from then on, and a job of long
        # ago stands behind many that others wait for.
        wanted = {waiter.poller.ref.id for waiter in self._waiters}
        try:
            return await client.arun(bound(client.service.list_statuses(wanted), LIST_SECONDS))
        except TransientError as error:
            self._deliver_error(due, error)
            return None
        except ServiceError as error:
            self._list_not_before = time.monotonic() + LIST_AGAIN
            due[0].log.info("Jobs are asked for one by one: %s", error)
        except Exception as error:
            self._list_not_before = time.monotonic() + LIST_AGAIN
            due[0].log.warning("The list of jobs could not be read: %s", describe_unexpected(error))
        return {}

    async def _ask_singly(self, client: JobClient[Any], waiters: Collection[_Waiter]) -> None:
        places = asyncio.Semaphore(CALLS_AT_ONCE)

        async def ask(waiter: _Waiter) -> None:
            async with places:
                if self._not_before > time.monotonic() or waiter.outcome.done():
                    return
                ref, seconds = waiter.poller.ref, waiter.poller.get_seconds_left(time.time())
                call = client.arun(bound(poll(client.service, ref, waiter.log, waiter.recall()), seconds))
                try:
                    status = await asyncio.create_task(call, context=waiter.context)
                except Exception as error:  # one job's odd answer must not end the others' rounds
                    self._deliver_error([waiter], to_service_error(ref, error))
                else:
                    self._go_on(waiter, waiter.context.run(take_status, waiter.poller, status, waiter.log, self._lines))

        await asyncio.gather(*map(ask, waiters))

    def _deliver_error(self, waiters: Iterable[_Waiter], error: ServiceError) -> None:
        if isinstance(error, RateLimitedError) and error.retry_after:
            # The limit is the account's, not the job's.
            self._not_before = time.monotonic() + error.retry_after
        for waiter in waiters:
            self._go_on(waiter, waiter.context.run(take_error, waiter.poller, error, waiter.log, self._lines))

    def _go_on(self, waiter: _Waiter, step: Wait | PollOutcome, asked: float | None = None) -> None:
        if isinstance(step, Wait):
            waiter.due = (time.monotonic() if asked is None else asked) + step.seconds
        elif not waiter.outcome.done():
            waiter.outcome.set_result(step)
            self._waiters.discard(waiter)

    def _fail(self, waiter: _Waiter, error: Exception) -> None:
        self._waiters.discard(waiter)
        if not waiter.outcome.done():
            waiter.outcome.set_exception(error)

    async def _drop_client(self) -> None:
        client, self._client = self._client, None
        if client is not None:
            await client.transport.aclose()


def _get_gap(seconds: float) -> float:
    """Return for how many seconds to rest after a round that took so many."""
    return min(max(MIN_GAP, GAP_RATIO * seconds), MAX_GAP)
