"""Digests as columns of numbers, in their order: which of many are among many others, and where."""

from __future__ import annotations

import sys
from array import array
from bisect import bisect_left, bisect_right
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Final, NamedTuple, Self

import pyarrow as arrow
from pyarrow import compute

SHORT_RUN: Final = 1 << 19
"""Digests that lie in order in one run; those of a shorter run may be put in order again, with others."""
SHORT_RUNS: Final = 4
"""How many there may be."""
_SHIFT: Final = 52
"""What is behind the first 12 of 64 bits."""


@dataclass(frozen=True)
class DigestColumns:
    """
    Digests, each as two numbers of 64 bits: these are compared at once.

    :param highs: The first halves.
    :param lows: The others.
    """

    highs: arrow.UInt64Array
    lows: arrow.UInt64Array

    @classmethod
    def of(cls, digests: bytes | bytearray | memoryview) -> Self:
        """
        Return digests.

        :param digests: One behind the other.
        """
        halves = array("Q")
        halves.frombytes(digests)
        if sys.byteorder == "little":
            halves.byteswap()
        return cls(build_column(halves[::2]), build_column(halves[1::2]))

    @property
    def count(self) -> int:
        """How many there are."""
        return len(self.highs)

    def sort(self) -> tuple[DigestColumns, arrow.UInt64Array]:
        """Return these in the order of their first halves, and the place that each of them had."""
        order = compute.sort_indices(self.highs)
        return self._take(order), order

    def arrange(self) -> tuple[DigestColumns, arrow.UInt64Array]:
        """Return these in the order of their first bits, in which they are looked for best; and the place of each."""
        # Arrow counts where the values are few, and so need not compare.
        order = compute.sort_indices(compute.shift_right(self.highs, arrow.scalar(_SHIFT, arrow.uint64())))
        return self._take(order), order

    def _take(self, places: arrow.UInt64Array) -> DigestColumns:
        return DigestColumns(self.highs.take(places), self.lows.take(places))

    def find_between(self, first: int, last: int) -> range:
        """
        Return, of arranged ones, the places where all are whose first halves are between two numbers, or one of these.

        :param first: The first 64 bits of a digest.
        :param last: The same of another one.
        """
        highs = _view(self.highs)
        start = bisect_left(highs, first >> _SHIFT, key=_get_first_bits)
        return range(start, bisect_right(highs, last >> _SHIFT, start, key=_get_first_bits))

    def slice(self, places: range) -> DigestColumns:
        """Return those at some places."""
        return DigestColumns(*(column.slice(places.start, len(places)) for column in (self.highs, self.lows)))

    def find(self, wanted: DigestColumns) -> tuple[arrow.UInt64Array, arrow.UInt64Array]:
        """
        Return which of some digests are among these, which are in order, and where: two columns of places.

        :param wanted: Arranged. One may be there several times. So may one of these: each of its places is returned.
        """
        if not self.count:
            return build_column(array("Q")), build_column(array("Q"))
        one, count = (arrow.scalar(number, arrow.uint64()) for number in (1, self.count))
        # Behind the last one there is nothing; the last one itself is smaller.
        rows = compute.min_element_wise(_search(self.highs, wanted.highs), compute.subtract(count, one))
        is_near = compute.equal(self.highs.take(rows), wanted.highs)
        places, rows = compute.indices_nonzero(is_near), rows.filter(is_near)
        found: list[tuple[arrow.UInt64Array, arrow.UInt64Array]] = []
        while True:
            is_there = compute.equal(self.lows.take(rows), wanted.lows.take(places))
            found.append((places.filter(is_there), rows.filter(is_there)))
            if not self._has_equal_highs or not len(rows):
                break
            rows = compute.add(rows, one)
            is_inside = compute.less(rows, count)
            places, rows = places.filter(is_inside), rows.filter(is_inside)
            is_near = compute.equal(self.highs.take(rows), wanted.highs.take(places))
            places, rows = places.filter(is_near), rows.filter(is_near)
        places, rows = (arrow.concat_arrays(columns) for columns in zip(*found, strict=True))
        return places, rows

    @cached_property
    def _has_equal_highs(self) -> bool:
        is_equal = compute.equal(self.highs[1:], self.highs[:-1])
        return bool(compute.any(is_equal).as_py())


