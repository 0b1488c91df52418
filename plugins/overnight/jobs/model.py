"""
What every service's answers are parsed into: states, counts, errors, references.

These are written to Airflow's database (XComs, triggers, the task state store) and read by later releases, so the
models ignore fields that they do not know, and read what earlier versions wrote.
"""

from __future__ import annotations

import ast
import contextlib
from collections.abc import Iterable, Mapping
from datetime import datetime
from enum import StrEnum
from typing import Annotated, Any, ClassVar, Final, Self

import orjson
from pydantic import AfterValidator, BaseModel, BeforeValidator, ConfigDict, Field, ValidationError, model_validator

from overnight.errors import MAX_TEXT, SpecError, shorten
from overnight.jobs.identity import JobKey

VERSION: Final = 2
"""The version of the stored models' JSON. Version 1 had no such field; some of its field names were others."""
MAX_ERRORS: Final = 20
"""How many errors, and how many warnings, a status keeps: it travels in a trigger's event and an XCom."""


def _bounded(text: object) -> object:
    return shorten(text, MAX_TEXT) if isinstance(text, str) else text


Text = Annotated[str, BeforeValidator(_bounded)]
"""A text that a service wrote, cut at :data:`~overnight.errors.MAX_TEXT`."""


class JobState(StrEnum):
    """The state of a remote batch job, the same for all services."""

    QUEUED = "queued"
    RUNNING = "running"
    CANCELLING = "cancelling"
    SUCCEEDED = "succeeded"
    PARTIAL = "partial"
    """Over, with results for some of its items only. ``allowed_failures`` decides what that means."""
    FAILED = "failed"
    CANCELLED = "cancelled"
    EXPIRED = "expired"

    @property
    def is_terminal(self) -> bool:
        """Whether the service will not change this state any more."""
        return self not in _LIVE

    @property
    def is_stopped(self) -> bool:
        """Whether somebody asked for the end of the job, and it has come or is coming."""
        return self in (JobState.CANCELLING, JobState.CANCELLED)


_LIVE = frozenset({JobState.QUEUED, JobState.RUNNING, JobState.CANCELLING})


class FailureCause(StrEnum):
    """Why a job failed, by who can mend it. Only a failure of the *service* is worth a retry as it stands."""

    INPUT = "input"
    CREDENTIALS = "credentials"
    LIMITS = "limits"
    SERVICE = "service"

    @property
    def is_retryable(self) -> bool:
        """Whether the very same job may succeed when it is submitted again."""
        return self is FailureCause.SERVICE


class _Part(BaseModel):
    model_config = ConfigDict(frozen=True, extra="ignore")


class Stored(_Part):
    """A model that outlives the process which wrote it: it ignores unknown fields and reads older versions."""

    version: int = VERSION
    """Of the JSON that this is written as; what is read is converted to the present one."""

    RENAMED: ClassVar[Mapping[str, str]] = {}
    """Names of fields in version 1, and what they are called now."""

    @model_validator(mode="before")
    @classmethod
    def _convert(cls, value: Any) -> Any:
        if not isinstance(value, Mapping):
            return value
        present = {name: item for name, item in value.items() if name not in cls.RENAMED}
        earlier = {cls.RENAMED[name]: item for name, item in value.items() if name in cls.RENAMED}
        return earlier | present | {"version": VERSION}


class JobRef(Stored):
    """
    What the service calls a job, and through which connection it is reached.

    This is what travels by XCom and in a serialized trigger: never the payload, never a secret.
    """

    service: str = Field(min_length=1)
    id: str = Field(min_length=1)
    conn_id: str = Field(min_length=1)

    def __str__(self) -> str:
        return f"{self.service} job {self.id}"

    @classmethod
    def read(cls, value: object) -> Self:
        """
        Read a reference from whatever an XCom, a template or a user hands over.

        :param value: A reference, its dump, an operator's XCom (which has it under ``ref``), or any of these as text: a
            rendered template is the text of a Python dict, a command line has JSON.
        :raises SpecError: it is none of these.
        """
        if isinstance(value, cls):
            return value
        if isinstance(value, str):
            try:
                value = ast.literal_eval(value)
            except (ValueError, SyntaxError):
                # JSON with null or true in it is not a Python literal.
                with contextlib.suppress(orjson.JSONDecodeError):
                    value = orjson.loads(str(value))
        if isinstance(value, Mapping):
            try:
                return cls.model_validate(value.get("ref", value))
            except ValidationError:
                pass
        raise SpecError(
            f"{shorten(repr(value))} is not a job. Give the XCom of the task that submitted it (its `output`), or "
            "{'service': …, 'id': …, 'conn_id': …}."
        )


class JobCounts(_Part):
    """How many items (lines, files, records) a job has; ``None`` where the service does not say."""

    total: int | None = None
    succeeded: int | None = None
    failed: int | None = None


class JobError(_Part):
    """One error as the service words it; ``line`` counts from 1 in the input."""

    code: Text | None = None
    message: Text
    param: Text | None = None
    line: int | None = None

    def __str__(self) -> str:
        where = f"line {self.line}: " if self.line is not None else ""
        code = f"[{self.code}] " if self.code else ""
        return f"{where}{code}{self.message}"


