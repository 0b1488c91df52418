"""One DAG for each exit of a job's life; each has one task, and some of their workers kill themselves."""

from __future__ import annotations

import os
import signal
from datetime import timedelta
from typing import TYPE_CHECKING, Any, NoReturn

from airflow.sdk import DAG, get_current_context
from late_trigger import LateTrigger

from overnight.jobs import JobRecord, RecordStore
from overnight.jobs.client import JobClient
from overnight.operators.cancel import CancelBatchJobOperator
from overnight.operators.openai import OpenAIBatchOperator, OpenAIBatchResultsOperator
from overnight.sensors.job import BatchJobSensor

if TYPE_CHECKING:
    from airflow.sdk import Context
    from airflow.triggers.base import BaseTrigger

FOLDER = os.environ["OVERNIGHT_TEST_FOLDER"]
SOON = timedelta(seconds=0.5)
GOOD = f"{FOLDER}/good.jsonl"
BAD = f"{FOLDER}/unknown-model.jsonl"


def die() -> None:
    """Die as a worker does that is out of memory, or whose machine is gone: nothing is cleaned up."""
    os.kill(os.getpid(), signal.SIGKILL)


class DyingStore:
    """A record store whose process dies beside a write."""

    def __init__(self, store: RecordStore, *, before: bool, with_ref: bool) -> None:
        self.store = store
        self.before = before
        self.with_ref = with_ref

    def get(self) -> JobRecord | None:
        return self.store.get()

    def set(self, record: JobRecord) -> None:
        dies = (record.ref is not None) is self.with_ref
        if dies and self.before:
            die()
        self.store.set(record)
        if dies:
            die()


class Mortal(OpenAIBatchOperator):
    """Its first worker dies beside one of the writes of its record."""

    before: bool
    with_ref: bool

    def make_record_store(self, context: Context) -> RecordStore:
        store = super().make_record_store(context)
        if context["ti"].try_number > 1:
            return store
        return DyingStore(store, before=self.before, with_ref=self.with_ref)


class DiesBeforeSubmit(Mortal):
    """Its first worker dies when it has written down what it is about to do."""

    before, with_ref = False, False


class DiesAfterSubmit(Mortal):
    """Its first worker dies between the service's answer to ``POST /batches`` and the record of it."""

    before, with_ref = True, True


class DiesAfterRecord(Mortal):
    """Its first worker dies once its job is on record."""

    before, with_ref = False, True


class DiesBeforeWait(OpenAIBatchOperator):
    """Its first worker dies once it has submitted, without any record: that is when it asks for a second client."""

    clients = 0

    def make_client(self) -> JobClient[Any]:
        self.clients += 1
        if self.clients == 2 and get_current_context()["ti"].try_number == 1:
            die()
        return super().make_client()


class CancelsLate(OpenAIBatchOperator):
    """Its trigger cancels only when it may, so that a cleared task is there before it."""

    def defer(self, *, trigger: BaseTrigger, **arguments: Any) -> NoReturn:
        super().defer(trigger=LateTrigger(**trigger.serialize()[1]), **arguments)


def job(dag_id: str, account: str, kind: type[OpenAIBatchOperator] = OpenAIBatchOperator, **arguments: Any) -> None:
    """Make a DAG of one job."""
    with DAG(dag_id, params={"allowed": "0"}):
        kind(task_id="job", **settings(account, **arguments))


def settings(account: str, **arguments: Any) -> dict[str, Any]:
    """Return an operator's arguments, quick where a night would be slow."""
    return {
        "input_uri": GOOD,
        "endpoint": "/v1/embeddings",
        "conn_id": account,
        "poll_interval": 1.0,
        "deferrable": True,
        "retries": 2,
        "retry_delay": SOON,
        **arguments,
    }


job("dies_before_submit", "quick", DiesBeforeSubmit, deferrable=False)
job("dies_after_submit", "quick", DiesAfterSubmit, deferrable=False)
job("not_durable", "quick", DiesBeforeWait, deferrable=False, durable=False)
job("triggerer_dies", "held")
job("worker_dies", "held", deferrable=False)
job("deadline_and_triggerer", "stuck", deadline=30, retries=0)
job("deadline_retried", "stuck", deferrable=False, deadline=timedelta(seconds=3), retries=1)
job("deadline_spared", "held", deadline=3, cancel_on_deadline=False, retries=30, retry_delay=timedelta(seconds=1))
job("marked_failed", "stuck")
job("marked_success", "stuck")
job("marked_spared", "stuck", cancel_on_kill=False)
job("marked_on_worker", "stuck", deferrable=False)
job("cleared_deferred", "stuck")
job("cleared_early", "stuck", CancelsLate)
job("cleared_on_worker", "stuck", deferrable=False)
job("cleared_finished", "quick", deferrable=False)
job("cleared_reused", "quick", on_clear="reuse")
job("cleared_reused_gone", "quick", deferrable=False, on_clear="reuse")
job("changed_refused", "stuck", DiesAfterRecord, deferrable=False, metadata={"try": "{{ ti.try_number }}"})
job(
    "changed_restarted",
    "stuck",
    DiesAfterRecord,
    metadata={"try": "{{ ti.try_number }}"},
    on_changed_spec="restart",
)
job("poll_gives_up", "silent", patience=1, retries=60)
job("wrong_key", "wrong_key", deferrable=False)
job("key_rotated", "rotated")
job("lost", "forgetful")
job("expired", "expiring", deferrable=False)
job("broken", "broken", deferrable=False)
job("bad_input", "quick", deferrable=False, input_uri=BAD)
job("refused_input", "quick", deferrable=False, input_uri=f"{FOLDER}/duplicates.jsonl")
job("cancelled_elsewhere", "stuck")
job("kept_waiting", "stuck")
job("too_many_failed", "lossy", deferrable=False, allowed_failures="{{ var.value.get('too_many_failed', '0') }}")
job("some_failed", "lossy", deferrable=False, allowed_failures="50%")

with DAG("lapsed"):
    lapsing = OpenAIBatchOperator(task_id="job", **settings("aging", deferrable=False, output_expires_after=3600))
    OpenAIBatchResultsOperator(
        task_id="results", job=lapsing.output, target=f"{FOLDER}/lapsed", retries=2, retry_delay=SOON
    )

with DAG("handed_over"):
    handed = OpenAIBatchOperator(task_id="job", **settings("quick", wait_for_completion=False))
    BatchJobSensor(
        task_id="deferred", job=handed.output, deferrable=True, poke_interval=0.5, retries=2, retry_delay=SOON
    )
    BatchJobSensor(task_id="poked", job=handed.output, poke_interval=0.5)

with DAG("called_off"):
    running = OpenAIBatchOperator(task_id="job", **settings("stuck", wait_for_completion=False))
    CancelBatchJobOperator(task_id="cancel", job=running.output)
