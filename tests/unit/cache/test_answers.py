"""The cache: what was added is found, as it was; what is damaged is refused."""

from __future__ import annotations

import os
import random
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

import pyarrow as arrow
import pytest
from pyarrow import parquet

from overnight.cache import answers as answers_module
from overnight.cache import open_cache, sorted_index
from overnight.cache.answers import AnswerCache, AnswerWriter
from overnight.cache.digest_columns import DigestColumns, KeptDigests, Match
from overnight.cache.digests import DIGEST_BYTES, DigestTable, compute_digest, compute_digests
from overnight.cache.files import DamagedCacheError
from overnight.cache.places import Place, decode_place
from overnight.errors import SpecError
from overnight.storage import Storage


@pytest.fixture
def cache(tmp_path: Path) -> AnswerCache:
    return open_cache(str(tmp_path / "cache"), Storage())


@pytest.fixture(params=[sorted_index.KEPT_ROWS, 130, 0], ids=["all", "some", "none"])
def kept(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """How many digests stay in memory: those of other files are read by row groups."""
    monkeypatch.setattr(sorted_index, "KEPT_ROWS", request.param)


def add(cache: AnswerCache, entries: dict[bytes, bytes]) -> None:
    with cache.open_writer() as writer:
        for key, answer in entries.items():
            writer.add(key, answer)


def read(cache: AnswerCache, keys: list[bytes]) -> dict[bytes, bytes]:
    return dict(cache.read((place, key) for key, place in cache.find(keys).items()))


def make_keys(count: int, seed: int = 0) -> list[bytes]:
    return [compute_digest(b"%d %d" % (seed, number)) for number in range(count)]


def test_an_empty_cache_has_nothing_and_makes_nothing(cache: AnswerCache, tmp_path: Path) -> None:
    assert cache.find(make_keys(3)) == {}
    assert cache.find([]) == {}
    assert list(tmp_path.iterdir()) == []


def test_answers_come_back_byte_for_byte(cache: AnswerCache) -> None:
    answers = [b'{"a": 0.10000000000000001 }', b"", "ü\u2028".encode(), bytes(range(256)), b"x" * (3 << 20)]
    entries = dict(zip(make_keys(len(answers)), answers, strict=True))
    add(cache, entries)
    assert read(cache, [*entries, *make_keys(5, seed=1)]) == entries


@pytest.mark.usefixtures("kept")
def test_many_files_and_row_groups_are_searched(cache: AnswerCache, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sorted_index, "ROW_GROUP", 7)
    monkeypatch.setattr(answers_module, "GROUP_BYTES", 40)
    monkeypatch.setattr(answers_module, "FILE_BYTES", 200)
    entries = {key: b"answer %d" % number for number, key in enumerate(make_keys(300))}
    keys = list(entries)
    for start in range(0, 300, 60):
        add(cache, {key: entries[key] for key in keys[start : start + 60]})
    assert len(cache.answers.list_names()) > 5
    assert read(cache, keys) == entries
    chance = random.Random(3)
    for size in (1, 2, 50):
        some = chance.sample(keys, size)
        assert read(cache, [*some, *make_keys(20, seed=1)]) == {key: entries[key] for key in some}


def test_the_files_are_as_they_are_described(cache: AnswerCache, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(answers_module, "GROUP_BYTES", 100)
    monkeypatch.setattr(answers_module, "FILE_BYTES", 300)
    add(cache, dict.fromkeys(make_keys(8), b"x" * 50))
    names = cache.answers.list_names()
    with cache.answers.open(names[0]) as first, cache.answers.open(names[1]) as second:
        rows = [[file.metadata.row_group(at).num_rows for at in range(file.num_row_groups)] for file in (first, second)]
        answers = first.metadata.row_group(0)
    assert rows == [[2, 2, 2], [2]]
    with cache.keys.files.open(cache.keys.files.list_names()[0]) as file:
        keys = file.metadata.row_group(0)
    # Digests cannot be compressed, names of files are few, and nobody reads statistics.
    columns = [group.column(at) for group in (answers, keys) for at in range(group.num_columns)]
    assert {column.path_in_schema for column in columns if column.compression != "UNCOMPRESSED"} == {"answer"}
    assert {column.path_in_schema for column in columns if column.has_dictionary_page} == {"file"}
    assert not any(column.is_stats_set for column in columns)


@pytest.mark.usefixtures("kept")
def test_a_file_of_the_same_columns_that_is_not_of_the_cache_is_named(cache: AnswerCache) -> None:
    files = cache.keys.files
    (key,) = make_keys(1)
    values = {"digest": [key], "file": ["x"], "row": [0], "created": [1]}
    sink = arrow.BufferOutputStream()
    parquet.write_table(arrow.table(values, schema=cache.keys.schema), sink)
    files.put("strange", sink.getvalue())
    for use in (lambda: cache.find([key]), lambda: cache.keys.drop(2)):
        with pytest.raises(DamagedCacheError, match=r"keys/strange\.parquet is no file of this cache"):
            use()


def test_what_is_merged_is_of_this_cache(cache: AnswerCache, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sorted_index, "MERGE_FILES", 0)
    sink = arrow.BufferOutputStream()
    parquet.write_table(cache.keys.schema.empty_table(), sink)
    cache.keys.files.put("strange", sink.getvalue())
    cache.keys.files.put("stranger", sink.getvalue())
    with pytest.raises(DamagedCacheError, match=r"keys/strange\.parquet is no file"):
        cache.merge()


def test_what_is_dropped_is_counted_in_all_indexes(cache: AnswerCache) -> None:
    for seed in range(2):
        for count, time in ((3, 1), (2, 5)):
            with AnswerWriter(cache.answers, cache.keys, now=lambda time=time: time) as writer:  # type: ignore[misc]
                for key in make_keys(count, seed=10 * seed + time):
                    writer.add(key, b"answer")
    keys = b"".join(make_keys(4))
    cache.rendered(compute_digest(b"template")).add(keys, keys, keys)
    assert cache.drop(5) == 6
    assert cache.drop(1 << 60) == 8


def test_a_slash_behind_the_folder_changes_nothing(cache: AnswerCache, tmp_path: Path) -> None:
    entries = dict.fromkeys(make_keys(2), b"answer")
    add(open_cache(f"{tmp_path}/cache/", Storage()), entries)
    assert read(cache, list(entries)) == entries


def test_the_digests_of_lines_are_those_of_each() -> None:
    lines = [b"", b"a", b"b" * 1_000]
    assert compute_digests(lines) == b"".join(map(compute_digest, lines))
    assert len(compute_digest(b"")) == DIGEST_BYTES


@pytest.mark.usefixtures("kept")
def test_a_later_answer_replaces_an_earlier_one(cache: AnswerCache) -> None:
    (key,) = make_keys(1)
    for time, answer in ((5, b"second"), (4, b"first")):
        with AnswerWriter(cache.answers, cache.keys, now=lambda time=time: time) as writer:  # type: ignore[misc]
            writer.add(key, answer)
    assert read(cache, [key]) == {key: b"second"}


@pytest.mark.usefixtures("kept")
def test_of_many_answers_of_one_key_the_last_counts_in_bounded_memory(
    cache: AnswerCache, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sorted_index, "ROW_GROUP", 2)
    keys = make_keys(3)
    # The index of nights that paid again each time, one of them with a clock that was behind.
    for time in (1, 2, 9, 3, 4, 5, 5):
        with AnswerWriter(cache.answers, cache.keys, now=lambda time=time: time) as writer:  # type: ignore[misc]
            for key in keys:
                writer.add(key, b"%d" % time)
    assert read(cache, keys) == dict.fromkeys(keys, b"9")


def test_what_a_failed_writer_was_given_is_not_there(cache: AnswerCache, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(answers_module, "GROUP_BYTES", 1)
    monkeypatch.setattr(answers_module, "FILE_BYTES", 1)
    keys = make_keys(3)

    def fail() -> None:
        with cache.open_writer() as writer:
            for key in keys:
                writer.add(key, b"answer")
            raise RuntimeError

    with pytest.raises(RuntimeError):
        fail()
    assert len(cache.answers.list_names()) == 3
    assert cache.find(keys) == {}


def test_an_answer_whose_file_was_deleted_is_none(cache: AnswerCache) -> None:
    keys = make_keys(2)
    add(cache, {keys[0]: b"kept"})
    add(cache, {keys[1]: b"deleted"})
    (place,) = cache.find([keys[1]]).values()
    cache.answers.delete(place.file)
    fresh = AnswerCache(cache._uri.removesuffix("/v1"), Storage())
    assert list(fresh.find(keys)) == [keys[0]]
    with pytest.raises(DamagedCacheError, match="Clear the task"):
        list(cache.read([(place, keys[1])]))


@pytest.mark.usefixtures("kept")
@pytest.mark.parametrize("kind", ["answers", "keys"])
def test_no_damaged_page_is_read(cache: AnswerCache, tmp_path: Path, kind: str) -> None:
    entries = {key: os.urandom(100) for key in make_keys(100)}
    add(cache, entries)
    (path,) = (tmp_path / "cache" / "v1" / kind).iterdir()
    whole = path.read_bytes()
    for at in range(8, len(whole) - 8, len(whole) // 97):
        path.write_bytes(whole[:at] + bytes([whole[at] ^ 0x55]) + whole[at + 1 :])
        with suppress(DamagedCacheError):
            assert read(cache, list(entries)).items() <= entries.items()
    path.write_bytes(whole[: len(whole) // 2])
    with pytest.raises(DamagedCacheError, match="Delete that file"):
        read(cache, list(entries))


@pytest.mark.parametrize(
    ("kind", "name"), [("answers", b"key"), ("answers", b"answer"), ("keys", b"row"), ("keys", b"digest")]
)
def test_a_damaged_name_of_a_column_is_noticed(cache: AnswerCache, tmp_path: Path, kind: str, name: bytes) -> None:
    (key,) = make_keys(1)
    add(cache, {key: b"0"})
    (path,) = (tmp_path / "cache" / "v1" / kind).iterdir()
    path.write_bytes(path.read_bytes().replace(name, name[:-1] + b"_"))
    with pytest.raises(DamagedCacheError, match="Delete that file"):
        read(cache, [key])


def test_an_answer_of_another_key_is_refused(cache: AnswerCache) -> None:
    keys = make_keys(2)
    add(cache, dict.fromkeys(keys, b"answer"))
    place = cache.find(keys)[keys[0]]
    with pytest.raises(DamagedCacheError, match="another answer"):
        list(cache.read([(place, keys[1])]))
    with pytest.raises(DamagedCacheError, match="names row 9"):
        list(cache.read([(Place(place.file, 9), keys[0])]))


@pytest.mark.usefixtures("kept")
def test_a_file_that_vanishes_while_it_is_searched_is_looked_for_in_its_successor(
    cache: AnswerCache, monkeypatch: pytest.MonkeyPatch
) -> None:
    entries = dict.fromkeys(make_keys(10), b"answer")
    add(cache, entries)
    files = cache.keys.files
    (old,) = files.list_names()
    data = Path(files.build_uri(old)).read_bytes()
    listed = files.list_names

    def list_and_merge() -> list[str]:
        names = listed()
        if names == [old]:
            Path(files.build_uri("99999999999999999999-merged")).write_bytes(data)
            Path(files.build_uri(old)).unlink()
        return names

    monkeypatch.setattr(files, "list_names", list_and_merge)
    assert cache.find(list(entries)).keys() == entries.keys()


@pytest.fixture
def merging(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sorted_index, "MERGE_FILES", 4)


def fill(cache: AnswerCache, nights: int) -> dict[bytes, bytes]:
    """Add some answers each night, one of them anew, and note what the lines of one template were rendered to."""
    expected: dict[bytes, bytes] = {}
    again = make_keys(1, seed=99)[0]
    for night in range(nights):
        entries = {key: b"%d of night %d" % (number, night) for number, key in enumerate(make_keys(9, seed=night))}
        entries[again] = b"night %d" % night
        with cache.open_writer() as writer:
            writer._now = lambda night=night: night + 1
            for key, answer in entries.items():
                writer.add(key, answer)
        expected |= entries
        keys = b"".join(make_keys(9, seed=night))
        cache.rendered(b"t").add(keys, keys, keys)
    return expected


def test_many_small_files_become_one_and_hold_what_they_held(cache: AnswerCache, merging: None) -> None:
    expected = fill(cache, 4)
    assert cache.merge() == 0
    expected = fill(cache, 6)
    assert len(cache.keys.files.list_names()) == 10
    assert cache.merge() == 20
    assert len(cache.keys.files.list_names()) == len(cache.rendered(b"t").index.files.list_names()) == 1
    assert read(cache, list(expected)) == expected
    lines = make_keys(9, seed=5)
    found = cache.rendered(b"t").look_up(b"".join(lines))
    assert (found.ids, found.keys) == (b"".join(lines), b"".join(lines))
    assert cache.merge() == 0


def test_an_empty_cache_has_nothing_to_merge(cache: AnswerCache, tmp_path: Path) -> None:
    assert cache.merge() == 0
    assert list(tmp_path.iterdir()) == []


def test_large_files_are_left_as_they_are(cache: AnswerCache, merging: None, monkeypatch: pytest.MonkeyPatch) -> None:
    expected = fill(cache, 6)
    monkeypatch.setattr(sorted_index, "MERGED_ROWS", 35)
    # Three files of keys have 30 rows, and three of documents 27: too few to be worth it.
    assert cache.merge() == 6
    monkeypatch.setattr(sorted_index, "ROW_GROUP", 9)
    assert cache.merge() == 0
    assert read(cache, list(expected)) == expected


@pytest.mark.usefixtures("kept")
def test_a_merge_beside_another_one_and_beside_a_reader_loses_nothing(
    cache: AnswerCache, merging: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    expected = fill(cache, 6)
    put, merged = cache.keys.files.put, []

    def put_late(name: str, data: object) -> None:
        # Another one has read the same files, and is done first.
        if not merged:
            merged.append(0)
            merged[0] = open_cache(cache._uri.removesuffix("/v1"), Storage()).keys.merge()
        put(name, data)

    monkeypatch.setattr(cache.keys.files, "put", put_late)
    find, searched = KeptDigests.find, []

    def find_late(kept: KeptDigests, wanted: DigestColumns) -> Iterator[Match]:
        # The digests were read, and the rows are not there any more.
        if not searched:
            searched.append(1)
            cache.keys.merge()
        return find(kept, wanted)

    monkeypatch.setattr(KeptDigests, "find", find_late)
    assert read(cache, list(expected)) == expected
    assert merged == [6]
    # Both wrote all rows.
    assert len(cache.keys.files.list_names()) == 2
    assert read(cache, list(expected)) == expected


def test_a_file_that_goes_while_files_are_merged_stops_it(
    cache: AnswerCache, merging: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    fill(cache, 6)
    names = cache.keys.files.list_names()
    monkeypatch.setattr(cache.keys.files, "list_names", lambda: [*names, "0-gone"])
    assert cache.keys.merge() == 0


def test_what_lines_were_rendered_to_is_kept_by_template(cache: AnswerCache) -> None:
    first, second = (cache.rendered(compute_digest(name)) for name in (b"one", b"two"))
    lines = make_keys(3)
    ids = make_keys(3, seed=1)
    keys = make_keys(3, seed=2)
    first.add(b"".join(lines[:2]), b"".join(ids[:2]), b"".join(keys[:2]))
    first.add(b"", b"", b"")
    found = first.look_up(b"".join([*lines, lines[0]]))
    assert found.unknown == [2]
    assert found.take([0, 1, 3]) == (b"".join([*ids[:2], ids[0]]), b"".join([*keys[:2], keys[0]]), [])
    assert second.look_up(b"".join(lines)).unknown == [0, 1, 2]
    found.set([2], ids[2], keys[2])
    assert found.take([2, 3]) == (ids[2] + ids[0], keys[2] + keys[0], [])
    found.set(range(4), b"".join([*ids, ids[0]]), b"".join([*keys, keys[1]]))
    assert found.take(range(4)) == (b"".join([*ids, ids[0]]), b"".join([*keys, keys[1]]), [])


def test_a_digest_table_is_a_dictionary() -> None:
    table = DigestTable()
    numbers: dict[bytes, int] = {}
    chance = random.Random(5)
    digests = [chance.randbytes(16) for _ in range(3_000)]
    # Digests that differ in one half only, and all zeros.
    digests += [bytes(16), *(digest[:8] + bytes(8) for digest in digests[:50])]
    digests += chance.sample(digests, 500)
    start = 0
    while start < len(digests):
        block = digests[start : start + chance.randrange(700)]
        right = {}
        for at, digest in enumerate(block):
            first = numbers.setdefault(digest, start + at)
            if first != start + at:
                right[at] = first
        assert table.add(b"".join(block)) == right
        start += len(block)
        assert len(table) == start


def test_without_pyarrow_the_package_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    import sys

    for name in [name for name in sys.modules if name.startswith(("pyarrow", "overnight.cache."))]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.setitem(sys.modules, "pyarrow", None)
    with pytest.raises(SpecError, match=r"airflow-provider-overnight\[tables\]"):
        open_cache("/nowhere", Storage())


def test_places_are_written_as_lines(cache: AnswerCache) -> None:
    keys = make_keys(3)
    add(cache, dict.fromkeys(keys[:2], b"answer"))
    places = cache.look_up(b"".join([keys[1], keys[2], keys[0], keys[1]]))
    found = list(places)
    assert places.list_missing() == [1]
    assert found[1] is None
    lines = bytes(places.encode([0, 2, 3])).splitlines(keepends=True)
    assert lines[0] == b'{"key":"%b","file":"%b","row":1}\n' % (keys[1].hex().encode(), found[0].file.encode())  # type: ignore[union-attr]
    assert [decode_place(line) for line in lines] == [(keys[1], found[0]), (keys[0], found[2]), (keys[1], found[3])]
    assert bytes(places.encode([])) == b""
