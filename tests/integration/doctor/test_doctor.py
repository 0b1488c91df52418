"""``overnight doctor`` as a user runs it: against a real Airflow, OpenSearch, S3 and emulator, right and wrong."""

from __future__ import annotations

import json
import socket
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import boto3
import psutil
import pytest

from overnight.sandbox.airflow import Airflow

SECRET = "sk-that-nobody-may-read"
DAG = '''
"""The word airflow has to be in the file of a dag."""
from overnight.templates.openai_batch_to_index import OpenAIBatchToIndexConfig, openai_batch_to_index

dag = openai_batch_to_index(
    "nightly",
    OpenAIBatchToIndexConfig(
        input_uri="s3://lake/in/{{ ds }}/",
        work_uri=WORK_URI,
        index_name="documents",
        model="text-embedding-3-small",
        dimension=384,
        index_body={"mappings": {"properties": {"embedding": {"type": "knn_vector", "dimension": 384}}}},
        create_index=True,
    ),
    schedule=None,
)
'''
PREDICTION = '''
"""The word airflow has to be in the file of a dag."""
from airflow.sdk import DAG
from overnight.operators.ml_commons import MLCommonsBatchPredictOperator

with DAG("predict", schedule=None) as dag:
    MLCommonsBatchPredictOperator(task_id="predict", model_id="m", parameters={}, conn_id="opensearch_default")
'''
Connection = dict[str, Any]
SLOWLY = ("--seconds", "120")
"""Other tests run on the same cores, and a command of Airflow takes seconds of them."""


@pytest.fixture(scope="module")
def connections(opensearch_url: str, s3_endpoint: str, openai_url: str) -> dict[str, Connection]:
    """Connections that are right, of which the database has OpenSearch's and the environment the others."""
    keys = {"aws_access_key_id": "AKIA", "aws_secret_access_key": SECRET, "region_name": "us-east-1"}
    boto3.client("s3", endpoint_url=s3_endpoint, **keys).create_bucket(Bucket="lake")
    extra = {"region_name": "us-east-1", "service_config": {"s3": {"endpoint_url": s3_endpoint}}}
    return {
        "openai_default": {"conn_type": "overnight_openai", "host": openai_url, "password": "sandbox"},
        "opensearch_default": {"conn_type": "overnight_opensearch", "host": opensearch_url, "password": SECRET},
        "aws_default": {"conn_type": "aws", "login": "AKIA", "password": SECRET, "extra": extra},
    }


@pytest.fixture
def airflow(migrated_airflow: Airflow, tmp_path: Path, connections: dict[str, Connection]) -> Callable[..., Airflow]:
    """Makes an Airflow with a DAG, and with connections in place of the right ones."""

    def make(work_uri: str, *dags: str, other: dict[str, Connection | None], **variables: str) -> Airflow:
        folder = tmp_path / "dags"
        folder.mkdir()
        (folder / "nightly.py").write_text(DAG.replace("WORK_URI", repr(work_uri)))
        for number, text in enumerate(dags):
            (folder / f"dag_{number}.py").write_text(text)
        all_of_them = {**connections, **other}
        stored = all_of_them.pop("opensearch_default")
        given = {f"AIRFLOW_CONN_{name.upper()}": json.dumps(value) for name, value in all_of_them.items() if value}
        variables = {**given, "AIRFLOW__CORE__EXECUTOR": "LocalExecutor", **variables}
        made = replace(migrated_airflow.copy(tmp_path / "airflow"), dags=folder, variables=variables)
        assert stored is not None
        made.import_connections({"opensearch_default": stored})
        return made

    return make


@contextmanager
def a_triggerer(airflow: Airflow) -> Iterator[None]:
    command = [sys.executable, "-m", "airflow", "triggerer", "--skip-serve-logs"]
    process = subprocess.Popen(
        command, env=airflow.environment(), stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
    )
    try:
        assert process.stdout is not None
        assert any("Starting the triggerer" in line for line in process.stdout)
        yield
    finally:
        # Asked to end, it takes half a minute.
        for part in (*psutil.Process(process.pid).children(recursive=True), process):
            part.kill()
        process.communicate()


