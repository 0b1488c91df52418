"""A request to a model, and what it answered."""

from __future__ import annotations

from dataclasses import dataclass
from hashlib import blake2b
from typing import Any

from overnight.sandbox.openai.errors import invalid_type, out_of_range
from overnight.sandbox.openai.settings import Model, Settings


@dataclass(frozen=True)
class Answer:
    """
    What a model answered.

    :param input_tokens: What a batch's ``usage`` adds up.
    """

    body: dict[str, Any]
    input_tokens: int
    output_tokens: int = 0


@dataclass(frozen=True)
class Call:
    """
    A request.

    :param name: The model's, as the request has it.
    :param now: Seconds since 1970, by the emulator's clock.
    """

    name: str
    model: Model
    body: dict[str, Any]
    settings: Settings
    now: int

    def number(self, field: str, low: float, high: float, default: float) -> float:
        """
        Return a number of the body.

        :raises ApiError: it is none, or out of range.
        """
        value = self.body.get(field)
        if value is None:
            return default
        if not isinstance(value, int | float) or isinstance(value, bool):
            raise invalid_type(field, "decimal", value)
        if not low <= value <= high:
            raise out_of_range(field, value, low, high)
        return value

    def whole(self, field: str, low: int, high: int, default: int) -> int:
        """Return a whole number of the body; see :meth:`number`."""
        value = self.body.get(field)
        if value is not None and (not isinstance(value, int) or isinstance(value, bool)):
            raise invalid_type(field, "integer", value)
        return int(self.number(field, low, high, default))

    @property
    def digest(self) -> str:
        """30 hex digits that are the same for the same request."""
        return blake2b(repr((self.name, self.body)).encode("utf-8", "surrogatepass"), digest_size=15).hexdigest()
