"""One refused line, document or item, and why."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

from overnight.errors import MAX_TEXT, shorten

MAX_CODE: Final = 100
"""Characters of a code; a server's can be of any length."""


@dataclass(frozen=True, slots=True)
class Rejection:
    """
    Why a line, a document or an item of a request was rejected.

    Of texts that are longer than is quoted, the beginning is kept.

    :param code: One word, to count by: ours, the AI service's or OpenSearch's.
    :param reason: In words, to read.
    :param line: Its line in the file it was read from, counted from 1; ``None`` where there is none, or where the
        record around this names it.
    :param uri: That file; ``None`` where there is none, or where what is around this names it.
    """

    code: str
    reason: str
    line: int | None = None
    uri: str | None = None

    def __post_init__(self) -> None:
        # The class is frozen for all others.
        object.__setattr__(self, "code", shorten(self.code, MAX_CODE))
        object.__setattr__(self, "reason", shorten(self.reason, MAX_TEXT))

    def __str__(self) -> str:
        place = self.uri or ""
        if self.line is not None:
            place = f"{place}, line {self.line}" if place else f"line {self.line}"
        return f"{place}: {self.reason}" if place else self.reason


class RejectedError(ValueError):
    """A line, a document or an item is rejected, where that cannot be returned."""

    def __init__(self, code: str, reason: str) -> None:
        super().__init__(reason)
        self.rejection = Rejection(code, reason)
