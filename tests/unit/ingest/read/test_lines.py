from __future__ import annotations

import io
import tracemalloc
from collections.abc import Iterator
from itertools import pairwise

from hypothesis import given
from hypothesis import strategies as st

from overnight.ingest.read.lines import Line, Position, skip, split_lines

LIMIT = 1 << 20
content = st.lists(st.binary(max_size=6) | st.just(b"") | st.just(b"x\r"), max_size=8).map(b"\n".join)


def chunked(data: bytes, cuts: list[int]) -> Iterator[bytes]:
    places = sorted({cut % (len(data) + 1) for cut in cuts} | {0, len(data)})
    for start, end in pairwise(places):
        yield data[start:end]


cuts = st.lists(st.integers(0, 1_000), max_size=6)


@given(content, cuts)
def test_lines_are_the_same_however_the_stream_is_cut(data: bytes, where: list[int]) -> None:
    found = list(split_lines(chunked(data, where), LIMIT))
    expected = io.BytesIO(data).readlines()
    assert [line.number for line in found] == list(range(1, len(expected) + 1))
    assert [data[line.offset : line.end] for line in found] == expected
    for line, raw in zip(found, expected, strict=True):
        assert line.data is not None
        assert raw.removeprefix(b"\xef\xbb\xbf" if line.number == 1 else b"").startswith(line.data)
        assert raw.endswith((line.data, line.data + b"\n", line.data + b"\r\n", line.data + b"\r"))


@given(content, cuts, st.data())
def test_going_on_at_any_line_gives_the_rest(data: bytes, where: list[int], draw: st.DataObject) -> None:
    every = list(split_lines(chunked(data, where), LIMIT))
    place = draw.draw(st.integers(0, len(every)))
    start = Position(every[place - 1].end, place) if place else Position()
    assert list(split_lines(skip(chunked(data, where), start.offset), LIMIT, start)) == every[place:]


@given(content, cuts, st.integers(1, 5))
def test_a_line_over_the_limit_loses_its_data_and_nothing_else(data: bytes, where: list[int], limit: int) -> None:
    whole = list(split_lines(chunked(data, where), LIMIT))
    limited = list(split_lines(chunked(data, where), limit))
    assert [line[:3] for line in limited] == [line[:3] for line in whole]
    for short, line in zip(limited, whole, strict=True):
        raw = data[line.offset : line.end].removesuffix(b"\n")
        assert short.data == (line.data if len(raw) <= limit else None)


def test_line_ends_and_byte_order_mark_belong_to_no_line() -> None:
    assert list(split_lines([b"\xef\xbb\xbf{}\r\n[]\n1"], LIMIT)) == [
        Line(1, 0, 7, b"{}"),
        Line(2, 7, 10, b"[]"),
        Line(3, 10, 11, b"1"),
    ]


def test_a_huge_line_is_not_held() -> None:
    def stream() -> Iterator[bytes]:
        for _ in range(200):
            yield b"x" * 1_000_000
        yield b"\n{}\n"

    tracemalloc.start()
    try:
        found = list(split_lines(stream(), 4_000_000))
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert [(line.number, line.data) for line in found] == [(1, None), (2, b"{}")]
    assert peak < 10_000_000
