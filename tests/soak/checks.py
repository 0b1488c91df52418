"""
The checks at the end of a soak: what the services and the index hold, against what was wanted.

Nothing here asks Airflow or the package whether all went well; a report is only compared with the other evidence.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True)
class Violation:
    """
    Something that must not be.

    :param run: The DAG run that it is about, if it is about one.
    """

    text: str
    run: str | None = None


@dataclass(frozen=True)
class WantedJob:
    """
    A job that there must be once.

    :param tag: The part of a job's name that is the task instance's own.
    """

    service: str
    tag: str
    run: str
    task: str


@dataclass(frozen=True)
class FoundJob:
    """A job as its service lists it."""

    service: str
    id: str
    tag: str | None
    state: str
    is_over: bool
    is_good: bool


def check_jobs(wanted: Sequence[WantedJob], found: Sequence[FoundJob]) -> list[Violation]:
    """Every wanted job is there once, ended well, and there is no other."""
    violations = []
    owners = {(job.service, job.tag): job for job in wanted}
    by_owner: dict[tuple[str, str | None], list[FoundJob]] = {}
    for job in found:
        owner = owners.get((job.service, job.tag or ""))
        run = owner.run if owner is not None else None
        by_owner.setdefault((job.service, job.tag), []).append(job)
        if owner is None:
            violations.append(Violation(f"{job.service}: {job.id} ({job.state}) is nobody's"))
        if not job.is_over:
            violations.append(Violation(f"{job.service}: {job.id} still runs ({job.state})", run))
        elif not job.is_good:
            violations.append(Violation(f"{job.service}: {job.id} ended {job.state}", run))
    for key, owner in owners.items():
        jobs = by_owner.get(key, [])
        if len(jobs) != 1:
            named = ", ".join(f"{job.id} ({job.state})" for job in jobs) or "none"
            text = f"{owner.service}: {owner.task} of {owner.run} wants 1 job and has {len(jobs)}: {named}"
            violations.append(Violation(text, owner.run))
    return violations


def check_creations(service: str, wanted: int, requests: Sequence[Mapping[str, Any]]) -> list[Violation]:
    """
    As many creating calls were carried out as jobs are wanted.

    :param requests: The creating ones of the emulator's log; a ``status`` is the API's own, also of an answer that was
        lost.
    """
    carried_out = sum(request["status"] == 200 for request in requests)
    if carried_out == wanted:
        return []
    return [Violation(f"{service}: {carried_out} creating calls were carried out and {wanted} jobs are wanted")]


def check_log(service: str, requests: Sequence[Mapping[str, Any]]) -> list[Violation]:
    """The emulator's log is whole: it forgets the oldest requests when there are too many."""
    if requests and requests[0]["number"] != 1:
        return [Violation(f"{service}: the log of requests begins with number {requests[0]['number']}")]
    return []


def check_documents(run: str, wanted: Mapping[str, str], indexed: Mapping[str, str]) -> list[Violation]:
    """The index holds the wanted ids with their texts, and no other."""
    violations = []
    for what, ids in (
        ("lacks", wanted.keys() - indexed.keys()),
        ("has beside what was wanted", indexed.keys() - wanted.keys()),
        ("has the wrong text for", {one for one in wanted.keys() & indexed.keys() if wanted[one] != indexed[one]}),
    ):
        if ids:
            violations.append(Violation(f"the index of {run} {what} {len(ids)} documents: {_name(ids)}", run))
    return violations


def check_report(
    run: str, report: Mapping[str, Any], stored: Mapping[str, Any], counts: Mapping[str, int]
) -> list[Violation]:
    """
    A report adds up, says what the other evidence says, and the stored one says the same.

    :param counts: ``submitted``, ``indexed``, ``dropped``, ``rejected`` and ``missing`` as they must be.
    """
    violations = []
    for source, each in (("XCom", report), ("report.json", stored)):
        said = {name: each.get(name) for name in counts}
        if said != counts:
            violations.append(Violation(f"the {source} of {run} says {said}; right is {dict(counts)}", run))
    outcomes = sum(int(report[name]) for name in ("indexed", "dropped", "rejected", "missing"))
    if report["submitted"] != outcomes:
        violations.append(Violation(f"the report of {run}: {report['submitted']} submitted are not {outcomes}", run))
    return violations


def check_chunks(run: str, files: Collection[str], chunks: Iterable[tuple[str, int, int]]) -> list[Violation]:
    """
    Every file is there with all its chunks, each once, and no other file.

    :param chunks: Of each: its file, its number, and of how many; -1 where a service does not say how many.
    """
    numbers: dict[str, list[int]] = {}
    totals: dict[str, set[int]] = {}
    for file, number, total in chunks:
        numbers.setdefault(file, []).append(number)
        totals.setdefault(file, set()).add(total)
    violations = []
    if numbers.keys() != set(files):
        other = numbers.keys() ^ set(files)
        violations.append(
            Violation(f"the index of {run} lacks, or has beside what was wanted, the files {_name(other)}", run)
        )
    for file, found in numbers.items():
        total = len(found) if totals[file] == {-1} else max(totals[file])
        if sorted(found) != list(range(total)):
            repeated = [number for number, times in Counter(found).items() if times > 1]
            text = f"the index of {run} has {len(found)} chunks of {file}, of {total}; twice: {repeated}"
            violations.append(Violation(text, run))
    return violations


def check_empty(run: str, files: Iterable[str], report: Mapping[str, Any]) -> list[Violation]:
    """
    The report of the cutting names the files that have no text, and no other.

    :param files: The addresses of those without text, few enough for all of them to be named.
    """
    wanted, said = sorted(files), (report["empty"], sorted(report["empty_ids"]))
    if said == (len(wanted), wanted):
        return []
    return [Violation(f"the chunks of {run} lack the text of {said}; without text are {wanted}", run)]


def _name(ids: Collection[str]) -> str:
    shown = sorted(ids)[:5]
    return ", ".join(shown) + (" …" if len(ids) > len(shown) else "")
