"""Connections that only some of the pipelines need, made in a running Airflow through its REST API."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

from ..console import Console, Run, eventually


def connect(console: Console, conn_id: str, fields: Mapping[str, Any]) -> None:
    """Add a connection, given as the value of an ``AIRFLOW_CONN_…`` variable holds it."""
    extra = json.dumps(fields.get("extra", {}))
    console.post("/connections", {**fields, "connection_id": conn_id, "extra": extra})


def trigger(console: Console, dag_id: str, conf: Mapping[str, Any]) -> Run:
    """Trigger a DAG of the project, and call off the run that its schedule makes as soon as it is not paused."""
    run = console.trigger(dag_id, conf)
    if console.get(f"/dags/{dag_id}")["timetable_summary"] is not None:
        path = f"/dags/{dag_id}/dagRuns"
        (scheduled,) = eventually(
            lambda: console.get(path, run_type="scheduled")["dag_runs"], why=f"a scheduled run of {dag_id}"
        )
        console.patch(f"{path}/{scheduled['dag_run_id']}", {"state": "failed"})
    return run


def clear_from(run: Run, task_id: str) -> None:
    """Clear a task and what follows it, as the button in the UI does."""
    choice = {"include_downstream": True, "only_failed": False, "dry_run": False}
    body = {**choice, "dag_run_id": run.run_id, "task_ids": [task_id]}
    assert run.console.post(f"/dags/{run.dag_id}/clearTaskInstances", body)["total_entries"]


def counts(report: Mapping[str, Any]) -> tuple[int, int, int, int]:
    """Return submitted, indexed, rejected and missing."""
    return report["submitted"], report["indexed"], report["rejected"], report["missing"]
