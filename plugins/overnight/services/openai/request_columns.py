"""Requests of a batch, and what each takes of its limits, in columns: a block is added up without a look at each."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from itertools import compress
from typing import NamedTuple


class Request(NamedTuple):
    """One line of a part, what it takes of a batch's limits, and what is billed for it."""

    line: bytes
    inputs: int
    tokens: int
    billed_input: int
    billed_output: int | None


class RequestColumns(NamedTuple):
    """The same of many; all columns have the same length."""

    lines: Sequence[bytes] = ()
    inputs: Sequence[int] = ()
    tokens: Sequence[int] = ()
    billed_input: Sequence[int] = ()
    billed_output: Sequence[int | None] = ()

    @classmethod
    def of(cls, requests: Iterable[Request]) -> RequestColumns:
        """Return requests in columns."""
        requests = list(requests)
        if not requests:
            return cls()
        lines, inputs, tokens, billed_input, billed_output = zip(*requests, strict=True)
        return cls(lines, inputs, tokens, billed_input, billed_output)

    def rows(self) -> Iterator[Request]:
        """Yield one request after the other."""
        return map(Request._make, zip(*self, strict=True))

    def cut(self, start: int, end: int | None) -> RequestColumns:
        """Return the requests from one to before another, or to the last one."""
        lines, inputs, tokens, billed_input, billed_output = self
        return RequestColumns(
            lines[start:end], inputs[start:end], tokens[start:end], billed_input[start:end], billed_output[start:end]
        )

    def compress(self, wanted: Sequence[bool]) -> RequestColumns:
        """Return those requests that are wanted."""
        return RequestColumns._make(list(compress(column, wanted)) for column in self)
