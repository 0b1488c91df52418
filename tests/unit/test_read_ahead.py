from __future__ import annotations

import threading
from collections.abc import Callable
from itertools import accumulate, pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from overnight.read_ahead import RANGES, ReadAhead

DATA = bytes(range(256)) * 4
SIZE = len(DATA)


class Store:
    """Has DATA, and notes which ranges are fetched."""

    def __init__(self, hold: Callable[[int, int], object] | None = None) -> None:
        self.fetched: list[tuple[int, int]] = []
        self._hold = hold

    def fetch(self, start: int, stop: int) -> bytes:
        self.fetched.append((start, stop))
        if self._hold is not None:
            self._hold(start, stop)
        return DATA[start:stop]


def read(cache: ReadAhead, sizes: list[int], start: int = 0) -> list[bytes]:
    return [cache._fetch(first, last) for first, last in pairwise(accumulate(sizes, initial=start))]


def test_ranges_behind_the_first_are_fetched_side_by_side() -> None:
    together = threading.Barrier(RANGES)
    store = Store(lambda start, _: start and start < 10 * (RANGES + 1) and together.wait(60))
    assert b"".join(read(ReadAhead(10, store.fetch, SIZE), [10] * 20)) == DATA[:200]


def test_no_more_are_fetched_than_may_be_held() -> None:
    store = Store()
    cache = ReadAhead(10, store.fetch, SIZE)
    read(cache, [10])
    assert store.fetched == [(0, 10)]
    read(cache, [10], 10)
    for coming in cache._coming:
        coming.data.result(60)
    assert sorted(store.fetched) == [(start, start + 10) for start in range(0, 10 * (RANGES + 1), 10)]


def test_what_is_behind_the_end_that_was_named_is_fetched_only_when_it_is_asked_for() -> None:
    store = Store()
    cache = ReadAhead(10, store.fetch, SIZE, end=35)
    assert b"".join(read(cache, [10] * 3)) == DATA[:30]
    assert cache._fetch(30, 40) == DATA[30:40]
    assert sorted(store.fetched)[:5] == [(0, 10), (10, 20), (20, 30), (30, 35), (35, 45)]


def test_an_error_is_raised_where_its_range_is_read_and_reading_can_go_on() -> None:
    broken = {20}

    def fail(start: int, _: int) -> None:
        if start in broken:
            broken.discard(start)
            raise ConnectionError("it broke")

    cache = ReadAhead(10, Store(fail).fetch, SIZE)
    assert read(cache, [10, 10]) == [DATA[:10], DATA[10:20]]
    with pytest.raises(ConnectionError, match="it broke"):
        cache._fetch(20, 30)
    assert cache._fetch(20, 30) == DATA[20:30]


def test_a_range_that_comes_short_is_read_on_behind_it() -> None:
    cache = ReadAhead(10, lambda start, stop: DATA[start : min(stop, start + 7)], SIZE)
    assert cache._fetch(0, 40) == DATA[:40]
    # A file that became shorter.
    assert ReadAhead(10, lambda start, stop: DATA[start : min(stop, 15)], SIZE)._fetch(0, 40) == DATA[:15]


@given(
    blocksize=st.integers(1, 300),
    end=st.none() | st.integers(0, 2 * SIZE),
    reads=st.lists(st.tuples(st.integers(0, SIZE + 10), st.lists(st.integers(0, 400), max_size=10)), max_size=6),
)
def test_whatever_is_read_is_what_is_there(blocksize: int, end: int | None, reads: list[tuple[int, list[int]]]) -> None:
    cache = ReadAhead(blocksize, Store().fetch, SIZE, end=end)
    for start, sizes in reads:
        assert b"".join(read(cache, sizes, start)) == DATA[start : start + sum(sizes)]
