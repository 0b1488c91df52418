"""
The project's DAGs on Celery: two workers, two triggerers, PostgreSQL and Redis.

One worker is killed while it loads and never comes back, and one triggerer is killed while jobs wait and is started
again. What became of that is read from the services' own records and from the index.
"""

from __future__ import annotations

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from dataclasses import dataclass
from typing import Any

import pytest

from overnight.sandbox.opensearch import Node
from overnight.sandbox.process import free_port
from overnight.sandbox.services import SERVICES, running
from system.accounts import Account
from system.bench.connections import connect, counts, trigger
from system.bench.sagemaker import SageMaker, emulated
from system.bench.store import Store
from system.console import Run, eventually
from system.pipeline import PIPELINE, Documents, first

from .deployment import Deployment, deployed

PARTS = 6
COUNT = 40 * PARTS
FILES = 6
EACH = 20
WORKERS = {"worker-1", "worker-2"}
LOADS = {"batch.load", "load"}
CAPACITY = 4
"""Triggers that a triggerer takes at most: less than there are jobs, so that both triggerers have some."""


@dataclass(frozen=True)
class Night:
    """Both runs, after their end."""

    embedded: Run
    transformed: Run
    account: Account
    sagemaker: SageMaker
    documents: Documents
    inputs: list[list[dict[str, str]]]
    submitting: set[str]
    """The workers that submitted the batches; behind the wait each goes on where there is room."""
    before: dict[str, str]
    """By batch, the triggerer that watched it before one was killed."""
    after: dict[str, str]
    """The same after that one was started again."""
    killed: dict[str, Any]
    """The task that worker-2 had when it was killed."""


@pytest.fixture(scope="module")
def night(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Night]:
    folder = tmp_path_factory.mktemp("distributed")
    account = Account("held", folder / "account", "sk-planted-for-two-workers")
    node = Node(home=folder / "opensearch" / "node", port=free_port(), short_lived=True)
    port = free_port()
    environment = {
        **SERVICES["s3"].environment(port),
        **SERVICES["opensearch"].environment(node.port),
        "AIRFLOW_CONN_OPENAI_DEFAULT": account.connection,
        "AIRFLOW__TRIGGERER__CAPACITY": str(CAPACITY),
    }
    with ExitStack() as stack, ThreadPoolExecutor(1) as pool:
        stack.callback(node.remove)
        booting = pool.submit(node.__enter__)
        stack.enter_context(running("s3", folder, port=port))
        stack.callback(account.stop)
        account.start()
        sagemaker = stack.enter_context(emulated(folder / "sagemaker", environment))
        documents = Documents(environment)
        booting.result()
        airflow = stack.enter_context(deployed(folder, environment))
        yield carry_out(airflow, account, sagemaker, documents)


def carry_out(airflow: Deployment, account: Account, sagemaker: SageMaker, documents: Documents) -> Night:
    """Run both DAGs to their end, and kill what is to be killed on the way."""
    connect(airflow.console, "aws_transform", sagemaker.connection)
    store = Store(documents.environment, "transform")
    inputs = store.put_documents(files=FILES, each=EACH)
    embedding = documents.conf(account="openai_default", index="embedded", count=COUNT, parts=PARTS)
    embedded = trigger(airflow.console, PIPELINE, embedding)
    transforming = {
        "input_uri": store.uri,
        "index_name": "transformed",
        "poll_seconds": 0.5,
        "aws_conn_id": "aws_transform",
    }

    before = watched(embedded)
    submitting = machines(embedded, "batch.embed")
    airflow.kill("triggerer-1")
    airflow.start("triggerer-1")
    # The other triggerer has room for only some of what the dead one had.
    after = eventually(
        lambda: found if len(set((found := watched(embedded)).values())) == 2 and None not in found.values() else {},
        why="two triggerers watch the batches again",
    )
    transformed = trigger(airflow.console, "s3_sagemaker_to_index", transforming)
    account.let_go()
    killed = kill_while_loading(airflow, "worker-2", (embedded, transformed))
    for run in (embedded, transformed):
        assert run.finish() == "success", [(task["task_id"], task["map_index"], task["state"]) for task in run.tasks()]
    assert airflow.ended() == []
    return Night(embedded, transformed, account, sagemaker, documents, inputs, submitting, before, after, killed)


