"""One refused line, document or item, and why."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Rejection:
    """
    Why a line, a document or an item of a request was rejected.

    :param code: One word, to count by: ours, the AI service's or OpenSearch's.
    :param reason: In words, to read.
    :param line: Its line in the file it was read from, counted from 1; ``None`` where there is none, or where the
        record around this names it.
    """

    code: str
    reason: str
    line: int | None = None
