"""Answers that were paid for once, by a digest of what was asked: docs/cache.md has the format."""

from __future__ import annotations

from typing import TYPE_CHECKING

from overnight.errors import SpecError
from overnight.storage import Storage

if TYPE_CHECKING:
    from overnight.cache.answers import AnswerCache

__all__ = ["locate_cache", "open_cache"]


def locate_cache(work_uri: str, cache_uri: str | None) -> str:
    """
    Return the folder of a cache.

    :param cache_uri: The one that was given; without one it is in the work folder.
    """
    return cache_uri or f"{work_uri.rstrip('/')}/cache"


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
