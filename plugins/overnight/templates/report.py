"""What became of all the documents of a pipeline: its parts' load reports, added up."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, Final, Self

from pydantic import BaseModel, ConfigDict, computed_field

from overnight.costs.estimate import CostEstimate
from overnight.costs.usage_cost import AnswerUsage, UsageCost
from overnight.errors import shorten
from overnight.ingest.report.load_report import LoadReport
from overnight.ingest.report.mirror_report import MirrorReport
from overnight.jobs import JobRef, JobState, JobStatus, ResultManifest
from overnight.validation import parse_parameter

_MAX_TEXT = 500

COUNTS: Final = ("submitted", "reused", "indexed", "unchanged", "dropped", "rejected", "missing")
"""The numbers of a report that add up."""


class JobReport(BaseModel):
    """
    One job of a pipeline.

    :param id: What its service calls it; our name for it when it was never submitted, and its state is ``queued``.
    :param state: How it ended; ``None`` when it had not.
    :param items: How many items it had, ``succeeded`` and ``failed`` how many of them did, where its service says so.
    :param seconds: From its creation to its end, where its service says so.
    :param usage: What it used, by name: ``input``, ``output`` and ``total`` tokens, say. (Airflow hides the values of
        names with ``token`` in them.)
    :param former_rounds: How many rounds of the batch were submitted before this one, of which nothing is said here.
    :param queued_seconds: How long it waited at our side for room in its service's queue, and ``queued_reason`` why.
    :param error: The service's words about a job that did not succeed; our own about one that was never submitted.
    :param error_uris: The files with what the service says of each failed item.
    """

    model_config = ConfigDict(frozen=True)

    service: str
    id: str
    state: JobState | None = None
    model: str | None = None
    items: int | None = None
    succeeded: int | None = None
    failed: int | None = None
    seconds: float | None = None
    usage: dict[str, int] = {}
    former_rounds: int = 0
    queued_seconds: float | None = None
    queued_reason: str | None = None
    error: str | None = None
    error_uris: tuple[str, ...] = ()

    @classmethod
    def of(cls, outcome: Mapping[str, Any], queued: Mapping[str, Any] | None = None) -> Self:
        """
        Read the XComs of a job's task.

        :param queued: What it left about the job's wait for room, as :func:`overnight.hooks.outcome.build_queued`.
        """
        ref = parse_parameter(JobRef, outcome["ref"], "ref of a job's XCom")
        found, files = outcome.get("status"), outcome.get("results")
        status = parse_parameter(JobStatus, found, "status of a job's XCom") if found else None
        results = parse_parameter(ResultManifest, files, "results of a job's XCom") if files else None
        detail = results.detail if results is not None else {}
        model, seconds = detail.get("model"), detail.get("seconds")
        has_failed = status is not None and status.state is not JobState.SUCCEEDED
        return cls(
            service=ref.service,
            id=ref.id,
            state=status.state if status is not None else None,
            model=str(model) if model else None,
            items=status.counts.total if status is not None else None,
            succeeded=status.counts.succeeded if status is not None else None,
            failed=status.counts.failed if status is not None else None,
            seconds=float(seconds) if isinstance(seconds, int | float) else None,
            usage=_get_counts(detail.get("usage")),
            former_rounds=_get_count(outcome.get("former_rounds")),
            queued_seconds=queued["seconds"] if queued is not None else None,
            queued_reason=shorten(queued["reason"], _MAX_TEXT) if queued is not None else None,
            error=shorten(status.describe(), _MAX_TEXT) if status is not None and has_failed else None,
            error_uris=tuple(results.uris("error")) if results is not None and has_failed else (),
        )

    @classmethod
    def of_queued(cls, queued: Mapping[str, Any]) -> Self:
        """Read what the task of a job left that was never submitted, because there was no room for it."""
        return cls(
            service=queued["service"],
            id=queued["name"],
            state=JobState.QUEUED,
            former_rounds=_get_count(queued.get("former_rounds")),
            queued_seconds=queued["seconds"],
            error=shorten(f"{JobState.QUEUED}: {queued['reason']}", _MAX_TEXT),
        )

    @property
    def wait(self) -> str:
        """How long and why it waited here before it was submitted, in words; empty when it did not."""
        if self.queued_reason is None or self.queued_seconds is None:
            return ""
        return f"queued here for {self.queued_seconds:,.0f} s: {self.queued_reason}"


def _get_count(number: Any) -> int:
    return number if type(number) is int else 0


def _get_counts(usage: Any) -> dict[str, int]:
    # The manifest of another package's service may hold anything.
    found = usage.items() if isinstance(usage, Mapping) else ()
    return {str(name): value for name, value in found if type(value) is int}


class PartReport(BaseModel):
    """
    One part of a pipeline.

    :param submitted: Documents that were given to the service.
    :param reused: Documents that were not, since their answer was in the cache, or comes for another one's request.
    :param load: ``None`` when the part never got to its load; all its documents are missing then.
    :param accepted: Whether its load was a success.
    :param reused_usage: What the answers of ``reused`` were paid for with, as far as they were loaded.
    :param job: The job that made its results, where the part has one of its own.
    """

    model_config = ConfigDict(frozen=True)

    submitted: int
    reused: int = 0
    load: LoadReport | None = None
    accepted: bool = False
    reused_usage: tuple[AnswerUsage, ...] = ()
    job: JobReport | None = None

    @property
    def documents(self) -> int:
        """All its documents; of a part that does not say, those that its load found."""
        return max(self.submitted + self.reused, self.load.submitted if self.load is not None else 0)

    @property
    def unaccounted(self) -> int:
        """Documents of this part that no report speaks of."""
        return self.documents - (self.load.submitted if self.load is not None else 0)

    @property
    def reason(self) -> str:
        """Why its documents are unaccounted for, in a word to count by: the state of its job, or ``not_loaded``."""
        state = self.job.state if self.job is not None and self.load is None else None
        return f"job_{state}" if state not in (None, JobState.SUCCEEDED) else "not_loaded"


class Excluded(BaseModel):
    """
    Documents that no part has.

    :param uri: The file that names them.
    """

    model_config = ConfigDict(frozen=True, extra="ignore")

    count: int = 0
    uri: str | None = None


class PipelineReport(BaseModel):
    """
    The end of a pipeline. Always ``submitted + reused = indexed + unchanged + dropped + rejected + missing``.

    :param submitted: Documents that were given to the service, or could not be.
    :param reused: Documents that were not, since their answer was in the cache, or came for another one's request.
    :param unchanged: Documents that the index had already, as they are, and that were not written.
    :param repeated: Of ``reused``, those that got the answer of another document of this run.
    :param saved: What the answers of ``reused`` would have cost; ``None`` when there are none.
    :param estimate: What the jobs would cost at most, as it was said before they were submitted.
    :param cost: What they did cost, by the usage that the service says; ``None`` when nothing was submitted.
    :param refused: Why nothing was submitted, when the run's cost was not approved.
    :param not_sent: Of ``rejected``, those that were not sent to the service.
    :param without_result: Of ``missing``, those of inputs that the service gave no output for.
    :param seconds: Time spent loading, all parts together.
    :param reasons: How many documents were rejected or are missing, by code: those of the loads, ``not_sent``,
        ``without_result``, and for a part that was not loaded the state of its job (``job_failed``, ``job_partial`` …),
        ``not_approved``, or ``not_loaded``.
    :param jobs: The jobs whose results were loaded, or were to be.
    :param models: The models that they say they used.
    :param usage: What they used, added up, by name.
    :param mirror: What the comparison of the index with the whole source found, where there was one.
    :param failed_parts: Parts (counted from 0) that did not get to their load, or whose load failed.
    """

    model_config = ConfigDict(frozen=True)

    index: str = ""
    submitted: int
    reused: int = 0
    indexed: int
    unchanged: int = 0
    dropped: int = 0
    rejected: int
    missing: int
    repeated: int = 0
    saved: UsageCost | None = None
    estimate: CostEstimate | None = None
    cost: UsageCost | None = None
    refused: str = ""
    not_sent: int = 0
    without_result: int = 0
    bytes: int = 0
    seconds: float = 0.0
    reasons: dict[str, int] = {}
    dead_letter_uris: tuple[str, ...] = ()
    failed_parts: tuple[int, ...] = ()
    mirror: MirrorReport | None = None
    models: tuple[str, ...] = ()
    usage: dict[str, int] = {}
    jobs: tuple[JobReport, ...] = ()
    parts: tuple[PartReport, ...] = ()

    @classmethod
    def of(
        cls,
        parts: Sequence[PartReport],
        *,
        index: str = "",
        not_sent: Excluded | None = None,
        without_result: Excluded | None = None,
        job: JobReport | None = None,
        saved: UsageCost | None = None,
        mirror: MirrorReport | None = None,
        refused: str = "",
        estimate: CostEstimate | None = None,
        cost: UsageCost | None = None,
    ) -> Self:
        """
        Add up the parts.

        :param not_sent: Documents that were rejected before the parts were made; they count as rejected.
        :param without_result: Documents that the service gave no output for; they count as missing.
        :param job: The one job of all the parts, where they have none of their own.
        """
        unsent, absent = not_sent or Excluded(), without_result or Excluded()
        loads = [part.load for part in parts if part.load is not None]
        unaccounted = sum(part.unaccounted for part in parts)
        reasons = Counter({"not_sent": unsent.count, "without_result": absent.count})
        for load in loads:
            reasons.update(load.reasons)
        for part in parts:
            reasons["not_approved" if refused else part.reason] += part.unaccounted
        jobs = [part.job for part in parts if part.job is not None] or ([job] if job is not None else [])
        usage: Counter[str] = Counter()
        for one in jobs:
            usage.update(one.usage)
        files = [unsent.uri, absent.uri, *(load.dead_letter_uri for load in loads)]
        return cls(
            index=index or next((load.index for load in loads if load.index), ""),
            submitted=unsent.count + absent.count + sum(part.documents - part.reused for part in parts),
            reused=sum(part.reused for part in parts),
            indexed=sum(load.indexed for load in loads),
            unchanged=sum(load.unchanged for load in loads),
            dropped=sum(load.dropped for load in loads),
            rejected=unsent.count + sum(load.rejected for load in loads),
            missing=absent.count + sum(load.missing for load in loads) + unaccounted,
            repeated=sum(part.reused for part in parts if part.submitted),
            saved=saved,
            refused=refused,
            estimate=estimate,
            cost=cost,
            not_sent=unsent.count,
            without_result=absent.count,
            bytes=sum(load.bytes for load in loads),
            seconds=round(sum(load.seconds for load in loads), 3),
            reasons=dict(+reasons),
            dead_letter_uris=tuple(uri for uri in files if uri is not None),
            mirror=mirror,
            failed_parts=tuple(number for number, part in enumerate(parts) if not part.accepted),
            models=tuple(dict.fromkeys(one.model for one in jobs if one.model is not None)),
            usage=dict(usage),
            jobs=tuple(jobs),
            parts=tuple(parts),
        )

    @computed_field  # type: ignore[prop-decorator]
    @property
    def deleted(self) -> int:
        """Documents that the source no longer has and that were deleted; none of ``submitted``."""
        return self.mirror.deleted if self.mirror is not None else 0

    @computed_field  # type: ignore[prop-decorator]
    @property
    def in_index(self) -> int:
        """Documents of this run that the index has by this report: indexed, or unchanged."""
        return self.indexed + self.unchanged

    def _describe_costs(self) -> Iterator[str]:
        if self.estimate is not None:
            yield f"cost, estimated: {self.estimate.price}"
        for name in ("cost", "saved"):
            if (found := getattr(self, name)) is not None:
                yield f"{name}: {found}"

    def describe(self) -> Iterator[str]:
        """Yield the report in words, one number a line."""
        if self.index:
            yield f"index: {self.index}"
        if self.refused:
            yield f"nothing was submitted: {self.refused}"
        for name in COUNTS:
            yield f"{name}: {getattr(self, name):,}"
        if self.repeated:
            yield f"reused, from another document of this run: {self.repeated:,}"
        yield from self._describe_costs()
        for reason, count in sorted(self.reasons.items(), key=lambda item: -item[1]):
            yield f"  {reason}: {count:,}"
        if self.mirror is not None:
            yield from self.mirror.describe()
        yield f"bytes read: {self.bytes:,}"
        yield f"seconds loading: {self.seconds:,.1f}"
        yield f"parts: {len(self.parts):,}, of which {len(self.failed_parts):,} were not loaded"
        for model in self.models:
            yield f"model: {model}"
        for name, count in self.usage.items():
            yield f"usage, {name}: {count:,}"
        for job in self.jobs:
            seconds = f", {job.seconds:,.0f} s" if job.seconds is not None else ""
            yield f"job: {job.service} {job.id}, {job.error or job.state or 'not over'}{seconds}"
            if job.wait:
                yield f"  {job.wait}"
        for uri in self.dead_letter_uris:
            yield f"dead letters: {uri}"
