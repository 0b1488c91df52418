"""
Our load of a file in S3 beside ML Commons' own batch ingestion of the same file, into the same node.

.. code-block:: shell

    make bench BENCH=server_ingestion

Both write the same documents with the same ids. A file of 47 MB: of a larger one a node with a heap of 1 GB refuses
documents that ML Commons does not send again.
"""

from __future__ import annotations

import json
import os
import tempfile
import time
import uuid
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Final

import httpx

import load
from overnight.hooks.ml_commons import MLCommonsIngestHook
from overnight.hooks.storage import connected_storage
from overnight.ingest import LoadOptions, OpenSearchTarget
from overnight.ingest import load as carry_out
from overnight.jobs import JobKey, JobState
from overnight.sandbox.opensearch import Node
from overnight.sandbox.services import running
from overnight.sandbox.store import BUCKET, Store
from overnight.services.ml_commons.ingest.spec import MLCommonsIngestSpec
from records import Record, compare, take_time

VERSION: Final = "2.19.6"
DOCUMENTS: Final = 10_000
POLL_SECONDS: Final = 0.05
URI: Final = f"s3://{BUCKET}/documents.jsonl"


def run() -> dict[str, Record]:
    """Return the records, with and without k-NN."""
    with (
        tempfile.TemporaryDirectory() as name,
        running("s3", Path(name, "s3")) as s3,
        node(name, s3.url) as url,
        connections(url, s3.url) as environment,
    ):
        Store(environment).put_lines("documents.jsonl", (line.rstrip(b"\n") for line in load.lines(DOCUMENTS)))
        return {
            "load from S3, no k-NN": measure(url, is_vector=False),
            "load from S3, k-NN": measure(url, is_vector=True),
        }


@contextmanager
def node(folder: str, s3_url: str) -> Iterator[str]:
    """Give the address of a node with ML Commons that reads that S3."""
    options = (f"-Daws.endpointUrlS3={s3_url}",)
    found = Node(VERSION, ml_commons=True, home=Path(folder, "node"), java_options=options)
    try:
        with found:
            yield found.url
    finally:
        found.remove()


@contextmanager
def connections(url: str, s3_url: str) -> Iterator[dict[str, str]]:
    """Set Airflow connections to both; give the variables that S3's own client reads."""
    aws = {"endpoint_url": s3_url, "region_name": "us-east-1"}
    added = {
        "AIRFLOW_CONN_OPENSEARCH_DEFAULT": json.dumps({"conn_type": "opensearch", "host": url}),
        "AIRFLOW_CONN_AWS_DEFAULT": json.dumps(
            {"conn_type": "aws", "login": "sandbox", "password": "sandbox", "extra": aws}
        ),
    }
    os.environ.update(added)
    try:
        yield {
            "AWS_ENDPOINT_URL_S3": s3_url,
            "AWS_ACCESS_KEY_ID": "sandbox",
            "AWS_SECRET_ACCESS_KEY": "sandbox",
            "AWS_DEFAULT_REGION": "us-east-1",
        }
    finally:
        for name in added:
            del os.environ[name]


def measure(url: str, *, is_vector: bool) -> Record:
    """Load the file into an empty index, in turns."""
    body = load.build_index_body(is_vector=is_vector)
    with httpx.Client(base_url=url, timeout=120) as client:

        def take(work: Callable[[], None]) -> Callable[[], float]:
            def measured() -> float:
                client.delete(f"/{load.INDEX}", params={"ignore_unavailable": "true"})
                client.put(f"/{load.INDEX}", json=body).raise_for_status()
                speed = DOCUMENTS / take_time(work)
                client.post(f"/{load.INDEX}/_refresh").raise_for_status()
                count = client.get(f"/{load.INDEX}/_count").raise_for_status().json()["count"]
                if count != DOCUMENTS:
                    raise SystemExit(f"{count:,} of {DOCUMENTS:,} documents are in the index")
                return speed

            return measured

        return compare(
            "documents/s",
            {"ours": take(lambda: ingest_here(url)), "ML Commons' own ingestion": take(ingest_there)},
            better="more",
        )


def ingest_here(url: str) -> None:
    """Load the file with our own load."""
    request: Mapping[str, object] = {
        "index_name": load.INDEX,
        "field_map": load.FIELDS,
        "data_source": {"type": "s3", "source": [URI]},
    }
    with OpenSearchTarget(url) as target:
        carry_out(request, target=target, storage=connected_storage(), options=LoadOptions())


def ingest_there() -> None:
    """Have the cluster load the file, and wait for its task."""
    spec = MLCommonsIngestSpec(index_name=load.INDEX, field_map=load.FIELDS, source_type="s3", sources=(URI,))
    key = JobKey(dag_id="benchmark", task_id="ingest", run_id=uuid.uuid4().hex, fingerprint="0" * 16)
    with MLCommonsIngestHook().client() as client:
        ref = client.run(client.service.submit(spec, key))
        while not (status := client.run(client.service.status(ref))).state.is_terminal:
            time.sleep(POLL_SECONDS)
    if status.state is not JobState.SUCCEEDED:
        raise SystemExit(status.describe())
