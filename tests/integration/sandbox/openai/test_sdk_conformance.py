"""The official SDK, against the emulator in a process of its own: every operation we use or could use."""

from __future__ import annotations

import io
import json
import math
import signal
import time

import openai
import pytest


def test_a_file_is_created_described_read_and_deleted(emulator):
    client = emulator.client()
    made = client.files.create(file=("input.jsonl", b'{"a": 1}\n'), purpose="batch")
    assert (made.object, made.filename, made.bytes, made.purpose) == ("file", "input.jsonl", 9, "batch")
    assert made.status == "processed"
    assert made.expires_at == made.created_at + 30 * 86_400
    assert client.files.retrieve(made.id) == made
    assert client.files.content(made.id).read() == b'{"a": 1}\n'
    gone = client.files.delete(made.id)
    assert (gone.id, gone.object, gone.deleted) == (made.id, "file", True)
    for call in (client.files.retrieve, client.files.content, client.files.delete):
        with pytest.raises(openai.NotFoundError, match=f"No such File object: {made.id}"):
            call(made.id)


def test_a_file_lapses_when_it_was_asked_to(make_emulator):
    emulator = make_emulator()
    client = emulator.client()
    kept = client.files.create(file=("notes.txt", b"x"), purpose="user_data")
    made = client.files.create(
        file=("input.jsonl", b"{}\n"), purpose="batch", expires_after={"anchor": "created_at", "seconds": 3_600}
    )
    assert kept.expires_at is None
    assert made.expires_at == made.created_at + 3_600
    emulator.advance(3_601)
    with pytest.raises(openai.NotFoundError):
        client.files.content(made.id)
    assert [file.id for file in client.files.list()] == [kept.id]


def test_files_are_listed_in_pages_and_filtered(make_emulator):
    emulator = make_emulator()
    client = emulator.client()
    made = [client.files.create(file=("f.jsonl", b"{}\n"), purpose="batch").id for _ in range(5)]
    other = client.files.create(file=("f.txt", b"x"), purpose="assistants").id
    assert [file.id for file in client.files.list(limit=2, order="asc")] == [*made, other]
    assert [file.id for file in client.files.list(limit=2)] == [other, *reversed(made)]
    assert [file.id for file in client.files.list(purpose="batch", limit=3, order="asc")] == made
    page = client.files.list(limit=2, order="asc", after=made[1])
    assert [file.id for file in page.data] == made[2:4]
    assert page.has_more
    assert not client.files.list(limit=6).has_more


def test_content_can_be_read_from_a_byte_on(emulator):
    client = emulator.client()
    content = bytes(range(256)) * 500
    made = client.files.create(file=("f.bin", content), purpose="user_data")
    part = client.files.content(made.id, extra_headers={"Range": "bytes=100-"})
    assert part.response.status_code == 206
    assert part.read() == content[100:]
    emulator.put("quirks", ignore_range=True)
    assert client.files.content(made.id, extra_headers={"Range": "bytes=100-"}).read() == content


def test_a_large_upload_comes_back_byte_for_byte(emulator, tmp_path):
    path = tmp_path / "large.jsonl"
    with path.open("wb") as file:
        for number in range(400_000):
            file.write(b'{"number": %d, "text": "%s"}\n' % (number, b"x" * 80))
    client = emulator.client()
    with path.open("rb") as file:
        made = client.files.create(file=file, purpose="batch")
    assert made.bytes == path.stat().st_size
    copy = tmp_path / "copy"
    with client.files.with_streaming_response.content(made.id) as response:
        response.stream_to_file(copy)
    assert copy.read_bytes() == path.read_bytes()


@pytest.mark.parametrize(
    ("options", "text", "param"),
    [
        ({"purpose": "batch", "file": ("notes.txt", b"x")}, "Must be .jsonl", None),
        ({"purpose": "lunch", "file": ("notes.txt", b"x")}, "Invalid value: 'lunch'", "purpose"),
        (
            {
                "purpose": "batch",
                "file": ("f.jsonl", b"{}"),
                "expires_after": {"anchor": "created_at", "seconds": 60},
            },
            "Expected a value >= 3600, but got 60",
            "expires_after.seconds",
        ),
    ],
)
def test_an_upload_is_refused_with_a_reason(emulator, options, text, param):
    with pytest.raises(openai.BadRequestError, match=text) as caught:
        emulator.client().files.create(**options)
    assert caught.value.type == "invalid_request_error"
    assert caught.value.param == param


