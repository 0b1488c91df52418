"""What answers cost, by what the service says was used for them."""

from __future__ import annotations

from collections.abc import Iterable
from decimal import Decimal
from typing import Self

from pydantic import BaseModel, ConfigDict

from overnight.costs.money import format_amount
from overnight.costs.prices import PriceTable


class AnswerUsage(BaseModel):
    """
    What was used for answers of one model, by the ``usage`` that the service put into each.

    :param input: Tokens. (Airflow hides the values of names with ``token`` in them.)
    :param output: Tokens.
    :param unstated: Of ``answers``, those that do not say what was used for them.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    model: str | None
    answers: int
    input: int = 0
    output: int = 0
    unstated: int = 0

    @property
    def gap(self) -> str:
        """Why these are not all tokens that were used; empty where they are."""
        # Some servers say zero, for ever.
        if not self.input and not self.output:
            return "the answers do not say what was used for them"
        if self.unstated:
            return f"{self.unstated:,} of {self.answers:,} answers do not say what was used for them"
        return ""


class UsageCost(BaseModel):
    """
    What answers cost in a batch; those that were not paid for again, what they would have cost.

    :param cost: In ``currency``; ``None`` when it is not known.
    :param unknown: Why there is no ``cost``.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    input: int = 0
    output: int = 0
    currency: str
    cost: Decimal | None
    unknown: str = ""

    @classmethod
    def of(cls, usage: Iterable[AnswerUsage], table: PriceTable) -> Self:
        """Add up and price what was used."""
        cost, unknown = Decimal(0), ""
        used = list(usage)
        for one in used:
            price = table.cost(one.model, input=one.input, output=one.output)
            if one.gap:
                unknown = one.gap
            elif price is None:
                unknown = f"no price of the model {one.model!r} is known; give it as prices"
            cost += price or Decimal(0)
        return cls(
            input=sum(one.input for one in used),
            output=sum(one.output for one in used),
            currency=table.currency,
            cost=None if unknown else cost,
            unknown=unknown,
        )

    def __str__(self) -> str:
        return f"unknown: {self.unknown}" if self.cost is None else f"{format_amount(self.cost)} {self.currency}"
