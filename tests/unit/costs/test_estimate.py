from __future__ import annotations

import json
from decimal import Decimal
from pathlib import Path
from typing import Any

import pytest

from overnight.costs.estimate import CostEstimate, Workload
from overnight.costs.money import Money, Threshold, format_amount
from overnight.costs.prices import PriceTable
from overnight.errors import SpecError


def workload(**fields: Any) -> Workload:
    given = {"requests": 10, "bytes": 2_000, "parts": 2, "model": "text-embedding-3-small", "counted": "by hand"}
    return Workload(**{"input": 3_000_000, "output": 0, **given, **fields})


def estimate(prices: Any = None, **fields: Any) -> CostEstimate:
    return CostEstimate.of(workload(**fields), PriceTable.of(prices))


def test_the_shipped_prices_say_where_they_are_from_and_when() -> None:
    table = PriceTable.shipped()
    assert table.source.startswith("https://")
    assert table.date
    assert (table.currency, table.batch_discount) == ("USD", Decimal("0.5"))
    # Embeddings have no output; whatever else there is has.
    assert {name for name, price in table.models.items() if price.output is None} == {
        name for name in table.models if "embedding" in name
    }


@pytest.mark.parametrize(
    ("fields", "cost"),
    [
        ({}, "0.03"),
        ({"model": "gpt-4o-mini", "input": 1_000_000, "output": 500_000}, "0.225"),
        ({"model": "gpt-4o-mini-2024-07-18", "input": 1_000_000}, "0.075"),
        # A snapshot with a price of its own.
        ({"model": "gpt-4o-2024-05-13", "input": 1_000_000}, "2.5"),
        ({"requests": 0, "input": 0, "model": "unknown"}, "0"),
    ],
)
def test_a_batch_costs_its_tokens_less_the_discount(fields: dict[str, Any], cost: str) -> None:
    assert estimate(**fields).cost == Decimal(cost)


@pytest.mark.parametrize(
    ("fields", "reason"),
    [
        ({"model": "mine"}, "no price of the model 'mine' is known; give it as prices"),
        ({"model": None}, "no price of a model that the documents name"),
        ({"model": "gpt-4o", "output": None}, "the answers have no limit; set max_completion_tokens"),
        ({"output": 5}, "no price of the output of the model 'text-embedding-3-small'"),
    ],
)
def test_a_cost_without_a_bound_says_why_and_no_limit_lets_it_pass(fields: dict[str, Any], reason: str) -> None:
    found = estimate(**fields)
    assert found.cost is None
    assert reason in found.price
    with pytest.raises(SpecError, match=f"max_cost cannot be held: .*{reason}.*Nothing was uploaded"):
        found.check(max_cost="100 USD")
    found.check()
    assert found.exceeds(Threshold.parse("100 USD", "approve_above"), "approve_above")


def test_limits_refuse_with_the_numbers_and_the_remedy() -> None:
    found = estimate()
    found.check(max_cost="0.03 USD", max_tokens=3_000_000)
    with pytest.raises(
        SpecError,
        match=r"10 requests of 3,000,000 tokens \(by hand\) cost about 0\.03 USD, more than max_cost=0\.029 USD\.",
    ):
        found.check(max_cost="0.029 USD")
    with pytest.raises(SpecError, match=r"3,000,000 tokens \(by hand\), more than max_tokens=2,999,999"):
        found.check(max_tokens="2_999_999")
    with pytest.raises(SpecError, match="more than max_tokens=2,999,998"):
        found.check(max_tokens="2_999_999", max_cost="2999998 tokens")
    with pytest.raises(SpecError, match="max_cost is in EUR, and the prices are in USD"):
        found.check(max_cost="5 EUR")


@pytest.mark.parametrize("value", ["much", "-1 USD", "5 dollars", "NaN", "1e999999999", "Infinity USD", True])
def test_what_is_no_amount_is_refused(value: Any) -> None:
    with pytest.raises(SpecError, match="no amount of money"):
        Money.parse(value, "max_cost")
    with pytest.raises(SpecError, match="no whole number|no amount"):
        estimate().check(max_tokens=value)


def test_a_threshold_is_money_or_tokens() -> None:
    assert Threshold.parse("2_000_000 tokens", "a").tokens == 2_000_000
    assert Threshold.parse(0.5, "a").money == Money(Decimal("0.5"))
    assert estimate().exceeds(Threshold.parse("2999999 tokens", "a"), "a")
    assert not estimate().exceeds(Threshold.parse("3000000 tokens", "a"), "a")


@pytest.mark.parametrize("form", [dict, json.dumps, "file"])
def test_own_prices_stand_beside_the_shipped_ones(form: Any, tmp_path: Path) -> None:
    own = {"models": {"mine": {"input": 0.1, "output": 0.3}, "gpt-5": {"input": 1}}, "batch_discount": 0}
    (tmp_path / "prices.json").write_text(json.dumps(own))
    table = PriceTable.of(str(tmp_path / "prices.json") if form == "file" else form(own))
    assert table.cost("mine", input=1_000_000, output=1_000_000) == Decimal("0.4")
    assert table.cost("gpt-5", input=1_000_000) == 1
    assert table.cost("text-embedding-3-small", input=1_000_000) == Decimal("0.02")
    assert "prices that were given" in table.source


def test_prices_in_another_currency_are_not_mixed_with_the_shipped_ones() -> None:
    table = PriceTable.of({"currency": "EUR", "models": {"mine": {"input": 2}}})
    assert table.cost("mine", input=1_000_000) == 1
    assert table.cost("gpt-5", input=1_000_000) is None


@pytest.mark.parametrize("given", [{"models": {"m": {"input": -1}}}, {"modles": {}}, "{", {"currency": "euros"}])
def test_what_is_no_table_is_refused(given: Any) -> None:
    with pytest.raises(SpecError, match="prices"):
        PriceTable.of(given)


def test_a_refused_table_is_not_quoted() -> None:
    with pytest.raises(SpecError, match=r"models\.m\.input: Input should be a valid decimal") as refused:
        PriceTable.of({"models": {"m": {"input": "sixpence"}}})
    assert "sixpence" not in str(refused.value)
    assert refused.value.__cause__ is None


def test_an_estimate_is_one_number_a_line_under_names_that_airflow_shows() -> None:
    found = estimate()
    assert list(found.describe()) == [
        "requests: 10",
        "parts: 2",
        "bytes: 2,000",
        "input: 3,000,000 tokens (by hand)",
        "output: at most 0 tokens",
        "model: text-embedding-3-small",
        "price: 0.03 USD",
        f"prices: {PriceTable.shipped().source}, {PriceTable.shipped().date}",
    ]
    assert CostEstimate.model_validate(found.model_dump(mode="json")) == found
    assert not [name for name in found.model_dump() if "token" in name]


@pytest.mark.parametrize(
    ("amount", "text"), [("0", "0.00"), ("1234.5", "1,234.50"), ("0.03", "0.03"), ("0.0000001", "0.000001")]
)
def test_small_amounts_are_no_zero(amount: str, text: str) -> None:
    assert format_amount(Decimal(amount)) == text
