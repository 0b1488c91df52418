"""Held against the released provider: its own dispatch, its own schema types, its own merge of results."""

from __future__ import annotations

import json
from importlib.metadata import entry_points
from typing import Any, Literal

import orjson
import pytest
from airflow.providers.common.ai.batch import dispatch
from airflow.providers.common.ai.batch.base import BatchAdapter, RawResultItem
from airflow.providers.common.ai.batch.output_schema import build_output_spec, validate_extracted_output
from airflow.providers.common.ai.exceptions import (
    BatchProviderNotYetSupportedError,
    LLMBatchInputError,
    LLMBatchLimitExceededError,
    LLMBatchModelMismatchError,
)
from pydantic import BaseModel

from overnight.common_ai.adapters import (
    AzureOpenAIBatchAdapter,
    BatchNotFoundError,
    CompatibleBatchAdapter,
    OpenAIResponsesBatchAdapter,
)
from overnight.common_ai.results import to_batch_state, to_raw_items
from overnight.errors import NotFoundError, SpecError, UnavailableError
from overnight.jobs.client import JobClient
from overnight.services.openai.result_line import read_result
from overnight.services.openai.service import OpenAIBatchService
from overnight.services.openai.status import read_status
from unit.services.answers import Service

KEY = "0123456789abcdef"
FINGERPRINT = "fedcba9876543210" * 4
AZURE = "https://r.openai.azure.com/openai/v1"


class Sentiment(BaseModel):
    label: Literal["good", "bad"]
    reason: str


class Loose(BaseModel):
    anything: dict[str, Any]


TEXT = build_output_spec(str)
TYPED = build_output_spec(Sentiment)


class Server:
    """The list of batches, and what is asked of it."""

    def __init__(self, **batches: Any) -> None:
        self.batches = batches
        self.uploaded: list[Any] = []
        self.created: list[Any] = []

    def good(self, call: Any) -> Any:
        method, path = call.method, call.path
        if (method, path) == ("GET", "batches"):
            return {"data": list(self.batches.values()), "has_more": False}
        if (method, path) == ("GET", "files"):
            return {"data": [], "has_more": False}
        if (method, path) == ("POST", "files"):
            self.uploaded.append(call)
            return {"id": "file-1", "object": "file", "filename": "f", "purpose": "batch"}
        if (method, path) == ("POST", "batches"):
            self.created.append(call.json)
            return {"id": "batch_new", "status": "validating", **call.json}
        raise NotFoundError("no such batch", status=404)


def make(kind: type[Any], server: Server | None = None) -> Any:
    return kind(client=JobClient(OpenAIBatchService(kind.name), Service((server or Server()).good)))  # type: ignore[arg-type]


def lines(adapter: Any, requests: list[Any], spec: Any = TEXT, **options: Any) -> list[dict[str, Any]]:
    from overnight.common_ai.requests import RequestDefaults

    defaults = RequestDefaults("m", options.get("system", ""), 99, options.get("params", {}))
    return [json.loads(line) for line in adapter._build_lines(requests, defaults, spec, KEY)]


@pytest.mark.parametrize(
    ("model_id", "conn_type", "kind"),
    [
        ("azure:gpt-5", "pydanticai_azure", AzureOpenAIBatchAdapter),
        ("azure:gpt-5", "overnight_openai", AzureOpenAIBatchAdapter),
        ("openai-responses:gpt-5", "pydanticai", OpenAIResponsesBatchAdapter),
        ("overnight:llama", "pydanticai", CompatibleBatchAdapter),
        ("overnight:llama", "overnight_openai", CompatibleBatchAdapter),
    ],
)
def test_the_provider_finds_the_adapters(model_id: str, conn_type: str, kind: type[BatchAdapter]) -> None:
    assert dispatch.get_adapter_class(conn_type, model_id) is kind
    with pytest.raises(BatchProviderNotYetSupportedError):
        dispatch.get_adapter_class("aws", model_id)


def test_no_adapter_is_named_like_one_of_the_providers_own() -> None:
    ours = {point.name for point in entry_points(group=dispatch.ENTRY_POINT_GROUP)}
    assert ours == {"azure", "openai-responses", "overnight"}
    assert not ours & dispatch._ADAPTER_MODULES.keys()
    for name in ours:
        assert dispatch.import_adapter_class(name).name == name


def test_an_adapter_is_built_of_password_and_host() -> None:
    adapter = AzureOpenAIBatchAdapter(api_key="secret", base_url=AZURE)
    assert "secret" not in repr(adapter.__dict__)
    adapter.close()


