"""Rounds of a batch and the load behind them: each document ends once, in the index or in the dead letters."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest

from integration.task_instances import Task, run_all
from overnight.ingest import LoadReport, read_dead_letters
from overnight.operators.load import OpenSearchLoadOperator
from overnight.operators.openai import OpenAIBatchInputOperator, OpenAIBatchOperator
from overnight.sandbox.emulator.launch import launch
from overnight.sandbox.process import free_port, start, wait_ready
from overnight.services.openai.input import RequestTemplate

COUNT = 2_000
PERMANENT = frozenset(f"d{number}" for number in range(0, COUNT, 100))
"""1 % whose text is longer than the model takes."""
TEMPLATE = RequestTemplate.embeddings("text-embedding-3-small", dimensions=8)


@pytest.fixture
def emulator(tmp_path: Path) -> Iterator[str]:
    """An emulator of the test's own: which lines a fault strikes follows from its seed and the number of the batch."""
    starting = launch("openai", tmp_path / "emulator", free_port())
    process = start(starting)
    try:
        wait_ready(starting, process)
        yield starting.url
    finally:
        process.stop()


def test_what_passes_is_indexed_and_what_does_not_is_a_dead_letter_with_its_code(
    emulator: str, opensearch_url: str, index_name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    connection = {"conn_type": "overnight_openai", "host": f"{emulator}/v1", "password": "sandbox"}
    monkeypatch.setenv("AIRFLOW_CONN_OPENAI_DEFAULT", json.dumps(connection))
    opensearch = {"conn_type": "opensearch", "host": opensearch_url}
    monkeypatch.setenv("AIRFLOW_CONN_OPENSEARCH_DEFAULT", json.dumps(opensearch))
    # 5 % fail for a reason that passes, 1 % are in no file; in each round anew.
    faults = {"lines_failed": 0.05, "lines_missing": 0.01}
    for section, values in (("faults", faults), ("limits", {"input_tokens": 100}), ("pace", {"validating": 0.05})):
        httpx.put(f"{emulator}/_sandbox/{section}", json=values).raise_for_status()
    source = tmp_path / "documents.jsonl"
    texts = {f"d{number}": "long " * (200 if f"d{number}" in PERMANENT else 1) for number in range(COUNT)}
    source.write_text("".join(json.dumps({"id": name, "text": text}) + "\n" for name, text in texts.items()))
    httpx.put(
        f"{opensearch_url}/{index_name}", json={"settings": {"number_of_replicas": 0}}, timeout=60
    ).raise_for_status()

    def carry_out(build: Callable[[], Any]) -> Any:
        return run_all([Task(build, str(tmp_path))])[0]

    (part,) = carry_out(
        lambda: OpenAIBatchInputOperator(
            task_id="prepare",
            documents=str(source),
            target=str(tmp_path / "in"),
            template=TEMPLATE,
            aws_conn_id=None,
        )
    )
    job = carry_out(
        lambda: OpenAIBatchOperator(
            task_id="embed",
            input_uri=part["uri"],
            endpoint="/v1/embeddings",
            resubmit=2,
            allowed_failures="1%",
            poll_interval=0.2,
            deferrable=True,
            aws_conn_id=None,
        )
    )
    dead_letters = str(tmp_path / "dead-letters.jsonl")
    report = LoadReport.model_validate(
        carry_out(
            lambda: OpenSearchLoadOperator(
                task_id="load",
                request={
                    "index_name": index_name,
                    "field_map": {
                        "_id": ["source[0].$.id", "source[1].$.custom_id"],
                        "text": "source[0].$.text",
                        "embedding": "source[1].$.response.body.data[0].embedding",
                    },
                    "data_source": {"source": [part["documents_uri"], job]},
                },
                allowed_failures="1%",
                dead_letter_uri=dead_letters,
                aws_conn_id=None,
            )
        )
    )

    # Each round has what the round before left, without what fails for good.
    rounds = job["results"]["detail"]["rounds"]
    assert rounds[0]["submitted"] == COUNT
    assert len(rounds) == 3
    left = [one["submitted"] - one["succeeded"] for one in rounds]
    assert rounds[1]["submitted"] == left[0] - len(PERMANENT) > COUNT * 0.04
    assert rounds[2]["submitted"] == left[1]
    assert left[2] == 0
    assert sum(one["succeeded"] for one in rounds) == COUNT - len(PERMANENT)
    assert job["status"]["counts"] == {"total": COUNT, "succeeded": COUNT - len(PERMANENT), "failed": len(PERMANENT)}

    # The load's sum is the same, and the index has it.
    assert (report.submitted, report.indexed) == (COUNT, COUNT - len(PERMANENT))
    assert (report.rejected, report.missing, report.dropped) == (len(PERMANENT), 0, 0)
    httpx.post(f"{opensearch_url}/{index_name}/_refresh", timeout=60).raise_for_status()
    query = {"size": COUNT, "_source": False}
    found = httpx.post(f"{opensearch_url}/{index_name}/_search", json=query, timeout=60).raise_for_status().json()
    assert {hit["_id"] for hit in found["hits"]["hits"]} == texts.keys() - PERMANENT

    records = list(read_dead_letters(dead_letters))
    assert Counter(record.id for record in records) == Counter(PERMANENT)
    assert {(record.outcome, record.code) for record in records} == {("rejected", "invalid_request_error")}
    assert all(record.reason for record in records)
