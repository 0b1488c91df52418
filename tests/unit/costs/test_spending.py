"""A budget holds whatever runs at once, is tried again, or ended with another cost than it said."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime, timedelta, timezone
from decimal import Decimal
from pathlib import Path
from typing import Any

import pytest

from overnight.costs.estimate import CostEstimate, Workload
from overnight.costs.prices import PriceTable
from overnight.costs.spending import CostBudget, Spending, Spent, read_record, settle
from overnight.errors import SpecError
from overnight.storage import Storage

NOW = datetime(2026, 11, 27, 13, 0, tzinfo=UTC)
STORAGE = Storage()


def estimate(cost: str, **fields: Any) -> CostEstimate:
    """Return an estimate of so many dollars; a dollar is 1,000 tokens."""
    prices = PriceTable.of({"batch_discount": "0", "models": {"m": {"input": "1000", "output": "1000"}}})
    given = {"requests": 7, "bytes": 9, "parts": 1, "model": "m", "counted": "by hand", "output": 0}
    return CostEstimate.of(Workload(**{**given, "input": int(Decimal(cost) * 1_000), **fields}), prices)


def spending(folder: Path, budget: str = "50 USD/month") -> Spending:
    return Spending(str(folder / "spending"), CostBudget.parse(budget))


@pytest.mark.parametrize(
    ("budget", "now", "period", "following"),
    [
        ("5 USD/day", NOW, "2026-11-27", "2026-11-28"),
        ("5/day", datetime(2026, 11, 28, 1, tzinfo=timezone(timedelta(hours=2))), "2026-11-27", "2026-11-28"),
        ("5/ week", NOW, "2026-W48", "2026-11-30"),
        ("5/week", datetime(2027, 1, 1, tzinfo=UTC), "2026-W53", "2027-01-04"),
        ("5 USD / month", NOW, "2026-11", "2026-12-01"),
        ("1000 tokens/month", datetime(2026, 12, 31, 23, 59, tzinfo=UTC), "2026-12", "2027-01-01"),
    ],
)
def test_a_period_is_of_utc(budget: str, now: datetime, period: str, following: str) -> None:
    name, first = CostBudget.parse(budget).get_period(now)
    assert (name, first.isoformat()) == (period, following)


@pytest.mark.parametrize("value", ["50 USD", "50 USD/year", "/month", "much/day", "-1/day", 50, "50 USD/month/day"])
def test_what_is_no_budget_is_refused(value: object) -> None:
    with pytest.raises(SpecError, match="cost_budget"):
        CostBudget.parse(value)


@pytest.mark.parametrize("budget", ["50 USD/month", "50000 tokens/month"])
def test_the_run_that_goes_over_the_budget_is_refused_with_the_numbers(tmp_path: Path, budget: str) -> None:
    runs = spending(tmp_path, budget)
    runs.reserve(("d", "1"), estimate("20"), NOW)
    runs.reserve(("other", "1"), estimate("15.5"), NOW)
    for look in (runs.check, runs.reserve):
        with pytest.raises(SpecError) as refused:
            look(("d", "2"), estimate("20"), NOW)
        text = str(refused.value)
        assert text.startswith("7 requests for about 20.00 USD (20,000 tokens) are more than is left of cost_budget=50")
        assert "2 other runs of 2026-11 spent or reserved 35" in text
        assert "14.50 USD are left" in text or "14,500 tokens are left" in text
        assert "Nothing was uploaded. The next month begins on 2026-12-01 (UTC)" in text
    # What fits still does, and a new month is a new budget.
    runs.reserve(("d", "2"), estimate("14.5"), NOW)
    runs.reserve(("d", "3"), estimate("50"), NOW + timedelta(days=10))


def test_a_run_that_is_tried_again_counts_once(tmp_path: Path) -> None:
    runs = spending(tmp_path)
    first = runs.reserve(("d", "1"), estimate("30"), NOW)
    assert runs.reserve(("d", "1"), estimate("30"), NOW + timedelta(hours=1)) == first
    # Its documents may have changed in between.
    assert runs.reserve(("d", "1"), estimate("50"), NOW) != first
    runs.reserve(("d", "1"), estimate("10"), NOW)
    runs.reserve(("d", "2"), estimate("40"), NOW)
    with pytest.raises(SpecError, match="2 are left|0.00 USD are left"):
        runs.reserve(("d", "3"), estimate("0.001"), NOW)


def test_after_the_end_the_actual_cost_counts(tmp_path: Path) -> None:
    runs = spending(tmp_path)
    uri = runs.reserve(("d", "1"), estimate("50"), NOW)
    settle(uri, {"batch_1": Spent(cost=Decimal(5), tokens=5_000), "batch_2": Spent()}, STORAGE)
    assert read_record(uri, STORAGE).total == Spent(cost=Decimal(5), tokens=5_000)
    runs.reserve(("d", "2"), estimate("45"), NOW)
    # The report again, of the same jobs.
    settle(uri, {"batch_1": Spent(cost=Decimal(5), tokens=5_000)}, STORAGE)
    assert read_record(uri, STORAGE).total.cost == 5


def test_a_cleared_run_that_pays_again_counts_what_it_paid_before(tmp_path: Path) -> None:
    runs = spending(tmp_path)
    settle(runs.reserve(("d", "1"), estimate("20"), NOW), {"batch_1": Spent(cost=Decimal(20))}, STORAGE)
    uri = runs.reserve(("d", "1"), estimate("25"), NOW)
    assert read_record(uri, STORAGE).total.cost == 45
    with pytest.raises(SpecError, match=r"5\.00 USD are left"):
        runs.reserve(("d", "2"), estimate("5.1"), NOW)
    with pytest.raises(SpecError, match=r"30\.00 USD are left"):
        runs.reserve(("d", "1"), estimate("30.1"), NOW)


def test_what_will_not_be_spent_is_taken_back(tmp_path: Path) -> None:
    runs = spending(tmp_path)
    runs.reserve(("d", "1"), estimate("50"), NOW)
    runs.release(("d", "2"), NOW)
    with pytest.raises(SpecError):
        runs.reserve(("d", "2"), estimate("1"), NOW)
    runs.release(("d", "1"), NOW)
    runs.reserve(("d", "2"), estimate("50"), NOW)


@pytest.mark.parametrize(
    ("budget", "fields"),
    [("50 USD/month", {"model": "unknown"}), ("50 USD/month", {"output": None}), ("9 tokens/day", {"output": None})],
)
def test_a_cost_without_a_bound_fits_no_budget(tmp_path: Path, budget: str, fields: dict[str, Any]) -> None:
    with pytest.raises(SpecError, match=r"cost_budget cannot be held: .*Nothing was uploaded"):
        spending(tmp_path, budget).reserve(("d", "1"), estimate("1", **fields), NOW)
    assert list(tmp_path.rglob("*.json")) == []


def test_tokens_have_a_budget_without_prices(tmp_path: Path) -> None:
    runs = spending(tmp_path, "3000 tokens/day")
    runs.reserve(("d", "1"), estimate("2", model="unknown"), NOW)
    with pytest.raises(SpecError, match="1,000 tokens are left"):
        runs.reserve(("d", "2"), estimate("2", model="unknown"), NOW)


def test_amounts_in_another_currency_are_not_added(tmp_path: Path) -> None:
    runs = spending(tmp_path, "50/month")
    runs.reserve(("d", "1"), estimate("1"), NOW)
    euros = estimate("1").model_copy(update={"currency": "EUR"})
    with pytest.raises(SpecError, match="has an amount in USD, and the prices are in EUR"):
        runs.reserve(("d", "2"), euros, NOW)
    with pytest.raises(SpecError, match="cost_budget is in USD, and the prices are in EUR"):
        spending(tmp_path / "new").reserve(("d", "2"), euros, NOW)


def test_a_record_that_cannot_be_read_stops_everything_rather_than_counting_as_nothing(tmp_path: Path) -> None:
    runs = spending(tmp_path)
    uri = runs.reserve(("d", "1"), estimate("1"), NOW)
    Path(uri).write_text("{")
    with pytest.raises(SpecError, match=r"000001\.json is no record of what a run spent: .* cost_budget_uri"):
        runs.reserve(("d", "2"), estimate("1"), NOW)


def test_what_another_version_wrote_is_read(tmp_path: Path) -> None:
    runs = spending(tmp_path)
    uri = runs.reserve(("d", "1"), estimate("49"), NOW)
    Path(uri).write_text(Path(uri).read_text().replace('"version":1', '"version":2,"more":[]'))
    with pytest.raises(SpecError, match=r"1\.00 USD are left"):
        runs.reserve(("d", "2"), estimate("2"), NOW)


def test_of_runs_at_once_as_many_pass_as_the_budget_has_room_for(tmp_path: Path) -> None:
    runs = spending(tmp_path, "10 USD/month")

    def take(number: int) -> bool:
        try:
            runs.reserve(("d", str(number)), estimate("3"), NOW)
        except SpecError:
            return False
        return True

    with ThreadPoolExecutor(12) as pool:
        passed = list(pool.map(take, range(12)))
    assert sum(passed) == 3
    records = [read_record(str(path), STORAGE) for path in (tmp_path / "spending" / "2026-11").iterdir()]
    assert sum(record.total.cost for record in records) == 9
