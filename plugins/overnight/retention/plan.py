"""Which files of a work folder may go."""

from __future__ import annotations

import json
from collections import Counter, defaultdict
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from enum import StrEnum
from itertools import chain
from typing import Final, NamedTuple, Self

from overnight.costs.spending import Spent, read_record
from overnight.errors import SpecError, shorten
from overnight.retention.layout import (
    IDENTITY,
    LOCK,
    OWN,
    REPORT,
    Kind,
    Place,
    classify,
    classify_own,
    find_period_end,
)
from overnight.retention.own_run import has_open_job, lock_run, read_identity
from overnight.storage import Storage, StoredFile, redact, to_segment
from overnight.storage_errors import MissingFileError

DEFAULT_AGE: Final = timedelta(days=30)
_SHORTEST: Final = timedelta(days=1)


class Decision(StrEnum):
    """What becomes of a run's files, and why."""

    DELETE = "delete"
    RECENT = "recent"
    UNFINISHED = "unfinished"
    KEPT = "asked to keep"
    FOREIGN = "not a run's folder"


@dataclass(frozen=True, slots=True)
class Retention:
    """
    What is asked for.

    :param older_than: A run goes when none of its files was written since; one day or more.
    :param include_unfinished: Also runs that have no report, or one that says that parts were not loaded: clearing
        their tasks needs these files.
    :param keep: ``dag/run`` of runs that stay, with the run's id as Airflow has it or as its folder is called.
    :param is_active: Says of a folder's ``dag/run`` whether Airflow is still at work on it.
    """

    older_than: timedelta = DEFAULT_AGE
    include_unfinished: bool = False
    keep: Collection[str] = ()
    is_active: Callable[[str], bool] = field(default=lambda _: False)

    def __post_init__(self) -> None:
        """:raises SpecError: the age is less than a day, or what is to be kept is no run."""
        if self.older_than < _SHORTEST:
            raise SpecError(
                f"older_than={self.older_than} is less than a day: a run that waits for its service writes nothing for "
                "so long, and still needs its files. Give 1d or more."
            )
        # A text would be taken for its characters, and nothing be kept.
        is_list = isinstance(self.keep, Collection) and not isinstance(self.keep, str | bytes)
        wrong = [name for name in self.keep if not _is_run(name)] if is_list else [self.keep]
        if wrong:
            raise SpecError(
                f"keep={shorten(repr(wrong), 300)} is no list of runs; write DAG/RUN for each, by their ids."
            )

    def is_kept(self, run: str) -> bool:
        """Whether a run is one of those that were asked to be kept."""
        dags = (name.partition("/") for name in self.keep)
        return run in {f"{dag}/{to_segment(run_id)}" for dag, _, run_id in dags}


def _is_run(name: object) -> bool:
    dag_id, _, run_id = name.partition("/") if isinstance(name, str) else ("", "", "")
    return bool(dag_id and run_id)


class RunFile(NamedTuple):
    """One file of a run, or a record of a budget."""

    file: StoredFile
    place: Place


