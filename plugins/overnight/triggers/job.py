"""The one trigger: poll any remote job from the triggerer, and cancel it when its task is killed."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Mapping
from contextlib import suppress
from typing import Any, Final

from airflow.triggers.base import BaseTrigger, TriggerEvent
from pydantic import ValidationError

from overnight.errors import MAX_TEXT, OvernightError, TransientError, shorten
from overnight.hooks.job import hook_for
from overnight.hooks.metrics import count_cancel_request
from overnight.jobs import JobRecord, JobRef, JobStatus
from overnight.jobs.model import VERSION
from overnight.jobs.poller import PollEnd, Poller, PollOutcome
from overnight.jobs.wait import CANCEL_SECONDS, describe_unexpected, finish, request_cancellation
from overnight.triggers.hold import hold_event
from overnight.triggers.shared import shared_poller

_cancelling: Final[set[asyncio.Task[None]]] = set()
"""The event loop itself keeps weak references only."""


class JobTrigger(BaseTrigger):
    """
    Poll a remote job until it ends, its deadline passes, or the service refuses to answer.

    It only polls and cancels. Results are read on a worker: a triggerer is shared by thousands of tasks.

    :param ref: The job, as ``JobRef.model_dump()`` gives it. The connection is looked up by its id here, so that no
        credential is ever in the trigger's row.
    :param poll_interval: Seconds between polls.
    :param deadline: Epoch seconds, counted from the submit, or ``None``. It is an argument of the trigger because a
        deferral's own timeout would bypass both the task's callback and :meth:`on_kill`.
    :param patience: Seconds without a usable answer after which the trigger gives up.
    :param cancel_on_deadline: Cancel the job when the deadline passes.
    :param cancel_on_kill: Cancel the job when a user marks the task failed or successful, or clears it.
    :param try_until: Epoch seconds at which this try of the task ends, for its ``execution_timeout``; the job runs on.
    :param context: Comes back in the event: what the task needs to go on. (A deferral's own ``kwargs`` would do, but
        ``dag.test()`` drops them.)
    :param echo: What ``context`` was called in version 1 of the stored models; triggers of that version still run.
    """

    def __init__(
        self,
        *,
        ref: dict[str, Any],
        poll_interval: float,
        deadline: float | None = None,
        patience: float = 3600.0,
        cancel_on_deadline: bool = True,
        cancel_on_kill: bool = True,
        try_until: float | None = None,
        context: dict[str, Any] | None = None,
        echo: dict[str, Any] | None = None,
    ) -> None:
        super().__init__()
        self.ref = JobRef.model_validate(ref)
        self.poll_interval = poll_interval
        self.deadline = deadline
        self.patience = patience
        self.cancel_on_deadline = cancel_on_deadline
        self.cancel_on_kill = cancel_on_kill
        self.try_until = try_until
        # Text, of which ten thousand take a fraction of the memory of as many nested dicts.
        self._context = json.dumps(context if context is not None else echo)

    @property
    def context(self) -> dict[str, Any] | None:
        """What comes back in the event."""
        return json.loads(self._context)  # type: ignore[no-any-return]

    def serialize(self) -> tuple[str, dict[str, Any]]:
        """Return the class path and the arguments that make this trigger again in another process."""
        return (
            f"{type(self).__module__}.{type(self).__qualname__}",
            {
                "ref": self.ref.model_dump(mode="json"),
                "poll_interval": self.poll_interval,
                "deadline": self.deadline,
                "patience": self.patience,
                "cancel_on_deadline": self.cancel_on_deadline,
                "cancel_on_kill": self.cancel_on_kill,
                "try_until": self.try_until,
                "context": self.context,
            },
        )

    async def run(self) -> AsyncIterator[TriggerEvent]:
        """
        Yield exactly one event, in the form that :func:`to_event` gives it.

        Whatever goes wrong becomes an event, too: a trigger that raises would fail its task without its own decision
        about the job.
        """
        started = asyncio.get_running_loop().time()
        try:
            outcome = await self._wait()
        except OvernightError as error:
            end = PollEnd.SILENT if error.retryable else PollEnd.REFUSED
            outcome = PollOutcome(end, message=shorten(str(error)))
        except Exception as error:
            self.log.exception("The wait for %s broke off.", self.ref)
            text = f"The wait for {self.ref} broke off: {describe_unexpected(error)}. A retry attaches to the job."
            outcome = PollOutcome(PollEnd.SILENT, message=text)
        await hold_event(self, started)
        yield TriggerEvent({**to_event(outcome), "context": self.context})

    async def _wait(self) -> PollOutcome:
        poller = Poller(
            self.ref,
            poll_interval=self.poll_interval,
            deadline=self.deadline,
            try_until=self.try_until,
            patience=self.patience,
            answered=_was_answered(self.context),
        )
        async with shared_poller(self.ref) as shared:
            # Only a 404 needs the record: ten thousand dumps are a fraction of ten thousand models.
            outcome = await shared.wait(poller, self.log, lambda: _parse_record(self.context))
            if outcome.end is not PollEnd.DEADLINE:
                return outcome
            client = await shared.client()
            ended: PollOutcome = await client.arun(
                finish(client.service, self.ref, outcome, cancel_on_deadline=self.cancel_on_deadline)
            )
        if ended.cancelled:
            count_cancel_request(self.ref)
        return ended

    async def on_kill(self) -> None:
        """Cancel the job. Airflow calls this for a user's action only, never for a restart."""
        if not self.cancel_on_kill:
            self.log.info("cancel_on_kill is off: %s is left running.", self.ref)
            return
        # Airflow's triggerer repeats its request about once a second until the trigger is gone, and each one would cut
        # off the call to the service. So that is a task of its own, which goes on even when nobody awaits it any more.
        cancelling = asyncio.create_task(self._cancel())
        _cancelling.add(cancelling)
        cancelling.add_done_callback(_cancelling.discard)
        while not cancelling.done():
            with suppress(asyncio.CancelledError):
                await asyncio.shield(cancelling)
        await cancelling

    async def _cancel(self) -> None:
        try:
            async with asyncio.timeout(CANCEL_SECONDS), await hook_for(self.ref).aclient() as client:
                self.log.info(await client.arun(request_cancellation(client.service, self.ref)))
            count_cancel_request(self.ref)
        except TimeoutError:
            self.log.warning("%s could not be cancelled in %.0f s and may still be running.", self.ref, CANCEL_SECONDS)
        except Exception as error:
            # The connection is gone, say. Nobody reads an exception of on_kill.
            text = describe_unexpected(error)
            self.log.warning("%s could not be cancelled and may still be running: %s", self.ref, text)


