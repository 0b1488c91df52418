"""A clean that is killed anywhere leaves no wrong answer in a cache, and none that a run has looked up is gone."""

from __future__ import annotations

import multiprocessing
import random
import shutil
import signal
import time
from datetime import UTC, datetime, timedelta
from itertools import count
from pathlib import Path

import pytest

import cache_worker
from cache_worker import ENTRIES, add, make_entries, read_all
from overnight.cache import open_cache, sorted_index
from overnight.storage import Storage

KILLS = 25
OLD, CUTOFF, YOUNG = (datetime(2026, 1, day, tzinfo=UTC) for day in (1, 10, 20))


@pytest.mark.parametrize("merged", [4, ENTRIES // 2])
def test_a_kill_at_any_line_of_a_clean_leaves_the_last_answer_of_each_key_or_none(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, merged: int
) -> None:
    """:param merged: How many old rows are in a file of young ones: so few stay, so many are dropped."""
    former, old, young = ({key: b"%d" % at + answer for key, answer in make_entries(0).items()} for at in range(3))
    keys = list(former)
    # Of these keys a young answer is the last one, of the others an old one; all have a former one.
    replaced = keys[: ENTRIES // 2]
    among_young = dict(list(make_entries(2).items())[:merged])
    left = {key: young[key] for key in replaced} | make_entries(1)
    full, marked = tmp_path / "full", tmp_path / "marked"
    with monkeypatch.context() as patches:
        patches.setattr(sorted_index, "MERGE_FILES", 1)
        _set_time(patches, OLD)
        add(full, among_young)
        _set_time(patches, YOUNG)
        add(full, make_entries(1))
        assert open_cache(str(full), Storage()).merge() == 2
        _set_time(patches, OLD + timedelta(days=1))
        add(full, old)
        _set_time(patches, OLD)
        add(full, former)
        _set_time(patches, YOUNG)
        add(full, {key: young[key] for key in replaced})
    # The index's file of the old answers goes before that of the former ones.
    _rename_last(full / "v1/keys")
    everything = {**old, **left, **among_young}
    assert read_all(full, range(3)) == everything
    found_before = open_cache(str(full), Storage()).find(everything)

    first = datetime.now(UTC)
    later = first + timedelta(days=4)
    shutil.copytree(full, marked)
    lines = {full: cache_worker.clean(marked, CUTOFF, first, None)}
    assert read_all(marked, range(3)) == left
    lines[marked] = cache_worker.clean(_copy(marked, tmp_path / "dry"), CUTOFF, later, None)
    chance = random.Random(12)
    processes = multiprocessing.get_context("forkserver")
    processes.set_forkserver_preload(["overnight.cache.answers"])
    for number in range(KILLS):
        source, now = ((full, first), (marked, later))[number % 2]
        folder = _copy(source, tmp_path / "cache")
        kill_at = chance.randrange(1, lines[source])
        process = processes.Process(target=cache_worker.clean, args=(folder, CUTOFF, now, kill_at))
        process.start()
        process.join()
        assert process.exitcode == -signal.SIGKILL

        found = read_all(folder, range(3))
        assert left.items() <= found.items() <= (everything if source == full else left).items()
        if source == full:
            # A run that has looked up everything before the clean goes on.
            cache = open_cache(str(folder), Storage())
            assert dict(cache.read((place, key) for key, place in found_before.items())) == everything
        # The next ones do what is left.
        for then in (first, later):
            cache_worker.clean(folder, CUTOFF, then, None)
        assert read_all(folder, range(3)) == left
        assert len(list((folder / "v1/answers").glob("*"))) == 2


def _set_time(patches: pytest.MonkeyPatch, at: datetime) -> None:
    steps = count(int(at.timestamp()) * 1_000_000_000, 1_000_000)
    patches.setattr(time, "time_ns", lambda: next(steps))


def _rename_last(folder: Path) -> None:
    """Give the oldest file of an index, which names the former answers, the name that is the last but for the young."""
    oldest = min(folder.iterdir())
    oldest.rename(folder / f"{int(YOUNG.timestamp() * 1e9) + 1:020d}-{'0' * 12}.parquet")


def _copy(source: Path, target: Path) -> Path:
    shutil.rmtree(target, ignore_errors=True)
    return Path(shutil.copytree(source, target))
