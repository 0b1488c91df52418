"""What a task's next try does with the job that its record, or the service's list, names. Free of I/O."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime

from overnight.errors import ChangedSpecError, RequestRefusedError
from overnight.jobs.choices import OnChangedSpec, OnClear
from overnight.jobs.model import FoundJob, JobRef, JobState, JobStatus
from overnight.jobs.record import Ending, JobRecord

_WITH_RESULTS = frozenset({JobState.SUCCEEDED, JobState.PARTIAL, JobState.EXPIRED})


@dataclass(frozen=True)
class Attach:
    """Go on with a job that exists; nothing is submitted or paid."""

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
    has_results: bool = False,
) -> Attach | Submit:
    """
    Decide what a task's next try does with the job on record.

    :param record: ``None`` when nothing is remembered.
    :param seen: The job's status at the service just now; ``None`` when the service does not know it, or the
        record names no job.
    :param fingerprint: Of the spec this try would submit.
    :param max_tries: Airflow's, of the task: it tells a retry from a clearing.
    :param has_results: Whether the job is one to be reused (:func:`is_reusable`), and its results are still there.
    :raises ChangedSpecError: the job is live or has results, was submitted with another spec, and
        ``on_changed_spec`` is ``"fail"``; for a live job also ``"restart_ended"``.
    :raises RequestRefusedError: the service does not know the job, and never answered a poll of it: the address or the
        account is the wrong one, and a new job would be lost in the same way.
    """
    if record is None:
        return Submit(0, "this task has submitted no job yet")
    if record.is_waiting:
        return Submit(record.generation, "its job has waited for room in the queue")
    if record.ref is None:
        return Submit(record.generation, "the last try ended before it recorded a job")
    following = record.generation + 1
    unacknowledged = record.is_unacknowledged(max_tries)
    if has_results and not unacknowledged:
        return Attach(
            record.ref,
            record.generation,
            record.submitted_at or record.intent_at,
            f"{record.ref} was finished with, and its results are still there; on_clear is 'reuse'",
        )
    if record.ending in (Ending.FINISHED, Ending.ACCEPTED) and not unacknowledged:
        return Submit(following, f"{record.ref} was finished with; this is a new run of the task")
    if seen is None and not record.answered and record.ending is None:
        raise RequestRefusedError(build_unknown_text(record.ref), status=404)
    if seen is None:
        submitted = (record.submitted_at or record.intent_at).isoformat(timespec="seconds")
        return Submit(following, f"{record.ref}, submitted at {submitted}, is gone from the service")
    if seen.state.is_stopped:
        return Submit(following, f"{record.ref} was cancelled")
    if record.ending is Ending.HANDED_OVER and seen.state.is_terminal and not unacknowledged:
        return Submit(following, f"{record.ref} is over and was handed over; this is a new run of the task")
    if record.fingerprint != fingerprint:
        return _handle_changed_spec(record.ref, seen.state, following, on_changed_spec)
    return Attach(
        record.ref,
        record.generation,
        record.submitted_at or record.intent_at,
        f"{record.ref} was submitted by an earlier try and is {seen.state}",
    )


def is_reusable(record: JobRecord | None, seen: JobStatus | None, fingerprint: str, on_clear: OnClear) -> bool:
    """
    Say whether a task that starts anew may go on with the results of the job that it finished with.

    A job that its task failed for is never one: its next run is to have another.

    :param seen: The job's status at the service just now.
    """
    return (
        on_clear == "reuse"
        and record is not None
        and record.ending in (Ending.ACCEPTED, Ending.HANDED_OVER)
        and record.fingerprint == fingerprint
        and seen is not None
        and seen.state in _WITH_RESULTS
    )


def adopt(
    found: FoundJob | None,
    generation: int,
    fingerprint: str,
    on_changed_spec: OnChangedSpec = "fail",
) -> Attach | Submit:
    """
    Decide about a job of this task that the service lists and the record does not name.

    That is a job whose worker died between the service's answer and the record, or an earlier one that a broken record,
    or a service that forgot its own task, left running.

    :param found: What :meth:`~overnight.jobs.service.Service.find` returned.
    :param generation: The generation about to be submitted.
    :raises ChangedSpecError: as in :func:`resume`.
    """
    if found is None:
        return Submit(generation, "the service lists no such job either")
    if found.generation < generation and not found.is_live:
        return Submit(generation, f"the service lists only {found.ref} of an earlier generation, which is over")
    following = max(found.generation + 1, generation)
    if found.state.is_stopped:
        return Submit(following, f"{found.ref} was cancelled")
    if found.fingerprint != fingerprint:
        return _handle_changed_spec(found.ref, found.state, following, on_changed_spec)
    return Attach(
        found.ref,
        found.generation,
        found.created_at,
        f"{found.ref} was created by an earlier try that died before recording it"
        if found.generation >= generation
        else f"{found.ref} of an earlier generation is not on record, and {found.state}",
    )


def build_unknown_text(ref: JobRef) -> str:
    """Return what a task says of a job that its service never knew."""
    return (
        f"The service does not know {ref} and has never answered a poll of it, so its connection {ref.conn_id!r} "
        "probably leads to another address or account than the one that the job was submitted to. Nothing new was "
        "submitted: it would be paid for and lost in the same way. Correct the connection and clear the task; that "
        "submits the work again."
    )


def _handle_changed_spec(ref: JobRef, state: JobState, following: int, policy: OnChangedSpec) -> Submit:
    if policy == "fail" or (policy == "restart_ended" and not state.is_terminal):
        raise ChangedSpecError(
            f"This task instance already has {ref} ({state}), submitted with another spec (its input, parameters or "
            "connection changed since). Nothing was submitted. Restore the former spec to go on with that job, or "
            "set on_changed_spec='restart' to cancel it and submit the new one."
        )
    return Submit(following, f"{ref} was submitted with another spec", None if state.is_terminal else ref)
