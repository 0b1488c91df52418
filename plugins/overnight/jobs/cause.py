"""One row of a service's table of causes: what a failure's code means, and what to do about it."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import NamedTuple

from overnight.jobs.model import FailureCause


@dataclass(frozen=True, slots=True)
class Cause:
    """
    What one code of a service means.

    :param cause: Who can mend it.
    :param retryable: Whether the same work may succeed later, as it stands.
    :param remedy: What the user does about it: a sentence, with its full stop.
    """

    cause: FailureCause
    retryable: bool
    remedy: str


def find_cause(table: Mapping[str, Cause], words: Iterable[str | None]) -> Cause | None:
    """
    Return the row of the first word that the table has, whatever its case; ``None`` when it has none of them.

    :param table: A service's causes, by lower-case code.
    :param words: What the service says, the most telling first: a code, a type, a status.
    """
    return next((row for word in words if word and (row := table.get(word.casefold())) is not None), None)


class TextCause(NamedTuple):
    """One row of the table of a service that has no codes: what a text means in which ``pattern`` is found."""

    pattern: re.Pattern[str]
    cause: Cause


def text_cause(pattern: str, cause: FailureCause, remedy: str) -> TextCause:
    """Build a row; the case of the text does not matter."""
    return TextCause(re.compile(pattern, re.IGNORECASE), Cause(cause, cause.is_retryable, remedy))


def find_text_cause(table: Iterable[TextCause], text: str) -> Cause | None:
    """Return the cause of the first row whose pattern is found in a text; ``None`` for words that no row has."""
    return next((row.cause for row in table if row.pattern.search(text)), None)
