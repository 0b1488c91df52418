"""The pipelines through ML Commons, LlamaCloud and Azure OpenAI, each to its index."""

from __future__ import annotations

import json
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import httpx
import pytest

from overnight.sandbox.corpus import files
from overnight.sandbox.opensearch import Node
from overnight.sandbox.process import free_port
from overnight.sandbox.services import KEY, SERVICES, running

from .bench.connections import connect, counts, trigger
from .bench.sagemaker import SageMaker, emulated
from .bench.store import Store, indexed
from .conftest import Services, Standalone
from .console import Run

PARSED = 12
UNREADABLE = "unreadable.pdf"


def connection(name: str, port: int) -> Any:
    """Return the Airflow connection to one of the sandbox's services."""
    environment = SERVICES[name].environment(port)
    (value,) = (value for variable, value in environment.items() if variable.startswith("AIRFLOW_CONN_"))
    return json.loads(value)


def states(run: Run) -> list[tuple[str, str]]:
    return [(task["task_id"], task["state"]) for task in run.tasks()]


class World:
    """The servers of these pipelines, and the runs on them."""

    def __init__(self, services: Services, airflow: Standalone, folder: Path, stack: ExitStack) -> None:
        self._airflow = airflow
        self.services = services
        s3 = services.environment["AWS_ENDPOINT_URL_S3"]
        self.node = Node(
            ml_commons=True,
            home=folder / "ml-commons" / "node",
            port=free_port(),
            java_options=(f"-Daws.endpointUrlS3={s3}",),
        )
        stack.callback(self.node.remove)
        with ThreadPoolExecutor(1) as pool:
            booting = pool.submit(self.node.__enter__)
            self.llamacloud = stack.enter_context(running("llamacloud", folder))
            self.azure = stack.enter_context(running("azure", folder))
            self.sagemaker: SageMaker = stack.enter_context(emulated(folder / "predicted", services.environment))
            self._connect()
            self.parsing = self.parse()
            self.ingesting = self._ingest()
            booting.result()
        self.predicting, self.predicted = self._predict()

    def _connect(self) -> None:
        console = self._airflow.console
        connect(console, "llamacloud_bench", connection("llamacloud", port_of(self.llamacloud.url)))
        connect(console, "azure_bench", connection("azure", port_of(self.azure.url)))
        connect(console, "aws_bench", self.sagemaker.connection)
        connect(console, "opensearch_bench", connection("opensearch", self.node.port))

    def parse(self) -> Run:
        store = Store(self.services.environment, "parsed")
        for name, path in files(PARSED).items():
            store.put(name, path.read_bytes())
        store.put(UNREADABLE, b"%PDF-1.7 and nothing that such a file has")
        conf = {
            "sources": store.uri,
            "index_name": "parsed",
            "allowed_file_failures": 1,
            "poll_seconds": 0.5,
            "llamacloud_conn_id": "llamacloud_bench",
        }
        return trigger(self._airflow.console, "llamacloud_parse_to_index", conf)

    def _ingest(self) -> Run:
        for name, path in files(PARSED).items():
            url = f"{self.azure.url}/_sandbox/blobs/documents/{name}"
            httpx.put(url, content=path.read_bytes(), trust_env=False).raise_for_status()
        conf = {"poll_seconds": 0.5, "azure_conn_id": "azure_bench"}
        return trigger(self._airflow.console, "azure_ingestion_job", conf)

    def _predict(self) -> tuple[Run, dict[str, dict[str, str]]]:
        store = Store(self.services.environment, "predicted")
        parts = store.put_documents(files=2, each=20)
        conf = {
            "input_uri": store.uri,
            "index_name": "predicted",
            "ingest_fields": ["$.signature"],
            "poll_seconds": 0.5,
            "sagemaker_url": self.sagemaker.url,
            "opensearch_conn_id": "opensearch_bench",
            "aws_conn_id": "aws_bench",
        }
        run = trigger(self._airflow.console, "mlcommons_batch_predict_to_index", conf)
        return run, {document["id"]: document for part in parts for document in part}


def port_of(url: str) -> int:
    return httpx.URL(url).port or 0


def texts(world: World) -> dict[str, tuple[str, str]]:
    """Return which file each chunk of the index is from, and what it says."""
    found = indexed(world.services.environment["OPENSEARCH_URL"], "parsed")
    return {name: (document["source_uri"], document["text"]) for name, document in found.items()}


@pytest.fixture(scope="module")
def world(services: Services, airflow: Standalone, folder: Path) -> Iterator[World]:
    with ExitStack() as stack:
        yield World(services, airflow, folder, stack)


def test_azure_ingests_every_file_of_the_container(world: World) -> None:
    run = world.ingesting
    assert run.finish() == "success", states(run)
    report = run.xcom("report")
    assert (report["state"], report["documents"], report["failed_chunks"]) == ("succeeded", PARSED, 0)
    url = f"{world.azure.url}/indexes/{report['index']}/docs/$count"
    version = {"api-version": "2023-11-01"}
    counted = httpx.get(url, params=version, headers={"api-key": KEY}, trust_env=False).raise_for_status()
    assert int(counted.text.strip("\ufeff")) == report["chunks"] >= PARSED


def test_the_files_that_can_be_parsed_are_indexed_and_a_second_run_changes_nothing(world: World) -> None:
    first = world.parsing
    assert first.finish() == "success", states(first)
    second = world.parse()

    parsed = first.xcom("parse")["status"]
    assert (parsed["state"], parsed["counts"]) == ("partial", {"total": PARSED + 1, "succeeded": PARSED, "failed": 1})
    report = first.xcom("report")
    chunks = first.xcom("chunk")["chunks"]
    assert counts(report) == (chunks, chunks, 0, 0)
    before = texts(world)
    assert len(before) == chunks
    sources = {source.rpartition("/")[2] for source, _ in before.values()}
    assert sources == files(PARSED).keys()

    assert second.finish() == "success", states(second)
    assert counts(second.xcom("report")) == counts(report)
    assert second.xcom("parse")["ref"]["id"] != first.xcom("parse")["ref"]["id"]
    assert texts(world) == before


def test_the_cluster_predicts_and_ingests_by_itself(world: World) -> None:
    run = world.predicting
    assert run.finish() == "success", states(run)
    (job,) = world.sagemaker.jobs()
    assert job["TransformJobStatus"] == "Completed"
    assert run.xcom("transform")["ref"]["service"] == "ml_commons_predict"
    loads = [run.xcom("load", map_index=number) for number in range(2)]
    assert [load["engine"] for load in loads] == ["server", "server"]
    assert counts(run.xcom("report")) == (40, 40, 0, 0)
    found = indexed(world.node.url, "predicted")
    shown = {name: (document["text"], document["signature"]) for name, document in found.items()}
    assert shown == {name: (document["text"], document["signature"]) for name, document in world.predicted.items()}
    assert {len(document["embedding"]) for document in found.values()} == {384}