@dataclass(frozen=True, slots=True)
class RunFolder:
    """
    What is left of one run.

    :param name: ``<dag>/<run>``, or :data:`~overnight.retention.layout.OWN` for an ``overnight run``.
    :param uri: Its folder.
    :param files: All of them, those that are not ours, too.
    """

    name: str
    uri: str
    files: tuple[RunFile, ...]

    @classmethod
    def read(cls, work_uri: str, name: str, storage: Storage) -> Self:
        """List a run's folder as it is now."""
        folder = _build_uri(work_uri, name)
        if name == OWN:
            return cls(name, folder, tuple(one for one in _list_files(work_uri, storage) if one.place.owner == OWN))
        files = storage.list_all(f"{folder}/")
        return cls(name, folder, tuple(RunFile(file, classify(f"{name}/{path}")) for path, file in files.items()))

    def decide(self, retention: Retention, now: datetime, storage: Storage) -> Decision:
        """
        Say what becomes of the run.

        :raises CredentialsError: its report may not be read.
        """
        is_known = self.name == OWN or any(one.place.is_ours for one in self.files)
        # A store that does not say when a file was written gives no reason to delete it.
        newest = max((one.file.modified or now for one in self.files), default=now)
        is_recent = newest > now - retention.older_than
        if is_known and is_recent:
            return Decision.RECENT
        is_finished = self._is_finished(storage)
        if is_finished is None and not is_known:
            return Decision.FOREIGN
        if is_recent:
            return Decision.RECENT
        if retention.is_kept(self.name):
            return Decision.KEPT
        # Airflow knows nothing of a run in a folder of its own, and whoever deletes holds that.
        is_active = self.name != OWN and retention.is_active(self.name)
        if (not is_finished and not retention.include_unfinished) or is_active:
            return Decision.UNFINISHED
        return Decision.DELETE

    def _is_finished(self, storage: Storage) -> bool | None:
        """Return whether the run has come to its end; ``None`` where nothing says so."""
        names = {one.place.rest for one in self.files}
        if self.name == OWN and names <= {IDENTITY, LOCK}:
            # It was refused before there was anything, or a clean was killed.
            return True
        end = _read_end(f"{self.uri}/{REPORT}", storage) if REPORT in names else None
        # The report may be that of an earlier start.
        return end and not has_open_job((one.file.uri for one in self.files if one.place.is_job), storage)

    def batch_deletable(self) -> list[list[RunFile]]:
        """
        Return the files that pipelines write, in batches that are deleted one after the other.

        Those by which the folder is known as a run's come behind the others, the report behind these, then what makes
        it the folder of an ``overnight run``: a clean that was killed finds the rest again. The lock, which keeps a run
        from beginning there meanwhile, is last.
        """
        last = (REPORT, IDENTITY, LOCK)
        batches: list[list[RunFile]] = [[] for _ in range(2 + len(last))]
        for one in self.files:
            if one.place.kind is not Kind.OTHER:
                rest = one.place.rest
                batches[2 + last.index(rest) if rest in last else int(one.place.is_ours)].append(one)
        return batches


class KindCount(NamedTuple):
    """
    How much there is of one kind.

    :param bytes: As stored.
    :param old_files: Of ``files``, those that would be deleted.
    """

    kind: Kind
    files: int
    bytes: int
    old_files: int
    old_bytes: int


@dataclass(frozen=True, slots=True)
class CleaningPlan:
    """
    What a work folder has, and what of it may go.

    :param runs: By ``<dag>/<run>``, what becomes of it.
    :param records: Records of budgets that may go.
    :param made_at: When the folder was listed.
    """

    work_uri: str
    retention: Retention
    kinds: tuple[KindCount, ...]
    runs: Mapping[str, Decision]
    records: tuple[RunFile, ...]
    made_at: datetime

    @property
    def old_runs(self) -> list[str]:
        """The runs whose files may go."""
        return [name for name, decision in self.runs.items() if decision is Decision.DELETE]

    @property
    def old_files(self) -> int:
        """How many files may go."""
        return sum(kind.old_files for kind in self.kinds)

    @property
    def old_bytes(self) -> int:
        """How many bytes they have."""
        return sum(kind.old_bytes for kind in self.kinds)

    def count_runs(self) -> dict[str, int]:
        """Return how many runs there are, by what becomes of them."""
        return {decision.value: count for decision, count in sorted(Counter(self.runs.values()).items())}