@pytest.mark.parametrize("host", [None, "https://r.openai.azure.com", "https://r.openai.azure.com/openai"])
def test_azure_needs_the_address_that_has_no_version(host: str | None) -> None:
    with pytest.raises(SpecError, match="openai/v1"):
        AzureOpenAIBatchAdapter(api_key="secret", base_url=host)


def test_a_key_is_needed() -> None:
    with pytest.raises(SpecError, match="no API key"):
        CompatibleBatchAdapter(base_url="http://localhost/v1")


def test_a_chat_request_is_what_the_operator_asks_for() -> None:
    requests = [
        {"prompt": "a"},
        {"prompt": "b", "system_prompt": "own", "max_tokens": 5, "params": {"seed": 1, "model": "x", "messages": []}},
    ]
    params = {"temperature": 0, "max_tokens": 1, "stream": True}
    first, second = lines(make(CompatibleBatchAdapter), requests, system="all", params=params)
    assert first == {
        "custom_id": f"{KEY}-0",
        "method": "POST",
        "url": "/v1/chat/completions",
        "body": {
            "temperature": 0,
            "messages": [{"role": "system", "content": "all"}, {"role": "user", "content": "a"}],
            "max_completion_tokens": 99,
            "model": "m",
        },
    }
    assert second["body"]["messages"] == [{"role": "system", "content": "own"}, {"role": "user", "content": "b"}]
    assert (second["body"]["max_completion_tokens"], second["body"]["seed"], second["body"]["model"]) == (5, 1, "m")


def test_a_response_request_is_what_the_operator_asks_for() -> None:
    (line,) = lines(make(OpenAIResponsesBatchAdapter), [{"prompt": "a"}], TYPED, system="all")
    shape = line["body"].pop("text")["format"]
    assert (shape["type"], shape["name"], shape["strict"]) == ("json_schema", "Sentiment", True)
    assert line["url"] == "/v1/responses"
    assert line["body"] == {"input": "a", "instructions": "all", "max_output_tokens": 99, "model": "m"}


@pytest.mark.parametrize("kind", [CompatibleBatchAdapter, OpenAIResponsesBatchAdapter])
def test_a_schema_is_strict_where_the_service_takes_it_so(kind: type[Any]) -> None:
    def find(spec: Any) -> Any:
        directive = make(kind).build_output_directive(spec)
        return directive["text"]["format"] if "text" in directive else directive["response_format"]["json_schema"]

    strict = find(TYPED)
    assert (strict["strict"], strict["schema"]["required"]) == (True, ["label", "reason"])
    loose = find(build_output_spec(Loose))
    assert (loose["strict"], loose["schema"]) == (False, build_output_spec(Loose).json_schema)
    wrapped = find(build_output_spec(list[int]))  # type: ignore[arg-type]
    assert wrapped["schema"]["properties"]["response"]["type"] == "array"
    assert make(kind).build_output_directive(TEXT) == {}


def test_what_is_over_a_limit_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    adapter = make(CompatibleBatchAdapter)
    options = {"model": "m", "output_spec": TYPED, "idempotency_key": KEY}
    adapter.validate_requests([{"prompt": "a"}], **options)
    with pytest.raises(LLMBatchModelMismatchError, match="a, b"):
        adapter.validate_requests(
            [{"prompt": "x", "model": "overnight:a"}, {"prompt": "x", "model": "overnight:b"}], **options
        )
    with pytest.raises(LLMBatchModelMismatchError, match="overnight"):
        adapter.validate_requests([{"prompt": "x", "model": "openai:a"}], **options)
    with pytest.raises(LLMBatchLimitExceededError, match="custom_id"):
        adapter.validate_requests([{"prompt": "x"}], **{**options, "idempotency_key": "k" * 70})
    monkeypatch.setattr(CompatibleBatchAdapter, "max_payload_bytes", 100)
    with pytest.raises(LLMBatchLimitExceededError, match=r"bytes.*expand"):
        adapter.validate_requests([{"prompt": "x"}], **options)
    monkeypatch.setattr(CompatibleBatchAdapter, "max_requests", 1)
    with pytest.raises(LLMBatchLimitExceededError, match=r"at most 1 requests.*expand"):
        adapter.validate_requests([{"prompt": "x"}] * 2, **options)


def submit(adapter: Any, **changes: Any) -> str:
    options = {"model": "m", "idempotency_key": KEY, "input_fingerprint": FINGERPRINT, "output_spec": TEXT}
    return str(adapter.submit([{"prompt": "a"}], **{**options, **changes}).batch_id)


def listed(adapter: Any, status: str, **changes: Any) -> dict[str, Any]:
    """Return the batch that the adapter would create, as a service lists it."""
    server = Server()
    submit(make(adapter, server), **changes)
    (created,) = server.created
    return {"id": "batch_old", "status": status, "created_at": 4_000_000_000, **created}


