"""Documents are classified by a schema, some answers are spoilt, and each document ends in its place."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterator
from itertools import islice
from pathlib import Path
from types import SimpleNamespace
from typing import Any
from urllib.parse import quote

import httpx
import orjson
import pytest
from airflow.sdk import DAG, BaseOperator

from integration.task_instances import Task, run_all
from overnight.ingest import LoadReport, read_dead_letters
from overnight.operators.index import OpenSearchCreateIndexOperator
from overnight.operators.load import OpenSearchLoadOperator
from overnight.operators.openai import OpenAIBatchInputOperator, OpenAIBatchOperator
from overnight.sandbox.corpus import documents
from overnight.sandbox.demo.docstring import Docstring
from overnight.sandbox.emulator.launch import launch
from overnight.sandbox.process import free_port, start, wait_ready
from overnight.services.openai.rounds import Round
from overnight.templates.embedding import BatchConfig, configure_run
from overnight.templates.openai_batch_extract_to_index import OpenAIBatchExtractToIndexConfig
from overnight.templates.openai_batch_to_index import OpenAIBatchToIndexConfig

COUNT = 2_000
FAULTS = {"answers_invalid": 0.03, "answers_truncated": 0.01, "answers_refused": 0.01}
DIMENSION = 8
VECTOR = {"type": "knn_vector", "dimension": DIMENSION, "method": {"name": "hnsw", "engine": "lucene"}}
INDEX = {
    "settings": {"number_of_replicas": 0, "index.knn": True},
    "mappings": {"properties": {"embedding": VECTOR}},
}
EMBEDDED = 100
"""So many of the documents are embedded, too."""


@pytest.fixture
def emulator(tmp_path: Path) -> Iterator[str]:
    """An emulator of the test's own: which answers are spoilt follows from its seed and the number of the batch."""
    starting = launch("openai", tmp_path / "emulator", free_port())
    process = start(starting)
    try:
        wait_ready(starting, process)
        yield starting.url
    finally:
        process.stop()


def configure(config: BatchConfig) -> dict[str, Any]:
    with DAG("d", params=config.params()) as dag:
        task = BaseOperator(task_id="configure")
    params = {name: param.resolve() for name, param in dag.params.items()}
    context: Any = {
        "dag_run": SimpleNamespace(conf={}), "params": params, "task": task, "dag": dag, "run_id": "r",
    }  # fmt: skip
    return configure_run(config, context)


def find_fault(line: dict[str, Any]) -> str | None:
    """Say what is wrong with a result line, by means of the test's own."""
    choice = line["response"]["body"]["choices"][0]
    if choice["message"]["refusal"]:
        return "refused"
    if choice["finish_reason"] == "length":
        return "truncated"
    try:
        Docstring.model_validate_json(choice["message"]["content"])
    except ValueError:
        return "invalid_output"
    return None


def read_lines(uri: str) -> list[dict[str, Any]]:
    return [orjson.loads(line) for line in Path(uri).read_bytes().splitlines()]


