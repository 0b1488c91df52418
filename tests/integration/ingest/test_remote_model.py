"""
A load through a pipeline with a remote model: dropped, failed and throttled documents. The index is what is checked.

While developing, ``OVERNIGHT_TEST_ML_COMMONS_URL`` and ``OVERNIGHT_TEST_ML_COMMONS3_URL`` name nodes with ML Commons
that already run.
"""

from __future__ import annotations

import json
import os
import threading
import uuid
import zlib
from collections.abc import Iterator
from contextlib import closing
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest

from overnight.ingest import LoadOptions, OpenSearchTarget, load, read_dead_letters
from overnight.ingest.write.index import create_index
from overnight.sandbox.opensearch import Node

DOCUMENTS = 5_000
VERSIONS = {"2.19.6": "OVERNIGHT_TEST_ML_COMMONS_URL", "3.6.0": "OVERNIGHT_TEST_ML_COMMONS3_URL"}


class RemoteModel:
    """A model behind HTTP that answers one call in twenty with 429, each text's first call only."""

    def __init__(self) -> None:
        self.throttled: set[str] = set()
        self.calls = 0
        lock, model = threading.Lock(), self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def do_POST(self) -> None:
                text = json.loads(self.rfile.read(int(self.headers["Content-Length"])))["text"]
                with lock:
                    model.calls += 1
                    is_busy = zlib.crc32(text.encode()) % 20 == 0 and text not in model.throttled
                    if is_busy:
                        model.throttled.add(text)
                answer = b'{"error":"slow down"}' if is_busy else json.dumps({"label": f"label of {text}"}).encode()
                self.send_response(429 if is_busy else 200)
                self.send_header("Content-Type", "application/json")
                self.send_header("Content-Length", str(len(answer)))
                self.end_headers()
                self.wfile.write(answer)

            def log_message(self, *_: Any) -> None:
                pass

        class Server(ThreadingHTTPServer):
            request_queue_size = 128

        self.server = Server(("127.0.0.1", 0), Handler)
        self.server.daemon_threads = True
        self.url = f"http://127.0.0.1:{self.server.server_address[1]}/predict"


@pytest.fixture
def remote_model() -> Iterator[RemoteModel]:
    model = RemoteModel()
    thread = threading.Thread(target=model.server.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    try:
        yield model
    finally:
        model.server.shutdown()
        model.server.server_close()
        thread.join()


@pytest.fixture(scope="module", params=list(VERSIONS))
def ml_node(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """The address of an OpenSearch with ML Commons, 2.19 and then 3.6."""
    if url := os.environ.get(VERSIONS[request.param]):
        yield url.rstrip("/")
        return
    node = Node(request.param, home=tmp_path_factory.mktemp("ml") / "node", ml_commons=True, short_lived=True)
    try:
        with node:
            yield node.url
    finally:
        node.remove()


def _deploy(target: OpenSearchTarget, model: RemoteModel) -> str:
    """Register a model behind HTTP and return its id."""
    connector = target.post(
        "_plugins/_ml/connectors/_create",
        {
            "name": "remote",
            "description": "a model of the test",
            "version": "1",
            "protocol": "http",
            "credential": {"key": "none"},
            "actions": [
                {
                    "action_type": "predict",
                    "method": "POST",
                    "url": model.url,
                    "headers": {"Content-Type": "application/json"},
                    "request_body": '{"text":"${parameters.text}"}',
                }
            ],
            "client_config": {"max_connection": 20, "max_retry_times": 0},
        },
    )["connector_id"]
    register = {"name": "remote", "function_name": "remote", "connector_id": connector}
    return str(target.post("_plugins/_ml/models/_register", register, deploy="true")["model_id"])


def _ids(target: OpenSearchTarget, index: str) -> dict[str, dict[str, Any]]:
    """Return the documents that the index really has, read page by page."""
    target.post(f"{index}/_refresh")
    found: dict[str, dict[str, Any]] = {}
    after: list[Any] = []
    while True:
        body = {"size": 10_000, "sort": [{"n": "asc"}], **({"search_after": after} if after else {})}
        hits = target.post(f"{index}/_search", body)["hits"]["hits"]
        if not hits:
            return found
        found |= {hit["_id"]: hit["_source"] for hit in hits}
        after = hits[-1]["sort"]


def test_every_document_of_a_pipeline_that_drops_fails_and_is_throttled_is_accounted_for(
    ml_node: str, remote_model: RemoteModel, tmp_path: Path
) -> None:
    index_name = f"pipeline-{uuid.uuid4().hex[:8]}"
    with closing(OpenSearchTarget(ml_node)) as target:
        processors = [
            {"drop": {"if": "ctx.n % 10 == 3"}},
            {"fail": {"if": "ctx.n % 10 == 6", "message": "refused by the pipeline"}},
            {
                "ml_inference": {
                    "model_id": _deploy(target, remote_model),
                    "input_map": [{"text": "text"}],
                    "output_map": [{"label": "label"}],
                }
            },
        ]
        target.put(f"_ingest/pipeline/{index_name}", {"processors": processors})
        body = {
            "settings": {"number_of_replicas": 0, "default_pipeline": index_name},
            "mappings": {"properties": {"n": {"type": "integer"}, "label": {"type": "keyword"}}},
        }
        create_index(target, index_name, body)
        path = tmp_path / "a.jsonl"
        with path.open("w") as file:
            file.writelines(f'{{"id":"d{n}","n":{n},"text":"text {n}"}}\n' for n in range(DOCUMENTS))
        dead_letters = str(tmp_path / "dead.jsonl")
        report = load(
            {
                "index_name": index_name,
                "field_map": {"_id": "$.id", "n": "$.n", "text": "$.text"},
                "data_source": {"source": [str(path)]},
            },
            target=target,
            options=LoadOptions(dead_letter_uri=dead_letters, bulk_bytes=200_000, max_in_flight=2),
        )
        found = _ids(target, index_name)
        dropped = {f"d{n}" for n in range(DOCUMENTS) if n % 10 == 3}
        failed = {f"d{n}" for n in range(DOCUMENTS) if n % 10 == 6}
        assert found.keys() == {f"d{n}" for n in range(DOCUMENTS)} - dropped - failed
        # Each document that is there went through the model, and has the answer to its own text.
        assert {key: source["label"] for key, source in found.items()} == {
            key: f"label of text {key[1:]}" for key in found
        }
        records = list(read_dead_letters(dead_letters))
        assert {record.id for record in records if record.outcome == "dropped"} == dropped
        assert {record.id for record in records if record.outcome == "rejected"} == failed
        assert len(records) == len(dropped) + len(failed)
        assert (report.submitted, report.indexed, report.dropped, report.rejected, report.missing) == (
            DOCUMENTS,
            len(found),
            len(dropped),
            len(failed),
            0,
        )
        target.delete(index_name)
        # The remote model did throttle, and what it threw back was called again.
        assert len(remote_model.throttled) > len(found) / 40
        assert remote_model.calls >= len(found) + len(remote_model.throttled)