def test_a_batch_is_tagged_with_the_task_and_its_input() -> None:
    server = Server()
    assert submit(make(CompatibleBatchAdapter, server)) == "batch_new"
    (created,) = server.created
    assert created["endpoint"] == "/v1/chat/completions"
    assert created["metadata"]["idempotency_key"] == KEY
    assert created["metadata"]["input_fingerprint"] == FINGERPRINT[:16]
    assert created["metadata"]["overnight_name"].endswith(f"-g0-{FINGERPRINT[:16]}")


@pytest.mark.parametrize("status", ["validating", "in_progress", "finalizing", "completed", "expired"])
def test_what_is_there_is_not_paid_for_again(status: str) -> None:
    server = Server(old=listed(CompatibleBatchAdapter, status))
    adapter = make(CompatibleBatchAdapter, server)
    assert submit(adapter) == "batch_old"
    assert adapter.find_orphaned_batch(KEY, FINGERPRINT, "2026-11-27T00:00:00+00:00") == "batch_old"
    assert (server.uploaded, server.created) == ([], [])


@pytest.mark.parametrize("status", ["failed", "cancelling", "cancelled"])
def test_what_was_stopped_is_submitted_again_as_the_next_generation(status: str) -> None:
    server = Server(old=listed(CompatibleBatchAdapter, status))
    adapter = make(CompatibleBatchAdapter, server)
    assert adapter.find_orphaned_batch(KEY, FINGERPRINT, "2026-11-27T00:00:00+00:00") is None
    assert submit(adapter) == "batch_new"
    assert "-g1-" in server.created[0]["metadata"]["overnight_name"]


@pytest.mark.parametrize("change", [{"idempotency_key": "f" * 16}, {"input_fingerprint": "a" * 64}])
def test_another_task_or_another_input_is_another_batch(change: dict[str, str]) -> None:
    server = Server(old=listed(CompatibleBatchAdapter, "in_progress", **change))
    adapter = make(CompatibleBatchAdapter, server)
    assert adapter.find_orphaned_batch(KEY, FINGERPRINT, "2026-11-27T00:00:00+00:00") is None
    assert submit(adapter) == "batch_new"
    assert "-g0-" in server.created[0]["metadata"]["overnight_name"]


def test_a_list_that_cannot_be_read_is_not_taken_for_an_empty_one() -> None:
    def good(call: Any) -> Any:
        raise UnavailableError("down", status=503)

    adapter = CompatibleBatchAdapter(client=JobClient(OpenAIBatchService("c"), Service(good)))  # type: ignore[arg-type]
    with pytest.raises(UnavailableError):
        adapter.find_orphaned_batch(KEY, FINGERPRINT, "2026-11-27T00:00:00+00:00")
    with pytest.raises(UnavailableError):
        submit(adapter)


def test_an_input_that_the_service_would_refuse_is_the_providers_own_error() -> None:
    server = Server()
    with pytest.raises(LLMBatchInputError, match="metadata|messages|model"):
        submit(make(CompatibleBatchAdapter, server), model="")
    assert (server.uploaded, server.created) == ([], [])


def test_a_batch_that_is_listed_is_not_lost_for_a_404() -> None:
    server = Server(old=listed(CompatibleBatchAdapter, "in_progress"))
    adapter = make(CompatibleBatchAdapter, server)
    assert adapter.get_batch("batch_old").status == "in_progress"
    with pytest.raises(BatchNotFoundError) as caught:
        adapter.get_batch("batch_none")
    # By which the operator knows that it may submit another.
    assert caught.value.status_code == 404


@pytest.mark.parametrize(
    ("status", "expected", "counts"),
    [
        ("validating", "in_progress", (2, 1, 0, 0)),
        ("cancelling", "in_progress", (2, 1, 0, 0)),
        ("completed", "completed", (2, 1, 0, 0)),
        ("expired", "expired", (2, 1, 7, 0)),
        ("cancelled", "cancelled", (2, 1, 0, 7)),
        ("something new", "in_progress", (2, 1, 0, 0)),
    ],
)
def test_a_status_is_what_the_provider_knows(status: str, expected: str, counts: tuple[int, ...]) -> None:
    state = to_batch_state(
        read_status({"status": status, "request_counts": {"total": 10, "completed": 2, "failed": 1}})
    )
    assert state.status == expected
    assert state.counts == dict(zip(("succeeded", "errored", "expired", "cancelled"), counts, strict=True))


