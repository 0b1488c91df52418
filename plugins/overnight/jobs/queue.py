"""A service's queue of jobs: what a job takes up in it, its limits, and what is known of a job that waits for it."""

from __future__ import annotations

import json
from collections.abc import Collection
from datetime import datetime
from typing import Final, NamedTuple, Self

from pydantic import BaseModel, ConfigDict, Field

from overnight.errors import RequestRefusedError, SpecError, shorten
from overnight.jobs.model import Stored

UNITS: Final = ("tokens", "records", "instances", "jobs")

_SMALLER: Final = {
    "tokens": "Cut the input into smaller parts: the step that builds it has limits, a template follows its budget.",
    "records": "Cut the input into smaller parts.",
    "instances": "Ask for fewer instances.",
    "jobs": "Cut the input into fewer parts.",
}
"""What makes a job take less, by unit."""


class Amount(BaseModel):
    """
    What jobs take up in a queue.

    :param tokens: As the service counts them; 0 where it counts none.
    :param records: Requests, documents or files.
    :param instances: Machines of the queue's type.
    :param estimated: Whether ``tokens`` or ``records`` is an estimate of ours.
    """

    model_config = ConfigDict(frozen=True, extra="ignore")

    tokens: int = Field(default=0, ge=0)
    records: int = Field(default=0, ge=0)
    instances: int = Field(default=0, ge=0)
    jobs: int = Field(default=1, ge=0)
    estimated: bool = False

    def __add__(self, other: Amount) -> Amount:
        """Add up two amounts."""
        return Amount(
            tokens=self.tokens + other.tokens,
            records=self.records + other.records,
            instances=self.instances + other.instances,
            jobs=self.jobs + other.jobs,
            estimated=self.estimated or other.estimated,
        )


NOTHING: Final = Amount(jobs=0)


