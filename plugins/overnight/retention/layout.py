"""What lies where in a work folder: docs/storage.md has it as a table."""

from __future__ import annotations

import re
from collections.abc import Mapping
from datetime import UTC, date, datetime, timedelta
from enum import StrEnum
from typing import Final, NamedTuple

REPORT: Final = "report.json"
"""Written when all parts of a run have ended, as the last of its files but ``report.html``."""
IDENTITY: Final = "run.json"
"""What makes a folder that of an ``overnight run``, with its id."""
INPUT: Final = "input.json"
LOCK: Final = ".lock"
JOBS: Final = "jobs/"
OWN: Final = "."
"""The owner of the files of an ``overnight run`` in its own folder."""
SPENDING: Final = "_spending"
CACHE: Final = "cache/v1/"


class Kind(StrEnum):
    """What a file of a work folder is."""

    REQUESTS = "requests"
    DOCUMENTS = "documents"
    RESULTS = "results"
    DEAD_LETTERS = "dead letters"
    CHECKPOINTS = "checkpoints"
    DELETES = "deletes"
    REPORTS = "reports"
    RECORDS = "records"
    SPENDING = "spending"
    CACHE = "cache"
    TEMPORARY = "temporary"
    OTHER = "other"


_RUN_FILES: Final = {
    Kind.REQUESTS: r"part-\d{5,}\.(requests|repeated)\.jsonl|reused-\d{5,}\.answers\.jsonl",
    Kind.DOCUMENTS: r"(part|reused)-\d{5,}\.(repeated\.)?documents\.jsonl|chunks/chunks\.jsonl",
    Kind.RESULTS: (
        r"(parsed|extracted)/[^/]+\.(output|error)\.jsonl|outputs/.+\.out|"
        r"outputs/_manifests/([0-9a-f]{32}\.manifest|inputs\.json|missing\.jsonl)"
    ),
    Kind.DEAD_LETTERS: r"(((part|reused)-\d{5,}\.)?dead-letters|rejected)\.jsonl(\.left\.jsonl)*",
    Kind.CHECKPOINTS: r"(part|reused)-\d{5,}\.checkpoint\.json",
    Kind.DELETES: r"deletes\.jsonl",
    Kind.REPORTS: r"report\.(json|html)",
}
_PATTERNS: Final[Mapping[Kind, re.Pattern[str]]] = {kind: re.compile(pattern) for kind, pattern in _RUN_FILES.items()}
# What an overnight run writes into its own folder; elsewhere these names are anybody's.
_OWN_PATTERNS: Final[Mapping[Kind, re.Pattern[str]]] = {
    **{kind: pattern for kind, pattern in _PATTERNS.items() if kind not in (Kind.RESULTS, Kind.DELETES)},
    Kind.RECORDS: re.compile(rf"({'|'.join(map(re.escape, (IDENTITY, INPUT, LOCK)))})|{JOBS}part-\d{{5,}}\.json"),
}
# What no other program calls its files: by these a folder without a report is known as a run's.
_OURS: Final = re.compile(
    r"(part|reused)-\d{5,}\.\w+.*|(parsed|extracted)/[^/]+\.output\.jsonl|outputs/_manifests/inputs\.json"
)
_TEMPORARY: Final = re.compile(r"(?P<folder>.*/|)\.(?P<name>.+)-[0-9a-f]{32}\.tmp")
_RECORD: Final = re.compile(r"(?P<period>\d{4}-(W\d\d|\d\d(-\d\d)?))/\d{6,}\.json")


class Place(NamedTuple):
    """
    Where a file of a work folder belongs.

    :param owner: ``<dag>/<run>``, ``<dag>`` for the record of a budget, or :data:`OWN`; empty for anything else.
    :param rest: Its path below that.
    """

    kind: Kind
    owner: str = ""
    rest: str = ""

    @property
    def is_ours(self) -> bool:
        """Whether its name alone says that a pipeline wrote it."""
        return self.kind not in (Kind.OTHER, Kind.TEMPORARY) and _OURS.fullmatch(self.rest) is not None

    @property
    def is_job(self) -> bool:
        """Whether it is what an ``overnight run`` remembers of a job."""
        return self.kind is Kind.RECORDS and self.rest.startswith(JOBS)


def classify(path: str) -> Place:
    """
    Say what a file is.

    :param path: Below the work folder.
    """
    if path.startswith(CACHE):
        return Place(Kind.CACHE)
    dag, _, below = path.partition("/")
    run, _, rest = below.partition("/")
    if not rest:
        return Place(Kind.OTHER)
    if run == SPENDING:
        kind = Kind.SPENDING if _RECORD.fullmatch(rest) else Kind.OTHER
        return Place(kind, dag, rest)
    return Place(_classify_run_file(rest, _PATTERNS), f"{dag}/{run}", rest)


def classify_own(path: str) -> Place:
    """
    Say what a file is in the folder of an ``overnight run``; anything else there is what it would be in a work folder.

    :param path: Below the folder.
    """
    kind = _classify_run_file(path, _OWN_PATTERNS)
    return Place(kind, OWN, path) if kind is not Kind.OTHER else classify(path)


def _classify_run_file(rest: str, patterns: Mapping[Kind, re.Pattern[str]]) -> Kind:
    for kind, pattern in patterns.items():
        if pattern.fullmatch(rest):
            return kind
    unfinished = _TEMPORARY.fullmatch(rest)
    if unfinished is not None:
        written = _classify_run_file(unfinished["folder"] + unfinished["name"], patterns)
        return Kind.TEMPORARY if written is not Kind.OTHER else Kind.OTHER
    return Kind.OTHER


def is_temporary(path: str) -> bool:
    """Whether a file is what a writer on a disk has not finished, or never will."""
    return _TEMPORARY.fullmatch(path) is not None


def find_period_end(rest: str) -> datetime | None:
    """
    Return when the period of a budget's record is over; ``None`` where the name is no period.

    :param rest: Its path below the folder of the records, such as ``2026-01/000017.json``.
    """
    found = _RECORD.fullmatch(rest)
    if found is None:
        return None
    name = found["period"]
    try:
        if "W" in name:
            last = date.fromisocalendar(int(name[:4]), int(name[6:]), 7)
        elif name.count("-") == 1:
            following = date.fromisoformat(f"{name}-01") + timedelta(days=32)
            last = following.replace(day=1) - timedelta(days=1)
        else:
            last = date.fromisoformat(name)
    except ValueError:
        return None
    return datetime(last.year, last.month, last.day, tzinfo=UTC) + timedelta(days=1)