def doctor(airflow: Airflow, *arguments: str) -> tuple[int, dict[str, dict[str, Any]]]:
    command = [
        sys.executable,
        "-c",
        "from overnight.cli.app import app; app()",
        "doctor",
        "--json",
        *SLOWLY,
        *arguments,
    ]
    done = subprocess.run(
        command, env=airflow.environment(), capture_output=True, text=True, check=False, cwd=airflow.home
    )
    assert SECRET not in done.stdout + done.stderr
    assert "Traceback" not in done.stdout + done.stderr
    printed = json.loads(done.stdout)
    assert printed["ok"] == (done.returncode == 0)
    return done.returncode, {check["name"]: check for check in printed["checks"]}


def test_all_is_green_where_all_is_right(airflow: Callable[..., Airflow]) -> None:
    right = airflow("s3://lake/work", other={})
    with a_triggerer(right):
        status, checks = doctor(right)
    assert {check["state"] for check in checks.values()} == {"ok"}, checks
    assert status == 0
    assert set(checks) == {
        "versions",
        "database",
        "DAG files",
        "task state",
        "triggerer",
        "page",
        "prices",
        "aws_default",
        "openai_default",
        "opensearch_default",
        "object store",
        "opensearch_default: plugins",
        "opensearch_default: ingestion",
    }
    assert checks["opensearch_default: plugins"]["text"].startswith("OpenSearch 2.19.6: k-NN")
    assert "chooses client" in checks["opensearch_default: ingestion"]["text"]


def test_each_of_many_misconfigurations_is_found_by_its_own_check(
    airflow: Callable[..., Airflow], connections: dict[str, Connection], openai_url: str
) -> None:
    openai = connections["openai_default"]
    with socket.socket() as closed:
        closed.bind(("127.0.0.1", 0))
        wrong: dict[str, Connection | None] = {
            "openai_default": None,
            "wrong_key": {**openai, "password": SECRET},
            "no_version": {**openai, "host": openai_url.removesuffix("/v1")},
            "pasted_key": {**openai, "password": "sandbox\n"},
            "unreachable": {**openai, "host": f"http://127.0.0.1:{closed.getsockname()[1]}/v1"},
        }
        bad = airflow(
            "s3://swamp/work", PREDICTION, "import nowhere  # airflow dag", other=wrong, AIRFLOW_CONN_UNREADABLE='{"'
        )
        status, checks = doctor(bad, "--connection", "unreadable", "--work-uri", "/var/tmp/overnight-doctor/")
    assert status == 1
    expected = {
        "openai_default": "There is no connection 'openai_default'. Create one of type overnight_openai",
        "wrong_key": "Check the API key in the connection",
        "no_version": "the address ends in /v1 for OpenAI",
        "pasted_key": "White space begins or ends its password",
        "unreachable": "Correct the connection's host and port",
        "unreadable": "AIRFLOW_CONN_UNREADABLE cannot be read as a connection",
        "opensearch_default: plugins": "lacks ML Commons (opensearch-ml)",
        "triggerer": "Start one (airflow triggerer)",
        "DAG files": "dag_1.py cannot be imported: ModuleNotFoundError: No module named 'nowhere'. Correct it",
        "object store": "there is no bucket 'swamp'",
    }
    for name, text in expected.items():
        assert text in checks[name]["text"], checks[name]
        assert checks[name]["state"] == ("warning" if name == "pasted_key" else "failure")
    well = {name for name, check in checks.items() if check["state"] == "ok"}
    assert well == {
        "versions",
        "database",
        "task state",
        "page",
        "prices",
        "aws_default",
        "opensearch_default",
        "opensearch_default: ingestion",
    }


def test_a_local_folder_under_celery_and_a_database_that_is_not_there_are_found(
    airflow: Callable[..., Airflow], tmp_path: Path
) -> None:
    elsewhere = {
        "AIRFLOW__CORE__EXECUTOR": "CeleryExecutor",
        "AIRFLOW__DATABASE__SQL_ALCHEMY_CONN": f"sqlite:///{tmp_path / 'empty.db'}",
        "AIRFLOW__STATE_STORE__BACKEND": "no_such_package.Backend",
    }
    bad = replace(airflow(str(tmp_path / "work"), other={}), variables=elsewhere)
    status, checks = doctor(bad)
    assert status == 1
    expected = {
        "object store": "Set work_uri to an object store",
        "triggerer": "--api-url",
        "database": "airflow db migrate",
        "task state": "AIRFLOW__STATE_STORE__BACKEND",
        "opensearch_default": "There is no connection 'opensearch_default'. Create one of type overnight_opensearch",
    }
    for name, text in expected.items():
        assert text in checks[name]["text"], checks[name]
