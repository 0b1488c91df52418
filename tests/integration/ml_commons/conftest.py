"""
A real node with ML Commons, and the remote services that its connectors reach on this machine.

While developing, ``OVERNIGHT_TEST_ML_COMMONS_URL`` and ``OVERNIGHT_TEST_SAGEMAKER_URL`` name servers that already run
(the first with the S3 of ``OVERNIGHT_TEST_S3_ENDPOINT``).
"""

from __future__ import annotations

import json
import os
import sys
import tempfile
import time
import uuid
from collections.abc import Callable, Iterator, Mapping
from datetime import UTC, datetime
from pathlib import Path
from types import SimpleNamespace
from typing import Any, Self

import boto3
import httpx
import pytest

from overnight.hooks.ml_commons import MLCommonsIngestHook, MLCommonsPredictHook
from overnight.jobs import JobKey, JobRef, JobStatus
from overnight.jobs.client import JobClient
from overnight.sandbox.opensearch import Node
from overnight.sandbox.process import LOCALHOST, Launch, free_port, start, wait_ready
from overnight.services.ml_commons.ingest.service import MLCommonsIngestService
from overnight.services.ml_commons.predict.service import MLCommonsPredictService
from patience import PATIENCE

from .openai_gate import gate_to

BLUEPRINTS = Path(__file__).parents[3] / "include" / "connectors"
REGION = "us-east-1"


def _node(variable: str, home: Path, version: str, **options: Any) -> Iterator[str]:
    if url := os.environ.get(variable):
        yield url.rstrip("/")
        return
    node = Node(version, home=home, short_lived=True, **options)
    try:
        with node:
            yield node.url
    finally:
        node.remove()


@pytest.fixture(scope="session")
def ml_url(
    s3_endpoint: str, openai_url: str, tmp_path_factory: pytest.TempPathFactory, only_one: Callable[[str], None]
) -> Iterator[str]:
    """The address of an OpenSearch 2.19 with ML Commons, which reads the test's S3 and the test's OpenAI."""
    only_one("ml-commons")
    # Beside the home of the node, whose user must be able to read the certificate.
    with (
        tempfile.TemporaryDirectory(prefix="overnight-gate-") as name,
        gate_to(openai_url, folder := Path(name)) as java_options,
    ):
        folder.chmod(0o755)
        yield from _node(
            "OVERNIGHT_TEST_ML_COMMONS_URL",
            tmp_path_factory.mktemp("ml") / "node",
            "2.19.6",
            ml_commons=True,
            java_options=(f"-Daws.endpointUrlS3={s3_endpoint}", *java_options),
        )