def test_each_docstring_ends_in_the_index_or_with_the_code_of_what_is_wrong(
    emulator: str, opensearch_url: str, index_name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    connection = {"conn_type": "overnight_openai", "host": f"{emulator}/v1", "password": "sandbox"}
    monkeypatch.setenv("AIRFLOW_CONN_OPENAI_DEFAULT", json.dumps(connection))
    opensearch = {"conn_type": "opensearch", "host": opensearch_url}
    monkeypatch.setenv("AIRFLOW_CONN_OPENSEARCH_DEFAULT", json.dumps(opensearch))
    for section, values in (("faults", FAULTS), ("pace", {"validating": 0.05})):
        httpx.put(f"{emulator}/_sandbox/{section}", json=values).raise_for_status()
    given = {document["id"]: document for document in islice(documents(), COUNT)}
    (tmp_path / "documents.jsonl").write_bytes(b"".join(orjson.dumps(one) + b"\n" for one in given.values()))
    settings = configure(
        OpenAIBatchExtractToIndexConfig(
            input_uri=str(tmp_path / "documents.jsonl"),
            work_uri=str(tmp_path / "work"),
            index_name=index_name,
            instruction="Say what the docstring of ${id} is about.",
            output_type="overnight.sandbox.demo.docstring.Docstring",
            output_limit=2_000,
            ingest_fields=["$.module"],
            create_index=True,
            index_body=INDEX,
            resubmit=2,
            repair=True,
            allowed_failures="5%",
            aws_conn_id=None,
        )
    )

    def carry_out(operator: type[BaseOperator], run: str = "extract", **arguments: Any) -> Any:
        return run_all([Task(lambda: operator(task_id="t", **arguments), f"{tmp_path} {run}")])[0]

    carry_out(OpenSearchCreateIndexOperator, index_name=index_name, body=settings["index_body"], dimension=None)
    (part,) = carry_out(
        OpenAIBatchInputOperator,
        documents=settings["input_uri"],
        target=settings["run_uri"],
        template=settings["template"],
        aws_conn_id=None,
    )
    job = carry_out(
        OpenAIBatchOperator,
        input_uri=part["uri"],
        endpoint=settings["endpoint"],
        resubmit=settings["resubmit"],
        output_schema=settings["answer_schema"],
        repair=settings["repair"],
        allowed_failures=settings["allowed_failures"],
        poll_interval=0.2,
        deferrable=True,
        aws_conn_id=None,
    )
    report = LoadReport.model_validate(
        carry_out(
            OpenSearchLoadOperator,
            request={
                "index_name": index_name,
                "field_map": settings["field_map"],
                "ingest_fields": settings["ingest_fields"],
                "data_source": {"source": [part["documents_uri"], job]},
            },
            options=settings["load_options"],
            allowed_failures=settings["allowed_failures"],
            dead_letter_uri=part["dead_letter_uri"],
            aws_conn_id=None,
        )
    )

    # Of each round, what is invalid goes out again, and nothing else.
    rounds = [Round(part["uri"], number) for number in range(3)]
    sent = [read_lines(one.requests_uri) for one in rounds]
    noted = job["results"]["detail"]["rounds"]
    assert [one["submitted"] for one in noted] == list(map(len, sent))
    assert COUNT * 0.02 < len(sent[1]) == noted[0]["invalid"] == COUNT - noted[0]["succeeded"]
    assert len(sent[2]) == noted[1]["invalid"] < len(sent[1]) / 4
    for line in sent[1]:
        *_, answer, complaint = line["body"]["messages"]
        assert answer == {"role": "assistant", "content": "Here is what I found: it depends."}
        assert "no JSON" in complaint["content"]

    # What the results say, line by line, is what the report adds up.
    ended = {line["custom_id"]: find_fault(line) for one in rounds for line in read_lines(one.succeeded_uri)}
    assert ended.keys() == given.keys()
    faults = Counter(code for code in ended.values() if code is not None)
    assert faults["truncated"] > COUNT * 0.005
    assert faults["refused"] > COUNT * 0.005
    assert report.reasons == faults
    assert (report.submitted, report.rejected) == (COUNT, sum(faults.values()))
    assert (report.indexed, report.missing, report.dropped) == (COUNT - sum(faults.values()), 0, 0)

    records = {record.id: record for record in read_dead_letters(part["dead_letter_uri"])}
    assert {key: record.code for key, record in records.items()} == {key: code for key, code in ended.items() if code}
    assert all(record.text and record.reason for record in records.values())

    query = {"size": COUNT, "query": {"match_all": {}}}
    found = httpx.post(f"{opensearch_url}/{index_name}/_search", json=query, timeout=60).raise_for_status().json()
    indexed = {hit["_id"]: hit["_source"] for hit in found["hits"]["hits"]}
    assert indexed.keys() == {key for key, code in ended.items() if code is None}
    repaired = {line["custom_id"] for line in sent[1]} & indexed.keys()
    assert len(repaired) > len(sent[1]) * 0.8
    own = {"text", "module"}
    for key, source in indexed.items():
        assert {name: source[name] for name in own} == {name: given[key][name] for name in own}
        answer = {name: value for name, value in source.items() if name not in own}
        assert Docstring.model_validate(answer).model_dump(mode="json") == answer

    # The fields of the answer can be searched by.
    topic = "archive"
    count = httpx.post(f"{opensearch_url}/{index_name}/_count", json={"query": {"term": {"topic": topic}}}, timeout=60)
    assert count.json()["count"] == sum(source["topic"] == topic for source in indexed.values()) > 0

    # An embedding joins them by a pipeline of its own, which keeps what is there.
    some = list(given.values())[:EMBEDDED]
    (tmp_path / "some.jsonl").write_bytes(b"".join(orjson.dumps(one) + b"\n" for one in some))
    settings = configure(
        OpenAIBatchToIndexConfig(
            input_uri=str(tmp_path / "some.jsonl"),
            work_uri=str(tmp_path / "embedding"),
            index_name=index_name,
            dimension=DIMENSION,
            aws_conn_id=None,
        )
    )
    (part,) = carry_out(
        OpenAIBatchInputOperator,
        documents=settings["input_uri"],
        target=settings["run_uri"],
        template=settings["template"],
        aws_conn_id=None,
    )
    job = carry_out(
        OpenAIBatchOperator,
        run="embed",
        input_uri=part["uri"],
        endpoint=settings["endpoint"],
        poll_interval=0.2,
        aws_conn_id=None,
    )
    carry_out(
        OpenSearchLoadOperator,
        request={
            "index_name": index_name,
            "field_map": settings["field_map"],
            "ingest_fields": settings["ingest_fields"],
            "data_source": {"source": [part["documents_uri"], job]},
        },
        aws_conn_id=None,
    )
    for document in some:
        found = httpx.get(f"{opensearch_url}/{index_name}/_doc/{quote(document['id'], safe='')}", timeout=60).json()
        embedding = found["_source"].pop("embedding")
        assert len(embedding) == DIMENSION
        assert found["_source"] == indexed.get(document["id"], {"text": document["text"]})
