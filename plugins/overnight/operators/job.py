"""The one operator base, for any service: what Airflow has to do with the steps in :mod:`overnight.jobs.attach`."""

from __future__ import annotations

import sys
import time
from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any, ClassVar, Generic, NoReturn, TypeVar

from airflow.sdk import BaseOperator, conf
from airflow.sdk.bases.xcom import BaseXCom
from airflow.sdk.exceptions import AirflowTaskTimeout

from overnight.errors import QueueDeadlineError
from overnight.hooks.job import hook_for
from overnight.hooks.metrics import count_end, count_event
from overnight.hooks.outcome import QUEUED_KEY, build_outcome, build_queued, failing_for_good
from overnight.hooks.record_store import RECORD
from overnight.jobs.choices import OnChangedSpec, OnClear
from overnight.links.job import CONSOLE_URL_KEY, JobLink
from overnight.links.page import PageLink
from overnight.operators.lineage import describe_job
from overnight.operators.parameters import check_parameters

if TYPE_CHECKING:
    from airflow.providers.openlineage.extractors import OperatorLineage
    from airflow.sdk import Context

    from overnight.hooks.job import JobHook
    from overnight.jobs import JobRecord, JobRef, JobStatus, RecordStore, ResultManifest
    from overnight.jobs.attach import Attempt, Conclusion
    from overnight.jobs.client import JobClient
    from overnight.jobs.poller import PollOutcome
    from overnight.jobs.service import JobSpec
    from overnight.jobs.wait_settings import WaitSettings

__all__ = ["RECORD", "JobOperator"]

XCOM_RETURN_KEY = BaseXCom.XCOM_RETURN_KEY

