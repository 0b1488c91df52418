"""What a model's tokens cost: the table that comes with the package, and what a user says instead."""

from __future__ import annotations

import re
from collections.abc import Mapping
from decimal import Decimal
from functools import cache
from importlib.resources import files
from typing import Any, Final, Self

import orjson
from pydantic import BaseModel, ConfigDict, Field, ValidationError

from overnight.errors import SpecError, shorten
from overnight.storage import Storage, redact
from overnight.validation import describe_faults

_PER: Final = 1_000_000
_SNAPSHOT: Final = re.compile(r"-\d{4}-\d{2}-\d{2}$")
"""``gpt-4o-mini-2024-07-18`` is billed as ``gpt-4o-mini``, unless the table has it itself."""


class Price(BaseModel):
    """
    Of one model, without a discount.

    :param input: Of 1,000,000 tokens of input.
    :param output: Of 1,000,000 tokens of output; ``None`` where there is none (embeddings).
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    input: Decimal = Field(ge=0)
    output: Decimal | None = Field(default=None, ge=0)


class PriceTable(BaseModel):
    """
    Prices by model.

    :param source: The page that the prices are from.
    :param date: The day on which they were that.
    :param currency: ISO 4217.
    :param batch_discount: The share of a price that batches save.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    source: str = "given by the user"
    date: str = ""
    currency: str = Field(default="USD", pattern=r"^[A-Z]{3}$")
    batch_discount: Decimal = Field(default=Decimal("0.5"), ge=0, le=1)
    models: Mapping[str, Price] = Field(default_factory=dict)

    @classmethod
    @cache
    def shipped(cls) -> Self:
        """Return the table that comes with the package: OpenAI's list prices."""
        return cls.model_validate_json(files(__package__).joinpath("openai_prices.json").read_bytes())

    @classmethod
    def of(cls, given: Mapping[str, Any] | str | None, storage: Storage | None = None) -> Self:
        """
        Return the shipped prices, with what a user says instead of them.

        :param given: Fields of a table, or a JSON text or the URI of a JSON file of them. Its models are added to the
            shipped ones and replace those of their name; with another currency, only they count.
        :raises SpecError: it is no table of prices.
        """
        shipped = cls.shipped()
        if not given:
            return shipped
        fields = _read(given, storage or Storage()) if isinstance(given, str) else given
        try:
            own = cls.model_validate(fields)
        except ValidationError as error:
            raise SpecError(
                f"prices cannot be read: {describe_faults(error, 'prices')}. "
                'Write {"models": {"my-model": {"input": 0.02, "output": 1}}}, '
                "per 1,000,000 tokens and without the batch discount."
            ) from None
        if own.currency != shipped.currency:
            return own
        kept = {name: getattr(own if name in own.model_fields_set else shipped, name) for name in cls.model_fields}
        # What is not the shipped source's is not shown as its.
        source = own.source if "source" in own.model_fields_set else f"{shipped.source}, and prices that were given"
        return cls(**{**kept, "source": source, "models": {**shipped.models, **own.models}})

    def find(self, model: str | None) -> Price | None:
        """Return the price of a model, or of the model that it is a snapshot of."""
        if model is None:
            return None
        return self.models.get(model) or self.models.get(_SNAPSHOT.sub("", model))

    def cost(self, model: str | None, *, input: int, output: int = 0) -> Decimal | None:  # noqa: A002
        """
        Return what tokens cost in a batch; ``None`` where no price is known.

        Input that the service had cached counts as all other: what is billed may be less.
        """
        price = self.find(model)
        if price is None or (output and price.output is None):
            return None
        listed = price.input * input + (price.output or Decimal(0)) * output
        return listed * (1 - self.batch_discount) / _PER


def _read(given: str, storage: Storage) -> Any:
    if given.lstrip().startswith("{"):
        content, where = given.encode(), "prices"
    else:
        where = redact(given)
        with storage.open(given) as file:
            content = file.read()
    try:
        return orjson.loads(content)
    except orjson.JSONDecodeError as error:
        raise SpecError(f"{shorten(where, 200)} is not JSON: {error}.") from error
