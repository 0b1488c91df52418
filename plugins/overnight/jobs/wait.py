"""Polling and cancelling a job, for any service; each flow runs on a worker and on a triggerer's event loop."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any, Final, Protocol

from pydantic import ValidationError

from overnight.errors import (
    NotFoundError,
    OvernightError,
    RequestRefusedError,
    ServiceError,
    UnavailableError,
    UnsupportedError,
    shorten,
)
from overnight.jobs.model import FoundJob, JobRef, JobStatus
from overnight.jobs.poller import PollEnd, Poller, PollOutcome, Wait
from overnight.jobs.record import JobRecord
from overnight.jobs.service import Service
from overnight.transport.flow import Flow, Pause, bound
from overnight.validation import describe_faults

CONFIRM_WAITS: Final = (2.0, 8.0, 20.0)
"""Seconds between the polls that confirm a 404: a service's replicas, caches and gateways may lag that long."""
CANCEL_SECONDS: Final = 25.0
"""How long a killed task's job is asked to end; less than Airflow's own ``[triggerer] on_kill_timeout``, 30."""


class Logger(Protocol):
    """What :mod:`logging` and structlog, which Airflow uses, have in common."""

    def info(self, event: Any, /, *args: Any) -> Any: ...  # noqa: D102
    def warning(self, event: Any, /, *args: Any) -> Any: ...  # noqa: D102


@dataclass
class Lines:
    """
    How many more lines a round over many jobs may write about their states and failed polls.

    A triggerer's supervisor reads 4 KiB of its triggers' logs, some nine lines, per pass over all its queries
    (Airflow 3.3, ``make_buffered_socket_reader``), and the triggers stand still meanwhile. What is not written in one
    round is still news in the next.
    """

    left: int


def wait_for_end(
    service: Service[Any],
    ref: JobRef,
    *,
    poll_interval: float,
    deadline: float | None,
    patience: float,
    cancel_on_deadline: bool,
    log: Logger,
    try_until: float | None = None,
    record: JobRecord | None = None,
    on_answer: Callable[[], object] | None = None,
    on_status: Callable[[JobStatus], object] | None = None,
) -> Flow[PollOutcome]:
    """
    Poll a job until it ends, its deadline passes, or nobody answers; then say which.

    :param poll_interval: Seconds between polls.
    :param deadline: Epoch seconds, or ``None`` for none.
    :param patience: Seconds without a usable answer after which to give up.
    :param cancel_on_deadline: Cancel the job when the deadline passes.
    :param log: Gets a line when the state changed or a tenth more is done, and one an hour.
    :param try_until: Epoch seconds at which this try of the task ends; the job is left alone.
    :param record: What the task remembers of the job; its key is what the service's list is asked for.
    :param on_answer: Called after the first poll that was answered.
    :param on_status: Called with each answer.
    """
    poller = Poller(
        ref,
        poll_interval=poll_interval,
        deadline=deadline,
        try_until=try_until,
        patience=patience,
        answered=record is not None and record.answered,
    )
    reported = poller.answered
    while True:
        step = yield from poll_once(service, ref, poller, log, record, on_status=on_status)
        if poller.answered and not reported and on_answer is not None:
            on_answer()
        reported = poller.answered
        if isinstance(step, Wait):
            yield Pause(step.seconds)
            continue
        return (yield from finish(service, ref, step, cancel_on_deadline=cancel_on_deadline))


def finish(service: Service[Any], ref: JobRef, outcome: PollOutcome, *, cancel_on_deadline: bool) -> Flow[PollOutcome]:
    """Cancel a job whose deadline passed, if it is to be; return what the task learns of the end of the polling."""
    if outcome.end is not PollEnd.DEADLINE or not cancel_on_deadline:
        return outcome
    stopped, message = yield from _cancel(service, ref)
    if stopped is not None and stopped.state.is_terminal and not stopped.state.is_stopped:
        # It ended between the last poll and the cancellation, and is paid for.
        return PollOutcome(PollEnd.ENDED, stopped, answered=True)
    return replace(outcome, message=f"{outcome.message} {message}", cancelled=stopped is not None)


def poll_once(
    service: Service[Any],
    ref: JobRef,
    poller: Poller,
    log: Logger,
    record: JobRecord | None = None,
    *,
    on_status: Callable[[JobStatus], object] | None = None,
) -> Flow[Wait | PollOutcome]:
    """Poll a job once and let its poller decide; whatever a poll raises is the poller's to tolerate or not."""
    try:
        status = yield from bound(poll(service, ref, log, record), poller.get_seconds_left(time.time()))
    except Exception as error:
        return take_error(poller, to_service_error(ref, error), log)
    if on_status is not None:
        on_status(status)
    return take_status(poller, status, log)


