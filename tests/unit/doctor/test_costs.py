from __future__ import annotations

import json
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest

from overnight.costs.prices import PriceTable
from overnight.doctor.costs import check_costs, check_prices
from overnight.doctor.dag_uses import DagUse
from overnight.doctor.finding import State
from overnight.errors import SpecError

MODEL = "text-embedding-3-small"


def use(**settings: Any) -> DagUse:
    return DagUse(dag_id="nightly", settings={"model": MODEL, **settings})


def test_the_shipped_prices_are_read() -> None:
    found = check_prices()
    assert found.state == State.OK
    assert str(len(PriceTable.shipped().models)) in found.text


def test_prices_and_a_budget_that_can_be_read_are_well(tmp_path: Path) -> None:
    prices = tmp_path / "prices.json"
    prices.write_text(json.dumps({"models": {"own": {"input": 1}}}))
    given = use(prices=str(prices), cost_budget="50 USD/month", cost_budget_uri=str(tmp_path / "spending"))
    found = check_costs(given)
    assert found.state == State.OK
    assert "0 records of the budget" in found.text


@pytest.mark.parametrize(
    ("settings", "text"),
    [
        ({"prices": '{"models": {"m": {"input": "cheap"}}}'}, "prices cannot be read"),
        ({"cost_budget": "50 USD/year"}, "is no budget"),
        ({"max_cost": "much"}, "is no amount of money"),
        ({"max_cost": "5 EUR"}, "nothing is converted"),
    ],
)
def test_what_cannot_be_read_is_refused_with_its_form(settings: dict[str, Any], text: str) -> None:
    with pytest.raises(SpecError, match=text):
        check_costs(use(**settings))


def test_a_limit_for_a_model_without_a_price_is_found() -> None:
    found = check_costs(use(model="own-model", max_cost=5))
    assert found.state == State.FAILURE
    assert '{"models": {"own-model": {"input": 0.02}}}' in found.text
    assert check_costs(use(model="own-model", max_cost="2000 tokens")).state == State.OK


def test_a_broken_record_of_a_budget_is_named(tmp_path: Path) -> None:
    month = tmp_path / f"{datetime.now(UTC):%Y-%m}"
    month.mkdir()
    (month / "000001.json").write_text("{}")
    with pytest.raises(SpecError, match="no record of what a run spent"):
        check_costs(use(cost_budget="50 USD/month", cost_budget_uri=str(tmp_path)))
