"""Every operator and sensor at a server that is not the service it should be: no error is a raw one."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from http_server import Answer, Server, json_answer
from unit.operators.test_templated_text import ARGUMENTS, JOB, OPERATORS, REQUEST, is_raw

ANSWERS = {
    "a web page": Answer(200, b"<html><body>Sign in</body></html>", {"Content-Type": "text/html"}),
    "nothing": Answer(200, b""),
    "no content": Answer(204, b""),
    "null": json_answer(None),
    "a list": json_answer([]),
    "an object": json_answer({}),
    "a text": json_answer("ok"),
    "other types": json_answer({name: [1] for name in ("id", "data", "status", "task_id", "hits", "version")}),
    "no text": Answer(200, bytes(range(256))),
    "nested": Answer(200, b"[" * 100_000 + b"]" * 100_000),
    "no gzip": Answer(200, b"no gzip", {"Content-Encoding": "gzip"}),
    "a redirect": Answer(302, b"", {"Location": "http://127.0.0.1:9/elsewhere"}),
    "a redirect to itself": Answer(307, b"", {"Location": "/"}),
    **{
        f"{status} in JSON": json_answer({"error": {"message": "x"}}, status)
        for status in (400, 401, 403, 404, 405, 409)
    },
    **{f"{status} without a body": Answer(status, b"") for status in (403, 404, 410, 422, 501)},
}
"""What stands in the service's place."""


@pytest.fixture
def server(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[Server]:
    server = Server()
    connections = {
        "openai_default": {"conn_type": "openai_batch", "host": server.url, "password": "k"},
        "llamacloud_default": {"conn_type": "llamacloud", "host": server.url, "password": "k"},
        "opensearch_default": {"conn_type": "opensearch", "host": server.url},
        "azure_openai_default": {"conn_type": "azure_openai", "host": server.url, "password": "k"},
        "aws_default": {
            "conn_type": "aws",
            "login": "k",
            "password": "s",
            "extra": {"endpoint_url": server.url, "region_name": "eu-west-1"},
        },
    }
    for name, connection in connections.items():
        monkeypatch.setenv(f"AIRFLOW_CONN_{name.upper()}", json.dumps(connection))
    monkeypatch.setattr("time.sleep", lambda seconds: None)
    pause = asyncio.sleep
    monkeypatch.setattr("asyncio.sleep", lambda seconds: pause(0))
    monkeypatch.chdir(tmp_path)
    yield server
    server.stop()


@pytest.fixture
def arguments(tmp_path: Path) -> dict[str, dict[str, Any]]:
    """Arguments with files that are there, so that each gets to its server."""
    lines = tmp_path / "in.jsonl"
    lines.write_text('{"id": "a", "text": "x"}\n')
    (tmp_path / "a.pdf").write_bytes(b"%PDF-1.4")
    request = {**REQUEST, "data_source": {"type": "file", "source": [str(lines)]}}
    results = {"ref": JOB, "files": [{"kind": kind, "uri": f"openai://{kind}"} for kind in ("input", "output")]}
    return {
        **ARGUMENTS,
        "LlamaCloudBatchOperator": {
            **ARGUMENTS["LlamaCloudBatchOperator"],
            "sources": f"{tmp_path}/*.pdf",
            "results_uri": f"{tmp_path}/results",
        },
        "MLCommonsBatchIngestOperator": {"request": request},
        "OpenSearchLoadOperator": {"request": request, "options": {"retry_seconds": 0}},
        "OpenAIBatchResultsOperator": {"job": {"ref": JOB, "results": results}, "target": f"{tmp_path}/out"},
    }


@pytest.mark.parametrize("name", sorted(OPERATORS))
@pytest.mark.parametrize("answer", list(ANSWERS))
def test_a_server_that_is_another_one_is_named_or_refused(
    server: Server, arguments: dict[str, dict[str, Any]], task_run: Any, name: str, answer: str
) -> None:
    server.handler = lambda request: ANSWERS[answer]
    assert is_raw(OPERATORS[name](task_id="t", **arguments[name]), task_run) is None