def test_a_failed_batch_says_why() -> None:
    errors = {"data": [{"code": "invalid_json_line", "message": "not JSON", "line": 3}]}
    state = to_batch_state(read_status({"status": "failed", "errors": errors}))
    assert (state.status, state.counts) == ("failed", None)
    assert "line 3: [invalid_json_line] not JSON" in (state.error_message or "")


def read(*given: dict[str, Any], source: str = "output") -> list[RawResultItem]:
    results = (read_result(orjson.dumps(line), source, number) for number, line in enumerate(given, 1))
    return list(to_raw_items(results, "batch_1"))


def answered(custom_id: str, body: Any, status: int = 200) -> dict[str, Any]:
    return {"custom_id": custom_id, "response": {"status_code": status, "body": body}, "error": None}


def chat(content: str | None, **message: Any) -> dict[str, Any]:
    return {
        "model": "m",
        "choices": [{"message": {"content": content, **message}, "finish_reason": "stop"}],
        "usage": {"prompt_tokens": 3, "completion_tokens": 2},
    }


def response(*content: dict[str, Any], **body: Any) -> dict[str, Any]:
    return {
        "model": "m",
        "status": "completed",
        "output": [{"type": "reasoning", "summary": []}, {"type": "message", "content": list(content)}],
        "usage": {"input_tokens": 3, "output_tokens": 2},
        **body,
    }


GOOD = '{"label":"good","reason":"x"}'


@pytest.mark.parametrize(
    ("usage", "known"),
    [
        ({"prompt_tokens": 3}, {"input_tokens": 3}),
        ({"prompt_tokens": 0, "completion_tokens": 0}, None),
        ({"prompt_tokens": None}, None),
        ({}, None),
        (None, None),
    ],
)
def test_usage_that_the_server_does_not_say_is_none_and_not_zero(usage: Any, known: dict[str, int] | None) -> None:
    (raw,) = read(answered(f"{KEY}-0", chat(GOOD) | {"usage": usage}))
    assert (raw.provider_status, raw.usage) == ("success", known)


@pytest.mark.parametrize("body", [chat(GOOD), response({"type": "output_text", "text": GOOD})])
def test_an_answer_is_read_and_validated_by_the_provider(body: dict[str, Any]) -> None:
    (raw,) = read(answered(f"{KEY}-12", body))
    assert (raw.custom_id, raw.index, raw.provider_status, raw.model) == (f"{KEY}-12", 12, "success", "m")
    assert raw.usage == {"input_tokens": 3, "output_tokens": 2}
    adapter = make(CompatibleBatchAdapter)
    assert validate_extracted_output(adapter.extract_output(raw, TYPED), TYPED).value == json.loads(GOOD)
    assert validate_extracted_output(adapter.extract_output(raw, TEXT), TEXT).value == GOOD


@pytest.mark.parametrize(
    ("body", "text", "reason"),
    [
        (chat(None, refusal="No."), "No.", "stop"),
        (chat(None), None, "stop"),
        (response({"type": "refusal", "refusal": "No."}), "No.", "completed"),
        (response(status="incomplete", incomplete_details={"reason": "max_output_tokens"}), None, "max_output_tokens"),
    ],
)
def test_no_output_is_absent_with_what_the_model_said(body: dict[str, Any], text: str | None, reason: str) -> None:
    (raw,) = read(answered(f"{KEY}-0", body))
    assert raw.finish_reason == reason
    extracted = make(CompatibleBatchAdapter).extract_output(raw, TYPED)
    assert (extracted.kind, extracted.text) == ("absent", text)


def test_a_request_without_an_answer_says_what_became_of_it() -> None:
    items = read(
        {"custom_id": f"{KEY}-0", "response": None, "error": {"code": "batch_expired", "message": "late"}},
        {"custom_id": f"{KEY}-1", "response": None, "error": {"code": "batch_cancelled", "message": "stopped"}},
        answered(f"{KEY}-2", {"error": {"code": "invalid_prompt", "message": "no"}}, 400),
        answered(f"{KEY}-3", {"error": {"message": "busy"}}, 503),
        {"custom_id": f"{KEY}-4", "error": {"message": "no"}},
        source="error",
    )
    assert [item.provider_status for item in items] == ["expired", "cancelled", "errored", "errored", "errored"]
    assert [item.error and item.error["provider_code"] for item in items[2:]] == ["invalid_prompt", "503", None]
    assert all(item.error and item.error["message"] for item in items)


def test_a_line_of_nobody_is_left_out_and_logged(caplog: pytest.LogCaptureFixture) -> None:
    lines = [answered("theirs", chat("x")), {"custom_id": None}, answered(f"{KEY}-1", chat("x"))]
    assert [item.index for item in read(*lines)] == [1]
    assert "line 1" in caplog.text
    assert "line 2" in caplog.text
