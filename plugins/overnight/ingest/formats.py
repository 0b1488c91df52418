"""Which sources of a load are a batch's results, and of which service."""

from __future__ import annotations

from collections.abc import Sequence

from overnight.errors import SpecError
from overnight.jobs.result_format import ResultFormat
from overnight.services.result_formats import find_result_format, get_result_format
from overnight.storage import get_scheme


def choose_formats(
    named: str | Sequence[str | None] | None, sources: Sequence[Sequence[str]]
) -> list[ResultFormat | None]:
    """
    Return the result format of each source; ``None`` for one whose lines are documents.

    A source is a batch's result only where somebody says so: the name that is given, or the scheme of its URIs.
    Members called ``error`` or ``response`` say nothing, for documents may have them, too.

    :param named: A service for all sources, or one (or ``None``) for each.
    :param sources: The URIs of each source.
    :raises SpecError: a name is unknown, or there are not as many names as sources.
    """
    if named is None or isinstance(named, str):
        names: Sequence[str | None] = [named] * len(sources)
    elif len(named) == len(sources):
        names = named
    else:
        raise SpecError(f"format names {len(named)} services for {len(sources)} sources; give one for each, or one.")
    return [
        get_result_format(name) if name is not None else _find(uris) for name, uris in zip(names, sources, strict=True)
    ]


def _find(uris: Sequence[str]) -> ResultFormat | None:
    found = (find_result_format(get_scheme(uri)) for uri in uris)
    return next((one for one in found if one is not None), None)