def test_an_upload_over_the_limit_is_refused(emulator):
    emulator.configure(limits={"upload_bytes": 100_000})
    with pytest.raises(openai.APIStatusError, match="larger than the 100,000 bytes") as caught:
        emulator.client().files.create(file=("f.jsonl", bytes(1_000_000)), purpose="batch")
    assert caught.value.status_code == 413


def test_a_batch_is_carried_out_with_every_field_typed(emulator, embedding_lines):
    lines = embedding_lines(300)
    batch = emulator.submit(lines, metadata={"dag": "nightly"})
    assert (batch.object, batch.status, batch.completion_window) == ("batch", "validating", "24h")
    assert batch.endpoint == "/v1/embeddings"
    assert batch.expires_at == batch.created_at + 86_400
    assert batch.metadata == {"dag": "nightly"}
    assert batch.output_file_id is None
    done = emulator.reaches(batch, "completed")
    assert done.model == "text-embedding-3-small"
    assert done.error_file_id is None
    assert done.errors is None
    assert done.request_counts.to_dict() == {"total": 300, "completed": 300, "failed": 0}
    assert done.created_at <= done.in_progress_at <= done.finalizing_at <= done.completed_at
    assert done.usage.total_tokens == done.usage.input_tokens > 0
    rows = emulator.lines(done.output_file_id)
    assert sorted(row["custom_id"] for row in rows) == sorted(line["custom_id"] for line in lines)
    assert [row["custom_id"] for row in rows] != [line["custom_id"] for line in lines]
    for row in rows:
        assert row["error"] is None
        assert row["response"]["status_code"] == 200
        assert row["id"].startswith("batch_req_")
        assert len(row["response"]["body"]["data"][0]["embedding"]) == 16
    file = emulator.client().files.retrieve(done.output_file_id)
    assert (file.purpose, file.filename) == ("batch_output", f"{batch.id}_output.jsonl")


def test_a_batch_answers_what_the_synchronous_endpoint_answers(emulator):
    body = {"model": "gpt-4o-mini", "messages": [{"role": "user", "content": "Ice is cold. Is ice cold? Yes."}]}
    line = {"custom_id": "one", "method": "POST", "url": "/v1/chat/completions", "body": body}
    done = emulator.reaches(emulator.submit([line], endpoint="/v1/chat/completions"), "completed")
    [row] = emulator.lines(done.output_file_id)
    answer = emulator.client().chat.completions.create(**body)
    assert row["response"]["body"]["choices"][0]["message"]["content"] == answer.choices[0].message.content


def test_batches_are_listed_in_pages(make_emulator, embedding_lines):
    emulator = make_emulator()
    client = emulator.client()
    assert client.batches.list().data == []
    file = emulator.upload(embedding_lines(1))
    made = [
        client.batches.create(
            input_file_id=file.id, endpoint="/v1/embeddings", completion_window="24h", metadata={"n": str(number)}
        ).id
        for number in range(25)
    ]
    assert [batch.id for batch in client.batches.list(limit=4)] == made[::-1]
    assert [batch.metadata["n"] for batch in client.batches.list(limit=100).data] == [
        str(number) for number in reversed(range(25))
    ]
    assert len(client.batches.list().data) == 20
    page = client.batches.list(limit=3, after=made[10])
    assert [batch.id for batch in page.data] == [made[9], made[8], made[7]]
    for limit in (0, 101):
        with pytest.raises(openai.BadRequestError, match="Invalid 'limit'"):
            client.batches.list(limit=limit)


def test_every_status_is_seen(emulator, embedding_lines):
    emulator.put("pace", validating=0.3, finalizing=0.3, cancelling=0.3, lines_per_second=200)
    completed = emulator.submit(embedding_lines(60))
    for status in ("validating", "in_progress", "finalizing", "completed"):
        emulator.reaches(completed, status)
    failed = emulator.submit(["not json"])
    assert emulator.reaches(failed, "failed").failed_at is not None
    emulator.put("pace", lines_per_second=1, cancelling=0.3)
    cancelled = emulator.submit(embedding_lines(60))
    emulator.reaches(cancelled, "in_progress")
    assert emulator.client().batches.cancel(cancelled.id).status == "cancelling"
    emulator.reaches(cancelled, "cancelling")
    assert emulator.reaches(cancelled, "cancelled").cancelling_at is not None
    expired = emulator.submit(embedding_lines(60))
    emulator.reaches(expired, "in_progress")
    emulator.advance(86_400)
    emulator.reaches(expired, "expired")
    assert emulator.seen == {
        "validating", "in_progress", "finalizing", "completed", "failed", "cancelling", "cancelled", "expired",
    }  # fmt: skip


