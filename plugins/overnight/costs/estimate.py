"""What batches will cost, before they are submitted; and when that is too much."""

from __future__ import annotations

from collections.abc import Iterator
from decimal import Decimal
from typing import Self

from pydantic import BaseModel, ConfigDict

from overnight.costs.money import Money, Threshold, format_amount, parse_count
from overnight.costs.prices import PriceTable
from overnight.errors import SpecError


class Workload(BaseModel):
    """
    What is about to be submitted.

    :param input: Tokens that the requests hold. (Airflow hides the values of names with ``token`` in them.)
    :param output: Tokens that the answers have at most; ``None`` when a request sets no limit to its answer.
    :param counted: How ``input`` was counted, in words.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    requests: int
    bytes: int
    parts: int
    model: str | None
    input: int
    output: int | None = 0
    counted: str


class CostEstimate(Workload):
    """
    What a workload costs at most.

    :param cost: In ``currency``, with the batch discount; ``None`` when it has no bound that is known.
    :param unknown: Why there is no ``cost``, and what to do about it.
    :param prices: Source and date of the prices.
    """

    currency: str
    cost: Decimal | None
    unknown: str = ""
    prices: str = ""

    @classmethod
    def of(cls, work: Workload, table: PriceTable) -> Self:
        """Price a workload."""
        cost, unknown = None, ""
        if not work.requests:
            cost = Decimal(0)
        elif table.find(work.model) is None:
            model = f"the model {work.model!r}" if work.model else "a model that the documents name"
            unknown = f'no price of {model} is known; give it as prices={{"models": {{…: {{"input": …}}}}}}'
        elif work.output is None:
            unknown = "the answers have no limit; set max_completion_tokens (or max_output_tokens) in the requests"
        else:
            cost = table.cost(work.model, input=work.input, output=work.output)
            if cost is None:
                unknown = f"no price of the output of the model {work.model!r} is known; give it as prices"
        prices = f"{table.source}, {table.date}".rstrip(", ")
        return cls(**work.model_dump(), currency=table.currency, cost=cost, unknown=unknown, prices=prices)

    @property
    def tokens(self) -> int:
        """Tokens of input, and of output as far as it has a limit."""
        return self.input + (self.output or 0)

    @property
    def price(self) -> str:
        """The cost in words."""
        return f"unknown: {self.unknown}" if self.cost is None else f"{format_amount(self.cost)} {self.currency}"

    def describe(self) -> Iterator[str]:
        """Yield the estimate in words, one number a line."""
        yield f"requests: {self.requests:,}"
        yield f"parts: {self.parts:,}"
        yield f"bytes: {self.bytes:,}"
        yield f"input: {self.input:,} tokens ({self.counted})"
        yield "output: no limit" if self.output is None else f"output: at most {self.output:,} tokens"
        yield f"model: {self.model or 'named by the documents'}"
        yield f"price: {self.price}"
        if self.prices and self.cost is not None:
            yield f"prices: {self.prices}"

    def check(self, *, max_cost: float | str | None = None, max_tokens: float | str | None = None) -> None:
        """
        Refuse what is larger than it may be.

        :param max_cost: Money, or tokens (``"20000000 tokens"``).
        :param max_tokens: Tokens alone.

        :raises SpecError: it is, or its price is not known and has a limit.
        """
        # A Param of a DAG cannot be called max_tokens: Airflow would show no value of it.
        cost = Threshold.parse(max_cost, "max_cost") if max_cost not in (None, "") else Threshold()
        if cost.tokens is not None:
            limits = [limit for limit in (cost.tokens, max_tokens) if limit not in (None, "")]
            cost, max_tokens = Threshold(), min(parse_count(limit, "max_tokens") for limit in limits)
        remedy = "Nothing was uploaded. Send fewer documents, or raise the limit."
        if max_tokens not in (None, ""):
            limit = parse_count(max_tokens, "max_tokens")
            if self.tokens > limit:
                raise SpecError(
                    f"{self.requests:,} requests have {self.tokens:,} tokens ({self.counted}), more than "
                    f"max_tokens={limit:,}. {remedy}"
                )
        if cost.money is not None:
            self.require_cost("max_cost")
            if self.exceeds(cost, "max_cost"):
                raise SpecError(
                    f"{self.requests:,} requests of {self.tokens:,} tokens ({self.counted}) cost about {self.price}, "
                    f"more than max_cost={cost}. {remedy}"
                )

    def require_cost(self, name: str) -> Decimal:
        """
        Return the cost.

        :param name: The limit that needs it.
        :raises SpecError: it is not known.
        """
        if self.cost is None:
            raise SpecError(f"{name} cannot be held: {self.unknown}. Nothing was uploaded.")
        return self.cost

    def exceeds(self, threshold: Threshold, name: str) -> bool:
        """Whether it is above a threshold; a cost that is not known is above any."""
        if threshold.tokens is not None:
            return self.tokens > threshold.tokens
        limit = (threshold.money or Money(Decimal(0))).require_currency(self.currency, name)
        return self.cost is None or self.cost > limit
