"""
The decisions of a job's life, each written once and free of I/O.

An operator asks :func:`resume` and :func:`adopt` what to do before it submits anything, the trigger and the blocking
loop ask a :class:`Poller` after every poll, and :func:`evaluate` says what a job's end means for its task. The table
of all exits is in ``docs/lifecycle.md``.
"""

from __future__ import annotations

import random
from dataclasses import dataclass
from datetime import UTC, datetime
from enum import StrEnum
from typing import Literal

from overnight.errors import (
    ChangedSpecError,
    DeadlineExceededError,
    JobCancelledError,
    JobFailedError,
    JobLostError,
    OvernightError,
    RequestRefusedError,
    ServiceError,
    TransientError,
)
from overnight.jobs.allowance import Allowance
from overnight.jobs.model import FoundJob, JobCounts, JobRef, JobState, JobStatus
from overnight.jobs.record import Ending, JobRecord

OnChangedSpec = Literal["fail", "restart"]
"""What happens when a task's job runs with another spec: refuse, or cancel that job and submit anew."""


@dataclass(frozen=True)
class Attach:
    """Go on with a job that exists."""

    ref: JobRef
    generation: int
    submitted_at: datetime
    why: str


@dataclass(frozen=True)
class Submit:
    """Submit a new job, after cancelling ``abandon``."""

    generation: int
    why: str
    abandon: JobRef | None = None


def resume(
    record: JobRecord | None,
    seen: JobStatus | None,
    fingerprint: str,
    on_changed_spec: OnChangedSpec = "fail",
    *,
    max_tries: int = 0,
) -> Attach | Submit:
    """
    Decide what a task's next try does with the job it remembers.

    :param record: What the task state store holds; ``None`` when it holds nothing.
    :param seen: The job's status at the service just now; ``None`` when the service does not know it, or the
        record names no job.
    :param fingerprint: Of the spec this try would submit.
    :param max_tries: Airflow's, of the task: it tells a retry from a clearing.
    :raises ChangedSpecError: the job is live or has results, was submitted with another spec, and
        ``on_changed_spec`` is ``"fail"``.
    """
    if record is None:
        return Submit(0, "this task has submitted no job yet")
    if record.ref is None:
        return Submit(record.generation, "the last try ended before it recorded a job")
    following = record.generation + 1
    unacknowledged = record.is_unacknowledged(max_tries)
    if record.ending in (Ending.FINISHED, Ending.ACCEPTED) and not unacknowledged:
        return Submit(following, f"{record.ref} was finished with; this is a new run of the task")
    if seen is None:
        submitted = (record.submitted_at or record.intent_at).isoformat(timespec="seconds")
        return Submit(following, f"{record.ref}, submitted at {submitted}, is gone from the service")
    if seen.state.is_stopped:
        return Submit(following, f"{record.ref} was cancelled")
    if record.ending is Ending.HANDED_OVER and seen.state.is_terminal and not unacknowledged:
        return Submit(following, f"{record.ref} is over and was handed over; this is a new run of the task")
    if record.fingerprint != fingerprint:
        return _changed(record.ref, seen.state, following, on_changed_spec)
    return Attach(
        record.ref,
        record.generation,
        record.submitted_at or record.intent_at,
        f"{record.ref} was submitted by an earlier try and is {seen.state}",
    )


def adopt(
    found: FoundJob | None,
    generation: int,
    fingerprint: str,
    on_changed_spec: OnChangedSpec = "fail",
) -> Attach | Submit:
    """
    Decide about a job of this task that the service lists and the record does not.

    That is a job whose worker died between the service's answer and the record.

    :param found: The newest job of this task instance at the service.
    :param generation: The generation about to be submitted.
    :raises ChangedSpecError: as in :func:`resume`.
    """
    if found is None or found.generation < generation:
        return Submit(generation, "the service lists no such job either")
    following = found.generation + 1
    if found.state.is_stopped:
        return Submit(following, f"{found.ref} was cancelled")
    if found.fingerprint != fingerprint:
        return _changed(found.ref, found.state, following, on_changed_spec)
    return Attach(
        found.ref,
        found.generation,
        found.created_at,
        f"{found.ref} was created by an earlier try that died before recording it",
    )


def _changed(ref: JobRef, state: JobState, following: int, policy: OnChangedSpec) -> Submit:
    if policy == "fail":
        raise ChangedSpecError(
            f"This task instance already has {ref} ({state}), submitted with another spec (its input, parameters or "
            "connection changed since). Nothing was submitted. Restore the former spec to go on with that job, or "
            "set on_changed_spec='restart' to cancel it and submit the new one."
        )
    return Submit(following, f"{ref} was submitted with another spec", None if state.is_terminal else ref)


class PollEnd(StrEnum):
    """Why a watch is over."""

    ENDED = "ended"
    DEADLINE = "deadline"
    REFUSED = "refused"
    """The service refuses to say (401, 403, 400): no later poll would do better."""
    LOST = "lost"
    """The service does not know the job (any more)."""
    SILENT = "silent"
    """The service gave no usable answer for too long; the job was left alone."""


@dataclass(frozen=True)
class Wait:
    """Poll again after ``seconds``."""

    seconds: float


@dataclass(frozen=True)
class PollOutcome:
    """
    Stop polling: ``status`` is set when the job ended, ``message`` when it did not.

    :param cancelled: Whether the service took the cancellation of a job that missed its deadline.
    """

    end: PollEnd
    status: JobStatus | None = None
    message: str = ""
    cancelled: bool = False


