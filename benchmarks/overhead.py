"""
What the steps of the OpenAI pipeline add to a job that the service ends as fast as it can, step by step.

The demo's documents go through ``dags/openai_batch_to_index.py`` as in ``make demo``: ``dag.test()`` with real tasks,
the sandbox's S3, OpenSearch and emulator beside it. The emulator goes from one state of a batch to the next at once;
what it takes to answer the requests is part of the figure. Beside it, a DAG of as many tasks that do nothing.

.. code-block:: shell

    make bench BENCH=overhead
"""

from __future__ import annotations

import statistics
import tempfile
from collections import Counter
from pathlib import Path
from typing import Final

import httpx

from overnight.sandbox.airflow import Airflow, DagRun
from overnight.sandbox.demo.pipelines import openai_batch_to_index
from overnight.sandbox.services import select
from overnight.sandbox.store import Store
from overnight.sandbox.supervisor import Sandbox
from records import Record, make_record

PROJECT: Final = Path(__file__).parent.parent
ROUNDS: Final = 3
EMPTY: Final = """
from airflow.sdk import DAG, task

with DAG("empty"):

    @task
    def nothing(number):
        pass

    last = None
    for number in range({count}):
        this = nothing.override(task_id=f"task_{{number}}")(number)
        if last is not None:
            last >> this
        last = this
"""


def run() -> Record:
    """Return the seconds of a warm run of the pipeline beside those of empty tasks, and the seconds of each step."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        sandbox = Sandbox(folder / "sandbox")
        sandbox.up(select(("openai", "opensearch", "s3")))
        try:
            environment = sandbox.environment()
            emulator = environment["OPENAI_BASE_URL"].removesuffix("/v1")
            at_once = {"validating": 0, "finalizing": 0}
            httpx.put(f"{emulator}/_sandbox/pace", json=at_once).raise_for_status()
            return _measure(folder, environment)
        finally:
            sandbox.purge()


def _measure(folder: Path, environment: dict[str, str]) -> Record:
    airflow = Airflow(folder / "airflow", dags=PROJECT / "dags", plugins=PROJECT / "plugins", variables=environment)
    airflow.migrate()
    pipeline = openai_batch_to_index(Store(environment))
    # The first run warms up: the service's vectors of the documents, the pages of the files, the node.
    runs = [_succeed(pipeline.run(airflow)) for _ in range(ROUNDS + 1)][1:]
    dags = folder / "dags"
    dags.mkdir()
    (dags / "empty.py").write_text(EMPTY.format(count=len(runs[0].tasks)))
    empty = Airflow(folder / "airflow", dags=dags, variables=environment)
    peers = [_succeed(empty.run_dag("empty", {})) for _ in range(ROUNDS + 1)][1:]
    record = make_record(
        f"s for {pipeline.counts(runs[0]).submitted:,} documents in {len(runs[0].tasks)} tasks",
        statistics.median(one.seconds for one in runs),
        {"as many empty tasks": statistics.median(one.seconds for one in peers)},
        "less",
    )
    steps = Counter(task.task_id for task in runs[0].tasks)
    record["details"] = {
        step: round(statistics.median(one.get_seconds(step) for one in runs), 2) for step in sorted(steps)
    }
    return record


def _succeed(run: DagRun) -> DagRun:
    if run.state != "success":
        failed = ", ".join(f"{task.task_id}: {task.state}" for task in run.tasks if task.state != "success")
        raise SystemExit(f"{run.run_id} ended as {run.state}: {failed}")
    return run
