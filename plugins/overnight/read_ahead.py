"""Reading a file of an object store from one place on: several ranges of it are fetched at once."""

from __future__ import annotations

from collections import deque
from concurrent.futures import Future
from functools import partial
from typing import Any, Final, NamedTuple

from fsspec.caching import BaseCache, register_cache

from overnight.threads import start_call

RANGE_BYTES: Final = 4 << 20
RANGES: Final = 4
"""
Fetched at once: one connection to S3 gives a part of what it has (`Use byte-range fetches
<https://docs.aws.amazon.com/AmazonS3/latest/userguide/optimizing-performance-guidelines.html>`__).
"""


class _Range(NamedTuple):
    start: int
    data: Future[bytes]


class ReadAhead(BaseCache):  # type: ignore[misc] # fsspec has no types
    """
    A cache of fsspec's for files that are read from one place on, to their end or to another place.

    It holds :data:`RANGES` ranges and the one that is read. The first one of a reading is fetched alone: often no more
    is wanted.

    :param blocksize: Bytes of a range.
    :param end: What is behind this byte is not fetched before it is asked for; ``None`` is the file's end.
    """

    name = "overnight-read-ahead"

    def __init__(self, blocksize: int, fetcher: Any, size: int, end: int | None = None) -> None:
        super().__init__(blocksize, fetcher, size)
        self._end = min(end, size) if end is not None else size
        self._held, self._held_start = b"", 0
        self._coming: deque[_Range] = deque()

    def _fetch(self, start: int | None, stop: int | None) -> bytes:
        place = start or 0
        stop = min(stop, self.size) if stop is not None else self.size
        pieces: list[bytes] = []
        while place < stop:
            if not 0 <= place - self._held_start < len(self._held):
                self._hold(place)
            first = place - self._held_start
            piece = self._held[first : first + stop - place]
            if not piece:
                break
            pieces.append(piece)
            place += len(piece)
        return pieces[0] if len(pieces) == 1 else b"".join(pieces)

    def _hold(self, place: int) -> None:
        """Wait for the range that starts at a place."""
        is_next = bool(self._held) and place == self._held_start + len(self._held)
        if self._coming and self._coming[0].start != place:
            self._coming.clear()
        self._held, self._held_start = b"", place
        self._start(place, RANGES if is_next else 1)
        self._held = self._coming.popleft().data.result()

    def _start(self, place: int, count: int) -> None:
        """Have so many ranges under way, from a place on."""
        limit = self._end if place < self._end else self.size
        start = self._coming[-1].start + self.blocksize if self._coming else place
        while len(self._coming) < count and start < limit:
            stop = min(start + self.blocksize, limit)
            self._coming.append(_Range(start, start_call(partial(self.fetcher, start, stop))))
            start = stop


register_cache(ReadAhead)
