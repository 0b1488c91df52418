"""A day without files that is allowed, in a real Airflow: what has nothing to do is skipped, and the report says 0."""

from __future__ import annotations

import json
import threading
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from overnight.sandbox.airflow import Airflow
from unit.ingest.fake_opensearch import FakeOpenSearch

DAGS = """
# The word airflow makes this a file of DAGs.
from overnight.templates.llamacloud_parse_to_index import LlamaCloudParseToIndexConfig, llamacloud_parse_to_index
from overnight.templates.s3_sagemaker_to_index import S3SageMakerToIndexConfig, s3_sagemaker_to_index

places = {{"work_uri": "{folder}/work", "index_name": "docs", "aws_conn_id": "aws_default"}}
documents = "{folder}/documents/"
openai = {{"model": "text-embedding-3-small", "probe": False}}
dags = [
    llamacloud_parse_to_index("llamacloud", LlamaCloudParseToIndexConfig(sources=documents, **openai, **places)),
    s3_sagemaker_to_index("sagemaker", S3SageMakerToIndexConfig(input_uri=documents, model_name="m", **places)),
]
"""
SKIPPED = {"llamacloud": "parse", "sagemaker": "transform"}
NOBODY = "http://127.0.0.1:9"


@pytest.fixture
def opensearch() -> Iterator[FakeOpenSearch]:
    fake = FakeOpenSearch()
    fake.create("docs", {"embedding": {"type": "knn_vector", "dimension": 1536}})
    thread = threading.Thread(target=fake.server.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    try:
        yield fake
    finally:
        fake.server.shutdown()
        fake.server.server_close()
        thread.join()


@pytest.fixture
def airflow(opensearch: FakeOpenSearch, tmp_path: Path, migrated_airflow: Airflow) -> Airflow:
    """An Airflow with the pipelines, whose sources have no file."""
    for name in ("dags", "documents"):
        (tmp_path / name).mkdir()
    (tmp_path / "documents" / "_SUCCESS").touch()
    (tmp_path / "dags" / "pipelines.py").write_text(DAGS.format(folder=tmp_path))
    connections = {
        "OPENSEARCH": {"conn_type": "overnight_opensearch", "host": opensearch.url},
        "OPENAI": {"conn_type": "overnight_openai", "host": NOBODY, "password": "k"},
        "LLAMACLOUD": {"conn_type": "overnight_llamacloud", "host": NOBODY, "password": "k"},
        "AWS": {"conn_type": "aws", "login": "k", "password": "s"},
    }
    variables = {f"AIRFLOW_CONN_{name}_DEFAULT": json.dumps(value) for name, value in connections.items()}
    return replace(migrated_airflow.copy(tmp_path / "home"), dags=tmp_path / "dags", variables=variables)


@pytest.mark.parametrize("pipeline", SKIPPED)
def test_a_day_without_files(pipeline: str, airflow: Airflow, tmp_path: Path) -> None:
    log = tmp_path / "log"
    empty = airflow.run_dag(pipeline, {"allow_empty": True}, xcoms={"report": "report"}, log=log)
    assert empty.state == "success", log.read_text()
    assert {name: empty.xcoms["report"][name] for name in ("submitted", "indexed", "missing")} == {
        "submitted": 0, "indexed": 0, "missing": 0,
    }  # fmt: skip
    states = {task.task_id: task.state for task in empty.tasks}
    assert (states[SKIPPED[pipeline]], states["report"], states["verify"]) == ("skipped", "success", "success")


@pytest.mark.parametrize("pipeline", SKIPPED)
def test_a_source_that_is_suddenly_empty_deletes_nothing(
    pipeline: str, airflow: Airflow, opensearch: FakeOpenSearch, tmp_path: Path
) -> None:
    opensearch.documents = {str(number): {} for number in range(5)}
    opensearch.sequence = {str(number): number for number in range(5)}
    log = tmp_path / "log"
    run = airflow.run_dag(pipeline, {"allow_empty": True, "sync": "mirror"}, xcoms={"report": "report"}, log=log)
    assert run.state == "failed"
    states = {task.task_id: task.state for task in run.tasks}
    assert (states["create_index"], states["mirror"], states["report"]) == ("success", "failed", "failed")
    assert len(opensearch.documents) == 5
    assert (run.xcoms["report"]["deleted"], run.xcoms["report"]["mirror"]["extra"]) == (0, 5)
    assert "The source has no document at all" in run.xcoms["report"]["mirror"]["refusal"]
    deletes = next((tmp_path / "work").rglob("deletes.jsonl"))
    assert len(deletes.read_text().splitlines()) == 5
