"""The operators in a real Airflow, against the emulator."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import orjson
import pytest

from overnight.sandbox.airflow import Airflow, DagRun
from overnight.sandbox.services import SERVICES

from .conftest import Bench

DAGS = """
from airflow.sdk import DAG
from overnight.operators.chunks import ChunkDocumentsOperator
from overnight.operators.llamacloud import LlamaCloudBatchOperator, LlamaCloudResultsOperator
from overnight.sensors.job import BatchJobSensor

SCHEMA = {"type": "object", "properties": {"title": {"type": "string"}}}

with DAG("files", params={"folder": "x"}):
    parse = LlamaCloudBatchOperator(
        task_id="parse",
        configuration_id="cfg-PARSE_FAST",
        sources="{{ params.folder }}/source/",
        results_uri="{{ params.folder }}/parsed",
        metadata={"run": "{{ run_id }}"},
        limits={"files_per_batch": 10},
        allowed_failures="5%",
        deferrable=True,
        poll_interval=0.2,
    )
    ChunkDocumentsOperator(
        task_id="chunks",
        documents=parse.output,
        target="{{ params.folder }}/chunks.jsonl",
        config={"max_size": 40, "id_field": "source_uri"},
    )
    submitted = LlamaCloudBatchOperator(
        task_id="submit",
        job_type="extract_v2",
        configuration_name="titles {{ params.folder }}",
        parameters={"data_schema": SCHEMA},
        sources=["{{ params.folder }}/source/note-000[0-2].md"],
        wait_for_completion=False,
    )
    watch = BatchJobSensor(task_id="watch", job=submitted.output, poke_interval=0.2)
    LlamaCloudResultsOperator(
        task_id="collect", job=watch.output, results_uri="{{ params.folder }}/extracted"
    )
"""


@pytest.fixture(scope="module")
def airflow(tmp_path_factory: pytest.TempPathFactory, migrated_airflow: Airflow, llamacloud_url: str) -> Airflow:
    home = tmp_path_factory.mktemp("airflow")
    (home / "dags").mkdir()
    (home / "dags" / "llamacloud.py").write_text(DAGS)
    variables = SERVICES["llamacloud"].environment(urlsplit(llamacloud_url).port or 0)
    return replace(migrated_airflow.copy(home / "home"), dags=home / "dags", variables=variables)


def read(uri: str) -> list[dict[str, Any]]:
    return [orjson.loads(line) for line in Path(uri).read_bytes().splitlines()]


def states(run: DagRun) -> dict[str, str]:
    return {task.task_id: task.state for task in run.tasks}


def test_files_are_parsed_collected_and_cut_and_others_collected_behind_a_sensor(
    bench: Bench, airflow: Airflow, tmp_path: Path
) -> None:
    bench.files(24)
    bench.files(1, "broken")
    bench.set("faults", files_failed={"share": 1, "name": "^broken"})
    wanted = dict.fromkeys(("parse", "chunks", "collect"), "return_value")
    run = airflow.run_dag("files", {"folder": str(tmp_path)}, xcoms=wanted, log=tmp_path / "log")
    log = (tmp_path / "log").read_text()
    assert states(run) == dict.fromkeys(("parse", "chunks", "submit", "watch", "collect"), "success"), log
    assert "Bearer" not in log

    parsed = run.xcoms["parse"]
    assert parsed["status"]["state"] == "partial"
    assert parsed["status"]["counts"] == {"total": 25, "succeeded": 24, "failed": 1}
    assert len(parsed["ref"]["id"].split("+")) == 3
    uris = {file["kind"]: file["uri"] for file in parsed["results"]["files"]}
    (broken,) = read(uris["error"])
    assert broken["name"] == "broken-0000.md"
    assert {line["metadata"]["run"] for line in read(uris["output"])} == {run.run_id}

    assert run.xcoms["chunks"]["documents"] == 24
    chunks = read(str(tmp_path / "chunks.jsonl"))
    assert len({chunk["id"] for chunk in chunks}) == len(chunks) == run.xcoms["chunks"]["chunks"]

    collected = run.xcoms["collect"]
    assert collected["counts"] == {"total": 3, "succeeded": 3, "failed": 0}
    titles = {line["extracted"]["title"] for line in read(collected["files"][0]["uri"])}
    assert titles == {f"note {n}" for n in range(3)}
