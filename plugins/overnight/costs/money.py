"""Amounts of money, and the limits that are written with one."""

from __future__ import annotations

import re
from decimal import Decimal, InvalidOperation
from typing import Final, NamedTuple, Self

from overnight.errors import SpecError, shorten

_LARGEST: Final = Decimal(10) ** 15
"""More is a slip of the keyboard, and arithmetic with it need not end."""
_CURRENCY: Final = re.compile(r"[A-Z]{3}")


class Money(NamedTuple):
    """
    An amount in a currency.

    :param currency: Its ISO 4217 code. ``None`` for that of the table of prices.
    """

    amount: Decimal
    currency: str | None = None

    def __str__(self) -> str:
        return f"{format_amount(self.amount)} {self.currency or ''}".rstrip()

    @classmethod
    def parse(cls, value: float | str, name: str) -> Self:
        """
        Read ``"50 USD"``, ``"0.5"`` or a number.

        :param name: The parameter's, for the error's text.
        :raises SpecError: it is no amount.
        """
        number, _, currency = str(value).strip().partition(" ")
        amount = parse_number(number)
        if amount is None or (currency and not _CURRENCY.fullmatch(currency.strip())):
            raise SpecError(f'{name}={shorten(repr(value), 200)} is no amount of money; write "50 USD", or a number.')
        return cls(amount, currency.strip() or None)

    def require_currency(self, currency: str, name: str) -> Decimal:
        """
        Return the amount in the currency of the prices.

        :raises SpecError: it is in another one.
        """
        if self.currency not in (None, currency):
            raise SpecError(
                f"{name} is in {self.currency}, and the prices are in {currency}; nothing is converted. Write it in "
                f"{currency}, or give prices in {self.currency}."
            )
        return self.amount


class Threshold(NamedTuple):
    """Money or tokens; one of the two."""

    money: Money | None = None
    tokens: int | None = None

    @classmethod
    def parse(cls, value: float | str, name: str) -> Self:
        """
        Read ``"5 USD"``, a number of money, or ``"2000000 tokens"``.

        :raises SpecError: it is neither.
        """
        number, _, unit = str(value).strip().partition(" ")
        if unit.strip() in ("token", "tokens"):
            return cls(tokens=parse_count(number, name))
        return cls(money=Money.parse(value, name))

    def __str__(self) -> str:
        return f"{self.tokens:,} tokens" if self.tokens is not None else str(self.money)


def parse_number(text: str) -> Decimal | None:
    """Return a number that is not negative; ``None`` for anything else."""
    try:
        number = Decimal(text.replace("_", ""))
    except InvalidOperation:
        return None
    return number if number.is_finite() and 0 <= number <= _LARGEST else None


def parse_count(value: float | str, name: str) -> int:
    """
    Return a whole number that is not negative.

    :raises SpecError: it is none.
    """
    number = parse_number(str(value).replace(",", ""))
    if number is None or number != int(number):
        raise SpecError(f"{name}={shorten(repr(value), 200)} is no whole number of tokens.")
    return int(number)


def format_amount(amount: Decimal) -> str:
    """Return an amount with two decimals, or with what is there below a cent, to a millionth."""
    if amount >= 1 or not amount:
        return f"{amount:,.2f}"
    return f"{max(amount, Decimal('0.000001')):.6f}".rstrip("0")
