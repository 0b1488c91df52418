"""Watching and cancelling a job, for any service and in either colour."""

from __future__ import annotations

import time
from dataclasses import replace
from typing import Any, Protocol

from overnight.errors import OvernightError, ServiceError
from overnight.jobs import JobRef, JobStatus
from overnight.jobs.lifecycle import PollEnd, Poller, PollOutcome, Wait
from overnight.jobs.service import Service
from overnight.transport.flow import Flow, Pause


class Logger(Protocol):
    """What :mod:`logging` and structlog, which Airflow uses, have in common."""

    def info(self, event: Any, /, *args: Any) -> Any: ...  # noqa: D102
    def warning(self, event: Any, /, *args: Any) -> Any: ...  # noqa: D102


def wait_for_end(
    service: Service[Any],
    ref: JobRef,
    *,
    poll_interval: float,
    deadline: float | None,
    patience: float,
    cancel_on_deadline: bool,
    log: Logger,
) -> Flow[PollOutcome]:
    """
    Look at a job until it ends, its deadline passes, or nobody answers; then say which.

    :param poll_interval: Seconds between looks.
    :param deadline: Epoch seconds, or ``None`` for none.
    :param patience: Seconds without a usable answer after which to give up.
    :param cancel_on_deadline: Cancel the job when the deadline passes.
    :param log: Gets a line for every look.
    """
    poller = Poller(ref, poll_interval=poll_interval, deadline=deadline, patience=patience)
    while True:
        step = yield from poll_once(service, ref, poller, log)
        if isinstance(step, Wait):
            yield Pause(step.seconds)
            continue
        if step.end is PollEnd.DEADLINE and cancel_on_deadline:
            stopped, told = yield from _ask(service, ref)
            if stopped is not None and stopped.state.is_terminal and not stopped.state.is_stopped:
                # It ended between the last look and the cancellation, and is paid for.
                return PollOutcome(PollEnd.ENDED, stopped)
            return replace(step, message=f"{step.message} {told}", cancelled=stopped is not None)
        return step


def poll_once(service: Service[Any], ref: JobRef, poller: Poller, log: Logger) -> Flow[Wait | PollOutcome]:
    """Look at a job once, and let its keeper decide; a failing look is the keeper's to bear."""
    try:
        status = yield from service.status(ref)
    except ServiceError as error:
        log.warning("Looking at %s failed: %s", ref, error)
        return poller.on_error(error, time.time())
    log.info("%s is %s.", ref, status.describe())
    return poller.on_status(status, time.time())


def request_cancellation(service: Service[Any], ref: JobRef) -> Flow[str]:
    """Ask for a job's end and tell what came of it; a refusal is told, not raised."""
    _, told = yield from _ask(service, ref)
    return told


def _ask(service: Service[Any], ref: JobRef) -> Flow[tuple[JobStatus | None, str]]:
    try:
        status = yield from service.cancel(ref)
    except OvernightError as error:
        return None, f"{ref} could not be cancelled and may still be running: {error}"
    if status.state.is_terminal and not status.state.is_stopped:
        return status, f"{ref} had ended before it could be cancelled: {status.describe()}."
    return status, f"Asked for the cancellation of {ref}; it is {status.describe()}."