def test_a_cancelled_batch_keeps_what_was_done(emulator, embedding_lines):
    emulator.configure(pace={"validating": 0, "cancelling": 0, "lines_per_second": 40})
    client = emulator.client()
    batch = emulator.submit(embedding_lines(500))
    emulator.until(lambda: client.batches.retrieve(batch.id).request_counts.completed >= 5)
    asked = client.batches.cancel(batch.id)
    assert (asked.status, asked.cancelled_at) == ("cancelling", None)
    done = emulator.reaches(batch, "cancelled")
    finished, rest = emulator.lines(done.output_file_id), emulator.lines(done.error_file_id)
    assert len(finished) == done.request_counts.completed
    assert len(finished) + len(rest) == done.request_counts.total == 500
    assert {row["error"]["code"] for row in rest} == {"batch_cancelled"}
    assert not {row["custom_id"] for row in finished} & {row["custom_id"] for row in rest}


@pytest.mark.parametrize(("quirks", "error"), [({}, "ConflictError"), ({"late_cancel_status": 400}, "BadRequestError")])
def test_a_batch_that_is_over_cannot_be_cancelled(emulator, embedding_lines, quirks, error):
    emulator.configure(pace={"validating": 0, "finalizing": 0}, quirks=quirks)
    batch = emulator.reaches(emulator.submit(embedding_lines(1)), "completed")
    with pytest.raises(getattr(openai, error), match="Cannot cancel a batch with status 'completed'"):
        emulator.client().batches.cancel(batch.id)


def test_a_batch_cancelled_while_finalizing_is_cancelled_with_all_its_lines(emulator, embedding_lines):
    emulator.put("pace", validating=0, finalizing=5, cancelling=0)
    batch = emulator.submit(embedding_lines(20))
    emulator.reaches(batch, "finalizing")
    emulator.client().batches.cancel(batch.id)
    done = emulator.reaches(batch, "cancelled")
    assert done.completed_at is None
    assert len(emulator.lines(done.output_file_id)) == 20


def test_an_expired_batch_has_the_finished_lines_and_names_the_rest(emulator, embedding_lines):
    emulator.put("pace", validating=0, lines_per_second=40)
    client = emulator.client()
    batch = emulator.submit(embedding_lines(200))
    emulator.until(lambda: client.batches.retrieve(batch.id).request_counts.completed >= 5)
    emulator.advance(86_400)
    done = emulator.reaches(batch, "expired")
    assert done.expired_at >= done.expires_at
    finished, rest = emulator.lines(done.output_file_id), emulator.lines(done.error_file_id)
    assert len(finished) + len(rest) == 200
    for row in rest:
        assert row["response"] is None
        assert row["error"]["code"] == "batch_expired"


def test_results_lapse_when_they_were_asked_to(emulator, embedding_lines):
    policy = {"anchor": "created_at", "seconds": 7_200}
    done = emulator.reaches(emulator.submit(embedding_lines(3), output_expires_after=policy), "completed")
    file = emulator.client().files.retrieve(done.output_file_id)
    assert file.expires_at == file.created_at + 7_200
    emulator.advance(7_201)
    with pytest.raises(openai.NotFoundError):
        emulator.client().files.content(done.output_file_id)
    assert emulator.client().batches.retrieve(batch_id=done.id).status == "completed"


