from __future__ import annotations

from pathlib import Path

import pytest

from overnight.sandbox.llamacloud.errors import ApiError
from overnight.sandbox.llamacloud.store import Record, Store


@pytest.fixture
def store(tmp_path: Path) -> Store:
    return Store(tmp_path)


def everything(_: Record) -> bool:
    return True


def test_pages_follow_each_other_without_gap_or_repetition(store: Store) -> None:
    ids = [store.add("file", {"n": n}, parent="p")["id"] for n in range(1_203)]
    store.add("file", {"n": 0}, parent="another project")
    seen: list[str] = []
    token = None
    while True:
        page, token = store.page("file", parent="p", token=token, size=100, wanted=everything, newest_first=False)
        seen += [record["id"] for record in page]
        if token is None:
            break
    assert seen == ids
    newest, _ = store.page("file", parent="p", token=None, size=1, wanted=everything)
    assert newest[0]["id"] == ids[-1]


def test_a_filter_is_read_through_to_the_end(store: Store) -> None:
    for n in range(1_500):
        store.add("file", {"n": n}, parent="p")
    found, following = store.page("file", parent="p", token=None, size=10, wanted=lambda record: record["n"] == 3)
    assert ([record["n"] for record in found], following) == ([3], None)


@pytest.mark.parametrize("token", ["nonsense", "e30=", "eyJhZnRlciI6ICJ4In0="])
def test_a_token_of_somebody_elses_is_refused(store: Store, token: str) -> None:
    with pytest.raises(ApiError, match="Invalid page token"):
        store.page("file", parent="p", token=token, size=1, wanted=everything)


def test_a_name_is_taken_until_its_record_is_deleted(store: Store) -> None:
    first = store.add("directory_file", {}, parent="d", name="a")
    with pytest.raises(ApiError, match="already exists"):
        store.add("directory_file", {}, parent="d", name="a")
    store.add("directory_file", {}, parent="another directory", name="a")
    with store.change("directory_file", first["id"]) as record:
        record["deleted_at"] = "now"
    store.add("directory_file", {}, parent="d", name="a")
    with pytest.raises(ApiError, match="not found"):
        store.get("directory_file", first["id"])


def test_what_was_kept_is_there_after_a_restart_and_unfinished_as_before(store: Store, tmp_path: Path) -> None:
    waiting = store.add("batch", {"status": "RUNNING"}, parent="p")
    over = store.add("batch", {"status": "RUNNING"}, parent="p")
    with store.change("batch", over["id"]) as record:
        record["status"] = "COMPLETED"
    store.clock.advance(100)
    store.close()
    again = Store(tmp_path)
    assert [record["id"] for record in again.unfinished("batch", 10)] == [waiting["id"]]
    assert again.get("batch", over["id"])["status"] == "COMPLETED"
    assert again.clock.offset == 100
