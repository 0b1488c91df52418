"""Invalid answers of both endpoints that take a schema are repaired by the emulator of the service."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import orjson
import pytest

from integration.task_instances import Task, run_all
from overnight.json_text import read_json_text
from overnight.jsonpath import JsonPath
from overnight.operators.openai import OpenAIBatchOperator
from overnight.output_schema import OutputSchema
from overnight.sandbox.demo.docstring import Docstring
from overnight.services.openai.input import build
from overnight.services.openai.rounds import Round
from overnight.services.openai.structured import build_request_template, get_answer_path

from .conftest import Bench

COUNT = 200


@pytest.mark.parametrize(("endpoint", "messages"), [("/v1/chat/completions", "messages"), ("/v1/responses", "input")])
def test_invalid_answers_are_repaired(
    bench: Bench, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, endpoint: str, messages: str
) -> None:
    connection = {"conn_type": "overnight_openai", "host": bench.url, "password": "sandbox"}
    monkeypatch.setenv("AIRFLOW_CONN_OPENAI_DEFAULT", json.dumps(connection))
    bench.set("pace", validating=0.05)
    bench.set("faults", answers_invalid=0.1)
    schema = OutputSchema.parse(Docstring)
    template = build_request_template(schema, model="gpt-4.1-mini", instruction="Classify it.", endpoint=endpoint)
    documents: list[dict[str, Any]] = [
        {"id": f"d{number}", "text": f"Return the mean of {number} numbers."} for number in range(COUNT)
    ]
    uri = build(documents, template, str(tmp_path / "in")).parts[0].uri
    (job,) = run_all(
        [
            Task(
                lambda: OpenAIBatchOperator(
                    task_id="extract",
                    input_uri=uri,
                    endpoint=endpoint,
                    output_schema="overnight.sandbox.demo.docstring.Docstring",
                    resubmit=5,
                    repair=True,
                    poll_interval=0.1,
                    deferrable=True,
                    aws_conn_id=None,
                ),
                str(tmp_path),
            )
        ]
    )
    rounds = job["results"]["detail"]["rounds"]
    assert job["status"]["counts"] == {"total": COUNT, "succeeded": COUNT, "failed": 0}
    assert COUNT * 0.02 < rounds[0]["invalid"] == rounds[1]["submitted"]
    again = [orjson.loads(line) for line in Path(Round(uri, 1).requests_uri).read_bytes().splitlines()]
    assert {len(request["body"][messages]) for request in again} == {4}
    path, answered = JsonPath.parse(get_answer_path(endpoint)), set()
    for number in range(len(rounds)):
        for line in Path(Round(uri, number).succeeded_uri).read_bytes().splitlines():
            answer = path.find_first(line)
            assert answer is not None
            assert schema.check(read_json_text(answer)) is None
            answered.add(orjson.loads(line)["custom_id"])
    assert len(answered) == COUNT
