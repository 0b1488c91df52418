"""
One try of a task (or one run of a script) at its job: attach to it or submit it, wait for its end, and evaluate that.

No Airflow in here. What Airflow has to do with it is in :mod:`overnight.operators.job`; a script calls
:func:`overnight.jobs.run`.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any, Generic, Literal, Protocol, TypeAlias, TypeVar

from overnight.errors import NotFoundError, OvernightError, QueueDeadlineError, RequestRefusedError, ServiceError
from overnight.jobs.client import JobClient
from overnight.jobs.evaluate import evaluate, evaluate_results
from overnight.jobs.identity import JobKey
from overnight.jobs.model import JobRef, JobState, JobStatus, ResultManifest
from overnight.jobs.poller import PollOutcome
from overnight.jobs.queue import QueueFull, QueueRequest
from overnight.jobs.record import Ending, JobRecord
from overnight.jobs.record_store import RecordStore
from overnight.jobs.resume import Submit, adopt, is_reusable, resume
from overnight.jobs.room import wait_for_room
from overnight.jobs.service import JobSpec
from overnight.jobs.wait import CANCEL_SECONDS, Logger, poll, request_cancellation, wait_for_end
from overnight.jobs.wait_settings import WaitSettings
from overnight.transport.flow import Flow, Pause

SpecT = TypeVar("SpecT", bound=JobSpec)


@dataclass(frozen=True)
class JobOwner:
    """
    Whose job it is: a task instance, or a script under a name of its own.

    :param started_at: No job of this owner was created before (aware); it bounds the search at the service.
    :param max_tries: Airflow's: the same for every try until a user clears the task, which raises it.
    """

    dag_id: str
    task_id: str
    run_id: str
    started_at: datetime
    map_index: int = -1
    max_tries: int = 0

    def key(self, generation: int, fingerprint: str) -> JobKey:
        """Return the key of one job of this owner."""
        return JobKey(
            dag_id=self.dag_id,
            task_id=self.task_id,
            run_id=self.run_id,
            map_index=self.map_index,
            generation=generation,
            fingerprint=fingerprint,
        )


class Connect(Protocol):
    """Returns a client of the service and connection that a reference names."""

    def __call__(self, ref: JobRef, /) -> JobClient[Any]: ...  # noqa: D102


Event: TypeAlias = Literal["submitted", "attached", "queued"]
"""What a try did about its job, for metrics."""


@dataclass(frozen=True)
class Conclusion:
    """
    How the job ended for its task: a success when there is no ``error``.

    :param refusal: Set when the job failed because the service's queue was full: it goes out again when there is room
        (:meth:`Attempt.queue_again`), and is neither a success nor a failure.
    :param results: Where the results are; of a job that ended badly, where those are that it has, if that is known.
    :param former_rounds: How many rounds before this one were submitted and are not in ``status`` and ``results``.
    """

    ref: JobRef
    status: JobStatus | None
    results: ResultManifest | None
    error: OvernightError | None = None
    refusal: QueueFull | None = None
    former_rounds: int = 0


class Attempt(Generic[SpecT]):
    """
    One try at a job: its steps, in the order in which they are called.

    :param owner: Whose job it is.
    :param client: Of the service and connection that a new job would be submitted to.
    :param records: What earlier tries left; ``None`` forgets the job between tries.
    :param connect: How a job on record is asked for: through the connection that submitted it, which need not be the
        present one. The ``client`` is used for references of its own connection when it is left out.
    :param settings: How the try attaches and waits.
    :param log: Gets a line for every decision.
    :param on_event: Is called when the job was submitted, attached to, or has to wait for room in the service's queue.
    :param on_status: Is called with each answer of the service during :meth:`wait`.
    """

    def __init__(
        self,
        owner: JobOwner,
        client: JobClient[Any],
        records: RecordStore | None,
        *,
        settings: WaitSettings,
        log: Logger,
        connect: Connect | None = None,
        on_event: Callable[[Event], None] = lambda _: None,
        on_status: Callable[[JobStatus], object] | None = None,
    ) -> None:
        self.owner = owner
        self.client = client
        self.records = records
        self.settings = settings
        self.log = log
        self.connect = connect
        self.on_event = on_event
        self.on_status = on_status

    def attach_or_submit(
        self, spec: SpecT, prepare: Callable[[SpecT], SpecT] | None = None, admitted: QueueRequest | None = None
    ) -> JobRecord:
        """
        Go on with the owner's job if there is one, else submit it; return its record.

        Where the service's queue, or the user's budget, has no room for it, nothing is submitted, and the record
        :attr:`~overnight.jobs.record.JobRecord.is_waiting`. After the wait for room this is called once more.

        The order is what makes a job paid for once: recall, poll, resume, find, adopt, write the intent, submit, write
        the reference.

        :param prepare: Called with the spec immediately before a submit, and only then: for checks that cost too much
            to repeat when a try only attaches. It must leave the fingerprint as it is.
        :param admitted: What the wait for room returned: it is this job's turn.
        :raises ChangedSpecError: the job runs with another spec.
        :raises ServiceError: a call failed; nothing is submitted on a guess.
        """
        fingerprint = spec.fingerprint(self.client.service.conn_id)
        if self.records is None:
            intent = JobRecord.intent(self.owner.key(0, fingerprint))
            return self._submit_or_queue(_prepare(spec, prepare), intent, admitted)
        record = self.records.get()
        seen = self._poll_recorded(record)
        try:
            step = resume(
                record,
                seen,
                fingerprint,
                self.settings.on_changed_spec,
                max_tries=self.owner.max_tries,
                has_results=self._has_results(record, seen, fingerprint),
            )
        except RequestRefusedError:
            if record is not None:
                # Final for this try; clearing the task, which somebody decides on, submits again.
                self._remember(record.ended(Ending.FINISHED, self.owner.max_tries))
            raise
        if isinstance(step, Submit):
            first = step
            found = self.client.run(
                self.client.service.find(
                    self.owner.key(first.generation, fingerprint), _get_search_start(self.owner, record), record
                )
            )
            step = adopt(found, first.generation, fingerprint, self.settings.on_changed_spec)
            if isinstance(step, Submit):
                ready = _prepare(spec, prepare)
                what = f"generation {step.generation}" if step.generation else "a job"
                self.log.info("Submitting %s: %s, and %s.", what, first.why, step.why)
                for abandoned in dict.fromkeys(filter(None, (first.abandon, step.abandon))):
                    self.log.warning("%s", self._run_at(abandoned, request_cancellation))
                intent = JobRecord.intent(self.owner.key(step.generation, fingerprint), record)
                return self._submit_or_queue(ready, self._remember(intent), admitted)
        self.log.info("Attaching: %s.", step.why)
        self.on_event("attached")
        attached = JobRecord.attached(step.ref, self.owner.key(step.generation, fingerprint), step.submitted_at)
        if record is not None and record.generation == attached.generation:
            # How long it waited for room stays known.
            attached = attached.model_copy(update={"queued": record.queued})
        return self._remember(attached.with_answer())

    def wait_for_room(self, record: JobRecord) -> QueueRequest:
        """
        Wait, blocking, for room in the service's queue.

        :raises QueueDeadlineError: there was none until ``queue_deadline``.
        """
        request = _get_request(record)
        try:
            return self.client.run(
                wait_for_room(
                    self.client.service,
                    request,
                    until=self.settings.get_queue_deadline(request),
                    interval=self.settings.poll_interval,
                    log=self.log,
                )
            )
        except QueueDeadlineError:
            self.stop_waiting(record)
            raise

    def accept(self, record: JobRecord, status: JobStatus | None = None, results: ResultManifest | None = None) -> None:
        """Write down that the task succeeds with the job's results, and how many items did, where that is known."""
        counts = [found.counts.succeeded for found in (results, status) if found is not None]
        succeeded = next((count for count in counts if count is not None), None)
        ended = record.ended(Ending.ACCEPTED, self.owner.max_tries)
        self._remember(ended.model_copy(update={"succeeded": succeeded}))

    def stop_waiting(self, record: JobRecord) -> None:
        """Write down that the job waits no more: the next try of the task begins to wait anew."""
        self._remember(record.model_copy(update={"queued": None, "deferred_with": None}))

    def queue_again(
        self, record: JobRecord, refusal: QueueFull, spec: SpecT, prepare: Callable[[SpecT], SpecT] | None = None
    ) -> JobRecord:
        """
        Return the waiting record of the generation that follows a job which failed for a full queue.

        :raises RequestRefusedError: nothing else was in the queue: the job is too large by itself.
        """
        following = JobRecord.intent(
            self.owner.key(record.generation + 1, spec.fingerprint(self.client.service.conn_id))
        ).model_copy(update={"queued": record.queued})
        return self._queue(_prepare(spec, prepare), following, refusal)

    def poll_first(self, record: JobRecord) -> JobRecord:
        """Poll a job that was just submitted, so that a later 404 is known for a loss; a failing poll is no matter."""
        if record.answered:
            return record
        try:
            status = self.client.run(self.client.service.status(record.job))
        except ServiceError as error:
            self.log.warning("The first poll of %s failed, which may pass: %s", record.job, error)
            return record
        self.log.info("%s is %s.", record.job, status.describe())
        return self._remember(record.with_answer())

    def defer(self, record: JobRecord) -> JobRecord:
        """Write down that a trigger is about to wait for the job."""
        return self._remember(record.deferred(self.owner.max_tries))

    def hand_over(self, record: JobRecord) -> None:
        """Write down that another task waits for the job."""
        self._remember(record.ended(Ending.HANDED_OVER, self.owner.max_tries))

    def wait(self, record: JobRecord) -> PollOutcome:
        """Wait, blocking, until the job ends or the wait does."""
        return self.client.run(
            wait_for_end(
                self.client.service,
                record.job,
                poll_interval=self.settings.poll_interval,
                deadline=self.settings.get_deadline(record),
                patience=self.settings.patience,
                cancel_on_deadline=self.settings.cancel_on_deadline,
                log=self.log,
                record=record,
                on_answer=lambda: self._remember(record.with_answer()),
                on_status=self.on_status,
            )
        )

    def conclude(self, record: JobRecord, outcome: PollOutcome) -> Conclusion:
        """
        Evaluate the end of the wait, and write down whether the task has finished with the job.

        :raises ServiceError: the results of a job that ended well could not be asked for; a retry attaches to it.
        """
        if outcome.answered:
            record = record.with_answer()
        refusal = self.find_refusal(outcome)
        if refusal is not None:
            self._remember(record.ended(Ending.FINISHED, self.owner.max_tries))
            return Conclusion(record.job, outcome.status, None, refusal=refusal)
        evaluation = evaluate(record.job, outcome, self.settings.allowed_failures)
        if evaluation.error is None:
            results = self.client.run(self.client.service.results(record.job))
            collected = evaluate_results(record.job, results, self.settings.allowed_failures)
            if collected.error is not None:
                return Conclusion(record.job, outcome.status, results, collected.error)
            self.accept(record, outcome.status, results)
            return Conclusion(record.job, outcome.status, results)
        ended = record.ended(Ending.FINISHED, self.owner.max_tries)
        self._remember(ended if evaluation.releases_job else record)
        return Conclusion(record.job, outcome.status, self._find_results(record.job, outcome), evaluation.error)

    def _submit_or_queue(self, spec: SpecT, intent: JobRecord, admitted: QueueRequest | None) -> JobRecord:
        """Submit the job, unless there is no room for it in the queue: then the record waits."""
        name = self.owner.key(intent.generation, intent.fingerprint).name
        if admitted is not None and admitted.name == name:
            intent = intent.model_copy(update={"queued": admitted})
        elif self.settings.budget.is_set or intent.queued is not None:
            return self._queue(spec, intent)
        try:
            return self._submit(spec, intent)
        except ServiceError as error:
            refusal = self.client.service.find_refusal(error)
            if refusal is None:
                raise
            return self._queue(spec, intent, refusal)

    def _queue(self, spec: SpecT, intent: JobRecord, refusal: QueueFull | None = None) -> JobRecord:
        """Write down that the job waits for room in the queue, and since when."""
        service = self.client.service
        self.settings.budget.check_units(service.name, service.queue_units)
        queue, amount = service.get_queue(spec)
        cleared = intent.deferred_with is not None and self.owner.max_tries > intent.deferred_with
        former = intent.queued if not cleared else None
        request = QueueRequest(
            service=service.name,
            conn_id=service.conn_id,
            queue=queue,
            name=self.owner.key(intent.generation, intent.fingerprint).name,
            amount=amount,
            since=former.since if former is not None else datetime.now(UTC),
            budget=self.settings.budget,
        )
        request.check_budget()
        if former is not None:
            kept = ("learnt", "reason", "state", "refusals", "alone", "refused_alone", "not_before")
            request = request.model_copy(update={name: getattr(former, name) for name in kept})
        if refusal is not None:
            request = request.with_refusal(refusal, time.time())
        self.log.info("Queued here: %s waits until there is room. %s", request.name, request.why)
        self.on_event("queued")
        return self._remember(intent.queued_as(request, self.owner.max_tries))

    def find_refusal(self, outcome: PollOutcome) -> QueueFull | None:
        """Return what the service said when the job failed because its queue was full."""
        if outcome.status is None or outcome.status.state is not JobState.FAILED:
            return None
        refusal: QueueFull | None = self.client.service.find_refusal(outcome.status)
        return refusal

    def _submit(self, spec: SpecT, intent: JobRecord) -> JobRecord:
        key = self.owner.key(intent.generation, intent.fingerprint)
        self.client.service.on_upload = lambda input_id: self._remember(
            intent.model_copy(update={"input_id": input_id})
        )
        record = intent.submitted(self.client.run(self.client.service.submit(spec, key)), datetime.now(UTC))
        self._remember(record)
        again = f", generation {record.generation} of this task's jobs" if record.generation else ""
        self.log.info("Submitted %s%s.", record.job, again)
        self.on_event("submitted")
        return record

    def _poll_recorded(self, record: JobRecord | None) -> JobStatus | None:
        """Return the recorded job's status; ``None`` when there is none or the service does not know it."""
        if record is None or record.ref is None:
            return None
        seen = self._poll_at(record)
        if self.settings.cancel_on_kill and record.may_be_cancelled(seen, self.owner.max_tries):
            return self._await_cancellation(record)
        return seen

    def _poll_at(self, record: JobRecord) -> JobStatus | None:
        try:
            seen: JobStatus = self._run_at(record.job, lambda service, ref: poll(service, ref, self.log, record))
        except NotFoundError as error:
            self.log.warning("%s", error)
            return None
        return seen

    def _has_results(self, record: JobRecord | None, seen: JobStatus | None, fingerprint: str) -> bool:
        """Whether the job is one to be reused, and the service still has its results."""
        if record is None or seen is None or not is_reusable(record, seen, fingerprint, self.settings.on_clear):
            return False
        job, service = record.job, self.client.service
        if seen.results_expire_at is not None and seen.results_expire_at <= datetime.now(UTC):
            self.log.warning("The results of %s have expired at %s.", job, seen.results_expire_at)
            return False
        try:
            if (job.service, job.conn_id) == (service.name, service.conn_id):
                found = self.client.run(service.has_results(job, record.succeeded))
            else:
                found = self._run_at(job, lambda present, ref: present.has_results(ref, record.succeeded))
        except NotFoundError as error:
            self.log.warning("The results of %s are gone: %s", job, error)
            return False
        if not found:
            self.log.warning("The results of %s are gone, or some of them.", job)
        return bool(found)

    def _await_cancellation(self, record: JobRecord) -> JobStatus | None:
        """Give the trigger of a cleared task the time to cancel the job: an attached one would be cancelled later."""
        self.log.info("Cleared while it was deferred; waiting for the trigger to cancel %s.", record.job)
        # The triggerer notices after a heartbeat, and then asks for as long as this at most.
        until = time.monotonic() + CANCEL_SECONDS + 5.0
        while True:
            seen = self._poll_at(record)
            if seen is None or seen.state.is_terminal or seen.state.is_stopped or time.monotonic() >= until:
                return seen
            self.client.run(_pause(1.0))

    def _run_at(self, ref: JobRef, verb: Callable[[Any, JobRef], Flow[Any]]) -> Any:
        """Run a flow through the connection that submitted a job."""
        present = self.client.service
        if self.connect is None and (ref.service, ref.conn_id) == (present.name, present.conn_id):
            return self.client.run(verb(present, ref))
        if self.connect is None:
            raise RequestRefusedError(
                f"{ref} was submitted through the connection {ref.conn_id!r}, and this is {present.conn_id!r}. Go on "
                "with the former connection, or pass `connect`."
            )
        with self.connect(ref) as client:
            return client.run(verb(client.service, ref))

    def _find_results(self, ref: JobRef, outcome: PollOutcome) -> ResultManifest | None:
        """Return where the results of a job are that ended badly; ``None`` where there are none, or nobody says."""
        if outcome.status is None or not outcome.status.state.is_terminal:
            return None
        try:
            results: ResultManifest = self.client.run(self.client.service.results(ref))
        except OvernightError as error:
            self.log.warning("Where the results of %s are is not known: %s", ref, error)
            return None
        return results

    def _remember(self, record: JobRecord) -> JobRecord:
        if self.records is not None:
            self.records.set(record)
        return record


def _prepare(spec: SpecT, prepare: Callable[[SpecT], SpecT] | None) -> SpecT:
    return prepare(spec) if prepare is not None else spec


def _get_search_start(owner: JobOwner, record: JobRecord | None) -> datetime:
    """Return the time before which no orphan of this owner can have been created."""
    # A cleared run gets a new start; an intent that was kept is older than that.
    return min(owner.started_at, record.intent_at) if record is not None else owner.started_at


def _get_request(record: JobRecord) -> QueueRequest:
    if record.queued is None:
        raise ValueError("this record does not wait for room")
    return record.queued


def _pause(seconds: float) -> Flow[None]:
    yield Pause(seconds)
