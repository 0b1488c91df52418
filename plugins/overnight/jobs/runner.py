"""A job from a script or a notebook, with the guarantees that an operator gives a task."""

from __future__ import annotations

import logging
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from typing import Any, Final, TypeVar

from overnight.jobs.attach import Attempt, Conclusion, Connect, Event, JobOwner
from overnight.jobs.client import JobClient
from overnight.jobs.model import JobStatus
from overnight.jobs.record import Ending, JobRecord
from overnight.jobs.record_store import RecordStore
from overnight.jobs.service import JobSpec
from overnight.jobs.wait import Logger
from overnight.jobs.wait_settings import WaitSettings

log = logging.getLogger("overnight.jobs")

SEARCHED: Final = timedelta(days=7)
"""How far back a job is looked for that is in no record."""

SpecT = TypeVar("SpecT", bound=JobSpec)


def begin(
    client: JobClient[Any],
    records: RecordStore,
    name: str,
    settings: WaitSettings,
    *,
    again: bool = False,
    connect: Connect | None = None,
    logger: Logger = log,
    on_event: Callable[[Event], None] = lambda _: None,
    on_status: Callable[[JobStatus], object] | None = None,
) -> Attempt[Any]:
    """
    Return a script's attempt at a job: its steps, for a script that has something to do between them.

    :param name: Of the job; this and the other parameters are those of :func:`run` and of
        :class:`~overnight.jobs.attach.Attempt`.
    """
    record = records.get()
    delivered = record is not None and record.ending in (Ending.ACCEPTED, Ending.HANDED_OVER)
    # To the record, doing it again is what clearing a finished task is.
    former = (record.ended_with or 0) if record is not None else 0
    owner = JobOwner(
        dag_id="script",
        task_id=name,
        run_id="",
        started_at=datetime.now(UTC) - SEARCHED,
        max_tries=former + 1 if again and delivered else former,
    )
    return Attempt(
        owner,
        client,
        records,
        settings=settings,
        log=logger,
        connect=connect,
        on_event=on_event,
        on_status=on_status,
    )


def run_attempt(
    attempt: Attempt[SpecT],
    spec: SpecT,
    prepare: Callable[[SpecT], SpecT] | None = None,
    record: JobRecord | None = None,
) -> Conclusion:
    """
    Carry out one attempt to its end, blocking; while the service's queue is full, it waits for room.

    :param record: What :meth:`~overnight.jobs.attach.Attempt.attach_or_submit` returned, if it was called before.
    """
    if record is None:
        record = attempt.attach_or_submit(spec, prepare)
    while True:
        while record.is_waiting:
            record = attempt.attach_or_submit(spec, prepare, attempt.wait_for_room(record))
        conclusion = attempt.conclude(record, attempt.wait(record))
        if conclusion.refusal is None:
            return conclusion
        record = attempt.queue_again(record, conclusion.refusal, spec, prepare)


def run(
    spec: SpecT,
    *,
    client: JobClient[Any],
    records: RecordStore,
    name: str,
    again: bool = False,
    prepare: Callable[[SpecT], SpecT] | None = None,
    connect: Connect | None = None,
    **wait: Any,
) -> Conclusion:
    """
    Run one job to its end, blocking, and return its references and counts.

    A process that is killed at any moment and started again goes on with its job: what it had submitted is in
    ``records`` or in the service's list, and is not paid for again. So does one that starts after a success.

    :param spec: What is asked of the service; validated.
    :param client: Of the service; the caller closes it.
    :param records: Where the job is remembered, such as a :class:`~overnight.jobs.record_store.FileRecordStore`.
    :param name: Tells this job from the others of the account; the same every time the script is started.
    :param again: Submit the work anew although it succeeded. Set it for one start only.
    :param prepare: As for :meth:`~overnight.jobs.attach.Attempt.attach_or_submit`.
    :param connect: As for :class:`~overnight.jobs.attach.Attempt`.
    :param wait: The fields of :class:`~overnight.jobs.wait_settings.WaitSettings` that matter here: ``poll_interval``,
        ``deadline``, ``patience``, ``cancel_on_deadline``, ``allowed_failures``, ``on_changed_spec``, ``budget``,
        ``queue_deadline``.
    :raises SpecError: a parameter or the input is wrong; nothing was submitted.
    :raises ServiceError: a call failed for good, or the service was silent for ``patience``; start again.
    :raises JobEndedError: the job ended badly; ``retryable`` says whether another start submits it again.
    """
    settings = WaitSettings.parse(**wait)
    attempt: Attempt[SpecT] = begin(client, records, name, settings, again=again, connect=connect)
    conclusion = run_attempt(attempt, spec, prepare)
    if conclusion.error is not None:
        raise conclusion.error
    return conclusion
