"""Answers that were paid for once, by a digest of what was asked: docs/cache.md has the format."""

from __future__ import annotations

from datetime import timedelta
from typing import TYPE_CHECKING, Final

from overnight.errors import SpecError
from overnight.storage import Storage
from overnight.validation import parse_age

if TYPE_CHECKING:
    from overnight.cache.answers import AnswerCache

__all__ = ["check_cache_age", "locate_cache", "open_cache", "parse_cache_age"]

_SHORTEST_AGE: Final = timedelta(days=1)


def locate_cache(work_uri: str, cache_uri: str | None) -> str:
    """
    Return the folder of a cache.

    :param cache_uri: The one that was given; without one it is in the work folder.
    """
    return cache_uri or f"{work_uri.rstrip('/')}/cache"


def check_cache_age(older_than: timedelta) -> timedelta:
    """
    Return the age at which answers expire.

    :raises SpecError: it is less than a day.
    """
    if older_than < _SHORTEST_AGE:
        raise SpecError(f"cache_older_than={older_than} is less than a day. Give 1d or more.")
    return older_than


def parse_cache_age(older_than: timedelta | str | None) -> timedelta | None:
    """
    Read the age at which answers expire (a duration, ``"365d"``, ``"52w"``); ``None`` where there is none.

    :raises SpecError: it is no age, or less than a day.
    """
    # What a template made of a value that is not set.
    if older_than in (None, "", "None"):
        return None
    age = older_than if isinstance(older_than, timedelta) else parse_age(str(older_than), "cache_older_than")
    return check_cache_age(age)


def open_cache(uri: str, storage: Storage) -> AnswerCache:
    """
    Return the cache in a folder, which is made with the first entry.

    :raises SpecError: pyarrow is not installed.
    """
    try:
        from overnight.cache.answers import AnswerCache  # noqa: PLC0415 - an extra
    except ModuleNotFoundError as error:
        if error.name != "pyarrow":
            raise
        raise SpecError(
            "A result cache needs a package that is not installed here: "
            "pip install 'airflow-provider-overnight[tables]'. Or leave cache_uri empty."
        ) from None
    return AnswerCache(uri, storage)
