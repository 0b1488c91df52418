"""More batches than a model's queue holds: each waits for its turn, and the queue never holds more than it may."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any

import httpx
import pytest

from integration.task_instances import Task, run_all
from overnight.ingest import LoadReport
from overnight.operators.load import OpenSearchLoadOperator
from overnight.operators.openai import OpenAIBatchInputOperator, OpenAIBatchOperator
from overnight.sandbox.emulator.launch import launch
from overnight.sandbox.process import free_port, start, wait_ready
from overnight.services.openai.input import RequestTemplate
from overnight.services.openai.scan import scan
from overnight.templates.embedding import BATCHES_IN_BUDGET
from overnight.templates.report import PartReport, PipelineReport

from .conftest import Bench

MODEL = "text-embedding-3-small"
PARTS = 12
DOCUMENTS = 40


@pytest.fixture
def openai_url(tmp_path: Path) -> Iterator[str]:
    """An emulator of the test's own: the peak of its queue is compared."""
    starting = launch("openai", tmp_path / "emulator", free_port())
    process = start(starting)
    try:
        wait_ready(starting, process)
        yield f"{starting.url}/v1"
    finally:
        process.stop()


@pytest.mark.parametrize(
    ("budget", "limits", "triggerers"),
    [
        pytest.param(3, {}, 1, id="the users budget"),
        pytest.param(3, {}, 2, id="the users budget with two triggerers"),
        pytest.param(None, {"enqueued_check": "create"}, 1, id="refused at creation"),
        pytest.param(None, {"enqueued_check": "validation"}, 2, id="failed in validation"),
    ],
)
def test_all_parts_are_done_and_the_queue_is_never_over(
    bench: Bench,
    monkeypatch: pytest.MonkeyPatch,
    budget: int | None,
    limits: dict[str, Any],
    triggerers: int,
    tmp_path: Any,
) -> None:
    connection = {"conn_type": "overnight_openai", "host": bench.url, "password": "sandbox"}
    monkeypatch.setenv("AIRFLOW_CONN_OPENAI_DEFAULT", json.dumps(connection))
    uris = [bench.build(DOCUMENTS, name=f"part-{number}").parts[0].uri for number in range(PARTS)]
    each = scan(uris[0], "/v1/embeddings").tokens
    room = 3 * each + 1
    bench.set("limits", **({"enqueued_tokens": room, **limits} if limits else {}))
    # No batch ends before others wait.
    bench.set("pace", validating=0.05, lines_per_second=0.001)

    def build(uri: str) -> Callable[[], OpenAIBatchOperator]:
        return lambda: OpenAIBatchOperator(
            task_id="embed",
            input_uri=uri,
            endpoint="/v1/embeddings",
            aws_conn_id=None,
            deferrable=True,
            poll_interval=0.3,
            budget={"tokens": room} if budget else None,
        )

    tasks = [Task(build(uri), str(tmp_path), number) for number, uri in enumerate(uris)]

    outcomes = run_all(tasks, triggerers, waiting=PARTS // 2, let_go=lambda: bench.set("pace", validating=0.05))

    assert [outcome["status"]["state"] for outcome in outcomes] == ["succeeded"] * PARTS
    assert {outcome["status"]["counts"]["succeeded"] for outcome in outcomes} == {DOCUMENTS}
    assert len({outcome["ref"]["id"] for outcome in outcomes}) == PARTS
    assert any(task.rooms for task in tasks)
    queue = httpx.get(f"{bench.admin}/queue").raise_for_status().json()[MODEL]
    assert queue["enqueued"] == 0
    # Of two triggerers that know nothing of each other, one may be over by one part.
    assert 0 < queue["peak"] <= room + (each if budget and triggerers > 1 else 0)
    if budget:
        # Nothing was refused: each part was posted once.
        assert len(bench.requests("POST", "/v1/batches")) == PARTS


def test_nine_times_as_many_tokens_as_the_queue_holds_are_one_report(
    bench: Bench, opensearch_url: str, index_name: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """A twentieth of 130,000 documents of 200 tokens, and of a queue of 3 M tokens."""
    openai = {"conn_type": "overnight_openai", "host": bench.url, "password": "sandbox"}
    monkeypatch.setenv("AIRFLOW_CONN_OPENAI_DEFAULT", json.dumps(openai))
    monkeypatch.setenv(
        "AIRFLOW_CONN_OPENSEARCH_DEFAULT", json.dumps({"conn_type": "opensearch", "host": opensearch_url})
    )
    documents, each, queue = 6_500, 200, 150_000
    source = tmp_path / "documents.jsonl"
    with source.open("w") as file:
        for number in range(documents):
            file.write(json.dumps({"id": f"d{number}", "text": f"{number} {'word ' * each}"[: 4 * each]}) + "\n")
    index = httpx.Client(base_url=f"{opensearch_url}/{index_name}", timeout=60.0)
    index.put("", json={"settings": {"number_of_replicas": 0}}).raise_for_status()
    bench.set("limits", enqueued_tokens=queue)
    # No batch ends before others wait.
    bench.set("pace", validating=0.05, lines_per_second=0.001)
    prepare = OpenAIBatchInputOperator(
        task_id="prepare",
        documents=str(source),
        target=str(tmp_path / "in"),
        template=RequestTemplate.embeddings(MODEL, dimensions=8),
        limits={"tokens": queue // BATCHES_IN_BUDGET},
        aws_conn_id=None,
    )
    parts = Task(lambda: prepare, str(tmp_path)).step()

    def build(part: dict[str, Any]) -> Callable[[], OpenAIBatchOperator]:
        return lambda: OpenAIBatchOperator(
            task_id="embed",
            input_uri=part["uri"],
            input_sha256=part["sha256"],
            input_bytes=part["bytes"],
            input_requests=part["requests"],
            endpoint="/v1/embeddings",
            aws_conn_id=None,
            deferrable=True,
            poll_interval=0.5,
            budget={"tokens": queue},
        )

    def load(part: dict[str, Any], job: dict[str, Any]) -> PartReport:
        operator = OpenSearchLoadOperator(
            task_id="load",
            request={
                "index_name": index_name,
                "field_map": {
                    "_id": ["source[0].$.id", "source[1].$.custom_id"],
                    "embedding": "source[1].$.response.body.data[0].embedding",
                },
                "data_source": {"source": [part["documents_uri"], job]},
            },
            aws_conn_id=None,
        )
        report = LoadReport.model_validate(Task(lambda: operator, str(tmp_path)).step())
        return PartReport(submitted=part["requests"], load=report, accepted=True)

    tasks = [Task(build(part), str(tmp_path), number) for number, part in enumerate(parts)]
    let_go = partial(bench.set, "pace", validating=0.05, lines_per_second=2_000)
    jobs = run_all(tasks, waiting=len(tasks) // 2, let_go=let_go)
    report = PipelineReport.of([load(part, job) for part, job in zip(parts, jobs, strict=True)])

    assert sum(part["tokens"] for part in parts) == documents * each > 8 * queue
    assert (report.submitted, report.indexed, report.rejected, report.missing) == (documents, documents, 0, 0)
    assert report.failed_parts == ()
    index.post("_refresh").raise_for_status()
    assert index.get("_count").raise_for_status().json()["count"] == documents
    index.close()
    enqueued = httpx.get(f"{bench.admin}/queue").raise_for_status().json()[MODEL]
    assert enqueued["enqueued"] == 0
    # More than one batch was there at a time, and never more than the budget holds.
    assert queue // BATCHES_IN_BUDGET < enqueued["peak"] <= queue
    assert len(bench.requests("POST", "/v1/batches")) == len(parts)
