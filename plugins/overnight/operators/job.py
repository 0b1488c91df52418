"""The one operator base: attach or submit, wait, judge, for any service."""

from __future__ import annotations

import time
from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any, ClassVar, Generic, TypeVar

from airflow.sdk import BaseOperator, conf

from overnight.errors import NotFoundError
from overnight.hooks.job import JobHook, hook_for
from overnight.hooks.outcome import build_outcome, failing_for_good
from overnight.jobs import JobKey, JobRef, JobStatus
from overnight.jobs.allowance import Allowance
from overnight.jobs.client import JobClient
from overnight.jobs.lifecycle import OnChangedSpec, PollOutcome, Submit, adopt, evaluate, resume
from overnight.jobs.record import Ending, JobRecord
from overnight.jobs.service import JobSpec
from overnight.jobs.wait import request_cancellation, wait_for_end
from overnight.links.job import CONSOLE_URL_KEY, JobLink
from overnight.triggers.job import ON_KILL_SECONDS, JobTrigger, parse_event

if TYPE_CHECKING:
    from airflow.sdk import Context

SpecT = TypeVar("SpecT", bound=JobSpec)

RECORD = "overnight_job"
"""The key of the :class:`~overnight.jobs.lifecycle.JobRecord` in Airflow's task state store."""