def test_a_bad_line_fails_the_batch_with_its_number(emulator, embedding_lines):
    good = embedding_lines(6)
    del good[1]["custom_id"]
    good[3]["custom_id"] = "doc-2"
    good[4]["url"] = "/v1/chat/completions"
    good[5]["body"]["model"] = "text-embedding-3-large"
    batch = emulator.reaches(emulator.submit([*good, '{"custom_id": ', {**good[0], "method": "GET"}]), "failed")
    assert batch.errors.object == "list"
    assert {(error.line, error.code, error.param) for error in batch.errors.data} == {
        (2, "missing_required_parameter", "custom_id"),
        (4, "duplicate_custom_id", "custom_id"),
        (5, "invalid_url", "url"),
        (6, "mismatched_model", "body.model"),
        (7, "invalid_json_line", None),
        (8, "duplicate_custom_id", "custom_id"),
        (8, "invalid_method", "method"),
    }
    assert batch.output_file_id is None
    assert batch.error_file_id is None


@pytest.mark.parametrize(
    ("limits", "count", "code"),
    [
        ({}, 0, "empty_file"),
        ({"requests_per_batch": 9}, 10, "too_many_tasks"),
        ({"embedding_inputs_per_batch": 9}, 10, "too_many_embedding_inputs"),
        ({"batch_file_bytes": 999}, 10, "file_too_large"),
        ({"enqueued_tokens": 9}, 10, "token_limit_exceeded"),
    ],
)
def test_a_batch_over_a_limit_fails(emulator, embedding_lines, limits, count, code):
    emulator.configure(pace={"validating": 0}, limits=limits)
    batch = emulator.reaches(emulator.submit(embedding_lines(count)), "failed")
    assert [error.code for error in batch.errors.data] == [code]


def test_the_quota_of_enqueued_tokens_is_free_again_when_a_batch_is_over(make_emulator, embedding_lines):
    emulator = make_emulator(
        pace={"validating": 0, "cancelling": 0, "lines_per_second": 1}, limits={"enqueued_tokens": 60}
    )
    first = emulator.submit(embedding_lines(10))
    emulator.reaches(first, "in_progress")
    refused = emulator.reaches(emulator.submit(embedding_lines(10)), "failed")
    assert refused.errors.data[0].code == "token_limit_exceeded"
    assert "Limit: 60 enqueued tokens" in refused.errors.data[0].message
    emulator.client().batches.cancel(first.id)
    emulator.reaches(first, "cancelled")
    emulator.reaches(emulator.submit(embedding_lines(10)), "in_progress")


def test_the_quota_of_enqueued_tokens_can_be_checked_when_a_batch_is_created(make_emulator, embedding_lines):
    emulator = make_emulator(
        pace={"validating": 0.5, "cancelling": 0, "lines_per_second": 1},
        limits={"enqueued_tokens": 60, "enqueued_check": "create"},
    )
    # While it is validated it counts already.
    first = emulator.submit(embedding_lines(10))
    with pytest.raises(openai.RateLimitError, match="Limit: 60 enqueued tokens") as refused:
        emulator.client(max_retries=0).batches.create(
            input_file_id=first.input_file_id, endpoint=first.endpoint, completion_window="24h"
        )
    assert refused.value.code == "token_limit_exceeded"
    assert float(refused.value.response.headers["Retry-After"]) > 0
    queue = emulator.queue()
    assert 0 < queue["enqueued"] == queue["peak"] <= 60
    emulator.client().batches.cancel(first.id)
    emulator.reaches(first, "cancelled")
    emulator.reaches(emulator.submit(embedding_lines(10)), "in_progress")
    assert emulator.queue()["peak"] == queue["peak"]


def test_a_request_the_model_refuses_is_a_line_in_the_error_file(emulator, embedding_lines):
    lines = embedding_lines(3)
    lines[1]["body"]["input"] = ""
    done = emulator.reaches(emulator.submit(lines), "completed")
    assert done.request_counts.to_dict() == {"total": 3, "completed": 2, "failed": 1}
    [row] = emulator.lines(done.error_file_id)
    assert row["custom_id"] == "doc-1"
    assert row["error"] is None
    assert row["response"]["status_code"] == 400
    assert "empty string" in row["response"]["body"]["error"]["message"]


