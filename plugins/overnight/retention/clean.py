"""Deletes what a plan says may go, looking at each run once more."""

from __future__ import annotations

import logging
from collections.abc import Iterable
from concurrent.futures import ThreadPoolExecutor
from itertools import chain
from typing import Final, NamedTuple

from overnight.errors import shorten
from overnight.retention.plan import CleaningPlan, Decision, RunFile, RunFolder, hold_run
from overnight.storage import Storage

log = logging.getLogger(__name__)

_AT_ONCE: Final = 8


class Cleaned(NamedTuple):
    """
    What was deleted.

    :param bytes: As stored.
    :param runs: Runs whose files are gone.
    :param spared: Runs that the plan would have deleted and that have changed since.
    """

    files: int = 0
    bytes: int = 0
    runs: int = 0
    spared: tuple[str, ...] = ()


def clean(plan: CleaningPlan, storage: Storage) -> Cleaned:
    """
    Delete what a plan says may go.

    Each run is listed again before it is touched, since it may have been cleared and begun anew. Killed in the middle,
    or run twice at once, nothing is deleted that the plan would not have deleted; what is left goes the next time.

    :raises CredentialsError: a file may not be deleted.
    :raises UnavailableError: the store cannot be reached.
    """
    files = size = runs = 0
    spared: list[str] = []
    with ThreadPoolExecutor(_AT_ONCE) as pool:
        for name in plan.old_runs:
            with hold_run(plan.work_uri, name, storage) as is_free:
                run = RunFolder.read(plan.work_uri, name, storage)
                if not is_free or run.decide(plan.retention, plan.made_at, storage) is not Decision.DELETE:
                    spared.append(name)
                    continue
                batches = run.batch_deletable()
                for some in batches:
                    # A batch is gone before the next one is begun.
                    list(pool.map(storage.delete, (one.file.uri for one in some)))
                storage.remove_empty_folders(run.uri)
            ours = list(chain.from_iterable(batches))
            files, size, runs = files + len(ours), size + _add_sizes(ours), runs + 1
            log.info("Deleted %d files of %s.", len(ours), shorten(name, 300))
        list(pool.map(storage.delete, (one.file.uri for one in plan.records)))
    return Cleaned(files + len(plan.records), size + _add_sizes(plan.records), runs, tuple(spared))


def _add_sizes(files: Iterable[RunFile]) -> int:
    return sum(one.file.size or 0 for one in files)
