"""
A budget over a period: what runs spent, or may spend, as one small file for each run.

The files of a period are numbered without a gap. A run adds up all that are there and creates the next number, which
fails when another run has just done so; then it looks again. So no two runs both take the last of a budget, and
nothing has to be locked. A file is changed by its own run only, and never deleted: a number is not given twice.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from datetime import UTC, date, datetime, timedelta
from decimal import Decimal
from typing import Final, NamedTuple, Self

from pydantic import BaseModel, ConfigDict, ValidationError

from overnight.costs.estimate import CostEstimate
from overnight.costs.money import Money, Threshold, format_amount
from overnight.errors import SpecError, UnavailableError, shorten
from overnight.storage import Storage, redact
from overnight.validation import describe_faults

PERIODS: Final = ("day", "week", "month")
_ATTEMPTS: Final = 100
"""So many runs may come between this one's look and its file before it gives up until its next try."""
_NUMBER: Final = re.compile(r"/(\d{6,})\.json$")


class Spent(BaseModel):
    """
    What something cost.

    :param cost: In the currency of the record.
    """

    model_config = ConfigDict(frozen=True)

    cost: Decimal = Decimal(0)
    tokens: int = 0

    def __add__(self, other: Spent) -> Spent:
        return Spent(cost=self.cost + other.cost, tokens=self.tokens + other.tokens)


class SpendingRecord(BaseModel):
    """
    What one run has to do with a budget.

    :param at: When the run was allowed to spend.
    :param reserved: What it may still spend: its estimate, until what its jobs cost is known.
    :param jobs: What each of its jobs cost.
    """

    model_config = ConfigDict(frozen=True)

    version: int = 1
    dag_id: str
    run_id: str
    at: datetime
    currency: str
    reserved: Spent = Spent()
    jobs: dict[str, Spent] = {}

    @property
    def owner(self) -> tuple[str, str]:
        """The run that it belongs to."""
        return self.dag_id, self.run_id

    @property
    def total(self) -> Spent:
        """What counts against the budget."""
        return sum(self.jobs.values(), self.reserved)

    def describe(self) -> str:
        """Return the total in words."""
        return f"{format_amount(self.total.cost)} {self.currency} ({self.total.tokens:,} tokens)"


class CostBudget(NamedTuple):
    """
    What all runs together may cost in a period of UTC.

    :param limit: Money or tokens.
    :param period: ``day``, ``week`` (from Monday on) or ``month``.
    """

    limit: Threshold
    period: str

    @classmethod
    def parse(cls, value: object, name: str = "cost_budget") -> Self:
        """
        Read ``"50 USD/month"``, ``"5/day"`` or ``"20000000 tokens/week"``.

        :raises SpecError: it is none.
        """
        amount, _, period = str(value).rpartition("/")
        if not amount or period.strip() not in PERIODS:
            raise SpecError(
                f'{name}={shorten(repr(value), 200)} is no budget; write "50 USD/month", or tokens, and one of '
                f"{', '.join(PERIODS)}."
            )
        return cls(Threshold.parse(amount.strip(), name), period.strip())

    def __str__(self) -> str:
        return f"{self.limit}/{self.period}"

    def get_period(self, now: datetime) -> tuple[str, date]:
        """Return the name of the period that a time is in, and the first day of the next one."""
        day = now.astimezone(UTC).date()
        if self.period == "day":
            return day.isoformat(), day + timedelta(days=1)
        if self.period == "week":
            year, week, weekday = day.isocalendar()
            return f"{year}-W{week:02}", day + timedelta(days=8 - weekday)
        return f"{day:%Y-%m}", (day.replace(day=1) + timedelta(days=32)).replace(day=1)

    def get_left(self, spent: Spent, currency: str) -> Spent:
        """
        Return what is left; what has no limit counts for nothing.

        :raises SpecError: the budget is in another currency.
        """
        if self.limit.tokens is not None:
            return Spent(tokens=self.limit.tokens - spent.tokens)
        limit = (self.limit.money or Money(Decimal(0))).require_currency(currency, "cost_budget")
        return Spent(cost=limit - spent.cost)

    def describe_amount(self, spent: Spent, currency: str) -> str:
        """Return an amount in the unit of the budget, in words."""
        if self.limit.tokens is not None:
            return f"{spent.tokens:,} tokens"
        return f"{format_amount(max(spent.cost, Decimal(0)))} {currency}"


