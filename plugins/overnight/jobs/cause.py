"""One row of a service's table of causes: what a failure's code means, and what to do about it."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass

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