@pytest.mark.parametrize(
    ("change", "text", "param"),
    [
        ({"endpoint": "/v1/lunch"}, "Invalid value: '/v1/lunch'", "endpoint"),
        ({"completion_window": "1h"}, "Invalid value: '1h'", "completion_window"),
        ({"input_file_id": "file-none"}, "Cannot find file file-none", "file_id"),
        ({"metadata": {str(n): "x" for n in range(17)}}, "at most 16 properties", "metadata"),
        ({"metadata": {"k" * 65: "x"}}, "maximum length 64", "metadata"),
        ({"metadata": {"k": "x" * 513}}, "maximum length 512", "metadata.k"),
        ({"metadata": {"k": 1}}, "expected a string, but got an integer", "metadata.k"),
        ({"output_expires_after": {"anchor": "created_at", "seconds": 1}}, "Expected a value >= 3600", None),
        ({"extra_body": {"lunch": 1}}, "Unknown parameter: 'lunch'", "lunch"),
    ],
)
def test_a_batch_is_refused_with_a_reason(emulator, embedding_lines, change, text, param):
    file = emulator.upload(embedding_lines(1))
    request = {"input_file_id": file.id, "endpoint": "/v1/embeddings", "completion_window": "24h"}
    with pytest.raises(openai.BadRequestError, match=text) as caught:
        emulator.client().batches.create(**{**request, **change})
    assert caught.value.type == "invalid_request_error"
    assert param is None or caught.value.param == param
    assert file.id not in {batch.input_file_id for batch in emulator.client().batches.list()}


def test_a_file_for_something_else_is_no_batch_input(emulator):
    client = emulator.client()
    file = client.files.create(file=("f.jsonl", b"{}"), purpose="user_data")
    with pytest.raises(openai.BadRequestError, match="expected 'batch'"):
        client.batches.create(input_file_id=file.id, endpoint="/v1/embeddings", completion_window="24h")


def test_a_killed_emulator_goes_on_where_it_stopped(make_emulator, embedding_lines):
    pace = {"validating": 0, "finalizing": 0, "lines_per_second": 400}
    emulator = make_emulator(pace=pace)
    lines = embedding_lines(600)
    batch = emulator.submit(lines)
    emulator.client().files.delete(batch.input_file_id)
    for _ in range(3):
        before = emulator.client().batches.retrieve(batch.id).request_counts.completed

        def progressed(before=before):
            return emulator.client().batches.retrieve(batch.id).request_counts.completed > before

        emulator.until(progressed)
        emulator.stop(signal.SIGKILL)
        emulator.start(pace=pace)
    done = emulator.reaches(batch, "completed")
    assert done.request_counts.completed == 600
    rows = emulator.lines(done.output_file_id)
    assert len(rows) == 600
    assert {row["custom_id"] for row in rows} == {line["custom_id"] for line in lines}
    emulator.stop(signal.SIGTERM)
    emulator.start()
    assert emulator.client().batches.retrieve(batch.id) == done
    assert emulator.lines(done.output_file_id) == rows


def test_embeddings_are_unit_vectors_in_both_encodings(emulator):
    client = emulator.client()
    options = {"model": "text-embedding-3-small", "input": ["a red car", "a blue car"], "dimensions": 64}
    packed = client.embeddings.create(**options)
    plain = client.embeddings.create(**options, encoding_format="float")
    assert [item.index for item in plain.data] == [0, 1]
    for one, other in zip(packed.data, plain.data, strict=True):
        assert one.embedding == pytest.approx(other.embedding, abs=1e-6)
        assert math.hypot(*other.embedding) == pytest.approx(1, abs=1e-5)
    assert plain.usage.prompt_tokens > 0
    assert len(client.embeddings.create(model="text-embedding-3-large", input="x").data[0].embedding) == 3072
    with pytest.raises(openai.BadRequestError, match="does not support specifying dimensions"):
        client.embeddings.create(model="text-embedding-ada-002", input="x", dimensions=5)


def test_a_chat_model_answers_in_text_and_in_the_schema_it_is_given(emulator):
    client = emulator.client()
    messages = [{"role": "user", "content": "Shipping was slow. The soup of 12 beans tastes wonderful."}]
    text = client.chat.completions.create(model="gpt-4o-mini", messages=messages)
    assert text.choices[0].finish_reason == "stop"
    assert text.choices[0].message.content in messages[0]["content"]
    schema = {
        "type": "object",
        "properties": {
            "topic": {"type": "string", "enum": ["soup", "gardens"]},
            "beans": {"type": "integer"},
            "summary": {"type": "string"},
        },
        "required": ["topic", "beans", "summary"],
        "additionalProperties": False,
    }
    shape = {"type": "json_schema", "json_schema": {"name": "review", "schema": schema, "strict": True}}
    typed = client.chat.completions.create(model="gpt-4o-mini", messages=messages, response_format=shape)
    answer = json.loads(typed.choices[0].message.content)
    assert (answer["topic"], answer["beans"]) == ("soup", 12)
    assert answer["summary"]
    assert client.completions.create(model="gpt-3.5-turbo-instruct", prompt="Water is wet.").choices[0].text
    cut = client.chat.completions.create(model="gpt-4o-mini", messages=messages, max_tokens=1)
    assert cut.choices[0].finish_reason == "length"


