"""The one trigger: watch any remote job from the triggerer, and cancel it when its task is killed."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Mapping
from contextlib import suppress
from typing import Any, Final

from airflow.triggers.base import BaseTrigger, TriggerEvent

from overnight.hooks.job import hook_for
from overnight.jobs import JobRef, JobStatus
from overnight.jobs.lifecycle import PollEnd, PollOutcome
from overnight.jobs.wait import request_cancellation, wait_for_end

ON_KILL_SECONDS: Final = 25.0
"""How long a killed task's job is asked to end; less than Airflow's own ``[triggerer] on_kill_timeout``, 30."""

_asking: Final[set[asyncio.Task[None]]] = set()
"""The event loop itself keeps weak references only."""


class JobTrigger(BaseTrigger):
    """
    Poll a remote job until it ends, its deadline passes, or the service refuses to answer.

    It only watches and cancels. Results are read on a worker: a triggerer is shared by thousands of tasks.

    :param ref: The job, as ``JobRef.model_dump()`` gives it. The connection is looked up by its id here, so that no
        credential is ever in the trigger's row.
    :param poll_interval: Seconds between polls.
    :param deadline: Epoch seconds, counted from the submit, or ``None``. It is an argument of the trigger because a
        deferral's own timeout would bypass both the task's callback and :meth:`on_kill`.
    :param patience: Seconds without a usable answer after which the trigger gives up.
    :param cancel_on_deadline: Cancel the job when the deadline passes.
    :param cancel_on_kill: Cancel the job when a user marks the task failed or successful, or clears it.
    :param echo: Comes back in the event. (A deferral's own ``kwargs`` would do, but ``dag.test()`` drops them.)
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
        echo: dict[str, Any] | None = None,
    ) -> None:
        super().__init__()
        self.ref = JobRef.model_validate(ref)
        self.poll_interval = poll_interval
        self.deadline = deadline
        self.patience = patience
        self.cancel_on_deadline = cancel_on_deadline
        self.cancel_on_kill = cancel_on_kill
        self.echo = echo

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
                "echo": self.echo,
            },
        )

    async def run(self) -> AsyncIterator[TriggerEvent]:
        """Yield exactly one event, in the form that :func:`to_event` gives it."""
        async with await hook_for(self.ref).aclient() as client:
            over = await client.arun(
                wait_for_end(
                    client.service,
                    self.ref,
                    poll_interval=self.poll_interval,
                    deadline=self.deadline,
                    patience=self.patience,
                    cancel_on_deadline=self.cancel_on_deadline,
                    log=self.log,
                )
            )
        yield TriggerEvent({**to_event(over), "echo": self.echo})

    async def on_kill(self) -> None:
        """Cancel the job. Airflow calls this for a user's action only, never for a restart."""
        if not self.cancel_on_kill:
            self.log.info("cancel_on_kill is off: %s is left running.", self.ref)
            return
        # Airflow's triggerer repeats its request about once a second until the trigger is gone, and each one would cut
        # off the call to the service. So that is a task of its own, which goes on even when nobody awaits it any more.
        asking = asyncio.create_task(self._cancel())
        _asking.add(asking)
        asking.add_done_callback(_asking.discard)
        while not asking.done():
            with suppress(asyncio.CancelledError):
                await asyncio.shield(asking)
        await asking

    async def _cancel(self) -> None:
        try:
            async with asyncio.timeout(ON_KILL_SECONDS), await hook_for(self.ref).aclient() as client:
                self.log.info(await client.arun(request_cancellation(client.service, self.ref)))
        except TimeoutError:
            self.log.warning("%s could not be cancelled in %.0f s and may still be running.", self.ref, ON_KILL_SECONDS)


def to_event(over: PollOutcome) -> dict[str, Any]:
    """Return the end of a watch as the JSON of an event."""
    return {
        "end": over.end.value,
        "status": over.status.model_dump(mode="json") if over.status is not None else None,
        "message": over.message,
        "cancelled": over.cancelled,
    }


def parse_event(event: Mapping[str, Any]) -> PollOutcome:
    """Read an event back, on a worker."""
    status = event["status"]
    return PollOutcome(
        PollEnd(event["end"]),
        JobStatus.model_validate(status) if status is not None else None,
        event["message"],
        event.get("cancelled", False),
    )