class JobStatus(Stored):
    """A remote job's state at one moment, as its service answered a poll."""

    RENAMED: ClassVar[Mapping[str, str]] = {"blame": "cause", "results_lapse_at": "results_expire_at"}

    state: JobState
    raw: Text
    """The service's own word for the state."""
    counts: JobCounts = JobCounts()
    progress: float | None = None
    """Share of the items that are done, 0 to 1."""
    errors: Annotated[tuple[JobError, ...], AfterValidator(lambda errors: errors[:MAX_ERRORS])] = ()
    """The first :data:`MAX_ERRORS` of them."""
    cause: FailureCause | None = None
    """Set when the job FAILED and the service's answer says why."""
    results_expire_at: datetime | None = None
    """When the service deletes the results."""
    warnings: Annotated[tuple[Text, ...], AfterValidator(lambda warnings: warnings[:MAX_ERRORS])] = ()
    """What the service says of the job that is no error."""
    poll_after: float | None = None
    """Seconds after which the service wants to be asked again."""

    def get_share_done(self) -> float | None:
        """Return the share of the items that are over, 0 to 1; ``None`` where the service says nothing of it."""
        if self.counts.total:
            return ((self.counts.succeeded or 0) + (self.counts.failed or 0)) / self.counts.total
        return self.progress

    def describe(self) -> str:
        """One line for a log: the state, the service's word and what is known of the items."""
        parts = [f"{self.state} ({self.raw})" if self.raw != self.state else str(self.state)]
        if self.counts.total is not None:
            done = (self.counts.succeeded or 0) + (self.counts.failed or 0)
            parts.append(f"{done}/{self.counts.total} items")
        elif self.progress is not None and not self.state.is_terminal:
            parts.append(f"{self.progress:.0%} done")
        if self.counts.failed:
            parts.append(f"{self.counts.failed} failed")
        parts += [str(error) for error in self.errors[:3]]
        if self.warnings:
            parts.append(f"{len(self.warnings)} warnings, the first: {self.warnings[0]}")
        return ", ".join(parts)


class FoundJob(Stored):
    """A job that a service lists and whose tags say that it is this task instance's."""

    ref: JobRef
    generation: int
    fingerprint: str
    created_at: datetime
    state: JobState

    @classmethod
    def from_name(cls, name: object, key: JobKey, *, ref: JobRef, created_at: datetime, state: JobState) -> Self | None:
        """
        Read generation and fingerprint from a listed job's name.

        :param name: What the service says where a job of ours has :attr:`JobKey.name`; anything at all.
        :return: ``None`` when the job is somebody else's, or another task instance's than ``key``'s.
        """
        parts = JobKey.parse_name(name) if isinstance(name, str) else None
        if parts is None or parts.tag != key.tag:
            return None
        return cls(
            ref=ref,
            generation=parts.generation,
            fingerprint=parts.fingerprint,
            created_at=created_at,
            state=state,
        )

    def is_for(self, key: JobKey) -> bool:
        """Whether this is the very job that ``key`` names: the same generation and the same spec."""
        return (self.generation, self.fingerprint) == (key.generation, key.fingerprint)

    @property
    def is_live(self) -> bool:
        """Whether the job may still end with results, and nobody asked for its cancellation."""
        return not self.state.is_terminal and not self.state.is_stopped


class ListedOwnJob(Stored):
    """
    A job of ours that a service lists, whichever task instance's it is.

    :param name: Ours, as :attr:`~overnight.jobs.JobKey.name` makes it.
    :param created_at: ``None`` where the service does not say.
    :param task: The Dag, task and run, where the list has them in words.
    :param status: As far as the list says it; what became of the items of a job that is over it may not say.
    """

    ref: JobRef
    name: str
    created_at: datetime | None = None
    task: Text = ""
    status: JobStatus


def choose_found(jobs: Iterable[FoundJob], key: JobKey) -> FoundJob | None:
    """
    Return the one of a task instance's listed jobs that matters to its next try; ``None`` when there is none.

    That is the newest of the generation of ``key`` or a later one; else an earlier one that is still live, since it is
    paid for and has yet to deliver; else the newest.
    """

    def rank(job: FoundJob) -> tuple[bool, bool, int, bool, datetime]:
        present = job.generation >= key.generation
        return present, job.is_live and not present, job.generation, job.fingerprint == key.fingerprint, job.created_at

    return max(jobs, key=rank, default=None)


class ResultFile(_Part):
    """One file of results, as a URI that :mod:`overnight.ingest` can read."""

    kind: str
    """``output``, ``error`` or ``input``."""
    uri: str


class ResultManifest(Stored):
    """Where a job's results are: what an XCom carries in their place."""

    ref: JobRef
    files: tuple[ResultFile, ...] = ()
    counts: JobCounts = JobCounts()
    detail: Mapping[str, Any] = Field(default_factory=dict)

    def uris(self, kind: str) -> list[str]:
        """The URIs of one kind, in the service's order."""
        return [file.uri for file in self.files if file.kind == kind]