def to_event(outcome: PollOutcome) -> dict[str, Any]:
    """Return the end of a wait as the JSON of an event, its texts bounded."""
    return {
        "version": VERSION,
        "end": outcome.end.value,
        "status": outcome.status.model_dump(mode="json") if outcome.status is not None else None,
        "message": shorten(outcome.message, 2 * MAX_TEXT),
        "cancelled": outcome.cancelled,
        "answered": outcome.answered,
    }


def parse_event(event: Mapping[str, Any]) -> PollOutcome:
    """
    Read an event back, on a worker; unknown fields are ignored, and version 1 is read.

    :raises TransientError: it cannot be read, such as one of a later version; the job is looked at again.
    """
    status = event.get("status")
    try:
        return PollOutcome(
            PollEnd(str(event.get("end"))),
            JobStatus.model_validate(status) if status is not None else None,
            event.get("message", ""),
            event.get("cancelled", False),
            event.get("answered", status is not None),
        )
    except ValueError as error:
        raise _unreadable(event) from error


def get_context(event: Mapping[str, Any]) -> Any:
    """
    Return what the trigger was given as its ``context``; version 1 called it ``echo``.

    :raises TransientError: the event has none; the job is looked at again.
    """
    found = event.get("context", event.get("echo")) if isinstance(event, Mapping) else None
    if not isinstance(found, Mapping):
        raise _unreadable(event)
    return found


def _unreadable(event: object) -> TransientError:
    return TransientError(
        f"The trigger's event cannot be read: {shorten(repr(event), 200)}. Install the same version of this package "
        "on every worker and triggerer; a retry attaches to the job."
    )


def _was_answered(context: dict[str, Any] | None) -> bool:
    record = _parse_record(context)
    return record is not None and record.answered


def _parse_record(context: dict[str, Any] | None) -> JobRecord | None:
    """Return the record in an operator's context; ``None`` for a sensor's, which has the job's reference alone."""
    try:
        return JobRecord.model_validate(context)
    except ValidationError:
        return None
