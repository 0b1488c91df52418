"""Answers that are used and will expire soon are written again, so that only unused ones expire."""

from __future__ import annotations

import time
from collections.abc import Mapping
from datetime import timedelta
from typing import TYPE_CHECKING

from overnight.cache.answers import AnswerWriter
from overnight.cache.files import get_time

if TYPE_CHECKING:
    from overnight.cache.answers import AnswerCache
    from overnight.cache.places import Place


def renew(cache: AnswerCache, used: Mapping[bytes, Place], older_than: timedelta) -> int:
    """
    Write those answers again that were used and whose file is older than half of an age: as new ones, in new files.

    The former files stay as they are. Killed anywhere, the answers are there as before, and the next use renews them.
    An answer that was replaced or renewed since it was looked up is left. Memory is that of a writer.

    :param used: The places of answers, by key.
    :param older_than: The age at which answers expire.
    :return: How many were written again.
    :raises DamagedCacheError: an answer is not there any more, or a file is not what was written.
    """
    # The new rows are dated before the look-up: an answer that replaces one of these meanwhile is the later one.
    now = time.time_ns() // 1_000_000
    limit = now - older_than // timedelta(milliseconds=2)
    old = {key: place for key, place in used.items() if get_time(place.file) < limit}
    there = cache.find(old)
    due = [(place, key) for key, place in old.items() if there.get(key) == place]
    if due:
        with AnswerWriter(cache.answers, cache.keys, now=lambda: now) as writer:
            for key, answer in cache.read(due):
                writer.add(key, answer)
    return len(due)
