"""What answers that were not paid for again would have cost."""

from __future__ import annotations

from decimal import Decimal

import pytest

from overnight.costs.prices import PriceTable
from overnight.costs.usage_cost import AnswerUsage, UsageCost

PRICES = PriceTable.of({"models": {"mine": {"input": 2, "output": 10}, "vectors": {"input": 1}}})


def used(model: str | None = "mine", **counts: int) -> AnswerUsage:
    return AnswerUsage(model=model, answers=1, **counts)


def test_models_are_priced_each_by_its_own_price_and_with_the_batch_discount() -> None:
    saved = UsageCost.of([used(input=1_000_000, output=100_000), used("vectors", input=500_000)], PRICES)
    assert (saved.cost, saved.input, saved.output) == (Decimal("1.75"), 1_500_000, 100_000)
    assert str(saved) == "1.75 USD"


@pytest.mark.parametrize(
    ("usage", "why"),
    [
        (used("other", input=5), "no price of the model 'other' is known; give it as prices"),
        (used(None, input=5), "no price of the model None is known"),
        (used("vectors", input=5, output=5), "no price of the model 'vectors'"),
        (used(), "the answers do not say what was used for them"),
        (used(unstated=1), "the answers do not say what was used for them"),
        (used(input=5).model_copy(update={"answers": 3, "unstated": 2}), "2 of 3 answers do not say what was used for"),
    ],
)
def test_what_has_no_price_makes_the_whole_unknown(usage: AnswerUsage, why: str) -> None:
    saved = UsageCost.of([used(input=1_000), usage], PRICES)
    assert saved.cost is None
    assert why in saved.unknown
    assert str(saved).startswith("unknown: ")
