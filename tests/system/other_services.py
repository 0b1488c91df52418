"""The servers of the pipelines through ML Commons, LlamaCloud and Azure OpenAI, and the runs on them."""

from __future__ import annotations

import json
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import httpx

from overnight.sandbox.corpus import files
from overnight.sandbox.opensearch import Node
from overnight.sandbox.process import free_port
from overnight.sandbox.services import SERVICES, running

from .bench.connections import connect, trigger
from .bench.sagemaker import SageMaker, emulated
from .bench.store import Store
from .console import Console, Run

PARSED = 12
UNREADABLE = "unreadable.pdf"


def connection(name: str, port: int) -> Any:
    """Return the Airflow connection to one of the sandbox's services."""
    environment = SERVICES[name].environment(port)
    (value,) = (value for variable, value in environment.items() if variable.startswith("AIRFLOW_CONN_"))
    return json.loads(value)


def port_of(url: str) -> int:
    return httpx.URL(url).port or 0


class World:
    """
    The servers of these pipelines, and the runs on them.

    :param environment: Says where S3 and the session's OpenSearch are.
    """

    def __init__(self, environment: Mapping[str, str], console: Console, folder: Path, stack: ExitStack) -> None:
        self._console = console
        self._environment = environment
        s3 = environment["AWS_ENDPOINT_URL_S3"]
        self.node = Node(
            ml_commons=True,
            home=folder / "ml-commons" / "node",
            port=free_port(),
            java_options=(f"-Daws.endpointUrlS3={s3}",),
            short_lived=True,
        )
        stack.callback(self.node.remove)
        with ThreadPoolExecutor(1) as pool:
            booting = pool.submit(self.node.__enter__)
            self.llamacloud = stack.enter_context(running("llamacloud", folder))
            self.azure = stack.enter_context(running("azure", folder))
            self.sagemaker: SageMaker = stack.enter_context(emulated(folder / "predicted", environment))
            self._connect()
            self.parsing = self.parse()
            self.ingesting = self._ingest()
            booting.result()
        self.predicting, self.predicted = self._predict()

    def _connect(self) -> None:
        connect(self._console, "llamacloud_bench", connection("llamacloud", port_of(self.llamacloud.url)))
        connect(self._console, "azure_bench", connection("azure", port_of(self.azure.url)))
        connect(self._console, "aws_bench", self.sagemaker.connection)
        connect(self._console, "opensearch_bench", connection("opensearch", self.node.port))

    def parse(self) -> Run:
        store = Store(self._environment, "parsed")
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
        return trigger(self._console, "llamacloud_parse_to_index", conf)

    def _ingest(self) -> Run:
        for name, path in files(PARSED).items():
            url = f"{self.azure.url}/_sandbox/blobs/documents/{name}"
            httpx.put(url, content=path.read_bytes(), trust_env=False).raise_for_status()
        conf = {"poll_seconds": 0.5, "azure_conn_id": "azure_bench"}
        return trigger(self._console, "azure_ingestion_job", conf)

    def _predict(self) -> tuple[Run, dict[str, dict[str, str]]]:
        store = Store(self._environment, "predicted")
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
        run = trigger(self._console, "mlcommons_batch_predict_to_index", conf)
        return run, {document["id"]: document for part in parts for document in part}