@pytest.fixture(scope="session")
def sagemaker_url(s3_endpoint: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """The address of a SageMaker that reads and writes the test's S3."""
    if url := os.environ.get("OVERNIGHT_TEST_SAGEMAKER_URL"):
        yield url.rstrip("/")
        return
    folder, port = tmp_path_factory.mktemp("sagemaker"), free_port()
    launch = Launch(
        name="sagemaker",
        argv=(
            *(sys.executable, "-m", "overnight.sandbox.sagemaker", "--data-dir", str(folder)),
            *("--host", LOCALHOST, "--port", str(port), "--s3-endpoint", s3_endpoint),
        ),
        url=f"http://{LOCALHOST}:{port}",
        health=f"http://{LOCALHOST}:{port}/healthz",
        cwd=folder,
        log=folder / "sagemaker.log",
    )
    process = start(launch)
    try:
        wait_ready(launch, process)
        yield launch.url
    finally:
        process.stop()


class Store:
    """Airflow's task state store, in memory."""

    def __init__(self) -> None:
        self.values: dict[str, Any] = {}

    def get(self, key: str) -> Any:
        return self.values.get(key)

    def set(self, key: str, value: Any) -> None:
        self.values[key] = json.loads(json.dumps(value))


class TaskRun:
    """One task instance: every try of it has the same store."""

    def __init__(self) -> None:
        self.store = Store()
        self.run_id = f"run-{uuid.uuid4().hex[:8]}"
        self.xcoms: dict[str, Any] = {}
        self.began = datetime.now(UTC)

    @property
    def context(self) -> Any:
        ti = SimpleNamespace(
            dag_id="dag",
            task_id="task",
            run_id=self.run_id,
            map_index=-1,
            max_tries=0,
            xcom_push=lambda key, value: self.xcoms.update({key: value}),
        )
        return {"ti": ti, "task_state_store": self.store, "dag_run": SimpleNamespace(start_date=self.began)}


@pytest.fixture
def task_run() -> TaskRun:
    return TaskRun()


@pytest.fixture
def key() -> JobKey:
    return JobKey(dag_id="dag", task_id="task", run_id=uuid.uuid4().hex, fingerprint="0123456789abcdef")


@pytest.fixture
def connect(monkeypatch: pytest.MonkeyPatch) -> Callable[..., None]:
    def set_connection(conn_id: str, **fields: Any) -> None:
        monkeypatch.setenv(f"AIRFLOW_CONN_{conn_id.upper()}", json.dumps(fields))

    return set_connection


@pytest.fixture
def cluster(ml_url: str, s3_endpoint: str, openai_url: str, connect: Callable[..., None]) -> Iterator[Cluster]:
    """The node, with Airflow connections to it, to S3 and to OpenAI."""
    connect("opensearch_default", conn_type="opensearch", host=ml_url)
    extra = {"endpoint_url": s3_endpoint, "region_name": REGION}
    connect("aws_default", conn_type="aws", login="sandbox", password="sandbox", extra=extra)
    connect("openai_default", conn_type="overnight_openai", host=openai_url, password="sandbox")
    with Cluster(ml_url, s3_endpoint) as cluster:
        yield cluster


class Cluster:
    """The node as a test sees it, beside the package."""

    def __init__(self, url: str, s3_endpoint: str) -> None:
        self.http = httpx.Client(base_url=url, timeout=60)
        self.s3 = boto3.client(
            "s3",
            endpoint_url=s3_endpoint,
            region_name=REGION,
            aws_access_key_id="sandbox",
            aws_secret_access_key="sandbox",
        )
        self.bucket = f"b-{uuid.uuid4().hex[:10]}"
        self.indices: list[str] = []

    def __enter__(self) -> Self:
        self.s3.create_bucket(Bucket=self.bucket)
        return self

    def __exit__(self, *_: object) -> None:
        self.set()
        for name in self.indices:
            self.http.delete(f"/{name}", params={"ignore_unavailable": "true"})
        self.http.close()

    def set(self, **settings: Any) -> None:
        """Set transient ML Commons settings, and reset all others."""
        cleared = {"plugins.ml_commons.*": None} if not settings else {}
        values = {f"plugins.ml_commons.{name}": value for name, value in settings.items()}
        self.http.put("/_cluster/settings", json={"transient": {**cleared, **values}}).raise_for_status()

    def index(self, mappings: Mapping[str, Any] | None = None) -> str:
        name = f"ml-{uuid.uuid4().hex[:10]}"
        self.indices.append(name)
        body = {"settings": {"number_of_shards": 1, "number_of_replicas": 0}, "mappings": mappings or {}}
        self.http.put(f"/{name}", json=body).raise_for_status()
        return name

    def put(self, key: str, lines: list[Any]) -> str:
        body = "".join(f"{line if isinstance(line, str) else json.dumps(line)}\n" for line in lines)
        self.s3.put_object(Bucket=self.bucket, Key=key, Body=body.encode())
        return f"s3://{self.bucket}/{key}"

    def documents(self, index: str) -> dict[str, Any]:
        self.http.post(f"/{index}/_refresh").raise_for_status()
        answer = self.http.post(f"/{index}/_search", json={"size": 10_000}).raise_for_status().json()
        return {hit["_id"]: hit["_source"] for hit in answer["hits"]["hits"]}

    def models(self) -> set[str]:
        """The models that the cluster trained itself."""
        time.sleep(1.2)
        query = {"size": 1000, "query": {"term": {"algorithm": "KMEANS"}}}
        answer = self.http.post("/_plugins/_ml/models/_search", json=query).raise_for_status().json()
        return {hit["_id"] for hit in answer["hits"]["hits"]}

    def tasks(self, kind: str) -> list[dict[str, Any]]:
        time.sleep(1.2)
        query = {"size": 1000, "query": {"term": {"task_type": kind}}, "sort": [{"create_time": "desc"}]}
        answer = self.http.post("/_plugins/_ml/tasks/_search", json=query).raise_for_status().json()
        return [{**hit["_source"], "task_id": hit["_id"]} for hit in answer["hits"]["hits"]]


@pytest.fixture
def ingestion(cluster: Cluster) -> Iterator[JobClient[MLCommonsIngestService]]:
    with MLCommonsIngestHook().client() as client:
        yield client


@pytest.fixture
def prediction(cluster: Cluster) -> Iterator[JobClient[MLCommonsPredictService]]:
    with MLCommonsPredictHook().client() as client:
        yield client


def wait(client: JobClient[Any], ref: JobRef) -> JobStatus:
    until = time.monotonic() + PATIENCE
    while not (status := client.run(client.service.status(ref))).state.is_terminal:
        assert time.monotonic() < until, status.describe()
        time.sleep(0.1)
    return status