def watched(run: Run) -> dict[str, str]:
    """Wait until every part is deferred and watched, and return the machines of the triggerers by part."""

    def look() -> dict[str, str]:
        waiting = [task for task in run.tasks() if task["state"] == "deferred" and task["triggerer_job"]]
        return {str(task["map_index"]): task["triggerer_job"]["hostname"] for task in waiting}

    return eventually(lambda: found if len(found := look()) == PARTS else {}, why=f"{PARTS} parts wait")


def kill_while_loading(airflow: Deployment, worker: str, runs: tuple[Run, ...]) -> dict[str, Any]:
    """Kill a worker that is in the middle of a load, and return that task."""

    def loading() -> list[dict[str, Any]]:
        tasks = (task for run in runs for task in run.tasks())
        return [task for task in tasks if task["task_id"] in LOADS and is_on(task)]

    def is_on(task: dict[str, Any]) -> bool:
        return bool(task["state"] == "running" and task["hostname"] == worker)

    def catch() -> list[dict[str, Any]]:
        if not loading():
            return []
        # Between a look and a kill a load may end; one that is still running when nothing moves any more will not.
        airflow.freeze(worker)
        caught = loading()
        if not caught:
            airflow.thaw(worker)
        return caught

    caught = eventually(catch, why=f"{worker} is loading")
    airflow.kill(worker)
    return caught[0]


def machines(run: Run, *task_ids: str) -> set[str]:
    """Return the workers that any try of some tasks ran on."""
    return {
        one["hostname"]
        for task in run.tasks()
        if task["task_id"] in task_ids
        for one in tries(run, task)
        if one["hostname"]
    }


def tries(run: Run, task: dict[str, Any]) -> list[dict[str, Any]]:
    mapped = f"/{task['map_index']}" if task["map_index"] >= 0 else ""
    return list(run.console.get(f"{run.path}/taskInstances/{task['task_id']}{mapped}/tries")["task_instances"])


def test_parts_and_loads_ran_on_both_workers(night: Night) -> None:
    assert night.submitting == WORKERS
    assert machines(night.embedded, "batch.load") | machines(night.transformed, "load") == WORKERS


def test_the_load_that_a_dead_worker_had_was_done_by_the_other(night: Night) -> None:
    run = night.embedded if night.killed["dag_id"] == night.embedded.dag_id else night.transformed
    ran = tries(run, night.killed)
    assert [(one["hostname"], one["state"]) for one in ran][-1] == ("worker-1", "success")
    assert "worker-2" in {one["hostname"] for one in ran[:-1]}


def test_what_a_dead_triggerer_watched_was_watched_on(night: Night) -> None:
    assert set(night.before.values()) == set(night.after.values()) == {"triggerer-1", "triggerer-2"}
    assert night.before.keys() == night.after.keys() == {str(number) for number in range(PARTS)}


def test_every_batch_was_created_once(night: Night) -> None:
    batches = night.account.batches(PIPELINE)
    assert [batch["status"] for batch in batches] == ["completed"] * PARTS
    assert len({batch["metadata"]["overnight_name"] for batch in batches}) == PARTS
    created = [seen for seen in night.account.requests() if (seen["method"], seen["path"]) == ("POST", "/v1/batches")]
    assert [seen["status"] for seen in created] == [200] * PARTS
    refs = {night.embedded.xcom("batch.embed", map_index=number)["ref"]["id"] for number in range(PARTS)}
    assert refs == {batch["id"] for batch in batches}


def test_the_transform_was_created_once(night: Night) -> None:
    assert [call["status"] for call in night.sagemaker.calls("CreateTransformJob")] == [200]
    assert [job["TransformJobStatus"] for job in night.sagemaker.jobs()] == ["Completed"]


def test_every_document_is_in_its_index_once(night: Night) -> None:
    assert counts(night.embedded.xcom("report")) == (COUNT, COUNT, 0, 0)
    found = night.documents.indexed("embedded")
    assert {name: document["text"] for name, document in found.items()} == {
        document["id"]: document["text"] for document in first(COUNT)
    }
    assert counts(night.transformed.xcom("report")) == (FILES * EACH, FILES * EACH, 0, 0)
    found = night.documents.indexed("transformed")
    assert {name: document["text"] for name, document in found.items()} == {
        document["id"]: document["text"] for part in night.inputs for document in part
    }