class JobOperator(BaseOperator, ABC, Generic[SpecT]):
    """
    Run one remote job per task instance, whatever becomes of the workers in between.

    A service's operator declares its parameters and builds its spec; everything else is here. Every try first asks
    whether its job is already there: the task state store's record, verified at the service, then the service's own
    listing. Only then it submits. The XCom is ``{"ref": …, "status": …, "results": …}``: references and counts, never
    the results themselves.

    :param conn_id: The connection of the service.
    :param wait_for_completion: ``False`` returns as soon as the job is submitted; wait for it with a
        :class:`~overnight.sensors.job.BatchJobSensor`.
    :param deferrable: Wait in the triggerer and free the worker.
    :param durable: ``False`` forgets the job between tries: every try submits and pays anew.
    :param poll_interval: Seconds between looks at the job.
    :param deadline: How long the job may take, from the submit, in wall-clock time that goes on while triggerers and
        workers restart: seconds or a timedelta. ``None`` waits for ever. After it the task fails, and a retry submits
        a new job.
    :param patience: Seconds without any usable answer about the job after which the task gives up; a retry attaches
        to the job again.
    :param cancel_on_deadline: Cancel the job when the deadline passes. Otherwise it runs on.
    :param cancel_on_kill: Cancel the job when the task is killed, marked, or cleared while it waits.
    :param allowed_failures: How many of the job's items may fail: a count (``10``), a ratio (``0.05``) or a percentage
        (``"5%"``).
    :param on_changed_spec: When a try finds the task's job running with another spec: ``"fail"``, or
        ``"restart"``, which cancels it and submits the new one.
    """

    template_fields: Sequence[str] = ("conn_id", "allowed_failures", "poll_interval", "deadline")
    operator_extra_links = (JobLink(),)
    hook_class: ClassVar[type[JobHook[Any]]]

    def __init__(
        self,
        *,
        conn_id: str | None = None,
        wait_for_completion: bool = True,
        deferrable: bool = conf.getboolean("operators", "default_deferrable", fallback=False),
        durable: bool = True,
        poll_interval: float = 60.0,
        deadline: timedelta | float | None = timedelta(hours=25),
        patience: float = 3600.0,
        cancel_on_deadline: bool = True,
        cancel_on_kill: bool = True,
        allowed_failures: float | str = 0,
        on_changed_spec: OnChangedSpec = "fail",
        **kwargs: Any,
    ) -> None:
        super().__init__(**kwargs)
        self.conn_id = conn_id or self.hook_class.default_conn_name
        self.wait_for_completion = wait_for_completion
        self.deferrable = deferrable
        self.durable = durable
        self.poll_interval = poll_interval
        self.deadline = deadline
        self.patience = patience
        self.cancel_on_deadline = cancel_on_deadline
        self.cancel_on_kill = cancel_on_kill
        self.allowed_failures = allowed_failures
        self.on_changed_spec = on_changed_spec
        self._watched: tuple[JobClient[Any], JobRef] | None = None

    @abstractmethod
    def build_spec(self, context: Context) -> SpecT:
        """Return the validated spec of this task instance's job; raise before anything is submitted."""

    def make_client(self) -> JobClient[Any]:
        """Return a client of the service. Override it to give the service more than a connection."""
        return self.hook_class(self.conn_id).client()

    def execute(self, context: Context) -> dict[str, Any]:
        """Attach to this task instance's job or submit it, and wait for its end."""
        with failing_for_good(), self.make_client() as client:
            allowed = Allowance.parse(self.allowed_failures)
            record = self._attach_or_submit(context, client, self.build_spec(context))
            context["ti"].xcom_push(key=CONSOLE_URL_KEY, value=client.service.console_url(record.job) or "")
            if not self.wait_for_completion:
                self._remember(context, record.ended(Ending.HANDED_OVER, context["ti"].max_tries))
                return build_outcome(record.job)
            self.log.info("Waiting for %s; %s of its items may fail.", record.job, allowed)
            if self.deferrable:
                self._remember(context, record.deferred(context["ti"].max_tries))
                self.defer(
                    trigger=JobTrigger(
                        ref=record.job.model_dump(mode="json"),
                        cancel_on_kill=self.cancel_on_kill,
                        echo=record.model_dump(mode="json"),
                        **self._patience_with(record),
                    ),
                    method_name="execute_complete",
                )
            # Ready-made: a signal handler should neither look up a connection nor share one in use.
            self._watched = (self.make_client(), record.job)
            over = client.run(wait_for_end(client.service, record.job, log=self.log, **self._patience_with(record)))
            self._watched = None
            return self._conclude(context, client, record, over)

    def execute_complete(self, context: Context, event: Mapping[str, Any]) -> dict[str, Any]:
        """Go on after the trigger's event, on whichever worker and in a fresh instance of the operator."""
        with failing_for_good(), self.make_client() as client:
            return self._conclude(context, client, JobRecord.model_validate(event["echo"]), parse_event(event))

    def on_kill(self) -> None:
        """Cancel the job when the task is killed while a worker waits. A deferred task's trigger has its own."""
        if self._watched is not None and self.cancel_on_kill:
            client, ref = self._watched
            with client:
                self.log.info("%s", client.run(request_cancellation(client.service, ref)))

    def _attach_or_submit(self, context: Context, client: JobClient[Any], spec: SpecT) -> JobRecord:
        fingerprint = spec.fingerprint(self.conn_id)
        if not self.durable:
            return self._submit(context, client, spec, JobRecord.intent(0, fingerprint))
        record = self.recall(context)
        seen = self._look(record.ref) if record is not None and record.ref is not None else None
        if record is not None and self.cancel_on_kill and record.may_be_cancelled(seen, context["ti"].max_tries):
            seen = self._await_cancellation(record)
        step = resume(record, seen, fingerprint, self.on_changed_spec, max_tries=context["ti"].max_tries)
        if isinstance(step, Submit):
            first = step
            key = _build_key(context, first.generation, fingerprint)
            found = client.run(client.service.find(key, _searched_since(context, record), record))
            step = adopt(found, first.generation, fingerprint, self.on_changed_spec)
            if isinstance(step, Submit):
                self.log.info("Submitting generation %d: %s, and %s.", step.generation, first.why, step.why)
                for abandoned in filter(None, (first.abandon, step.abandon)):
                    self.log.warning("%s", client.run(request_cancellation(client.service, abandoned)))
                intent = JobRecord.intent(step.generation, fingerprint, record)
                self._remember(context, intent)
                return self._submit(context, client, spec, intent)
        self.log.info("Attaching: %s.", step.why)
        attached = JobRecord.attached(step.ref, step.generation, step.submitted_at, fingerprint)
        self._remember(context, attached)
        return attached

    def _submit(self, context: Context, client: JobClient[Any], spec: SpecT, intent: JobRecord) -> JobRecord:
        key = _build_key(context, intent.generation, intent.fingerprint)
        record = intent.submitted(client.run(client.service.submit(spec, key)), datetime.now(UTC))
        self._remember(context, record)
        self.log.info("Submitted %s (generation %d).", record.job, record.generation)
        return record

    def _look(self, ref: JobRef) -> JobStatus | None:
        # Through the connection that submitted it, which need not be the task's present one.
        with hook_for(ref).client() as client:
            try:
                status: JobStatus = client.run(client.service.status(ref))
            except NotFoundError as error:
                self.log.warning("%s", error)
                return None
        return status

    def _await_cancellation(self, record: JobRecord) -> JobStatus | None:
        """Give the trigger of a cleared task the time to cancel the job; to attach now is to see it cancelled later."""
        self.log.info("Cleared while it was deferred; waiting for the trigger to cancel %s.", record.job)
        # The triggerer notices after a heartbeat, and then asks for as long as this at most.
        until = time.monotonic() + ON_KILL_SECONDS + 5.0
        while True:
            seen = self._look(record.job)
            if seen is None or seen.state.is_terminal or seen.state.is_stopped or time.monotonic() >= until:
                return seen
            time.sleep(1.0)

    def _conclude(
        self, context: Context, client: JobClient[Any], record: JobRecord, over: PollOutcome
    ) -> dict[str, Any]:
        allowed = Allowance.parse(self.allowed_failures)
        verdict = evaluate(record.job, over, allowed)
        if verdict.error is not None:
            finished = record.ended(Ending.FINISHED, context["ti"].max_tries)
            self._remember(context, finished if verdict.releases_job else record)
            raise verdict.error
        results = client.run(client.service.results(record.job))
        self._remember(context, record.ended(Ending.ACCEPTED, context["ti"].max_tries))
        return build_outcome(record.job, over.status, results)

    def _patience_with(self, record: JobRecord) -> dict[str, Any]:
        deadline = self.deadline.total_seconds() if isinstance(self.deadline, timedelta) else self.deadline
        submitted_at = (record.submitted_at or record.intent_at).timestamp()
        return {
            "poll_interval": self.poll_interval,
            "deadline": submitted_at + deadline if deadline is not None else None,
            "patience": self.patience,
            "cancel_on_deadline": self.cancel_on_deadline,
        }

    def recall(self, context: Context) -> JobRecord | None:
        """Return what this task instance remembers of its job; ``None`` for nothing, as with ``durable=False``."""
        if not self.durable:
            return None
        stored = context["task_state_store"].get(RECORD)
        return JobRecord.model_validate(stored) if stored is not None else None

    def _remember(self, context: Context, record: JobRecord) -> None:
        if self.durable:
            context["task_state_store"].set(RECORD, record.model_dump(mode="json"))


def _build_key(context: Context, generation: int, fingerprint: str) -> JobKey:
    ti = context["ti"]
    return JobKey(
        dag_id=ti.dag_id,
        task_id=ti.task_id,
        run_id=ti.run_id,
        map_index=ti.map_index if ti.map_index is not None else -1,
        generation=generation,
        fingerprint=fingerprint,
    )


def _searched_since(context: Context, record: JobRecord | None) -> datetime:
    """Return the time before which no orphan of this task can have been created."""
    # A cleared run gets a new start; an intent that was kept is older than that.
    started = context["dag_run"].start_date or datetime.now(UTC)
    return min(started, record.intent_at) if record is not None else started