def make_plan(work_uri: str, storage: Storage, retention: Retention, now: datetime | None = None) -> CleaningPlan:
    """
    List a work folder and decide what may go. Nothing is changed.

    :param work_uri: The ``work_uri`` of pipelines, or the folder of an ``overnight run``.
    :raises SpecError: no pipeline and no run has written there.
    """
    now = now or datetime.now(UTC)
    folders: dict[str, list[RunFile]] = defaultdict(list)
    records: list[RunFile] = []
    loose: list[RunFile] = []
    for one in _list_files(work_uri, storage):
        if one.place.kind is Kind.SPENDING:
            records.append(one)
        elif one.place.owner == OWN or one.place.owner.count("/") == 1:
            folders[one.place.owner].append(one)
        else:
            loose.append(one)
    runs: dict[str, Decision] = {}
    old: list[RunFile] = []
    everything = [*loose, *records]
    for name, files in folders.items():
        run = RunFolder(name, _build_uri(work_uri, name), tuple(files))
        decision = run.decide(retention, now, storage)
        with hold_run(work_uri, name, storage) as is_free:
            decision = decision if is_free else Decision.UNFINISHED
        if decision is Decision.FOREIGN:
            everything += [one._replace(place=Place(Kind.OTHER)) for one in files]
            continue
        everything += files
        runs[name] = decision
        if decision is Decision.DELETE:
            old += chain.from_iterable(run.batch_deletable())
    if not runs and not records and not any(one.place.kind is Kind.CACHE for one in loose):
        raise SpecError(
            f"{redact(work_uri)} is no work folder: nothing below it is called as pipelines call their files, "
            "<work_uri>/<dag>/<run>/part-00000.requests.jsonl for one. Give the work_uri of the pipelines, or the "
            "folder of an overnight run (--work), and not one above or below it."
        )
    old_records = tuple(_select_records(records, runs, retention, now, storage))
    kinds = _count(everything, [*old, *old_records])
    return CleaningPlan(work_uri.rstrip("/"), retention, kinds, runs, old_records, now)


def hold_run(work_uri: str, name: str, storage: Storage) -> AbstractContextManager[bool]:
    """
    Keep an ``overnight run`` of this machine out of its folder, and yield whether none is at work there.

    :param name: Of the run; the runs of pipelines are Airflow's to ask about.
    """
    return lock_run(work_uri.rstrip("/"), storage, create=False) if name == OWN else nullcontext(True)


def _build_uri(work_uri: str, name: str) -> str:
    folder = work_uri.rstrip("/")
    return folder if name == OWN else f"{folder}/{name}"


def _list_files(work_uri: str, storage: Storage) -> Iterator[RunFile]:
    """Yield all files of a work folder, or of the folder of an ``overnight run``."""
    files = storage.list_all(f"{work_uri.rstrip('/')}/")
    is_own = IDENTITY in files and read_identity(work_uri.rstrip("/"), storage) is not None
    for path, file in files.items():
        yield RunFile(file, classify_own(path) if is_own else classify(path))


def _select_records(
    records: Sequence[RunFile], runs: Mapping[str, Decision], retention: Retention, now: datetime, storage: Storage
) -> Iterable[RunFile]:
    """Yield the records of periods that are long over and of runs that nobody settles any more."""
    for one in records:
        end = find_period_end(one.place.rest)
        if end is None or max(end, one.file.modified or now) > now - retention.older_than:
            continue
        try:
            record = read_record(one.file.uri, storage)
        except SpecError:
            # Gone by now, or none of ours.
            continue
        decision = runs.get(f"{record.dag_id}/{to_segment(record.run_id)}")
        # Of a run that has no files here, the report may be to come where its own work folder is.
        is_settled = decision is None and record.reserved == Spent()
        if is_settled or decision is Decision.DELETE:
            yield one


def _read_end(uri: str, storage: Storage) -> bool | None:
    """Return whether a run's report says that every part was loaded; ``None`` for a file that is no such report."""
    try:
        with storage.open(uri) as file:
            report = json.load(file)
    except (MissingFileError, ValueError):
        return None
    if not isinstance(report, dict) or not {"submitted", "indexed", "missing", "parts"} <= set(report):
        return None
    return not report.get("failed_parts") and not report.get("refused")


def _count(everything: Iterable[RunFile], old: Iterable[RunFile]) -> tuple[KindCount, ...]:
    files: Counter[Kind] = Counter()
    sizes: Counter[Kind] = Counter()
    old_files: Counter[Kind] = Counter()
    old_sizes: Counter[Kind] = Counter()
    for some, counts, total in ((everything, files, sizes), (old, old_files, old_sizes)):
        for one in some:
            counts[one.place.kind] += 1
            total[one.place.kind] += one.file.size or 0
    return tuple(
        KindCount(kind, files[kind], sizes[kind], old_files[kind], old_sizes[kind]) for kind in Kind if files[kind]
    )
