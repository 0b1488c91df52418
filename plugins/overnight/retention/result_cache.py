"""
Which answers of a result cache may go, and their deletion, in two steps.

A file of answers that is too old is marked first: nothing is looked up in it any more, and what runs have looked up
before can still be read. A later clean deletes it, when the mark has stood for the grace period.
"""

from __future__ import annotations

import logging
import re
from collections.abc import Iterable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Final, NamedTuple, Self

from overnight.cache import check_cache_age, open_cache
from overnight.errors import SpecError
from overnight.retention.layout import is_temporary
from overnight.storage import Storage, StoredFile
from overnight.validation import parse_age

if TYPE_CHECKING:
    from overnight.cache.answers import AnswerCache

log = logging.getLogger(__name__)

GRACE: Final = timedelta(days=7)
"""A run that has looked up an answer loads it within this time, however long its batches take."""
_SHORTEST_GRACE: Final = timedelta(days=3)
_AT_ONCE: Final = 8
_NAME: Final = re.compile(r"\d{20}-[0-9a-f]{12}")


@dataclass(frozen=True, slots=True)
class CacheRetention:
    """
    What is asked for.

    :param older_than: An answer goes when it was added before; one day or more.
    :param grace: How long its file stays after nothing is looked up in it any more: longer than anything takes from the
        task that looks up to the end of the load, three days or more.
    """

    older_than: timedelta
    grace: timedelta = GRACE

    def __post_init__(self) -> None:
        """:raises SpecError: one of them is too short."""
        check_cache_age(self.older_than)
        if self.grace < _SHORTEST_GRACE:
            raise SpecError(
                f"cache_grace={self.grace} is less than three days: a run may wait a day for room at its service and "
                "another for its batch, and then reads the answers that it has looked up. Give 3d or more."
            )

    @classmethod
    def parse(cls, older_than: timedelta | str | None, grace: timedelta | str, uri: str | None) -> Self | None:
        """
        Read the options of a clean; ``None`` where the cache is to stay as it is.

        :param older_than: A duration, or ``"365d"``, ``"52w"``; nothing for all that stays.
        :param uri: The cache's folder, if it was given.
        :raises SpecError: one of them is no duration or too short, or there is a folder and no age.
        """
        # What a template made of a value that is not set.
        if older_than in (None, "", "None"):
            if uri not in (None, "", "None"):
                raise SpecError("cache_uri is given, and not what may go from it: give cache_older_than, too.")
            return None
        return cls(_read_age(older_than, "cache_older_than"), _read_age(grace, "cache_grace"))


class CachedFile(NamedTuple):
    """
    A file of answers.

    :param marked: Since when it is marked as unneeded; ``None`` where it is not.
    """

    name: str
    bytes: int
    marked: datetime | None = None


@dataclass(frozen=True, slots=True)
class CachePlan:
    """
    What a cache has, and what of it may go.

    :param uri: Its folder, in which ``v1/`` is.
    :param files: Of answers, all of them.
    :param expired: Of ``files``, those that are to be marked.
    :param entries: How many answers are in those.
    :param waiting: Of ``files``, those that were marked and whose grace period is not over.
    :param deletable: Of ``files``, those whose grace period is over.
    :param leftovers: Marks without a file, and what killed writers have left on a disk.
    :param made_at: When the folder was listed.
    """

    uri: str
    retention: CacheRetention
    files: tuple[CachedFile, ...]
    expired: tuple[CachedFile, ...]
    entries: int
    waiting: tuple[CachedFile, ...]
    deletable: tuple[CachedFile, ...]
    leftovers: tuple[StoredFile, ...]
    made_at: datetime

    @property
    def is_idle(self) -> bool:
        """Whether there is nothing to do."""
        return not (self.expired or self.deletable or self.leftovers)

    @property
    def created_before(self) -> int:
        """What was added before is dropped; milliseconds since 1970."""
        return _to_milliseconds(self.made_at - self.retention.older_than)

    def measure(self) -> dict[str, dict[str, int]]:
        """Return how many files and bytes there are, have expired, wait, and are to be deleted now."""
        counts = {
            name: {"files": len(files), "bytes": _add_sizes(files)}
            for name, files in (("files", self.files), ("expired", self.expired), ("waiting", self.waiting))
        }
        deleted = len(self.deletable) + len(self.leftovers)
        size = _add_sizes(self.deletable) + sum(file.size or 0 for file in self.leftovers)
        return {**counts, "to_delete": {"files": deleted, "bytes": size}}