def test_models_are_listed(emulator):
    client = emulator.client()
    names = [model.id for model in client.models.list()]
    assert "text-embedding-3-small" in names
    assert client.models.retrieve("gpt-4o-mini").object == "model"
    with pytest.raises(openai.NotFoundError):
        client.models.retrieve("gpt-0")


def test_errors_are_those_the_sdk_has_classes_for(emulator):
    for key in ("", "sk-wrong"):
        with pytest.raises(openai.AuthenticationError) as caught:
            openai.OpenAI(api_key=key or "x", base_url=f"{emulator.url}/v1", max_retries=0).batches.list(
                extra_headers={"Authorization": f"Bearer {key}"} if key else {"Authorization": openai.Omit()}
            )
        assert "sk-wrong" not in str(caught.value)
    assert caught.value.code == "invalid_api_key"
    client = emulator.client()
    with pytest.raises(openai.NotFoundError, match="No batch found with id 'batch_none'"):
        client.batches.retrieve("batch_none")
    with pytest.raises(openai.NotFoundError) as unknown:
        client.embeddings.create(model="embed-0", input="x")
    assert unknown.value.code == "model_not_found"
    with pytest.raises(openai.NotFoundError, match=r"Invalid URL \(GET /v1/lunch\)"):
        client.get("/lunch", cast_to=object)
    with pytest.raises(openai.APIStatusError) as not_allowed:
        client.put("/batches", cast_to=object)
    assert (not_allowed.value.status_code, not_allowed.value.code) == (405, "method_not_supported")
    emulator.put("faults", rate_limited=1)
    with pytest.raises(openai.RateLimitError) as limited:
        client.models.list()
    assert limited.value.response.headers["retry-after"] == "1"
    assert limited.value.code == "rate_limit_exceeded"
    emulator.put("faults", server_error=1)
    with pytest.raises(openai.InternalServerError) as broken:
        client.models.list()
    assert broken.value.request_id.startswith("req_")


def test_the_sdk_retries_what_the_emulator_refuses_for_a_while(emulator):
    emulator.put("faults", rate_limited={"share": 1, "times": 2}, retry_after=0.01)
    assert emulator.client(max_retries=2).models.list().data
    assert [seen["fault"] for seen in emulator.requests(path="/v1/models")] == ["rate_limited", "rate_limited", None]


@pytest.mark.parametrize("kind", ["timeout", "lost_answer", "cut_body"])
def test_a_dropped_connection_is_a_connection_error(emulator, kind):
    emulator.put("faults", **{kind: 1}, timeout_seconds=0)
    with pytest.raises((openai.APIConnectionError, openai.APIError)):
        emulator.client().models.list()
    emulator.put("faults", **{kind: {"share": 1, "times": 1}}, timeout_seconds=0)
    assert emulator.client(max_retries=1).models.list().data


def test_a_request_that_times_out_is_a_timeout_error(emulator):
    emulator.put("faults", timeout=1, timeout_seconds=5)
    with pytest.raises(openai.APITimeoutError):
        emulator.client(timeout=0.1).models.list()


def test_a_create_whose_answer_was_lost_exists_and_the_sdk_makes_a_second(make_emulator, embedding_lines):
    emulator = make_emulator()
    emulator.put("faults", lost_create={"share": 1, "times": 1})
    with pytest.raises(openai.APIConnectionError):
        emulator.submit(embedding_lines(1))
    assert len(emulator.client().batches.list().data) == 1
    emulator.put("faults", lost_create={"share": 1, "times": 1})
    file = emulator.upload(embedding_lines(1))
    emulator.client(max_retries=1).batches.create(
        input_file_id=file.id, endpoint="/v1/embeddings", completion_window="24h"
    )
    assert len(emulator.client().batches.list().data) == 3
    emulator.put("faults", server_error_after={"share": 1, "methods": ["POST"], "path": "/batches$"})
    with pytest.raises(openai.InternalServerError):
        emulator.client().batches.create(input_file_id=file.id, endpoint="/v1/embeddings", completion_window="24h")
    emulator.put("faults")
    assert len(emulator.client().batches.list().data) == 4


