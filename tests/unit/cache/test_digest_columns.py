"""Digests as columns of numbers: what is among them is found, wherever it is."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pyarrow import compute

from overnight.cache import digest_columns
from overnight.cache.digest_columns import DigestColumns, KeptDigests

# Few halves: many digests have one of them in common, or both.
HALVES = st.sampled_from([bytes(8), b"\xff" * 8, b"\x00" * 7 + b"\x01", b"\x01" + bytes(7), b"middle.."])
DIGESTS = st.lists(
    st.one_of(st.builds(bytes.__add__, HALVES, HALVES), st.binary(min_size=16, max_size=16)), max_size=40
)


@pytest.fixture(params=["search_sorted", "bisect"])
def search(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    if request.param == "bisect":
        # As with a pyarrow that has no such function.
        monkeypatch.delattr(compute, "search_sorted", raising=False)


def arrange(digests: Iterable[bytes]) -> DigestColumns:
    return DigestColumns.of(b"".join(digests)).arrange()[0]


def list_digests(columns: DigestColumns) -> list[bytes]:
    return [
        high.to_bytes(8, "big") + low.to_bytes(8, "big")
        for high, low in zip(columns.highs.to_pylist(), columns.lows.to_pylist(), strict=True)
    ]


@pytest.mark.usefixtures("search")
@given(DIGESTS, DIGESTS)
def test_every_place_of_a_digest_is_found(there: list[bytes], wanted: list[bytes]) -> None:
    columns, looked_for = DigestColumns.of(b"".join(there)).sort()[0], arrange(wanted)
    places, rows = (column.to_pylist() for column in columns.find(looked_for))
    right = {
        (place, row)
        for place, digest in enumerate(list_digests(looked_for))
        for row, other in enumerate(list_digests(columns))
        if digest == other
    }
    assert set(zip(places, rows, strict=True)) == right
    assert len(places) == len(right)


@given(DIGESTS)
def test_what_is_put_in_order_says_where_it_was(digests: list[bytes]) -> None:
    columns = DigestColumns.of(b"".join(digests))
    for arranged, order in (columns.sort(), columns.arrange()):
        assert list_digests(arranged) == [digests[at] for at in order.to_pylist()]
    assert [digest[:8] for digest in list_digests(columns.sort()[0])] == sorted(digest[:8] for digest in digests)


@given(DIGESTS, st.binary(min_size=8, max_size=8), st.binary(min_size=8, max_size=8))
def test_between_two_numbers_none_is_missing(digests: list[bytes], first: bytes, last: bytes) -> None:
    columns = arrange(digests)
    between = columns.find_between(int.from_bytes(first, "big"), int.from_bytes(last, "big"))
    others = [digest for at, digest in enumerate(list_digests(columns)) if at not in between]
    assert not [digest for digest in others if first <= digest[:8] <= last]
    assert list_digests(columns.slice(between)) == list_digests(columns)[between.start : between.stop]


@pytest.mark.usefixtures("search")
@given(st.lists(st.lists(DIGESTS, min_size=1, max_size=2), max_size=6), DIGESTS, st.integers(1, 30))
def test_what_is_kept_is_found_in_its_row_group(
    files: list[list[list[bytes]]], wanted: list[bytes], limit: int
) -> None:
    kept, right = KeptDigests(), defaultdict(set)
    looked_for = arrange(wanted)
    asked = list_digests(looked_for)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(digest_columns, "SHORT_RUN", limit)
        patch.setattr(digest_columns, "SHORT_RUNS", 1)
        for number, groups in enumerate(files):
            ordered = [sorted(group) for group in groups]
            kept.add(f"file {number}", [DigestColumns.of(b"".join(group)) for group in ordered])
            for at, group in enumerate(ordered):
                pairs = {(p, r) for p, one in enumerate(asked) for r, other in enumerate(group) if one == other}
                if pairs:
                    right[f"file {number}", at] |= pairs
            # In between, too: what comes later is merged with what was searched.
            found = list(kept.find(looked_for))
            assert [tuple(match.group) for match in found] == list(right)
            for match in found:
                pairs = set(zip(match.places.to_pylist(), match.rows.to_pylist(), strict=True))
                assert pairs == right[tuple(match.group)]
    assert kept.count == sum(len(group) for groups in files for group in groups)
    assert kept.names == {f"file {number}" for number in range(len(files))}