class Poller:
    """
    Decide after each poll whether to go on, and when.

    One failing poll never ends a watch: transient errors back off, honour ``Retry-After``, and are borne for
    ``patience`` seconds in a row.

    :param ref: The job.
    :param poll_interval: Seconds between polls while all is well.
    :param deadline: Epoch seconds. Wall-clock, because a watch is carried from one triggerer process to another.
    :param patience: Seconds without any usable answer after which the watch gives up.
    """

    MAX_BACKOFF = 600.0

    def __init__(
        self, ref: JobRef, *, poll_interval: float, deadline: float | None = None, patience: float = 3600.0
    ) -> None:
        self.ref = ref
        self.poll_interval = poll_interval
        self.deadline = deadline
        self.patience = patience
        self._failures = 0
        self._failing_since: float | None = None

    def on_status(self, status: JobStatus, now: float) -> Wait | PollOutcome:
        """Decide after a poll that was answered. The end of the job counts even when the deadline has passed."""
        self._failures = 0
        self._failing_since = None
        if status.state.is_terminal:
            return PollOutcome(PollEnd.ENDED, status)
        return self._wait(max(self.poll_interval, status.poll_after or 0.0), now)

    def on_error(self, error: ServiceError, now: float) -> Wait | PollOutcome:
        """Decide after a poll that raised."""
        if isinstance(error, TransientError):
            self._failures += 1
            if self._failing_since is None:
                self._failing_since = now
            if now - self._failing_since >= self.patience:
                return PollOutcome(
                    PollEnd.SILENT,
                    message=f"No usable answer about {self.ref} for {self.patience:.0f} s: {error} The job was left "
                    "as it is; a retry attaches to it again.",
                )
            backoff = min(self.poll_interval * 2.0 ** min(self._failures - 1, 16), self.MAX_BACKOFF)
            return self._wait(max(backoff, error.retry_after or 0.0), now)
        if error.status in _GONE:
            return PollOutcome(PollEnd.LOST, message=str(error))
        return PollOutcome(PollEnd.REFUSED, message=str(error))

    def _wait(self, seconds: float, now: float) -> Wait | PollOutcome:
        if self.deadline is None:
            return Wait(_jittered(seconds))
        if now >= self.deadline:
            passed = datetime.fromtimestamp(self.deadline, tz=UTC).isoformat(timespec="seconds")
            return PollOutcome(PollEnd.DEADLINE, message=f"{self.ref} was not over by its deadline, {passed}.")
        # The last poll falls on the deadline itself, not one interval after it.
        return Wait(min(_jittered(seconds), self.deadline - now))


_GONE = frozenset({404, 410})


def _jittered(seconds: float) -> float:
    # A thousand mapped tasks deferred in the same second must not poll in the same second ever after.
    return seconds * random.uniform(0.9, 1.1)  # noqa: S311 - not for secrets


@dataclass(frozen=True)
class Verdict:
    """What the end of a watch means for the task: success when there is no ``error``."""

    error: OvernightError | None = None
    releases_job: bool = True
    """Whether the task has done with the job. If not, its next run attaches to the same job."""


def evaluate(ref: JobRef, over: PollOutcome, allowed: Allowance) -> Verdict:
    """
    Say what the end of a watch means.

    :param allowed: How many items may have failed, or be missing, in a PARTIAL or EXPIRED job.
    :return: An error of the class that says whether a retry can mend it: ``retryable`` is set on
        :class:`~overnight.errors.JobLostError`, :class:`~overnight.errors.DeadlineExceededError` and
        :class:`~overnight.errors.TransientError` only.
    """
    match over.end:
        case PollEnd.DEADLINE:
            return Verdict(DeadlineExceededError(over.message), releases_job=over.cancelled)
        case PollEnd.LOST:
            return Verdict(JobLostError(f"{over.message} {ref} is lost; a retry submits the work again."))
        case PollEnd.REFUSED:
            told = f"{over.message} {ref} was left as it is; mend that and clear the task."
            return Verdict(RequestRefusedError(told), releases_job=False)
        case PollEnd.SILENT:
            return Verdict(TransientError(over.message), releases_job=False)
    if over.status is None:
        raise ValueError(f"the watch of {ref} ended without a status")
    return _evaluate_status(ref, over.status, allowed)


def _evaluate_status(ref: JobRef, status: JobStatus, allowed: Allowance) -> Verdict:
    told = f"{ref} ended {status.describe()}."
    match status.state:
        case JobState.SUCCEEDED:
            return Verdict()
        case JobState.PARTIAL | JobState.EXPIRED if _within(status.counts, allowed):
            return Verdict()
        case JobState.PARTIAL:
            told += (
                f" That is more than allowed_failures={allowed} lets pass. The good results are paid for and there: "
                "raise allowed_failures and clear the task to go on with them."
            )
            return Verdict(JobFailedError(told), releases_job=False)
        case JobState.EXPIRED:
            return Verdict(JobLostError(f"{told} The service ran out of time; a retry submits the work again."))
        case JobState.CANCELLED:
            told += " It was not this task that cancelled it, so no retry submits it again; clear the task to do so."
            return Verdict(JobCancelledError(told))
        case JobState.FAILED if status.cause is not None and status.cause.is_retryable:
            return Verdict(JobLostError(f"{told} The fault is the service's; a retry submits the work again."))
        case JobState.FAILED:
            cause = f" The fault is in the {status.cause}." if status.cause else ""
            return Verdict(JobFailedError(f"{told}{cause} Mend that and clear the task."))
    raise ValueError(f"{ref} is {status.state}, which is not an end")


def _within(counts: JobCounts, allowed: Allowance) -> bool:
    if counts.total is None:
        return False
    failed = counts.total - counts.succeeded if counts.succeeded is not None else counts.failed
    return failed is not None and allowed.allows(failed, counts.total)
