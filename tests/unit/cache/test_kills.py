"""A process that is killed anywhere leaves no wrong or half answer in a cache, and loses only what was in flight."""

from __future__ import annotations

import multiprocessing
import random
import signal
from pathlib import Path

from cache_worker import BATCHES, ENTRIES, make_entries, read_all, work

KILLS = 50


def test_a_kill_at_any_line_loses_what_was_in_flight_and_nothing_else(tmp_path: Path) -> None:
    # So many lines when nothing kills it.
    lines = work(tmp_path / "dry", 0, None)
    chance = random.Random(11)
    processes = multiprocessing.get_context("forkserver")
    processes.set_forkserver_preload(["overnight.cache.answers"])
    folder = tmp_path / "cache"
    folder.mkdir()
    (folder / "committed").touch()
    kills = first = 0
    while kills < KILLS:
        # The more files there are, the more lines it takes to read them; a run that is not killed adds both batches.
        process = processes.Process(target=work, args=(folder, first, chance.randrange(1, 2 * lines)))
        process.start()
        process.join()
        assert process.exitcode in (-signal.SIGKILL, 0)
        kills += process.exitcode != 0

        # Of all runs so far.
        right = {key: answer for batch in range(first + BATCHES) for key, answer in make_entries(batch).items()}
        found = read_all(folder, range(first + BATCHES))
        assert found.items() <= right.items()
        committed = [int(line) for line in (folder / "committed").read_text().split()]
        kept = {key for batch in committed for key in make_entries(batch)}
        assert kept <= found.keys()
        # A batch whose commit the kill kept from being noted is there as a whole.
        assert len(found) % ENTRIES == 0
        first += BATCHES
    assert 0 < len(found) < len(right)
    # What a merge left that was killed is taken up by the next one.
    work(folder, first, None)
    assert len(list((folder / "v1" / "keys").iterdir())) < len(found) // ENTRIES