def test_a_broken_document_is_not_an_answer(emulator):
    emulator.put("faults", broken_json=1)
    raw = emulator.client().models.with_raw_response.list()
    assert raw.http_response.status_code == 200
    with pytest.raises(json.JSONDecodeError):
        json.loads(raw.http_response.content)


def test_lines_go_wrong_in_every_way_they_can(emulator, embedding_lines):
    emulator.configure(
        pace={"validating": 0, "finalizing": 0},
        faults={
            "lines_failed": {"share": 1, "custom_id": "^doc-1.$"},
            "lines_missing": {"share": 1, "custom_id": "^doc-2$"},
            "lines_non_200": {"share": 1, "custom_id": "^doc-3$"},
        },
    )
    done = emulator.reaches(emulator.submit(embedding_lines(20)), "completed")
    rows = {row["custom_id"]: row for row in emulator.lines(done.output_file_id)}
    failed = {row["custom_id"]: row for row in emulator.lines(done.error_file_id)}
    assert failed.keys() == {f"doc-1{digit}" for digit in range(10)}
    assert rows.keys() == {f"doc-{digit}" for digit in range(10)} - {"doc-2"}
    assert [name for name, row in rows.items() if row["response"]["status_code"] != 200] == ["doc-3"]
    assert done.request_counts.to_dict() == {"total": 20, "completed": 9, "failed": 10}


def test_batches_go_wrong_in_every_way_they_can(emulator, embedding_lines):
    emulator.put("faults", batch_failed={"share": 1, "times": 1})
    failed = emulator.reaches(emulator.submit(embedding_lines(1)), "failed")
    assert failed.errors.data[0].code == "server_error"
    emulator.put("faults", batch_expired={"share": 1, "times": 1}, batch_expired_after=0.25)
    expired = emulator.reaches(emulator.submit(embedding_lines(100)), "expired")
    assert len(emulator.lines(expired.output_file_id)) == 25
    emulator.put("faults", batch_stuck={"share": 1, "times": 1})
    stuck = emulator.submit(embedding_lines(100))
    client = emulator.client()
    emulator.until(lambda: client.batches.retrieve(stuck.id).request_counts.completed == 50)
    emulator.reaches(emulator.submit(embedding_lines(100)), "completed")
    assert client.batches.retrieve(stuck.id).status == "in_progress"
    client.batches.cancel(stuck.id)
    emulator.reaches(stuck, "cancelled")


def test_compatible_servers_differ_as_they_are_told_to(emulator, embedding_lines):
    quirks = {
        "body_as_string": True,
        "bare_error_lines": True,
        "no_final_newline": True,
        "no_finalizing": True,
        "omit_fields": ["in_progress_at", "expires_at", "request_counts"],
    }
    faults = {"lines_failed": {"share": 1, "custom_id": "-0$"}}
    emulator.configure(pace={"validating": 0}, quirks=quirks, faults=faults)
    done = emulator.reaches(emulator.submit(embedding_lines(5)), "completed")
    assert (done.in_progress_at, done.expires_at, done.request_counts) == (None, None, None)
    assert done.finalizing_at is None
    [row] = emulator.lines(done.error_file_id)
    assert "response" not in row
    assert row["error"].keys() == {"message"}
    text = emulator.client().files.content(done.output_file_id).text
    assert not text.endswith("\n")
    rows = [json.loads(line) for line in text.splitlines()]
    assert len(rows) == 4
    assert all(len(json.loads(row["response"]["body"])["data"][0]["embedding"]) == 16 for row in rows)


def test_an_error_file_can_be_there_and_empty(emulator, embedding_lines):
    emulator.configure(pace={"validating": 0, "finalizing": 0}, quirks={"empty_error_file": True})
    done = emulator.reaches(emulator.submit(embedding_lines(5)), "completed")
    assert emulator.client().files.content(done.error_file_id).read() == b""
    assert len(emulator.lines(done.output_file_id)) == 5


