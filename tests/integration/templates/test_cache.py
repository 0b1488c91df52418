"""A corpus of real text every night: what was paid for is not sent again, what is unchanged is not written again."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator
from dataclasses import dataclass, replace
from decimal import Decimal
from itertools import islice
from pathlib import Path
from typing import Any

import httpx
import orjson
import pytest

from overnight.ingest.write.unchanged import FIELD
from overnight.sandbox.airflow import Airflow, DagRun
from overnight.sandbox.corpus import documents

COUNT = int(os.environ.get("OVERNIGHT_TEST_CORPUS", "400"))
"""Of documents, from the start of the standard library; -1 for all."""
MODEL = "text-embedding-3-small"
DAGS = """
# The word airflow makes this a file of DAGs.
from overnight.templates.openai_batch_to_index import OpenAIBatchToIndexConfig, openai_batch_to_index

config = OpenAIBatchToIndexConfig(
    input_uri="{folder}/documents/", work_uri="{folder}/work", index_name="unused", model="text-embedding-3-small",
    dimension=16, create_index=True, ingest_fields=["$.module"], batch_requests=5000, poll_seconds=0.2,
    index_body={{"settings": {{"index.number_of_replicas": 0}}}}, cache="write",
    sync="mirror",
)
dag = openai_batch_to_index("corpus", config)
"""


@dataclass
class Corpus:
    """The documents of a night, a pipeline over them, and what its services know."""

    folder: Path
    airflow: Airflow
    openai: str
    opensearch: str

    def write(self, texts: dict[str, dict[str, str]]) -> None:
        lines = [orjson.dumps(document, option=orjson.OPT_APPEND_NEWLINE) for document in texts.values()]
        (self.folder / "documents" / "corpus.jsonl").write_bytes(b"".join(lines))

    def run(self, index: str, **conf: Any) -> tuple[dict[str, Any], list[dict[str, Any]]]:
        """Run the pipeline; return its report, and the requests that were submitted for it."""
        before = {batch["id"] for batch in self.list_batches()}
        log = self.folder / f"{index}.log"
        run: DagRun = self.airflow.run_dag("corpus", {"index_name": index, **conf}, xcoms={"report": "report"}, log=log)
        assert run.state == "success", log.read_text()
        submitted = [
            orjson.loads(line)
            for batch in self.list_batches()
            if batch["id"] not in before
            for line in self.ask(f"files/{batch['input_file_id']}/content").content.splitlines()
        ]
        return run.xcoms["report"], submitted

    def list_batches(self) -> Iterator[dict[str, Any]]:
        after: dict[str, str] = {}
        while True:
            page = self.ask("batches", limit="100", **after).json()
            yield from page["data"]
            if not page["has_more"]:
                return
            after = {"after": page["last_id"]}

    def ask(self, path: str, **params: str) -> httpx.Response:
        headers = {"Authorization": "Bearer sandbox"}
        return httpx.get(f"{self.openai}/{path}", headers=headers, params=params, timeout=60).raise_for_status()

    def read_index(self, index: str) -> dict[str, dict[str, Any]]:
        """Return every document of an index by its id, without the digest of its write."""
        found: dict[str, dict[str, Any]] = {}
        after: dict[str, Any] = {}
        httpx.post(f"{self.opensearch}/{index}/_refresh", timeout=60).raise_for_status()
        while True:
            query = {"size": 1_000, "sort": [{"_id": "asc"}], **after}
            answer = httpx.post(f"{self.opensearch}/{index}/_search", json=query, timeout=60).raise_for_status()
            hits = answer.json()["hits"]["hits"]
            if not hits:
                return found
            found |= {hit["_id"]: {k: v for k, v in hit["_source"].items() if k != FIELD} for hit in hits}
            after = {"search_after": hits[-1]["sort"]}


@pytest.fixture
def corpus(
    openai_url: str,
    opensearch_url: str,
    migrated_airflow: Airflow,
    tmp_path: Path,
) -> Corpus:
    for name in ("dags", "documents"):
        (tmp_path / name).mkdir()
    (tmp_path / "dags" / "corpus.py").write_text(DAGS.format(folder=tmp_path))
    connections = {
        "OPENSEARCH": {"conn_type": "overnight_opensearch", "host": opensearch_url},
        "OPENAI": {"conn_type": "overnight_openai", "host": openai_url, "password": "sandbox"},
        "AWS": {"conn_type": "aws", "login": "k", "password": "s"},
    }
    variables = {f"AIRFLOW_CONN_{name}_DEFAULT": json.dumps(value) for name, value in connections.items()}
    airflow = replace(migrated_airflow.copy(tmp_path / "home"), dags=tmp_path / "dags", variables=variables)
    return Corpus(tmp_path, airflow, openai_url, opensearch_url)


def test_the_second_night_pays_for_and_writes_what_has_changed_and_its_index_is_that_of_a_fresh_load(
    corpus: Corpus, index_name: str
) -> None:
    texts = {document["id"]: document for document in islice(documents(), COUNT if COUNT >= 0 else None)}
    corpus.write(texts)
    first, submitted = corpus.run(f"{index_name}-nightly", skip_unchanged=True)
    sent = {request["custom_id"] for request in submitted}
    # A docstring that occurs twice is sent once.
    assert len(sent) == len(submitted) == len({document["text"] for document in texts.values()})
    assert (first["submitted"], first["reused"]) == (len(sent), len(texts) - len(sent))
    assert (first["repeated"], first["indexed"]) == (first["reused"], len(texts))

    names = list(texts)
    changed, removed = set(names[::50]), set(names[25::100])
    for name in changed:
        texts[name] = {**texts[name], "text": f"{texts[name]['text']}\nOf another night: {name}."}
    for name in removed:
        del texts[name]
    corpus.write(texts)
    second, submitted = corpus.run(f"{index_name}-nightly", skip_unchanged=True)
    assert {request["custom_id"] for request in submitted} == changed
    assert len(submitted) == len(changed)
    assert (second["submitted"], second["reused"]) == (len(changed), len(texts) - len(changed))
    assert (second["indexed"], second["unchanged"]) == (len(changed), len(texts) - len(changed))
    assert (second["rejected"], second["missing"], second["in_index"]) == (0, 0, len(texts))
    assert second["deleted"] == len(removed)

    fresh, submitted = corpus.run(f"{index_name}-fresh", cache="off")
    assert len(submitted) == fresh["submitted"] == len(texts)
    assert fresh["saved"] is None
    assert corpus.read_index(f"{index_name}-nightly") == corpus.read_index(f"{index_name}-fresh")

    # What was saved is what the requests that were not sent are billed for.
    used = fresh["usage"]["input"] - second["usage"]["input"]
    assert second["saved"]["input"] == used
    assert Decimal(second["saved"]["cost"]) == Decimal("0.02") * used / 2 / 1_000_000