class Spending:
    """
    The records of a budget.

    :param uri: The folder that they are in, shared by all runs that share the budget.
    """

    def __init__(self, uri: str, budget: CostBudget, storage: Storage | None = None) -> None:
        self._uri = uri.rstrip("/")
        self._budget = budget
        self._storage = storage or Storage()

    def check(self, owner: tuple[str, str], estimate: CostEstimate, now: datetime | None = None) -> None:
        """
        Refuse a run that would go over the budget.

        :param owner: The DAG's id and the run's.
        :raises SpecError: it would, or its cost is not known.
        """
        self._check(self.read(now or datetime.now(UTC)), owner, estimate, now or datetime.now(UTC))

    def reserve(self, owner: tuple[str, str], estimate: CostEstimate, now: datetime | None = None) -> str:
        """
        Put down what a run may cost, before anything is uploaded.

        The same run again, whatever its try, replaces what it had put down.

        :param owner: The DAG's id and the run's.
        :return: The URI of its record.
        :raises SpecError: the run would go over the budget, or its cost is not known.
        :raises UnavailableError: too many other runs do the same just now.
        """
        now = now or datetime.now(UTC)
        for _ in range(_ATTEMPTS):
            records = self.read(now)
            self._check(records, owner, estimate, now)
            own = {uri: record for uri, record in records.items() if record.owner == owner}
            jobs = {name: spent for record in own.values() for name, spent in record.jobs.items()}
            dag_id, run_id = owner
            wanted = SpendingRecord(
                dag_id=dag_id,
                run_id=run_id,
                at=now,
                currency=estimate.currency,
                reserved=_get_spent(estimate),
                jobs=jobs,
            )
            for uri, record in own.items():
                if record.reserved == wanted.reserved and record.jobs == jobs:
                    return uri
            number = max((_get_number(uri) for uri in records), default=0) + 1
            uri = f"{self._uri}/{self._budget.get_period(now)[0]}/{number:06}.json"
            if self._storage.create(uri, wanted.model_dump_json().encode()):
                # Only now: until then another run could have taken what the former record held.
                for former, record in own.items():
                    self._put(former, record.model_copy(update={"reserved": Spent(), "jobs": {}}))
                return uri
        raise UnavailableError(f"More than {_ATTEMPTS} other runs put down their cost in {self._uri} just now.")

    def release(self, owner: tuple[str, str], now: datetime | None = None) -> None:
        """Take back what a run has put down and will not spend; what its jobs cost stays."""
        for uri, record in self.read(now or datetime.now(UTC)).items():
            if record.owner == owner and record.reserved != Spent():
                self._put(uri, record.model_copy(update={"reserved": Spent()}))

    def _check(
        self, records: Mapping[str, SpendingRecord], owner: tuple[str, str], estimate: CostEstimate, now: datetime
    ) -> None:
        budget, currency = self._budget, estimate.currency
        if budget.limit.money is not None:
            estimate.require_cost("cost_budget")
        elif estimate.output is None:
            raise SpecError(f"cost_budget cannot be held: {estimate.unknown}. Nothing was uploaded.")
        others = [record for record in records.values() if record.owner != owner and record.total != Spent()]
        own = [spent for record in records.values() if record.owner == owner for spent in record.jobs.values()]
        self._require_currency(records, currency)
        before = sum((record.total for record in others), Spent())
        left = budget.get_left(sum(own, before), currency)
        wanted = _get_spent(estimate)
        if (wanted.tokens > left.tokens) if budget.limit.tokens is not None else (wanted.cost > left.cost):
            period, following = budget.get_period(now)
            raise SpecError(
                f"{estimate.requests:,} requests for about {estimate.price} ({estimate.tokens:,} tokens) are more than "
                f"is left of cost_budget={budget}: {len({record.owner for record in others}):,} other runs of {period} "
                f"spent or reserved {budget.describe_amount(before, currency)}, and "
                f"{budget.describe_amount(left, currency)} are left. Nothing was uploaded. The next {budget.period} "
                f"begins on {following} (UTC); clear the task then, raise the budget, or send fewer documents."
            )

    def _require_currency(self, records: Mapping[str, SpendingRecord], currency: str) -> None:
        for uri, record in records.items():
            if self._budget.limit.money is not None and record.currency != currency:
                raise SpecError(
                    f"{redact(uri)} has an amount in {record.currency}, and the prices are in {currency}; nothing is "
                    "converted. Give the budget a folder of its own (cost_budget_uri)."
                )

    def read(self, now: datetime) -> dict[str, SpendingRecord]:
        """
        Return the records of the period that a time is in, by URI.

        :raises SpecError: a file among them is none.
        """
        folder = f"{self._uri}/{self._budget.get_period(now)[0]}/"
        names = [_NUMBER.search(file.uri) for file in self._storage.list_files(folder).files]
        uris = [f"{folder}{name[1]}.json" for name in names if name is not None]
        return {uri: read_record(uri, self._storage) for uri in uris}

    def _put(self, uri: str, record: SpendingRecord) -> None:
        self._storage.put(uri, record.model_dump_json().encode())


def settle(uri: str, jobs: Mapping[str, Spent], storage: Storage) -> SpendingRecord:
    """
    Replace what a run had reserved by what its jobs cost.

    :param uri: Its record, as :meth:`Spending.reserve` returned it.
    :param jobs: All its jobs that cost something, by id; those of former tries stay.
    """
    record = read_record(uri, storage)
    settled = record.model_copy(update={"reserved": Spent(), "jobs": {**record.jobs, **jobs}})
    storage.put(uri, settled.model_dump_json().encode())
    return settled


def read_record(uri: str, storage: Storage) -> SpendingRecord:
    """
    Read a run's record.

    :raises SpecError: the file is none.
    """
    with storage.open(uri) as file:
        content = file.read()
    try:
        return SpendingRecord.model_validate_json(content)
    except ValidationError as error:
        raise SpecError(
            f"{redact(uri)} is no record of what a run spent: {describe_faults(error, 'it')}. Restore it, or give "
            "cost_budget_uri another folder."
        ) from None


def _get_spent(estimate: CostEstimate) -> Spent:
    return Spent(cost=estimate.cost or Decimal(0), tokens=estimate.tokens)


def _get_number(uri: str) -> int:
    found = _NUMBER.search(uri)
    return int(found[1]) if found is not None else 0