class CacheCleaned(NamedTuple):
    """
    What was done.

    :param entries: Answers in files that were marked.
    :param expired_files: Files that were marked; a later clean deletes them.
    :param expired_bytes: As stored.
    :param files: Files of answers that were deleted, and leftovers.
    :param bytes: As stored.
    :param rows: Rows of the indexes that were dropped.
    """

    entries: int = 0
    expired_files: int = 0
    expired_bytes: int = 0
    files: int = 0
    bytes: int = 0
    rows: int = 0


def plan_cache(uri: str, storage: Storage, retention: CacheRetention, now: datetime | None = None) -> CachePlan:
    """
    List a cache and decide what of it may go. Nothing is changed.

    :param uri: The ``cache_uri`` of pipelines.
    :return: A plan for nothing where there is no cache.
    :raises SpecError: pyarrow is not installed.
    :raises DamagedCacheError: a file that is to go is not what was written.
    """
    cache = open_cache(uri, storage)
    # Behind what says how to install it.
    from overnight.cache.files import FORMAT, MARK, SUFFIX, get_time  # noqa: PLC0415 - an extra

    now = now or datetime.now(UTC)
    found: dict[str, StoredFile] = {}
    marks: dict[str, StoredFile] = {}
    leftovers: list[StoredFile] = []
    for path, file in storage.list_all(f"{uri.rstrip('/')}/{FORMAT}/").items():
        folder, _, name = path.rpartition("/")
        stem, dot, ending = name.partition(".")
        if is_temporary(path):
            # A store that does not say when a file was written gives no reason to delete it.
            if (file.modified or now) < now - retention.grace:
                leftovers.append(file)
        elif folder == "answers" and _NAME.fullmatch(stem):
            if dot + ending == SUFFIX:
                found[stem] = file
            elif dot + ending == MARK:
                marks[stem] = file
    leftovers += [mark for name, mark in marks.items() if name not in found]
    files = [
        CachedFile(name, file.size or 0, (marks[name].modified or now) if name in marks else None)
        for name, file in found.items()
    ]
    before = _to_milliseconds(now - retention.older_than)
    expired = [file for file in files if file.marked is None and get_time(file.name) < before]
    marked = [(file, file.marked) for file in files if file.marked is not None]
    return CachePlan(
        uri=uri.rstrip("/"),
        retention=retention,
        files=tuple(files),
        expired=tuple(expired),
        entries=_count_entries(cache, expired),
        waiting=tuple(file for file, since in marked if since > now - retention.grace),
        deletable=tuple(file for file, since in marked if since <= now - retention.grace),
        leftovers=tuple(leftovers),
        made_at=now,
    )


def clean_cache(plan: CachePlan, storage: Storage) -> CacheCleaned:
    """
    Do what a plan says. Runs may go on meanwhile, and others may do the same at once.

    Killed anywhere, what is left is done by the next one: a mark is final, an index is written anew before the former
    one goes, and a file of answers goes before its mark does.

    :raises DamagedCacheError: a file of an index is not what was written.
    :raises CredentialsError: a file may not be written or deleted.
    :raises UnavailableError: the store cannot be reached.
    """
    cache = open_cache(plan.uri, storage)
    with ThreadPoolExecutor(_AT_ONCE) as pool:
        # All marks are there before any row goes: without them an earlier answer of a key would count again.
        list(pool.map(cache.answers.mark, (file.name for file in plan.expired)))
        rows = cache.drop(plan.created_before)
        list(pool.map(cache.answers.delete_marked, (file.name for file in plan.deletable)))
        list(pool.map(storage.delete, (file.uri for file in plan.leftovers)))
    numbers = plan.measure()
    done = CacheCleaned(
        entries=plan.entries,
        expired_files=numbers["expired"]["files"],
        expired_bytes=numbers["expired"]["bytes"],
        rows=rows,
        **numbers["to_delete"],
    )
    log.info("Of the cache, %d answers have expired and %d files were deleted.", done.entries, done.files)
    return done


def _read_age(age: timedelta | str | None, name: str) -> timedelta:
    return age if isinstance(age, timedelta) else parse_age(str(age), name)


def _add_sizes(files: Iterable[CachedFile]) -> int:
    return sum(file.bytes for file in files)


def _count_entries(cache: AnswerCache, files: Iterable[CachedFile]) -> int:
    count = 0
    for file in files:
        with cache.answers.open(file.name) as opened:
            count += opened.metadata.num_rows
    return count


def _to_milliseconds(time: datetime) -> int:
    return int(time.timestamp() * 1000)
