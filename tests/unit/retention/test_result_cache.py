"""Which answers of a cache expire, when their files go, and what runs notice of it."""

from __future__ import annotations

import os
import shutil
import time
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from itertools import count
from pathlib import Path
from tempfile import TemporaryDirectory

import boto3
import pytest
import s3fs
from hypothesis import given, settings
from hypothesis import strategies as st
from moto.server import ThreadedMotoServer

from overnight.cache import open_cache
from overnight.cache.answers import AnswerCache, AnswerWriter
from overnight.cache.digests import compute_digest
from overnight.cache.files import MARK, DamagedCacheError
from overnight.cache.places import Place
from overnight.cache.renewal import renew
from overnight.cache.sorted_index import DROPPED_SHARE
from overnight.errors import SpecError, UnavailableError
from overnight.retention import CacheRetention, clean_cache, plan_cache
from overnight.storage import Storage

START = datetime(2026, 1, 1, tzinfo=UTC)
RETENTION = CacheRetention(timedelta(days=30), timedelta(days=7))


class Clock:
    """What time it is for what is written into a cache on a disk."""

    def __init__(self, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        self.folder = folder
        self.now = START
        self.steps = 0
        monkeypatch.setattr(time, "time_ns", self._tell)

    def _tell(self) -> int:
        self.steps += 1
        return int(self.now.timestamp() * 1e9) + self.steps * 1_000_000

    def clean(self, retention: CacheRetention = RETENTION, storage: Storage | None = None) -> None:
        """Clean the cache at this time."""
        plan = plan_cache(str(self.folder), Storage(), retention, self.now)
        try:
            clean_cache(plan, storage or Storage())
        finally:
            for file in self.list_answers():
                if file.endswith(MARK) and (path := self.folder / "v1/answers" / file).stat().st_size:
                    self._date(path)

    def _date(self, path: Path) -> None:
        # A mark that was dated has no bytes any more.
        path.write_bytes(b"")
        os.utime(path, (self.now.timestamp(),) * 2)

    def pass_days(self, days: float) -> None:
        self.now += timedelta(days=days)

    def list_answers(self) -> list[str]:
        folder = self.folder / "v1/answers"
        return sorted(path.name for path in folder.iterdir()) if folder.exists() else []


@pytest.fixture
def clock(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Clock:
    return Clock(tmp_path / "cache", monkeypatch)


@pytest.fixture
def cache(clock: Clock) -> AnswerCache:
    return open_cache(str(clock.folder), Storage())


def make_key(number: int) -> bytes:
    return compute_digest(b"%d" % number)


def add(cache: AnswerCache, answers: dict[int, bytes]) -> None:
    with cache.open_writer() as writer:
        for number, answer in answers.items():
            writer.add(make_key(number), answer)


def look_up(clock: Clock, count: int) -> dict[bytes, Place]:
    """Look up what a new run would."""
    return open_cache(str(clock.folder), Storage()).find([make_key(number) for number in range(count)])


def read(clock: Clock, places: dict[bytes, Place]) -> dict[bytes, bytes]:
    return dict(open_cache(str(clock.folder), Storage()).read((place, key) for key, place in places.items()))


def test_an_old_answer_is_not_found_any_more_and_its_file_goes_after_the_grace_period(
    cache: AnswerCache, clock: Clock
) -> None:
    add(cache, {0: b"old", 1: b"old, too"})
    clock.pass_days(20)
    add(cache, {2: b"young"})
    (old, _) = clock.list_answers()
    places = look_up(clock, 3)
    clock.pass_days(11)

    clock.clean()
    assert read(clock, look_up(clock, 3)) == {make_key(2): b"young"}
    assert read(clock, places) == {make_key(0): b"old", make_key(1): b"old, too", make_key(2): b"young"}
    clock.pass_days(6.9)
    clock.clean()
    assert old in clock.list_answers()
    clock.pass_days(0.2)
    clock.clean()
    assert len(clock.list_answers()) == 1
    with pytest.raises(DamagedCacheError, match="Clear the task"):
        read(clock, places)
    assert read(clock, look_up(clock, 3)) == {make_key(2): b"young"}


def test_what_has_expired_is_paid_for_and_found_again(cache: AnswerCache, clock: Clock) -> None:
    add(cache, {0: b"old"})
    clock.pass_days(31)
    clock.clean()
    add(open_cache(str(clock.folder), Storage()), {0: b"new"})
    for days in (0, 8):
        clock.pass_days(days)
        clock.clean()
        assert read(clock, look_up(clock, 1)) == {make_key(0): b"new"}


def test_an_answer_that_is_used_each_week_stays_and_one_that_is_not_expires(cache: AnswerCache, clock: Clock) -> None:
    add(cache, {0: b"used", 1: b"unused"})
    for _ in range(20):
        clock.pass_days(7)
        clock.clean()
        renew(cache, open_cache(str(clock.folder), Storage()).find([make_key(0)]), RETENTION.older_than)
    assert read(clock, look_up(clock, 2)) == {make_key(0): b"used"}
    # What was used is there once, and once or twice until its age and the grace period are over.
    assert len([name for name in clock.list_answers() if not name.endswith(MARK)]) <= 3


def test_a_plan_says_how_much_and_changes_nothing(cache: AnswerCache, clock: Clock) -> None:
    add(cache, {0: b"a", 1: b"b"})
    add(cache, {2: b"c"})
    sizes = sum((clock.folder / "v1/answers" / name).stat().st_size for name in clock.list_answers())
    clock.pass_days(20)
    add(cache, {3: b"d"})
    clock.pass_days(11)
    before = sorted(clock.folder.rglob("*"))

    plan = plan_cache(str(clock.folder), Storage(), RETENTION, clock.now)
    assert (plan.entries, plan.is_idle) == (3, False)
    numbers = plan.measure()
    assert (numbers["files"]["files"], numbers["expired"]) == (3, {"files": 2, "bytes": sizes})
    assert sorted(clock.folder.rglob("*")) == before

    clock.clean()
    clock.pass_days(1)
    waiting = plan_cache(str(clock.folder), Storage(), RETENTION, clock.now)
    assert (waiting.is_idle, waiting.measure()["waiting"]) == (True, {"files": 2, "bytes": sizes})
    clock.pass_days(7)
    over = plan_cache(str(clock.folder), Storage(), RETENTION, clock.now)
    assert over.measure()["to_delete"] == {"files": 2, "bytes": sizes}


def test_the_indexes_do_not_grow_for_ever(cache: AnswerCache, clock: Clock) -> None:
    lines = cache.rendered(compute_digest(b"template"))
    for day in range(60):
        add(cache, {day: b"answer"})
        lines.add(compute_digest(b"line %d" % day), bytes(16), make_key(day))
        cache.merge()
        clock.clean()
        if day % 5 == 4:
            assert look_up(clock, 60).keys() == {make_key(young) for young in range(max(day - 30, 0), day + 1)}
        clock.pass_days(1)
    for folder in ("keys", f"documents/{compute_digest(b'template').hex()}"):
        names = [path.stem for path in (clock.folder / "v1" / folder).iterdir()]
        index = cache.keys if folder == "keys" else lines.index
        rows = 0
        for name in names:
            with index.files.open(name) as file:
                rows += file.metadata.num_rows
        # What is young, and less than a part of each file that is old.
        assert rows < 31 * DROPPED_SHARE / (DROPPED_SHARE - 1)
    assert read(clock, look_up(clock, 60)).keys() == {make_key(day) for day in range(29, 60)}


def test_an_answer_that_was_replaced_does_not_come_back_when_the_last_one_expires(
    cache: AnswerCache, clock: Clock
) -> None:
    # A writer that took days, so that the answer that came last is in the file that was begun first.
    slow = cache.open_writer()
    slow.add(make_key(0), b"last")
    clock.pass_days(1)
    add(cache, {0: b"replaced", 1: b"other"})
    clock.pass_days(1)
    with slow:
        pass
    clock.pass_days(28.5)
    for _ in range(10):
        clock.clean()
        assert make_key(0) not in look_up(clock, 2)
        clock.pass_days(1)


@settings(max_examples=40, deadline=None)
@given(
    st.lists(
        st.one_of(
            st.tuples(st.just("add"), st.sets(st.integers(0, 5), min_size=1)),
            st.tuples(st.just("pass"), st.sampled_from([0.5, 3, 8, 16])),
            st.tuples(st.sampled_from(["clean", "look up", "merge", "use"]), st.none()),
            st.tuples(st.sampled_from(["broken clean", "broken use"]), st.integers(0, 4)),
        ),
        max_size=25,
    )
)
def test_whatever_happens_the_last_answer_is_found_while_it_is_young_and_read_by_who_found_it(
    steps: list[tuple[str, object]],
) -> None:
    with TemporaryDirectory() as folder, pytest.MonkeyPatch.context() as monkeypatch:
        monkeypatch.setattr("overnight.cache.sorted_index.MERGE_FILES", 2)
        clock = Clock(Path(folder), monkeypatch)
        last: dict[bytes, tuple[datetime, bytes]] = {}
        cleaned: datetime | None = None
        looked_up: list[tuple[datetime, dict[bytes, Place], dict[bytes, bytes]]] = []
        for number, (what, argument) in enumerate(steps):
            cache = open_cache(folder, Storage())
            if what == "add":
                assert isinstance(argument, set)
                add(cache, {key: b"%d of step %d" % (key, number) for key in argument})
                last |= {make_key(key): (clock.now, b"%d of step %d" % (key, number)) for key in argument}
            elif what == "pass":
                assert isinstance(argument, float | int)
                clock.pass_days(argument)
            elif what == "merge":
                cache.merge()
            elif what == "clean":
                clock.clean()
                cleaned = clock.now
            elif what == "broken clean":
                assert isinstance(argument, int)
                try:
                    clock.clean(storage=Breaking(left=[argument]))
                except UnavailableError:
                    pass
                else:
                    cleaned = clock.now
            elif what in ("use", "broken use"):
                storage = Breaking(left=[argument]) if isinstance(argument, int) else Storage()
                for at, places, answers in looked_up:
                    # What was looked up a while ago, as by a load that waited for its turn.
                    if clock.now - at >= RETENTION.grace:
                        continue
                    there = read(clock, look_up(clock, 6))
                    try:
                        renew(open_cache(folder, storage), places, RETENTION.older_than)
                    except UnavailableError:
                        break
                    # One that was replaced, or has expired, since it was looked up is left.
                    used = [key for key in answers.keys() & there.keys() if last[key][1] == answers[key]]
                    half = RETENTION.older_than / 2
                    last |= {key: (clock.now, answers[key]) for key in used if clock.now - last[key][0] >= half}
            else:
                places = look_up(clock, 6)
                looked_up.append((clock.now, places, read(clock, places)))
            found = read(clock, look_up(clock, 6))
            assert found.items() <= {key: answer for key, (_, answer) in last.items()}.items()
            # What is not older than that at any clean until now.
            young = {key for key, (at, _) in last.items() if clock.now - at <= RETENTION.older_than}
            assert young <= found.keys()
            if cleaned is not None:
                old = {key for key, (at, _) in last.items() if cleaned - at > RETENTION.older_than}
                assert not old & found.keys()
            for at, places, answers in looked_up:
                if clock.now - at < RETENTION.grace:
                    assert read(clock, places) == answers


class Breaking(Storage):
    """A storage that is gone after some changes, as the process would be."""

    left: list[int]

    def __init__(self, left: list[int]) -> None:
        super().__init__()
        object.__setattr__(self, "left", left)

    def put(self, uri: str, data: bytes) -> None:
        self._count()
        super().put(uri, data)

    def delete(self, uri: str) -> None:
        self._count()
        super().delete(uri)

    def _count(self) -> None:
        self.left[0] -= 1
        if self.left[0] < 0:
            raise UnavailableError("gone")


@pytest.mark.parametrize("old", [1, 4])
def test_a_clean_that_breaks_off_at_any_change_loses_no_young_answer_and_brings_no_old_one_back(
    cache: AnswerCache, clock: Clock, monkeypatch: pytest.MonkeyPatch, old: int
) -> None:
    """:param old: How many rows among six young ones: one stays in the file of the index, four are dropped."""
    monkeypatch.setattr("overnight.cache.sorted_index.MERGE_FILES", 1)
    add(cache, dict.fromkeys(range(10, 10 + old), b"old"))
    clock.pass_days(25)
    add(cache, dict.fromkeys(range(6), b"young"))
    cache.merge()
    clock.pass_days(6)
    for days in (0, 8):
        clock.pass_days(days)
        before = shutil.copytree(clock.folder, clock.folder.with_name(f"before-{days}"))
        for changes in count():
            shutil.rmtree(clock.folder)
            shutil.copytree(before, clock.folder)
            try:
                clock.clean(storage=Breaking(left=[changes]))
            except UnavailableError:
                pass
            else:
                break
            found = look_up(clock, 20).keys() - {make_key(number) for number in range(10, 20 if days == 0 else 10)}
            assert found == {make_key(number) for number in range(6)}
        assert look_up(clock, 20).keys() == {make_key(number) for number in range(6)}
    assert len(clock.list_answers()) == 1


def test_a_clean_with_an_old_plan_deletes_nothing_that_was_added_since(cache: AnswerCache, clock: Clock) -> None:
    add(cache, {0: b"old"})
    clock.pass_days(31)
    plan = plan_cache(str(clock.folder), Storage(), RETENTION, clock.now)
    add(cache, {0: b"new", 1: b"more"})
    clock.pass_days(40)
    clean_cache(plan, Storage())
    assert read(clock, look_up(clock, 2)) == {make_key(0): b"new", make_key(1): b"more"}


def test_what_killed_writers_left_goes_and_what_is_not_ours_stays(cache: AnswerCache, clock: Clock) -> None:
    add(cache, {0: b"answer"})
    folder = clock.folder / "v1/answers"
    (name,) = clock.list_answers()
    ours = [folder / f".{name}-{'0' * 32}.tmp", folder / f"{'1' * 20}-{'a' * 12}{MARK}"]
    others = [folder / "notes.txt", folder / "backup.parquet", clock.folder / "other.parquet"]
    for path in (*ours, *others):
        path.write_text("text")
        os.utime(path, (START.timestamp(),) * 2)
    clock.pass_days(10)
    clock.clean()
    assert not any(path.exists() for path in ours)
    assert all(path.exists() for path in others)
    assert read(clock, look_up(clock, 1)) == {make_key(0): b"answer"}


def test_where_there_is_no_cache_there_is_nothing_to_do(tmp_path: Path) -> None:
    plan = plan_cache(str(tmp_path / "none"), Storage(), RETENTION)
    assert (plan.is_idle, plan.entries) == (True, 0)
    assert clean_cache(plan, Storage()).files == 0
    assert list(tmp_path.iterdir()) == []


def test_a_damaged_file_that_would_expire_is_named(cache: AnswerCache, clock: Clock) -> None:
    add(cache, {0: b"old"})
    (name,) = clock.list_answers()
    (clock.folder / "v1/answers" / name).write_bytes(b"PAR1 and no more")
    clock.pass_days(31)
    with pytest.raises(DamagedCacheError, match=name):
        plan_cache(str(clock.folder), Storage(), RETENTION, clock.now)


@pytest.mark.parametrize(
    ("options", "text"),
    [
        (("23h", "7d", None), "write days or weeks"),
        ((timedelta(hours=23), "7d", None), "Give 1d or more"),
        (("30d", "2d", None), "Give 3d or more"),
        (("30d", "soon", None), "cache_grace='soon'"),
        ((None, "7d", "s3://bucket/cache"), "give cache_older_than"),
    ],
)
def test_what_is_wrong_is_refused(options: tuple[str | timedelta | None, str, str | None], text: str) -> None:
    with pytest.raises(SpecError, match=text):
        CacheRetention.parse(*options)


@pytest.mark.parametrize("nothing", [None, "", "None"])
def test_without_an_age_the_cache_stays(nothing: str | None) -> None:
    assert CacheRetention.parse(nothing, "7d", nothing) is None


@pytest.fixture
def bucket() -> Iterator[Storage]:
    server = ThreadedMotoServer(port=0, verbose=False)
    server.start()
    host, port = server.get_host_and_port()
    access = {"endpoint_url": f"http://{host}:{port}", "region_name": "us-east-1"}
    keys = {"aws_access_key_id": "test", "aws_secret_access_key": "test"}
    boto3.client("s3", **access, **keys).create_bucket(Bucket="cache")
    filesystem = s3fs.S3FileSystem(
        key="test",
        secret="test",
        endpoint_url=access["endpoint_url"],
        client_kwargs={"region_name": "us-east-1"},
        skip_instance_cache=True,
    )
    try:
        yield Storage({"s3": lambda: filesystem})
    finally:
        server.stop()


def test_in_an_object_store_it_is_the_same(bucket: Storage) -> None:
    uri = "s3://cache/of/all"
    cache = open_cache(uri, bucket)
    key = make_key(0)
    with AnswerWriter(cache.answers, cache.keys) as writer:
        writer.add(key, b"answer")
    places = cache.find([key])
    now = datetime.now(UTC)
    plan = plan_cache(uri, bucket, RETENTION, now + timedelta(days=31))
    assert plan.entries == 1
    assert clean_cache(plan, bucket).rows == 1
    assert open_cache(uri, bucket).find([key]) == {}
    assert dict(cache.read([(places[key], key)])) == {key: b"answer"}
    assert clean_cache(plan_cache(uri, bucket, RETENTION, now + timedelta(days=6)), bucket).files == 0
    assert clean_cache(plan_cache(uri, bucket, RETENTION, now + timedelta(days=8)), bucket).files == 1
    assert bucket.list_all(f"{uri}/") == {}
