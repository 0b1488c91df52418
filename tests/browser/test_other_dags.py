"""Every DAG that no browser clicks through runs green with its form's defaults, over what `make up` has put there."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import UTC, datetime

import httpx
import pytest

from overnight.sandbox.services import KEY
from shipped_dags import shipped_dags
from system.console import Console, Run

from .conftest import MAIN, Up, form_defaults

OTHERS = sorted(shipped_dags().keys() - set(MAIN))
LOG_LINES = 40


@pytest.fixture(scope="session")
def runs(up: Up) -> dict[str, Run]:
    """Return a run of each, all of them triggered: they wait for their services side by side."""
    return {
        dag_id: up.console.trigger(dag_id, form_defaults(up.console, dag_id), logical_date=datetime.now(UTC))
        for dag_id in OTHERS
    }


@pytest.mark.parametrize("dag_id", OTHERS)
def test_a_dag_indexes_documents_with_its_forms_defaults(up: Up, runs: Mapping[str, Run], dag_id: str) -> None:
    run = runs[dag_id]
    assert run.finish() == "success", describe_failure(run)
    assert count_documents(up.console, run) > 0, run.xcom("report")


def describe_failure(run: Run) -> str:
    """Return each failed task of a run with the end of its log."""
    return "\n\n".join(
        f"{task['task_id']} [{task['map_index']}] of {run.dag_id} failed:\n"
        + "\n".join(run.log(task["task_id"], task["try_number"], task["map_index"]).splitlines()[-LOG_LINES:])
        for task in run.tasks()
        if task["state"] == "failed"
    )


def count_documents(console: Console, run: Run) -> int:
    """Return how many documents the index has that a run's report names, as its server counts them."""
    index = run.xcom("report")["index"]
    defaults = form_defaults(console, run.dag_id)
    if "opensearch_conn_id" in defaults:
        place = console.get(f"/connections/{defaults['opensearch_conn_id']}")
        url = f"http://{place['host']}:{place['port']}/{index}"
        httpx.post(f"{url}/_refresh").raise_for_status()
        return int(httpx.get(f"{url}/_count").raise_for_status().json()["count"])
    # The sandbox's Azure AI Search listens where its Azure OpenAI does.
    place = console.get(f"/connections/{defaults['azure_conn_id']}")
    answer = httpx.get(
        f"{place['host']}/indexes/{index}/docs/$count",
        params={"api-version": "2024-07-01"},
        headers={"api-key": KEY},
    )
    return int(answer.raise_for_status().text)
