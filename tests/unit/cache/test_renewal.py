"""Which answers are written again, and that what was there before stays as it is."""

from __future__ import annotations

import time
from collections.abc import Callable
from datetime import timedelta
from pathlib import Path

import pytest

from overnight.cache import open_cache
from overnight.cache.answers import AnswerCache
from overnight.cache.digests import compute_digest
from overnight.cache.files import DamagedCacheError, get_time
from overnight.cache.renewal import renew
from overnight.errors import UnavailableError
from overnight.storage import Storage

AGE = timedelta(days=30)
DAY = 86_400_000_000_000


@pytest.fixture
def pass_days(monkeypatch: pytest.MonkeyPatch) -> Callable[[float], None]:
    """Lets time pass for what is written into a cache."""
    now = [1_700_000_000_000_000_000]

    def tell() -> int:
        now[0] += 1_000_000
        return now[0]

    def pass_some(days: float) -> None:
        now[0] += int(days * DAY)

    monkeypatch.setattr(time, "time_ns", tell)
    return pass_some


@pytest.fixture
def cache(tmp_path: Path, pass_days: Callable[[float], None]) -> AnswerCache:
    return open_cache(str(tmp_path), Storage())


def make_key(number: int) -> bytes:
    return compute_digest(b"%d" % number)


KEYS = [make_key(number) for number in range(4)]


def add(cache: AnswerCache, answers: dict[int, bytes]) -> None:
    with cache.open_writer() as writer:
        for number, answer in answers.items():
            writer.add(make_key(number), answer)


def test_answers_older_than_half_the_age_are_written_again_and_others_are_not(
    cache: AnswerCache, pass_days: Callable[[float], None], tmp_path: Path
) -> None:
    add(cache, {0: b"old", 1: b"old and unused"})
    pass_days(10)
    add(cache, {2: b"young"})
    before = {path: path.read_bytes() for path in tmp_path.rglob("*.parquet")}
    pass_days(4.9)
    used = cache.find([KEYS[0], KEYS[2]])
    assert renew(cache, used, AGE) == 0
    pass_days(0.2)
    assert renew(cache, used, AGE) == 1

    found = open_cache(str(tmp_path), Storage()).find(KEYS)
    assert get_time(found[KEYS[0]].file) - get_time(used[KEYS[0]].file) >= 15 * DAY // 1_000_000
    assert (found[KEYS[1]].file, found[KEYS[2]]) == (used[KEYS[0]].file, used[KEYS[2]])
    assert dict(cache.read((place, key) for key, place in found.items()))[KEYS[0]] == b"old"
    # Who has looked it up before reads it where it was.
    assert dict(cache.read([(used[KEYS[0]], KEYS[0])])) == {KEYS[0]: b"old"}
    assert {path: path.read_bytes() for path in before} == before
    # A retry of the same load.
    assert renew(cache, used, AGE) == 0


def test_an_answer_that_was_replaced_since_it_was_looked_up_does_not_come_back(
    cache: AnswerCache, pass_days: Callable[[float], None]
) -> None:
    add(cache, {0: b"former"})
    used = cache.find([KEYS[0]])
    pass_days(16)
    add(cache, {0: b"last"})
    assert renew(cache, used, AGE) == 0
    assert dict(cache.read((place, key) for key, place in cache.find([KEYS[0]]).items())) == {KEYS[0]: b"last"}


def test_an_answer_that_is_replaced_while_it_is_written_again_does_not_come_back(
    cache: AnswerCache, pass_days: Callable[[float], None], monkeypatch: pytest.MonkeyPatch
) -> None:
    add(cache, {0: b"former"})
    used = cache.find([KEYS[0]])
    pass_days(16)
    read = cache.read

    def replace_and_read(*arguments: object) -> object:
        add(cache, {0: b"last"})
        return read(*arguments)  # type: ignore[arg-type]

    monkeypatch.setattr(cache, "read", replace_and_read)
    assert renew(cache, used, AGE) == 1
    assert dict(read((place, key) for key, place in cache.find([KEYS[0]]).items())) == {KEYS[0]: b"last"}


def test_an_answer_whose_file_is_marked_as_unneeded_stays_expired(
    cache: AnswerCache, pass_days: Callable[[float], None], tmp_path: Path
) -> None:
    add(cache, {0: b"expired"})
    used = cache.find([KEYS[0]])
    pass_days(31)
    cache.answers.mark(used[KEYS[0]].file)
    assert renew(open_cache(str(tmp_path), Storage()), used, AGE) == 0


class Breaking(Storage):
    """A storage that is gone after some writes, as the process would be."""

    left = 0

    def put(self, uri: str, data: bytes) -> None:
        if not self.left:
            raise UnavailableError("gone")
        object.__setattr__(self, "left", self.left - 1)
        super().put(uri, data)


@pytest.mark.parametrize("writes", [0, 1])
def test_broken_off_at_any_write_all_is_as_before_and_the_next_use_renews(
    cache: AnswerCache, pass_days: Callable[[float], None], tmp_path: Path, writes: int
) -> None:
    add(cache, {0: b"old"})
    used = cache.find([KEYS[0]])
    pass_days(16)
    breaking = Breaking()
    object.__setattr__(breaking, "left", writes)
    with pytest.raises(UnavailableError):
        renew(open_cache(str(tmp_path), breaking), used, AGE)
    assert open_cache(str(tmp_path), Storage()).find([KEYS[0]]) == used
    assert renew(open_cache(str(tmp_path), Storage()), used, AGE) == 1


def test_a_damaged_file_adds_nothing(cache: AnswerCache, pass_days: Callable[[float], None], tmp_path: Path) -> None:
    add(cache, {0: b"old"})
    used = cache.find([KEYS[0]])
    pass_days(16)
    (tmp_path / "v1/answers" / f"{used[KEYS[0]].file}.parquet").write_bytes(b"PAR1 and no more")
    with pytest.raises(DamagedCacheError):
        renew(cache, used, AGE)
    assert open_cache(str(tmp_path), Storage()).find([KEYS[0]]) == used