SpecT = TypeVar("SpecT", bound="JobSpec")


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
    :param poll_interval: Seconds between polls of the job, above 0. This, ``deadline`` and ``patience`` are a number, a
        timedelta, or text, such as a template makes it: ``"60"``, ``"PT1M"``, ``"00:01:00"``.
    :param deadline: How long the job may take, from the submit, in wall-clock time that goes on while triggerers and
        workers restart. ``None`` waits for ever. After it the task fails, and a retry submits a new job. It bounds the
        job; Airflow's ``execution_timeout`` bounds one try, leaves the job running, and its retry attaches.
    :param patience: Seconds without any usable answer about the job after which the task gives up; a retry attaches
        to the job again.
    :param cancel_on_deadline: Cancel the job when the deadline passes. Otherwise it runs on.
    :param cancel_on_kill: Cancel the job when the task is killed, marked, or cleared while it waits.
    :param allowed_failures: How many of the job's items may fail: a count (``10``), a ratio (``0.05``) or a percentage
        (``"5%"``).
    :param budget: What the service's queue may hold at most, of all jobs that are not over: ``{"tokens": 3_000_000}``,
        ``{"jobs": 5}``, ``{"records": 50_000}``, or several of these. A job that does not fit waits at our side,
        deferred, for its turn. Without it the job is submitted at once, and waits only when the service refuses it.
    :param queue_deadline: How long a job may wait for room, from the first time that there was none; ``None`` waits for
        ever. ``deadline`` counts from the submit.
    :param on_changed_spec: When a try finds the task's job with another spec, running or with results: ``"fail"``;
        ``"restart"``, which cancels it and submits the new one; or ``"restart_ended"``, which does so only when the job
        is over.
    :param on_clear: When the task is cleared after its success: ``"resubmit"``, or ``"reuse"``, which goes on with the
        results of the same job and pays nothing, if the spec is the same and the service still has them all.
    """

    template_fields: Sequence[str] = (
        "conn_id",
        "allowed_failures",
        "poll_interval",
        "deadline",
        "patience",
        "cancel_on_deadline",
        "cancel_on_kill",
        "on_changed_spec",
        "on_clear",
        "budget",
        "queue_deadline",
    )
    operator_extra_links = (JobLink(), PageLink())
    hook_class: ClassVar[type[JobHook[Any]]]

    def __init__(
        self,
        *,
        conn_id: str | None = None,
        wait_for_completion: bool = True,
        deferrable: bool = conf.getboolean("operators", "default_deferrable", fallback=False),
        durable: bool = True,
        poll_interval: timedelta | float | str = 60.0,
        deadline: timedelta | float | str | None = timedelta(hours=25),
        patience: timedelta | float | str = 3600.0,
        cancel_on_deadline: bool | str = True,
        cancel_on_kill: bool | str = True,
        allowed_failures: float | str = 0,
        on_changed_spec: OnChangedSpec | str = "fail",
        on_clear: OnClear | str = "resubmit",
        budget: Mapping[str, int] | str | None = None,
        queue_deadline: timedelta | float | str | None = timedelta(hours=24),
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
        self.on_clear = on_clear
        self.budget = budget
        self.queue_deadline = queue_deadline
        self._rounds: tuple[JobRecord, ...] = ()
        self._outcome: dict[str, Any] | None = None
        self._waiting_for: tuple[JobClient[Any], JobRef, bool] | None = None

    @abstractmethod
    def build_spec(self, context: Context) -> SpecT:
        """
        Return the validated spec of this task instance's job; raise before anything is submitted.

        It is called by every try, also by one that only attaches. Checks that read the whole input belong into
        :meth:`prepare_submit`, if the spec already has the digest that its fingerprint needs.
        """

    def prepare_submit(self, spec: SpecT) -> SpecT:
        """Check what is about to be submitted and return it; called immediately before a submit, and only then."""
        return spec

    def plan_round(self, client: JobClient[Any], record: JobRecord, status: JobStatus, number: int) -> SpecT | None:
        """
        Return the spec of one more round with what is left of a job that ended; ``None`` when there is none.

        A round is a job with a name and a record of its own, so that a worker that takes over attaches to it. Called
        again, with the same job, it must return the same spec.

        :param number: Of the round that ended, 0 for the first.
        """
        del client, record, status, number
        return None

    def build_round_spec(self, number: int) -> SpecT:
        """Return the spec of a round that :meth:`plan_round` planned before, 1 for the second."""
        raise NotImplementedError(f"{type(self).__name__} has no rounds")

    def merge_rounds(self, refs: Sequence[JobRef]) -> tuple[JobStatus, ResultManifest]:
        """Return what several rounds come to, as of one job; each item counts once."""
        raise NotImplementedError(f"{type(self).__name__} has no rounds")

    def keep_results(self, client: JobClient[Any], ref: JobRef, results: ResultManifest | None) -> None:
        """
        Keep what the job finished for later runs. Called when it is over, before the task ends, well or not.

        A try that attaches to a job that is over calls it again. It must not raise: the job is paid for.

        :param ref: The job, of several rounds the first or the last.
        :param results: Where its results are, of all rounds if they could be merged; ``None`` where that is not known.
        """
        del client, ref, results

    def make_client(self) -> JobClient[Any]:
        """Return a client of the service. Override it to give the service more than a connection."""
        return self.hook_class(self.conn_id).client()

    def make_record_store(self, context: Context) -> RecordStore:
        """Return where this task instance's job is remembered between tries."""
        from overnight.hooks.record_store import TaskStateRecordStore  # noqa: PLC0415 - not at parse

        key = RECORD if not self._rounds else f"{RECORD}_{self._get_round_name()}"
        return TaskStateRecordStore(context["task_state_store"], key)

    def recall(self, context: Context) -> JobRecord | None:
        """Return what this task instance remembers of its job; ``None`` for nothing, as with ``durable=False``."""
        return self.make_record_store(context).get() if self.parse_settings().durable else None

    def parse_settings(self) -> WaitSettings:
        """
        Parse and check how this task waits; its templates are rendered.

        :raises SpecError: a parameter is out of its range, or no number, duration or truth value.
        """
        from overnight.jobs.wait_settings import WaitSettings  # noqa: PLC0415 - not at parse

        return WaitSettings.parse(**{name: getattr(self, name) for name in WaitSettings.model_fields})

    def execute(self, context: Context) -> dict[str, Any]:
        """Attach to this task instance's job or submit it, and wait for its end."""
        with failing_for_good():
            check_parameters(self)
            settings = self.parse_settings()
            with self.make_client() as client:
                attempt = self.begin_attempt(context, client, settings)
                spec = self.build_spec(context)
                return self._go_on(context, attempt, spec, attempt.attach_or_submit(spec, self.prepare_submit))

    def execute_complete(self, context: Context, event: Mapping[str, Any]) -> dict[str, Any]:
        """Go on after the trigger's event, on whichever worker and in a fresh instance of the operator."""
        from overnight.jobs import JobRecord  # noqa: PLC0415 - not at parse

        # No DAG that is parsed needs a trigger, here and below.
        from overnight.triggers.job import get_context, parse_event  # noqa: PLC0415
        from overnight.triggers.room import ROOM  # noqa: PLC0415

        with failing_for_good():
            check_parameters(self)
            settings = self.parse_settings()
            state = get_context(event)
            record = JobRecord.model_validate(state)
            self._rounds = tuple(JobRecord.model_validate(former) for former in state.get("rounds", ()))
            with self.make_client() as client:
                attempt = self.begin_attempt(context, client, settings)
                if ROOM in event:
                    return self._submit_in_turn(context, attempt, record, event)
                return self._settle(context, attempt, record, parse_event(event))

    def on_kill(self) -> None:
        """
        Cancel the job when the task is killed while a worker waits. A deferred task's trigger has its own.

        Airflow also calls this when ``execution_timeout`` passes. That ends the try and not the job: a retry attaches.
        """
        from overnight.jobs.wait import request_cancellation  # noqa: PLC0415 - not at parse

        if self._waiting_for is None:
            return
        client, ref, cancel_on_kill = self._waiting_for
        if isinstance(sys.exception(), AirflowTaskTimeout):
            self.log.warning("execution_timeout ended this try; %s runs on, and a retry attaches to it.", ref)
        elif not cancel_on_kill:
            self.log.info("cancel_on_kill is off: %s is left running.", ref)
        else:
            with client:
                self.log.info("%s", client.run(request_cancellation(client.service, ref)))

    def list_inputs(self) -> Sequence[str]:
        """Return the URIs of the job's input, for lineage; none where the service has it by another way."""
        return ()

    def get_openlineage_facets_on_complete(self, task_instance: Any) -> OperatorLineage[Any, Any]:
        """Return the job's inputs and its id at the service."""
        del task_instance
        return describe_job(self._outcome, self.list_inputs())

    def get_openlineage_facets_on_failure(self, task_instance: Any) -> OperatorLineage[Any, Any]:
        """Return the same."""
        return self.get_openlineage_facets_on_complete(task_instance)

    def begin_attempt(self, context: Context, client: JobClient[Any], settings: WaitSettings) -> Attempt[SpecT]:
        """Return this try of the task at its job."""
        from overnight.jobs.attach import Attempt, JobOwner  # noqa: PLC0415 - not at parse

        ti = context["ti"]
        owner = JobOwner(
            dag_id=ti.dag_id,
            task_id=ti.task_id if not self._rounds else f"{ti.task_id}#{self._get_round_name()}",
            run_id=ti.run_id,
            map_index=ti.map_index if ti.map_index is not None else -1,
            started_at=context["dag_run"].start_date or datetime.now(UTC),
            max_tries=ti.max_tries,
        )
        return Attempt(
            owner,
            client,
            self.make_record_store(context) if settings.durable else None,
            settings=settings,
            log=self.log,
            connect=lambda ref: hook_for(ref).client(),
            on_event=lambda event: count_event(event, client.service.name),
        )

    def _go_on(self, context: Context, attempt: Attempt[SpecT], spec: SpecT, record: JobRecord) -> dict[str, Any]:
        """Wait for room if there was none, and for the end of the job; a deferrable task defers for either."""
        settings = attempt.settings
        self._show_queued(context, record)
        if record.is_waiting and settings.deferrable:
            self._defer_for_room(record, settings)
        while record.is_waiting:
            try:
                admitted = attempt.wait_for_room(record)
            except QueueDeadlineError as error:
                self._show_queued(context, record, error)
                raise
            record = attempt.attach_or_submit(spec, self._get_prepare(), admitted)
            self._show_queued(context, record)
        console_url = attempt.client.service.console_url(record.job)
        context["ti"].xcom_push(key=CONSOLE_URL_KEY, value=console_url or "")
        if not settings.wait_for_completion:
            attempt.hand_over(record)
            self._outcome = build_outcome(record.job)
            return self._outcome
        self.log.info("Waiting for %s. Allowed failures: %s.", record.job, settings.allowed_failures)
        if settings.deferrable:
            self._defer(attempt.defer(attempt.poll_first(record)), settings)
        # Ready-made: a signal handler should neither look up a connection nor share one in use.
        self._waiting_for = (self.make_client(), record.job, settings.cancel_on_kill)
        outcome = attempt.wait(record)
        self._waiting_for = None
        return self._settle(context, attempt, record, outcome)

    def _settle(
        self, context: Context, attempt: Attempt[SpecT], record: JobRecord, outcome: PollOutcome
    ) -> dict[str, Any]:
        """Go on after the end of the wait: with another round, with waiting for room, or with the task's end."""
        began = record.submitted_at
        took = (datetime.now(UTC) - began).total_seconds() if began is not None else None
        count_end(record.job, outcome.status, took)
        if outcome.status is not None and attempt.find_refusal(outcome) is None:
            following = self.plan_round(attempt.client, record, outcome.status, len(self._rounds))
            if following is not None:
                self._rounds = (*self._rounds, record)
                attempt = self.begin_attempt(context, attempt.client, attempt.settings)
                return self._go_on(context, attempt, following, attempt.attach_or_submit(following))
        conclusion = self._conclude(context, attempt, record, outcome)
        if conclusion.refusal is None:
            self.keep_results(attempt.client, conclusion.ref, conclusion.results)
            return self._finish(context, conclusion)
        spec = self._build_spec(context)
        record = attempt.queue_again(record, conclusion.refusal, spec, self._get_prepare())
        return self._go_on(context, attempt, spec, record)

    def _conclude(
        self, context: Context, attempt: Attempt[SpecT], record: JobRecord, outcome: PollOutcome
    ) -> Conclusion:
        """Conclude the job; of several rounds, all of them once the last has results."""
        from overnight.jobs.attach import Conclusion  # noqa: PLC0415 - not at parse
        from overnight.jobs.evaluate import evaluate  # noqa: PLC0415 - not at parse
        from overnight.jobs.poller import PollEnd, PollOutcome  # noqa: PLC0415 - not at parse

        if not self._rounds or outcome.status is None or not has_item_outcomes(outcome.status):
            return replace(attempt.conclude(record, outcome), former_rounds=len(self._rounds))
        records = (*self._rounds, record)
        status, results = self.merge_rounds([one.job for one in records])
        ref = records[0].job
        self.log.info("%d rounds of %s ended %s.", len(records), ref, status.describe())
        error = evaluate(ref, PollOutcome(PollEnd.ENDED, status), attempt.settings.allowed_failures).error
        if error is None:
            for number, one in enumerate(records):
                self._rounds = records[:number]
                self.begin_attempt(context, attempt.client, attempt.settings).accept(one)
        return Conclusion(ref, status, results, error)

    def _build_spec(self, context: Context) -> SpecT:
        return self.build_spec(context) if not self._rounds else self.build_round_spec(len(self._rounds))

    def _get_prepare(self) -> Callable[[SpecT], SpecT] | None:
        # The input of a further round is written by this task itself.
        return self.prepare_submit if not self._rounds else None

    def _get_round_name(self) -> str:
        """Return what tells a further round from those of other generations of the first."""
        return f"g{self._rounds[0].generation}r{len(self._rounds)}"

    def _build_state(self, record: JobRecord) -> dict[str, Any]:
        """Return what a trigger's event brings back."""
        state = record.model_dump(mode="json")
        if self._rounds:
            state["rounds"] = [former.model_dump(mode="json") for former in self._rounds]
        return state

    def _submit_in_turn(
        self, context: Context, attempt: Attempt[SpecT], record: JobRecord, event: Mapping[str, Any]
    ) -> dict[str, Any]:
        """Submit the job now that it was admitted, or fail when there was no room in time."""
        from overnight.triggers.room import parse_admission  # noqa: PLC0415

        try:
            admitted = parse_admission(event)
        except QueueDeadlineError as error:
            attempt.stop_waiting(record)
            self._show_queued(context, record, error)
            raise
        spec = self._build_spec(context)
        return self._go_on(context, attempt, spec, attempt.attach_or_submit(spec, self._get_prepare(), admitted))

    def _show_queued(self, context: Context, record: JobRecord, error: QueueDeadlineError | None = None) -> None:
        """Leave an XCom that says why the job waits here, or waited; the last wait's, of several rounds."""
        queued = build_queued(record, error, former_rounds=len(self._rounds))
        if queued is not None:
            context["ti"].xcom_push(key=QUEUED_KEY, value=queued)

    def _defer_for_room(self, record: JobRecord, settings: WaitSettings) -> NoReturn:
        from overnight.triggers.room import RoomTrigger  # noqa: PLC0415

        if record.queued is None:
            raise ValueError("this record does not wait for room")
        self.defer(
            trigger=RoomTrigger(
                request=record.queued.model_dump(mode="json"),
                interval=settings.poll_interval,
                until=settings.get_queue_deadline(record.queued),
                context=self._build_state(record),
            ),
            method_name="execute_complete",
        )

    def _defer(self, record: JobRecord, settings: WaitSettings) -> NoReturn:
        from overnight.triggers.job import JobTrigger  # noqa: PLC0415

        timeout = self.execution_timeout
        self.defer(
            trigger=JobTrigger(
                ref=record.job.model_dump(mode="json"),
                poll_interval=settings.poll_interval,
                deadline=settings.get_deadline(record),
                try_until=time.time() + timeout.total_seconds() if timeout is not None else None,
                patience=settings.patience,
                cancel_on_deadline=settings.cancel_on_deadline,
                cancel_on_kill=settings.cancel_on_kill,
                context=self._build_state(record),
            ),
            method_name="execute_complete",
        )

    def _finish(self, context: Context, conclusion: Conclusion) -> dict[str, Any]:
        self._outcome = outcome = build_outcome(
            conclusion.ref, conclusion.status, conclusion.results, former_rounds=conclusion.former_rounds
        )
        if conclusion.error is not None:
            # A failed task leaves its reference, too: what its job finished is paid for, and can be fetched with it.
            context["ti"].xcom_push(key=XCOM_RETURN_KEY, value=outcome)
            raise conclusion.error
        return outcome


def has_item_outcomes(status: JobStatus) -> bool:
    """Whether a job that is over says of its items what became of them; also one of which all items failed does."""
    from overnight.jobs import JobState  # noqa: PLC0415 - not at parse

    if status.state is JobState.FAILED:
        return bool(status.counts.failed)
    return status.state in (JobState.SUCCEEDED, JobState.PARTIAL, JobState.EXPIRED)