class RowGroup(NamedTuple):
    """
    A row group of a file.

    :param name: Of the file.
    :param number: Counted from 0.
    """

    name: str
    number: int


class Match(NamedTuple):
    """
    Which digests are in a row group.

    :param group: The row group.
    :param places: Of the digests, among those that were looked for.
    :param rows: Where they are.
    """

    group: RowGroup
    places: arrow.UInt64Array
    rows: arrow.UInt64Array


class KeptDigests:
    """The digests of many row groups, which are searched together; 24 bytes each."""

    def __init__(self) -> None:
        self.names: set[str] = set()
        """Of the files."""
        self._groups: list[RowGroup] = []
        self._runs: list[_Run] = []
        self.count = 0

    def add(self, name: str, groups: Sequence[DigestColumns]) -> None:
        """Take the row groups of a file."""
        self.names.add(name)
        for number, digests in enumerate(groups):
            self._runs.append(_Run.of(digests, len(self._groups)))
            self._groups.append(RowGroup(name, number))
            self.count += digests.count

    def find(self, wanted: DigestColumns) -> Iterator[Match]:
        """
        Yield the row groups in which any of some digests is, in the order in which they were added.

        :param wanted: Arranged.
        """
        self._merge()
        found = [
            (places, run.groups.take(at), run.rows.take(at))
            for run in self._runs
            for places, at in [run.digests.find(wanted)]
        ]
        if not found:
            return
        places, groups, rows = (arrow.concat_arrays(columns) for columns in zip(*found, strict=True))
        order = compute.sort_indices(groups)
        places, rows = places.take(order), rows.take(order)
        start = 0
        counts = groups.value_counts()
        for number, count in sorted(zip(*(counts.field(name).to_pylist() for name in (0, 1)), strict=True)):
            yield Match(self._groups[number], places.slice(start, count), rows.slice(start, count))
            start += count

    def _merge(self) -> None:
        """Make one run of the short ones, when these are many: each is searched by itself."""
        short = [run for run in self._runs if run.digests.count < SHORT_RUN]
        if len(short) > SHORT_RUNS:
            self._runs = [run for run in self._runs if run.digests.count >= SHORT_RUN]
            self._runs.append(_Run.merge(short))


class _Run(NamedTuple):
    """
    Digests that are in order.

    :param groups: Of each, which row group it is in.
    :param rows: Where it is there.
    """

    digests: DigestColumns
    groups: arrow.UInt32Array
    rows: arrow.UInt32Array

    @classmethod
    def of(cls, digests: DigestColumns, group: int) -> Self:
        """Return those of one row group."""
        rows = array("I", range(digests.count))
        return cls(
            digests,
            arrow.repeat(arrow.scalar(group, arrow.uint32()), digests.count),
            arrow.UInt32Array.from_buffers(arrow.uint32(), len(rows), [None, arrow.py_buffer(rows)]),
        )

    @classmethod
    def merge(cls, runs: Sequence[Self]) -> Self:
        """Return one run of several."""
        columns = zip(*((run.digests.highs, run.digests.lows, run.groups, run.rows) for run in runs), strict=True)
        highs, lows, groups, rows = map(arrow.concat_arrays, columns)
        digests, order = DigestColumns(highs, lows).sort()
        return cls(digests, groups.take(order), rows.take(order))


def build_column(numbers: array[int]) -> arrow.UInt64Array:
    """Return numbers of 64 bits as a column, which shares their memory."""
    return arrow.UInt64Array.from_buffers(arrow.uint64(), len(numbers), [None, arrow.py_buffer(numbers)])


def _get_first_bits(high: int) -> int:
    return high >> _SHIFT


def _view(numbers: arrow.UInt64Array) -> memoryview:
    whole = memoryview(numbers.buffers()[1]).cast("B").cast("Q")
    return whole[numbers.offset : numbers.offset + len(numbers)]


def _search(numbers: arrow.UInt64Array, wanted: arrow.UInt64Array) -> arrow.UInt64Array:
    """Return where the first number is that is as large, for each of those that are wanted."""
    if hasattr(compute, "search_sorted"):
        return compute.search_sorted(numbers, wanted)
    # pyarrow before 26.
    view = _view(numbers)
    return build_column(array("Q", [bisect_left(view, one) for one in _view(wanted)]))
