from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from overnight.ingest.map.row_index import Place, RowIndex
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


@given(st.lists(st.lists(st.integers(0, 400).map(lambda n: b"%d" % n), max_size=300), max_size=4), st.data())
def test_a_row_is_found_where_it_came_first(stretches: list[list[bytes]], draw: st.DataObject) -> None:
    places: dict[bytes, Place] = {}
    line = 0
    with RowIndex((1,)) as index:
        for keys in stretches:
            expected, given_places = [], []
            for number, key in enumerate(keys):
                line += 1
                place = Place(0, line, line * 10, line * 10 + 9)
                given_places.append(place)
                if places.setdefault(key, place) != place:
                    expected.append(number)
            assert index.add_all(1, keys, given_places) == expected
        asked = draw.draw(st.lists(st.integers(0, 500).map(lambda n: b"%d" % n), max_size=600))
        assert index.find_all(1, asked) == {key: places[key] for key in asked if key in places}
        seen = [key for key in asked if key in places]
        index.see_all(seen)
        assert dict(index.unseen(1)) == {key: place for key, place in places.items() if key not in seen}
