"""The words every service is translated into: states, counts, errors, references."""

from __future__ import annotations

import ast
import contextlib
from collections.abc import Mapping
from datetime import datetime
from enum import StrEnum
from typing import Any, Self

import orjson
from pydantic import BaseModel, ConfigDict, Field, ValidationError

from overnight.errors import SpecError
from overnight.jobs.identity import JobKey


class JobState(StrEnum):
    """The state of a remote batch job, in our words."""

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
    """Who can mend a failed job. Only what the *service* lost is worth a retry as it stands."""

    INPUT = "input"
    CREDENTIALS = "credentials"
    LIMITS = "limits"
    SERVICE = "service"

    @property
    def is_retryable(self) -> bool:
        """Whether the very same job may succeed when it is submitted again."""
        return self is FailureCause.SERVICE


class _Frozen(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class JobRef(_Frozen):
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
            f"{value!r} is not a job. Give the XCom of the task that submitted it (its `output`), or "
            "{'service': …, 'id': …, 'conn_id': …}."
        )


class JobCounts(_Frozen):
    """How many items (lines, files, records) a job has; ``None`` where the service does not say."""

    total: int | None = None
    succeeded: int | None = None
    failed: int | None = None


class JobError(_Frozen):
    """One error as the service words it; ``line`` counts from 1 in the input."""

    code: str | None = None
    message: str
    param: str | None = None
    line: int | None = None

    def __str__(self) -> str:
        where = f"line {self.line}: " if self.line is not None else ""
        code = f"[{self.code}] " if self.code else ""
        return f"{where}{code}{self.message}"


class JobStatus(_Frozen):
    """One look at a remote job."""

    state: JobState
    raw: str
    """The service's own word for the state."""
    counts: JobCounts = JobCounts()
    progress: float | None = None
    """Share of the items that are done, 0 to 1."""
    errors: tuple[JobError, ...] = ()
    cause: FailureCause | None = None
    """Set when the job FAILED and the service's answer says why."""
    results_expire_at: datetime | None = None
    """When the service deletes the results."""
    warnings: tuple[str, ...] = ()
    """What the service says of the job that is no error."""
    poll_after: float | None = None
    """Seconds after which the service wants to be asked again."""

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


class FoundJob(_Frozen):
    """A job of ours that a service listed, with what we had tagged it with."""

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


class ResultFile(_Frozen):
    """One file of results, as a URI that :mod:`overnight.ingest` can read."""

    kind: str
    """``output``, ``error`` or ``input``."""
    uri: str


class ResultManifest(_Frozen):
    """Where a job's results are. XCom carries this, the results stay where they are."""

    ref: JobRef
    files: tuple[ResultFile, ...] = ()
    counts: JobCounts = JobCounts()
    detail: Mapping[str, Any] = Field(default_factory=dict)

    def uris(self, kind: str) -> list[str]:
        """The URIs of one kind, in the service's order."""
        return [file.uri for file in self.files if file.kind == kind]