def test_a_cancelled_batch_can_have_no_files(emulator, embedding_lines):
    emulator.configure(
        pace={"validating": 0, "cancelling": 0, "lines_per_second": 20}, quirks={"cancel_without_output": True}
    )
    client, batch = emulator.client(), emulator.submit(embedding_lines(200))
    emulator.until(lambda: client.batches.retrieve(batch.id).request_counts.completed)
    client.batches.cancel(batch.id)
    done = emulator.reaches(batch, "cancelled")
    assert (done.output_file_id, done.error_file_id) == (None, None)


def test_batches_can_be_stuck_for_ever_after_a_restart(make_emulator, embedding_lines):
    emulator = make_emulator(pace={"validating": 0, "lines_per_second": 20})
    batch = emulator.submit(embedding_lines(40))
    emulator.reaches(batch, "in_progress")
    emulator.stop(signal.SIGKILL)
    emulator.start(pace={"validating": 0, "finalizing": 0}, quirks={"stuck_after_restart": True})
    emulator.reaches(emulator.submit(embedding_lines(100)), "completed")
    emulator.advance(10 * 86_400)
    assert emulator.client().batches.retrieve(batch.id).status == "in_progress"


def test_a_connection_can_be_dropped_after_an_error(emulator):
    client = emulator.client(max_retries=0)
    emulator.put("quirks", drop_after_error=True)
    for _ in range(3):
        with pytest.raises(openai.NotFoundError) as caught:
            client.batches.retrieve("batch_none")
        assert "connection" not in caught.value.response.headers
        # Give the close time to arrive: a request sent into it would fail, as it does in the field.
        time.sleep(0.1)
    assert client.models.list().data


def test_the_azure_client_works_by_its_own_paths_and_deployments(emulator):
    emulator.configure(pace={"validating": 0, "finalizing": 0})
    client = openai.AzureOpenAI(
        azure_endpoint=emulator.url, api_key=emulator.client().api_key, api_version="2024-10-21", max_retries=0
    )
    assert len(client.embeddings.create(model="my-embed", input="x", dimensions=8).data[0].embedding) == 8
    line = {
        "custom_id": "one",
        "method": "POST",
        "url": "/chat/completions",
        "body": {"model": "my-deployment", "messages": [{"role": "user", "content": "Hello."}]},
    }
    file = client.files.create(file=("in.jsonl", io.BytesIO(json.dumps(line).encode())), purpose="batch")
    batch = client.batches.create(input_file_id=file.id, endpoint="/chat/completions", completion_window="24h")
    done = emulator.reaches(batch, "completed")
    row = json.loads(client.files.content(done.output_file_id).text)
    assert row["response"]["body"]["choices"][0]["message"]["content"] == "Hello."
    assert client.batches.list(limit=1).data[0].id == batch.id


def test_organization_and_project_are_accepted_and_recorded(emulator):
    client = emulator.client(organization="org-1", project="proj-1")
    raw = client.models.with_raw_response.list()
    assert raw.headers["openai-organization"] == "org-1"
    [seen] = emulator.requests(path="/v1/models")
    assert (seen["organization"], seen["project"], seen["status"]) == ("org-1", "proj-1", 200)
    assert client.api_key not in json.dumps(seen)


def test_faults_set_again_hit_the_same_requests_again(emulator):
    client = emulator.client()

    def outcome():
        try:
            client.models.list()
        except openai.InternalServerError:
            return 500
        return 200

    def outcomes():
        emulator.put("faults", server_error=0.4)
        return [outcome() for _ in range(30)]

    first = outcomes()
    assert {200, 500} == set(first)
    assert outcomes() == first


def test_a_setting_that_is_not_one_is_refused(emulator):
    import httpx

    for section, body in [("faults", {"rate_limited": 2}), ("faults", {"lunch": 1}), ("quirks", {"lunch": 1})]:
        answer = httpx.put(f"{emulator.url}/_sandbox/{section}", json=body)
        assert answer.status_code == 400
    assert httpx.get(f"{emulator.url}/_sandbox/lunch").status_code == 404
    assert httpx.patch(f"{emulator.url}/_sandbox/faults", json={"latency": 0.001}).json()["latency"] == 0.001
    assert httpx.get(f"{emulator.url}/_sandbox/faults").json()["rate_limited"]["share"] == 0
