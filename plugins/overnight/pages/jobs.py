"""The remote jobs of all task instances, as Airflow's database has them: records, XComs, triggers."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from datetime import UTC, datetime
from typing import Any, Final

from airflow.models.task_state_store import TaskStateStoreModel
from airflow.models.taskinstance import TaskInstance
from airflow.models.trigger import Trigger
from airflow.models.xcom import XComModel
from airflow.utils.state import State
from pydantic import BaseModel, ConfigDict, ValidationError
from sqlalchemy import select, tuple_
from sqlalchemy.orm import Session

from overnight.costs.prices import PriceTable
from overnight.costs.usage_cost import AnswerUsage, UsageCost
from overnight.errors import SpecError
from overnight.hooks.outcome import QUEUED_KEY
from overnight.hooks.record_store import RECORD
from overnight.jobs import JobRecord, JobRef, JobState, JobStatus, ResultManifest
from overnight.jobs.record_store import parse_record
from overnight.jobs.time_span import describe_seconds
from overnight.links.job import CONSOLE_URL_KEY

NEWEST: Final = 500
"""How many jobs are looked at, the newest first."""
RETURNED: Final = "return_value"

_UNFINISHED: Final = frozenset(str(state) for state in State.unfinished if state is not None)

TaskKey = tuple[str, str, str, int]
"""DAG, run, task, map index."""


class JobRow(BaseModel):
    """
    One remote job and the task instance that it belongs to.

    :param key: Of its record in the task state store; a task has one for each round.
    :param job_id: ``None`` while it waits at our side for room in the service's queue.
    :param state: Of the job; ``None`` where only the service knows.
    :param waiting: Why it waits for room.
    :param deadline: When the wait for it ends; known while its task is deferred.
    :param cost: In words, by the list prices that come with the package; empty where it is not known.
    :param task_state: Of the task instance; ``None`` before it is scheduled.
    """

    model_config = ConfigDict(frozen=True)

    dag_id: str
    run_id: str
    task_id: str
    map_index: int
    key: str
    service: str
    conn_id: str
    job_id: str | None
    state: JobState | None
    raw: str = ""
    total: int | None = None
    failed: int | None = None
    share: float | None = None
    since: datetime
    deadline: datetime | None = None
    results_expire_at: datetime | None = None
    waiting: str = ""
    error: str = ""
    cost: str = ""
    console_url: str = ""
    task_state: str | None = None

    @property
    def is_live(self) -> bool:
        """Whether the service has to be asked what the job's state is."""
        return self.job_id is not None and (self.state is None or not self.state.is_terminal)

    @property
    def is_awaited(self) -> bool:
        """Whether its task is not over: then the task decides about the job."""
        return self.task_state in _UNFINISHED

    @property
    def label(self) -> str:
        """The state in a word."""
        if self.job_id is None:
            return "queued here" if self.waiting else "submitting"
        return self.state or "unknown"

    @property
    def age(self) -> str:
        """Time since it was submitted, or since it began to wait."""
        return describe_seconds((datetime.now(UTC) - self.since).total_seconds())


def list_jobs(session: Session, dag_ids: Iterable[str] | None = None, *, only: TaskKey | None = None) -> list[JobRow]:
    """
    Return the newest jobs, the newest first.

    :param dag_ids: Of these DAGs; of all when left out.
    :param only: Of this task instance.
    """
    store = TaskStateStoreModel
    query = (
        select(store, TaskInstance.state, TaskInstance.trigger_id)
        .outerjoin(
            TaskInstance,
            (TaskInstance.dag_id == store.dag_id)
            & (TaskInstance.run_id == store.run_id)
            & (TaskInstance.task_id == store.task_id)
            & (TaskInstance.map_index == store.map_index),
        )
        .where(store.key.startswith(RECORD, autoescape=True))
        .order_by(store.updated_at.desc())
        .limit(NEWEST)
    )
    if dag_ids is not None:
        query = query.where(store.dag_id.in_(list(dag_ids)))
    if only is not None:
        query = query.where(tuple_(store.dag_id, store.run_id, store.task_id, store.map_index) == only)
    found = session.execute(query).all()
    keys = {(row.dag_id, row.run_id, row.task_id, row.map_index) for row, _, _ in found}
    left = _read_xcoms(session, keys)
    deadlines = _read_deadlines(session, {trigger_id for _, _, trigger_id in found if trigger_id is not None})
    rows = []
    for row, state, trigger_id in found:
        try:
            record = parse_record(row.value, "the task state store")
        except SpecError:
            continue
        rows.append(
            _build(
                (row.dag_id, row.run_id, row.task_id, row.map_index),
                row.key,
                record,
                xcoms=left.get((row.dag_id, row.run_id, row.task_id, row.map_index), {}),
                task_state=str(state) if state is not None else None,
                deadline=deadlines.get(trigger_id),
            )
        )
    return rows


