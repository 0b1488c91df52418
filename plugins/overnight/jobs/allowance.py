"""How many failures a user accepts, as a count or as a ratio."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Self

from overnight.errors import SpecError, shorten


@dataclass(frozen=True)
class Allowance:
    """
    A limit on failed items, or on deleted documents: at most ``count``, or at most the share ``ratio`` of all.

    Exactly one of the two is set.
    """

    count: int | None = None
    ratio: float | None = None

    @classmethod
    def parse(cls, value: float | str, name: str = "allowed_failures") -> Self:
        """
        Read what a user writes for ``allowed_failures``, or for another limit of that kind.

        :param value: A whole number is a count (``10``, ``"10"``); a number with a decimal point is a ratio from 0
            to 1 (``0.05``, ``"0.05"``), as is a percentage (``"5%"``).
        :param name: The parameter's, for the error's text.
        :raises SpecError: when it is neither.
        """
        refusal = SpecError(
            f"{name}={shorten(repr(value), 200)} is neither a count (10), nor a ratio from 0.0 to 1.0 "
            "(0.05), nor a percentage ('5%')."
        )
        if isinstance(value, bool):
            raise refusal
        text = str(value).strip()
        try:
            if text.endswith("%"):
                ratio = float(text[:-1]) / 100
            elif text.isdecimal():
                return cls(count=int(text))
            else:
                ratio = float(text)
        except ValueError:
            raise refusal from None
        if not 0.0 <= ratio <= 1.0:
            raise refusal
        return cls(ratio=ratio)

    def allows(self, failed: int, total: int) -> bool:
        """Whether ``failed`` of ``total`` items are few enough."""
        if self.count is not None:
            return failed <= self.count
        # Compared as a product, so that 5 of 100 is within "5%" whatever 5/100 rounds to.
        return failed == 0 or failed <= (self.ratio or 0.0) * total + 1e-9

    def __str__(self) -> str:
        return str(self.count) if self.count is not None else f"{100 * (self.ratio or 0.0):g} %"
