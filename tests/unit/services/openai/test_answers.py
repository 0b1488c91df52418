"""Whatever a server answers, every verb ends in a result or in a ServiceError of bounded length."""

from __future__ import annotations

from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import orjson
import pytest
from openai.types import Batch, FileObject

from overnight.errors import ServiceError, SpecError
from overnight.jobs import JobKey
from overnight.services.openai.service import OpenAIBatchService, OpenAIBatchSpec
from overnight.transport.flow import Flow
from overnight.transport.http import HttpCall
from unit.services.answers import Service, check

KEY = JobKey(dag_id="d", task_id="t", run_id="r", fingerprint="0" * 16)
NOW = int(datetime.now(UTC).timestamp())
BATCH = Batch.model_validate(
    {
        "id": "batch_1", "object": "batch", "endpoint": "/v1/embeddings", "completion_window": "24h",
        "status": "completed", "created_at": NOW, "completed_at": NOW, "expires_at": NOW + 86_400,
        "input_file_id": "file-i", "output_file_id": "file-o", "error_file_id": "file-e", "model": "m",
        "request_counts": {"total": 3, "completed": 2, "failed": 1},
        "metadata": {"overnight_name": KEY.name}, "usage": {
            "input_tokens": 1, "output_tokens": 0, "total_tokens": 1,
            "input_tokens_details": {"cached_tokens": 0}, "output_tokens_details": {"reasoning_tokens": 0},
        },
        "errors": {"object": "list", "data": [{"code": "c", "message": "m", "param": None, "line": 1}]},
    }
).model_dump(mode="json")  # fmt: skip
FILE = FileObject.model_validate(
    {
        "id": "file-i", "object": "file", "bytes": 99, "created_at": NOW, "filename": f"{KEY.name}.x.jsonl",
        "purpose": "batch", "status": "processed", "expires_at": NOW + 86_400,
    }
).model_dump(mode="json")  # fmt: skip
ERROR_LINE = {"custom_id": "b", "response": {"status_code": 500, "body": {"error": {"message": "m"}}}, "error": None}
SERVICE = OpenAIBatchService("conn")
REF = SERVICE.ref("batch_1")


def good(**batch: Any) -> Callable[[], Callable[[HttpCall], Any]]:
    listed = {**BATCH, **batch}

    def answer(call: HttpCall) -> Any:
        match call.method, call.path.split("/"):
            case "GET", ["batches"]:
                return {"object": "list", "data": [listed, {**listed, "id": "b", "metadata": None}], "has_more": False}
            case "GET", ["files"]:
                return {"object": "list", "data": [FILE], "has_more": False}
            case "GET", ["files", _, "content"]:
                return orjson.dumps(ERROR_LINE) + b"\n"
            case (("GET" | "POST"), ["files", *_]):
                return {**FILE, "bytes": None}
        return listed

    return lambda: answer


@pytest.fixture
def spec(tmp_path: Path) -> OpenAIBatchSpec:
    line = {"custom_id": "a", "method": "POST", "url": "/v1/embeddings", "body": {"model": "m", "input": "x"}}
    (tmp_path / "in.jsonl").write_bytes(orjson.dumps(line) + b"\n")
    return OpenAIBatchSpec(input_uri=str(tmp_path / "in.jsonl"), endpoint="/v1/embeddings")


@pytest.mark.parametrize("status", ["in_progress", "completed", "failed", "expired", "cancelling"])
def test_reading_verbs(status: str) -> None:
    since = datetime.now(UTC)
    verbs: dict[str, Callable[[], Flow[Any]]] = {
        "find": lambda: SERVICE.find(KEY, since),
        "status": lambda: SERVICE.status(REF),
        "cancel": lambda: SERVICE.cancel(REF),
        "results": lambda: SERVICE.results(REF),
        "list_statuses": lambda: SERVICE.list_statuses({"batch_1"}),
        "list_queue": lambda: OpenAIBatchService("conn").list_queue("m"),
        "list_own": lambda: SERVICE.list_own(datetime.fromtimestamp(0, UTC)),
    }
    check(verbs, good(status=status), seeds=range(100))


def test_an_error_with_a_status_of_success_is_a_service_error_with_its_words(spec: OpenAIBatchSpec) -> None:
    since = datetime.now(UTC)
    answer = {"error": {"message": "the words", "code": "odd"}}
    verbs: list[Callable[[], Flow[Any]]] = [
        lambda: SERVICE.find(KEY, since),
        lambda: SERVICE.status(REF),
        lambda: SERVICE.cancel(REF),
        lambda: SERVICE.results(REF),
        lambda: SERVICE.list_statuses({"batch_1"}),
        lambda: SERVICE.list_queue("m"),
        lambda: SERVICE.submit(spec, KEY),
    ]
    for verb in verbs:
        with pytest.raises(ServiceError, match="the words"):
            Service(lambda _: answer).run(verb())


def test_submit(spec: OpenAIBatchSpec) -> None:
    check({"submit": lambda: SERVICE.submit(spec, KEY)}, good(), seeds=range(300), also=(SpecError,))
