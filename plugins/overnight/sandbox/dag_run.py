"""``python -m overnight.sandbox.dag_run``: one DAG run in this process, and what came of it as JSON."""

from __future__ import annotations

import argparse
import json
from pathlib import Path
from typing import Any

import msgspec
from airflow.dag_processing.dagbag import DagBag
from airflow.models.xcom import XComModel
from airflow.utils.session import create_session

from overnight.sandbox.airflow import DagRun, TaskRun


def main() -> None:
    """Read the arguments, run the DAG, write the outcome."""
    parser = argparse.ArgumentParser()
    parser.add_argument("dags", type=Path)
    parser.add_argument("dag_id")
    parser.add_argument("--conf", type=json.loads, default={})
    parser.add_argument("--xcoms", type=json.loads, default={})
    parser.add_argument("--outcome", type=Path, required=True)
    arguments = parser.parse_args()
    outcome = run(arguments.dags, arguments.dag_id, arguments.conf, arguments.xcoms)
    arguments.outcome.write_bytes(msgspec.json.encode(outcome))


def run(dags: Path, dag_id: str, conf: dict[str, Any], xcoms: dict[str, str]) -> DagRun:
    """Run one DAG of a folder to its end."""
    bag = DagBag(dags)
    dag = bag.dags.get(dag_id)
    if dag is None:
        raise SystemExit(f"No DAG {dag_id!r} in {dags}: {bag.import_errors or sorted(bag.dags)}")
    dag_run = dag.test(run_conf=conf)
    with create_session() as session:
        found = {
            task_id: XComModel.deserialize_value(row)
            for task_id, key in xcoms.items()
            for row in session.scalars(XComModel.get_many(run_id=dag_run.run_id, key=key, task_ids=task_id, limit=1))
        }
    instances = dag_run.get_task_instances()
    started = [ti.start_date for ti in instances if ti.start_date is not None]
    ended = [ti.end_date for ti in instances if ti.end_date is not None]
    return DagRun(
        run_id=dag_run.run_id,
        state=str(dag_run.state),
        seconds=(max(ended) - min(started)).total_seconds() if started and ended else 0.0,
        tasks=tuple(TaskRun(ti.task_id, ti.map_index, str(ti.state), float(ti.duration or 0.0)) for ti in instances),
        xcoms=found,
    )


if __name__ == "__main__":
    main()