def take_status(poller: Poller, status: JobStatus, log: Logger, lines: Lines | None = None) -> Wait | PollOutcome:
    """
    Let a poller decide about an answer, and log what changed much, or an hour without that.

    :param lines: What may be logged; ``None``: no limit. The end of a job is logged in any case.
    """
    now = time.time()
    if (lines is None or status.state.is_terminal or lines.left > 0) and poller.is_news(status, now):
        if lines is not None:
            lines.left -= 1
        log.info("%s is %s.", poller.ref, status.describe())
    stalled = poller.get_stall(status, now)
    if stalled is not None:
        log.warning(
            "%s has not moved for %.1f hours: no change of its state or counts. Look at it at the service; the "
            "deadline is what ends the wait.",
            poller.ref,
            stalled / 3600,
        )
    return poller.on_status(status, now)


def take_error(poller: Poller, error: ServiceError, log: Logger, lines: Lines | None = None) -> Wait | PollOutcome:
    """
    Let a poller decide about a poll that failed, and log another kind of failure, or an hour of the same.

    :param lines: What may be logged; ``None``: no limit.
    """
    now = time.time()
    if (lines is None or lines.left > 0) and poller.is_error_news(error, now):
        if lines is not None:
            lines.left -= 1
        log.warning("The poll of %s failed: %s", poller.ref, error)
    return poller.on_error(error, now)


def to_service_error(ref: JobRef, error: Exception) -> ServiceError:
    """
    Return what a poll raised as an error that a poller understands.

    An answer that the service's parser did not foresee must not end a wait for something that is paid for.
    """
    if isinstance(error, ServiceError):
        return error
    if isinstance(error, OvernightError):
        return RequestRefusedError(str(error))
    return UnavailableError(f"The answer about {ref} could not be read: {describe_unexpected(error)}.")


def poll(
    service: Service[Any], ref: JobRef, log: Logger | None = None, record: JobRecord | None = None
) -> Flow[JobStatus]:
    """
    Return a job's status; a 404 is believed only when it repeats and the service's list does not have the job either.

    :param record: Has the key that the list is asked for; without one the list is left out.
    :raises NotFoundError: the service does not know the job.
    :raises RequestRefusedError: neither the job nor the list is there, so the address is wrong.
    :raises UnavailableError: the list has the job, and its own address says that it is not there.
    """
    waits = iter(CONFIRM_WAITS)
    while True:
        try:
            return (yield from service.status(ref))
        except NotFoundError as error:
            missing = error
        found = yield from _find_listed(service, ref, record)
        if found is not None:
            raise UnavailableError(
                f"The service lists {ref} as {found.state} and answers 404 when it is asked for that job alone.",
                status=missing.status,
            )
        seconds = next(waits, None)
        if seconds is None:
            raise missing
        if log is not None:
            log.warning("The service does not know %s; asking again in %.0f s. %s", ref, seconds, missing)
        yield Pause(seconds)


def request_cancellation(service: Service[Any], ref: JobRef) -> Flow[str]:
    """Ask for a job's end and describe what came of it; a refusal is described, not raised."""
    _, message = yield from _cancel(service, ref)
    return message


def describe_unexpected(error: BaseException) -> str:
    """Return one bounded line for an exception that is none of this package's: its type and its message."""
    if isinstance(error, ValidationError):
        # pydantic's own text quotes the input, which may be the whole answer.
        return shorten(describe_faults(error), 500)
    return shorten(f"{type(error).__name__}: {error}", 500)


def _find_listed(service: Service[Any], ref: JobRef, record: JobRecord | None) -> Flow[FoundJob | None]:
    if record is None or record.key is None:
        return None
    try:
        found = yield from service.find(record.key, record.intent_at, record)
    except NotFoundError as error:
        raise RequestRefusedError(
            f"The service knows neither {ref} nor its list of jobs, so the connection's address is wrong: {error}",
            status=error.status,
        ) from error
    except (RequestRefusedError, UnsupportedError):
        # It has no list, or none for this job; the job's own address has to do.
        return None
    return found if found is not None and found.ref == ref else None


def _cancel(service: Service[Any], ref: JobRef) -> Flow[tuple[JobStatus | None, str]]:
    try:
        status = yield from service.cancel(ref)
    except OvernightError as error:
        return None, f"{ref} could not be cancelled and may still be running: {error}"
    except Exception as error:
        return None, f"{ref} may not be cancelled; the answer could not be read: {describe_unexpected(error)}."
    if status.state.is_terminal and not status.state.is_stopped:
        return status, f"{ref} had ended before it could be cancelled: {status.describe()}."
    return status, f"Asked for the cancellation of {ref}; it is {status.describe()}."
