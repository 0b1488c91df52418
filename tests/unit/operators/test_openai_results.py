from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from unittest.mock import MagicMock

import pytest
from airflow.sdk.exceptions import AirflowFailException

from http_server import Answer, Request, Server, json_answer
from overnight.operators.openai import OpenAIBatchResultsOperator

JOB = {"service": "openai", "id": "batch_1", "conn_id": "openai_default"}
BATCH = {
    "id": "batch_1", "status": "completed", "endpoint": "/v1/embeddings", "input_file_id": "file-in",
    "output_file_id": "file-out", "request_counts": {"total": 2, "completed": 1, "failed": 0},
}  # fmt: skip
INPUT = b'{"custom_id":"a","body":{}}\n{"custom_id":"b","body":{}}\n'
OUTPUT = b'{"custom_id":"a","response":{"status_code":200,"body":{"data":[1]}}}\n'


@pytest.fixture
def service(monkeypatch: pytest.MonkeyPatch) -> Iterator[Server]:
    """A service that no longer has the input of a batch that is over."""
    server = Server()
    gone = json_answer({"error": {"message": "no such file"}}, 404)

    def answer(request: Request) -> Answer:
        if request.path.startswith("/batches/"):
            return json_answer(BATCH)
        if request.path == "/files/file-out/content":
            return Answer(body=OUTPUT)
        return gone

    server.handler = answer
    connection = {"conn_type": "overnight_openai", "host": server.url, "password": "k"}
    monkeypatch.setenv("AIRFLOW_CONN_OPENAI_DEFAULT", json.dumps(connection))
    yield server
    server.stop()


def sort(folder: Path, **arguments: Any) -> dict[str, Any]:
    operator = OpenAIBatchResultsOperator(
        task_id="results", job=JOB, target=str(folder / "out"), aws_conn_id=None, **arguments
    )
    return operator.execute({"ti": MagicMock()})  # type: ignore[typeddict-item]


def test_paid_results_are_read_with_an_input_of_ones_own_where_the_service_has_deleted_its(
    service: Server, tmp_path: Path
) -> None:
    with pytest.raises(AirflowFailException, match=r"no longer has the input of .*Give the file .* as input_uri"):
        sort(tmp_path, allowed_failures=1)
    own = tmp_path / "own.jsonl"
    own.write_bytes(INPUT)
    found = sort(tmp_path, input_uri=str(own), allowed_failures=1)
    assert {name: found["counts"][name] for name in ("submitted", "succeeded", "missing")} == {
        "submitted": 2, "succeeded": 1, "missing": 1,
    }  # fmt: skip
    assert Path(found["uris"]["succeeded"]).read_bytes() == OUTPUT
    assert Path(found["uris"]["retry"]).read_bytes() == INPUT.splitlines(keepends=True)[1]