def list_dag_ids(session: Session) -> set[str]:
    """Return the DAGs that have jobs."""
    query = select(TaskStateStoreModel.dag_id).where(TaskStateStoreModel.key.startswith(RECORD, autoescape=True))
    return set(session.scalars(query.distinct()))


def read_xcom(session: Session, dag_id: str, run_id: str, task_id: str, key: str) -> Any:
    """Return an XCom of a task that is not mapped; ``None`` when there is none."""
    query = select(XComModel).where(
        XComModel.dag_id == dag_id, XComModel.run_id == run_id, XComModel.task_id == task_id, XComModel.key == key
    )
    row = session.scalar(query)
    return XComModel.deserialize_value(row) if row is not None else None


def _build(
    place: TaskKey,
    key: str,
    record: JobRecord,
    *,
    xcoms: Mapping[str, Any],
    task_state: str | None,
    deadline: datetime | None,
) -> JobRow:
    outcome = _match(xcoms.get(RETURNED), record.ref)
    status = _parse(JobStatus, outcome.get("status"))
    results = _parse(ResultManifest, outcome.get("results"))
    queued = xcoms.get(QUEUED_KEY)
    waiting = record.queued.why if record.queued is not None and record.is_waiting else ""
    service = record.ref.service if record.ref is not None else record.queued.service if record.queued else ""
    conn_id = record.ref.conn_id if record.ref is not None else record.queued.conn_id if record.queued else ""
    state = status.state if status is not None else JobState.QUEUED if waiting else None
    if not waiting and isinstance(queued, Mapping) and queued.get("state"):
        waiting = str(queued.get("reason") or "")
    return JobRow(
        dag_id=place[0],
        run_id=place[1],
        task_id=place[2],
        map_index=place[3],
        key=key,
        service=service,
        conn_id=conn_id,
        job_id=record.ref.id if record.ref is not None else None,
        state=state,
        raw=status.raw if status is not None else "",
        total=status.counts.total if status is not None else None,
        failed=status.counts.failed if status is not None else None,
        share=status.get_share_done() if status is not None else None,
        since=record.submitted_at or (record.queued.since if record.queued is not None else record.intent_at),
        deadline=deadline,
        results_expire_at=status.results_expire_at if status is not None else None,
        waiting=waiting,
        error=status.describe() if status is not None and status.state is not JobState.SUCCEEDED else "",
        cost=_price(results),
        console_url=str(xcoms.get(CONSOLE_URL_KEY) or ""),
        task_state=task_state,
    )


def _match(outcome: Any, ref: JobRef | None) -> Mapping[str, Any]:
    """Return an XCom that is of this very job; an empty one otherwise."""
    if ref is None or not isinstance(outcome, Mapping):
        return {}
    try:
        return outcome if JobRef.read(outcome).id == ref.id else {}
    except SpecError:
        return {}


def _parse(model: Any, value: Any) -> Any:
    try:
        return model.model_validate(value) if value is not None else None
    except ValidationError:
        return None


def _price(results: ResultManifest | None) -> str:
    usage = results.detail.get("usage") if results is not None else None
    if results is None or not isinstance(usage, Mapping):
        return ""
    counts = {name: value for name, value in usage.items() if type(value) is int}
    used = AnswerUsage(
        model=str(results.detail.get("model")),
        answers=0,
        input=counts.get("input", 0),
        output=counts.get("output", 0),
    )
    cost = UsageCost.of([used], PriceTable.shipped())
    return str(cost) if cost.cost is not None else ""


def _read_xcoms(session: Session, keys: set[TaskKey]) -> dict[TaskKey, dict[str, Any]]:
    found: dict[TaskKey, dict[str, Any]] = {}
    runs = {(dag_id, run_id) for dag_id, run_id, _, _ in keys}
    query = select(XComModel).where(
        tuple_(XComModel.dag_id, XComModel.run_id).in_(list(runs)),
        XComModel.key.in_((RETURNED, QUEUED_KEY, CONSOLE_URL_KEY)),
        XComModel.task_id.in_({task_id for _, _, task_id, _ in keys}),
    )
    for row in session.scalars(query) if runs else ():
        place = (row.dag_id, row.run_id, row.task_id, row.map_index)
        if place in keys:
            found.setdefault(place, {})[row.key] = XComModel.deserialize_value(row)
    return found


def _read_deadlines(session: Session, trigger_ids: set[int]) -> dict[int | None, datetime]:
    found: dict[int | None, datetime] = {}
    for trigger in session.scalars(select(Trigger).where(Trigger.id.in_(trigger_ids))) if trigger_ids else ():
        until = trigger.kwargs.get("deadline", trigger.kwargs.get("until"))
        if isinstance(until, int | float):
            found[trigger.id] = datetime.fromtimestamp(until, UTC)
    return found
