from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from overnight.ingest.map.row_index import RowIndex
from overnight.ingest.read.lines import LineBlock
from overnight.storage_errors import StorageError


def fill(folder: Path) -> None:
    with RowIndex((), str(folder)) as index:
        index.execute("PRAGMA max_page_count=4")
        for number in range(100_000):
            index.see(b"%032d" % number)


def test_a_disk_that_is_full_is_named(tmp_path: Path) -> None:
    with pytest.raises(StorageError, match=rf"ids in {tmp_path} cannot be written: .*full.*spool_dir"):
        fill(tmp_path)
    assert list(tmp_path.iterdir()) == []


def shrink(monkeypatch: pytest.MonkeyPatch, room: int) -> None:
    monkeypatch.setattr("overnight.ingest.map.row_index._MEMORY_BYTES", room)


@pytest.mark.parametrize("room", [8 << 20, 2_000, -1], ids=["memory", "both", "disk"])
@given(st.lists(st.lists(st.none() | st.integers(0, 60).map(lambda n: b"%d" % n), max_size=30), max_size=8))
@settings(suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_what_was_seen_is_known_exactly(
    room: int, monkeypatch: pytest.MonkeyPatch, stretches: list[list[bytes | None]]
) -> None:
    shrink(monkeypatch, room)
    seen: set[bytes] = set()
    with RowIndex() as index:
        for keys in stretches:
            expected = []
            for number, key in enumerate(keys):
                if key in seen:
                    expected.append(number)
                if key is not None:
                    seen.add(key)
            assert index.see_all(keys) == expected


KEYS = st.integers(0, 400).map(lambda n: b"%d" % n)


@given(st.lists(st.lists(st.none() | KEYS, max_size=300), max_size=4), st.data())
def test_a_row_is_found_where_it_came_first(stretches: list[list[bytes | None]], draw: st.DataObject) -> None:
    places: dict[bytes, tuple[int, int, int, int]] = {}
    with RowIndex((1,)) as index:
        for file, keys in enumerate(stretches):
            expected = []
            for number, key in enumerate(keys):
                place = (file, number * 10, number * 10 + 9, number + 1)
                if key is not None and places.setdefault(key, place) != place:
                    expected.append(number)
            assert index.add_all(1, keys, file, block(len(keys))) == expected
        asked = draw.draw(st.lists(st.integers(0, 500).map(lambda n: b"%d" % n), max_size=600, unique=True))
        found = index.find_all(1, asked)
        assert [*zip(*found, strict=True)] == sorted((*places[key], key) for key in asked if key in places)
        seen = [key for key in asked if key in places]
        index.see_all(seen)
        assert [*index.unseen(1)] == sorted(places.keys() - seen)


def block(size: int) -> LineBlock:
    """Return as many lines of nine bytes, with one byte between them."""
    offsets = [number * 10 for number in range(size)]
    return LineBlock(range(1, size + 1), offsets, [offset + 9 for offset in offsets], [b"123456789"] * size)