class Budget(BaseModel):
    """
    How much a queue may hold; ``None``: no limit in this unit.

    :param tokens: Enqueued tokens.
    :param records: Requests, documents or files.
    :param instances: Machines of one type.
    :param jobs: Jobs that are not over.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    tokens: int | None = Field(default=None, ge=1)
    records: int | None = Field(default=None, ge=1)
    instances: int | None = Field(default=None, ge=1)
    jobs: int | None = Field(default=None, ge=1)

    @classmethod
    def parse(cls, value: object) -> Self:
        """
        Read a budget as a user or a template writes it: a mapping, or its JSON; nothing at all is no limit.

        :raises SpecError: it is neither, or a unit is unknown or below 1.
        """
        if isinstance(value, cls):
            return value
        try:
            if isinstance(value, str):
                value = json.loads(value) if value.strip().lower() not in ("", "none", "null") else None
            return cls.model_validate({} if value is None else value)
        except (ValueError, RecursionError):
            raise SpecError(
                f"budget={shorten(repr(value), 200)} is no budget. Give {{'tokens': 3_000_000}}, {{'jobs': 5}}, "
                "{'records': 50_000} or {'instances': 4}, or several of them, each 1 or more."
            ) from None

    @property
    def is_set(self) -> bool:
        """Whether any unit has a limit."""
        return any(getattr(self, unit) is not None for unit in UNITS)

    def holds(self, amount: Amount) -> bool:
        """Whether so much is within the limits."""
        return not self.find_excess(amount)

    def find_excess(self, amount: Amount) -> str | None:
        """Return the first unit in which an amount is over its limit."""
        for unit in UNITS:
            limit = getattr(self, unit)
            if limit is not None and getattr(amount, unit) > limit:
                return unit
        return None

    def tighten(self, other: Budget) -> Budget:
        """Return the lower limit of both in each unit."""

        def lower(unit: str) -> int | None:
            limits = [limit for budget in (self, other) if (limit := getattr(budget, unit)) is not None]
            return min(limits, default=None)

        return Budget(**{unit: lower(unit) for unit in UNITS})

    def check_units(self, service: str, units: Collection[str]) -> None:
        """
        Refuse a limit in a unit that a service's queue is not counted in: it would never hold anything back.

        :raises SpecError: there is one.
        """
        unknown = [unit for unit in UNITS if getattr(self, unit) is not None and unit not in units]
        if unknown:
            raise SpecError(
                f"budget: the queue of {service} is not counted in {' or '.join(unknown)}. Give it in "
                f"{' or '.join(unit for unit in UNITS if unit in units)}. Nothing was submitted."
            )

    def describe(self, used: Amount) -> str:
        """Return how much of each limit is used: ``2,900,000 of 3,000,000 tokens``."""
        parts = [
            f"{getattr(used, unit):,} of {limit:,} {unit}"
            for unit in UNITS
            if (limit := getattr(self, unit)) is not None
        ]
        return ", ".join(parts) or f"{used.jobs:,} jobs"


class QueueFull(NamedTuple):
    """
    What a service says when its queue has no room for a job.

    :param text: Its words.
    :param limit: The limit that they name.
    :param retry_after: Seconds after which it wants to be asked again.
    """

    text: str
    limit: Budget = Budget()
    retry_after: float | None = None


class ListedJob(NamedTuple):
    """
    A job that a service lists for a queue, whoever submitted it.

    :param amount: What it takes up; nothing when it is over.
    :param name: :attr:`JobKey.name <overnight.jobs.identity.JobKey.name>` of a job of ours.
    :param may_be_ours: Whether a job without a name may be one of ours, because the service keeps none.
    """

    id: str
    amount: Amount
    name: str | None = None
    may_be_ours: bool = False


class QueueRequest(Stored):
    """
    A job that waits, at our side, for room in a service's queue.

    :param queue: Which of the service's queues: the model, where each has its own.
    :param name: Of the job when it is submitted; it differs for every generation.
    :param since: When it began to wait; the oldest goes first.
    :param budget: What the user allows to be in the queue.
    :param learnt: The limit that the service named when it refused the job.
    :param reason: What the service said when it refused the job.
    :param state: Why it went on waiting, by our own count of the queue.
    :param refusals: How often the service has refused the job; with 0, our own budget makes it wait.
    :param alone: Whether it was admitted last because nothing else was in the queue.
    :param refused_alone: Whether it was refused last although nothing else was in the queue.
    :param not_before: Epoch seconds before which the service does not want to be asked again.
    """

    service: str
    conn_id: str
    queue: str
    name: str
    amount: Amount
    since: datetime
    budget: Budget = Budget()
    learnt: Budget = Budget()
    reason: str = ""
    state: str = ""
    refusals: int = 0
    alone: bool = False
    refused_alone: bool = False
    not_before: float | None = None

    @property
    def limit(self) -> Budget:
        """The lower of the user's and the service's limits."""
        return self.budget.tighten(self.learnt)

    @property
    def where(self) -> str:
        """The queue's name for a log."""
        name = f" {self.queue!r}" if self.queue else ""
        return f"{self.service} queue{name} of {self.conn_id}"

    @property
    def why(self) -> str:
        """Why it waits, or waited: the service's words before our own."""
        return self.reason or self.state or f"the {self.where} has no room within the budget"

    def with_refusal(self, refusal: QueueFull, now: float) -> QueueRequest:
        """
        Return the request after the service refused the job.

        :raises RequestRefusedError: it was refused although nothing else was in the queue: it is too large by itself.
        """
        unit = refusal.limit.find_excess(self.amount)
        if self.alone and unit is not None:
            about = "about " if self.amount.estimated else ""
            raise RequestRefusedError(
                f"The {self.where} has no room for this job even when it is empty: the job takes {about}"
                f"{getattr(self.amount, unit):,} {unit}, and the limit is {getattr(refusal.limit, unit):,}. "
                f"{_SMALLER[unit]} {refusal.text}"
            )
        return self.model_copy(
            update={
                "learnt": refusal.limit if refusal.limit.is_set else self.learnt,
                "reason": shorten(refusal.text, 500),
                "refusals": self.refusals + 1,
                "alone": False,
                "refused_alone": self.alone,
                "not_before": now + refusal.retry_after if refusal.retry_after else None,
            }
        )

    def check_budget(self) -> None:
        """
        Refuse a job that the user's budget can never hold.

        :raises SpecError: it is larger than the whole budget.
        """
        unit = self.budget.find_excess(self.amount)
        if unit is not None:
            about = "about " if self.amount.estimated else ""
            raise SpecError(
                f"This job alone takes {about}{getattr(self.amount, unit):,} {unit}, and budget allows "
                f"{getattr(self.budget, unit):,}. Nothing was submitted. {_SMALLER[unit]} Or raise the budget."
            )
