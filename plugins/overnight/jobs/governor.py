"""
Who may submit next to a queue that is full: the oldest, as soon as there is room. Free of I/O.

A governor has no memory of its own between processes. What is in the queue is what the service lists as unfinished;
what it knows beyond that is only whom it has just admitted and does not see in the list yet.
"""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass, field
from typing import Final, NamedTuple

from overnight.jobs.queue import NOTHING, UNITS, Amount, ListedJob, QueueRequest

ADMISSION_SECONDS: Final = 600.0
"""How long room is reserved for an admitted job that the list does not show: its worker may be dead."""
SHOWN_SECONDS: Final = 2 * ADMISSION_SECONDS
"""How long a list goes on showing a new job that is over already, so that the room reserved for it is free at once."""
PROBE_SECONDS: Final = 60.0
"""Where neither limit nor list is known, or the list does not explain a refusal, one job asks again after this."""


@dataclass
class _Waiter:
    request: QueueRequest
    joined_at: float
    jobs_at_joining: int | None = None
    """How many jobs the list had in the first round after the refusal: with so many, the queue is full."""


class WaitingState(NamedTuple):
    """
    Why a job waits.

    :param place: How many wait longer.
    """

    place: int
    text: str


@dataclass(frozen=True)
class Round:
    """
    What one look at the queue comes to.

    :param admitted: The names of those who may submit now, oldest first; and whether nothing else is in the queue.
    :param states: By name, for those who go on waiting, why.
    """

    admitted: dict[str, bool]
    states: dict[str, WaitingState] = field(default_factory=dict)


class Governor:
    """
    Admit jobs to one queue of a service, oldest first, while the budget allows.

    Several processes may each have a governor for the same queue. So that they do not overshoot by more than one job
    each, a governor that has admitted jobs which the list does not show yet admits more only while twice of that would
    fit: what another one may have admitted at the same time is as large at most.
    """

    def __init__(self) -> None:
        self._waiters: dict[str, _Waiter] = {}
        self._admitted: dict[str, tuple[Amount, float]] = {}
        self._unnamed: frozenset[str] = frozenset()
        """The jobs that may be ours and were listed at the last look."""

    @property
    def is_idle(self) -> bool:
        """Whether nobody waits."""
        return not self._waiters

    def join(self, request: QueueRequest, now: float) -> None:
        """Let a job wait. One that was admitted and comes back was refused, and holds no room."""
        self._admitted.pop(request.name, None)
        self._waiters[request.name] = _Waiter(request, now)

    def leave(self, name: str) -> None:
        """Forget a job that waits no more; what it was admitted to stays reserved."""
        self._waiters.pop(name, None)

    def decide(self, listed: Collection[ListedJob] | None, now: float) -> Round:
        """
        Decide who may submit, after a look at the queue.

        :param listed: The jobs in it, and perhaps some that are over; ``None`` when the service cannot list them.
        :param now: Epoch seconds.
        """
        self._release(listed, now)
        used = sum((job.amount for job in listed or ()), NOTHING)
        admitted: dict[str, bool] = {}
        waiting = sorted(self._waiters.values(), key=lambda waiter: (waiter.request.since, waiter.request.name))
        for waiter in waiting:
            if waiter.jobs_at_joining is None and listed is not None:
                waiter.jobs_at_joining = used.jobs
        for waiter in waiting:
            if not self._fits(waiter, used, now, is_listed=listed is not None):
                # Nobody overtakes: a small job that does would keep a large one waiting for ever.
                break
            request = waiter.request
            admitted[request.name] = not used.jobs and not self._admitted
            self._admitted[request.name] = (request.amount, now)
            self.leave(request.name)
        rest = [waiter.request for waiter in waiting if waiter.request.name in self._waiters]
        states = {request.name: _describe(request, used, place, listed) for place, request in enumerate(rest)}
        return Round(admitted, states)

    def _release(self, listed: Collection[ListedJob] | None, now: float) -> None:
        """Give up the reservations of jobs that the list shows, or that took too long to appear."""
        shown = {job.name for job in listed or ()}
        self._admitted = {
            name: (amount, at)
            for name, (amount, at) in self._admitted.items()
            if name not in shown and now - at < (ADMISSION_SECONDS if listed is not None else PROBE_SECONDS)
        }
        # Where jobs bear no names, a new one stands for the oldest that was admitted.
        unnamed = frozenset(job.id for job in listed or () if job.may_be_ours)
        for name in list(self._admitted)[: len(unnamed - self._unnamed)]:
            del self._admitted[name]
        self._unnamed = unnamed

    def _fits(self, waiter: _Waiter, used: Amount, now: float, *, is_listed: bool) -> bool:
        request, limit = waiter.request, waiter.request.limit
        if request.not_before is not None and now < request.not_before:
            return False
        reserved = sum((amount for amount, _ in self._admitted.values()), NOTHING)
        if not is_listed:
            return not reserved.jobs and (not request.refusals or now - waiter.joined_at >= PROBE_SECONDS)
        if not used.jobs and not reserved.jobs:
            # The service may count less than we do; if it does not, that is the end (QueueRequest.with_refusal). A
            # service that refused this job as the only one has another reason, and is asked now and then.
            return not request.refused_alone or now - waiter.joined_at >= PROBE_SECONDS
        if limit.is_set:
            unseen = reserved + request.amount
            if not limit.holds(used + unseen + (unseen if reserved.jobs else NOTHING)):
                return False
        elif reserved.jobs:
            return False
        if not request.refusals or (request.learnt.is_set and request.refusals == 1):
            return True
        # It was refused with so many jobs in the queue, though by our count it had room: one of them has to end.
        jobs_then = waiter.jobs_at_joining if waiter.jobs_at_joining is not None else used.jobs
        return used.jobs < jobs_then or now - waiter.joined_at >= PROBE_SECONDS


def _describe(request: QueueRequest, used: Amount, place: int, listed: object) -> WaitingState:
    about = "about " if request.amount.estimated else ""
    unit = next(unit for unit in UNITS if getattr(request.amount, unit) or unit == UNITS[-1])
    count = getattr(request.amount, unit)
    needs = f"{about}{count:,} {unit if count != 1 else unit.removesuffix('s')}"
    queue = f"the {request.where} is full"
    if listed is not None:
        queue = f"{request.limit.describe(used)} are in the {request.where}"
    ahead = f"; {place} wait{'s' if place == 1 else ''} before it" if place else ""
    return WaitingState(place, f"queued here: {queue}, this job needs {needs}{ahead}")
