from __future__ import annotations

import json
from datetime import date, datetime
from typing import Literal

import pytest
from pydantic import BaseModel, Field

from overnight.output_schema import OutputSchema
from overnight.sandbox.openai.errors import ApiError
from overnight.sandbox.openai.models import answer
from overnight.sandbox.openai.settings import Settings
from overnight.services.openai.structured import build_directive

EMBED = {"model": "text-embedding-3-small", "input": "x"}
CHAT = {"model": "gpt-4o", "messages": [{"role": "user", "content": "Hello there."}]}


@pytest.fixture
def ask(tmp_path):
    def make(endpoint, body, *, any_model=False, **limits):
        return answer(endpoint, body, Settings(data_dir=tmp_path, limits=limits), now=1, any_model=any_model)

    return make


@pytest.mark.parametrize(
    ("endpoint", "body", "status", "text"),
    [
        ("/v1/embeddings", [], 400, "must be a JSON object"),
        ("/v1/embeddings", {"input": "x"}, 400, "you must provide a model"),
        ("/v1/embeddings", {**EMBED, "model": 1}, 400, "expected a string, but got an integer"),
        ("/v1/embeddings", {**EMBED, "model": "none"}, 404, "does not exist"),
        ("/v1/embeddings", {**EMBED, "model": "gpt-4o"}, 403, "not allowed"),
        ("/v1/embeddings", {**EMBED, "input": None}, 400, "Missing required parameter: 'input'"),
        ("/v1/embeddings", {**EMBED, "input": ""}, 400, "cannot be an empty string"),
        ("/v1/embeddings", {**EMBED, "input": []}, 400, "1 to 2048 inputs, but got 0"),
        ("/v1/embeddings", {**EMBED, "input": ["x"] * 2_049}, 400, "but got 2049"),
        ("/v1/embeddings", {**EMBED, "input": [1.5]}, 400, "is invalid"),
        ("/v1/embeddings", {**EMBED, "input": "x" * 40_000}, 400, "maximum context length is 8192"),
        ("/v1/embeddings", {**EMBED, "dimensions": 0}, 400, "Expected a value >= 1"),
        ("/v1/embeddings", {**EMBED, "dimensions": 1_537}, 400, "Expected a value <= 1536"),
        ("/v1/embeddings", {**EMBED, "dimensions": "8"}, 400, "expected an integer, but got a string"),
        ("/v1/embeddings", {**EMBED, "encoding_format": "hex"}, 400, "Supported values are: 'float', 'base64'"),
        ("/v1/chat/completions", {"model": "gpt-4o"}, 400, "Missing required parameter: 'messages'"),
        ("/v1/chat/completions", {**CHAT, "messages": []}, 400, "empty array"),
        ("/v1/chat/completions", {**CHAT, "messages": "x"}, 400, "expected an array"),
        ("/v1/chat/completions", {**CHAT, "messages": [{}]}, 400, r"messages\[0\].role"),
        ("/v1/chat/completions", {**CHAT, "messages": [{"role": "user"}]}, 400, "content"),
        ("/v1/chat/completions", {**CHAT, "temperature": 999}, 400, "Expected a value <= 2, but got 999"),
        ("/v1/chat/completions", {**CHAT, "stream": True}, 400, "does not stream"),
        ("/v1/chat/completions", {**CHAT, "response_format": {"type": "xml"}}, 400, "Invalid value: 'xml'"),
        ("/v1/chat/completions", {**CHAT, "response_format": {"type": "json_schema"}}, 400, "json_schema.schema"),
        ("/v1/completions", {"model": "gpt-4o"}, 400, "Missing required parameter: 'prompt'"),
    ],
)
def test_a_request_is_refused_with_a_reason(ask, endpoint, body, status, text):
    with pytest.raises(ApiError, match=text) as caught:
        ask(endpoint, body)
    assert caught.value.status == status
    assert caught.value.body["error"].keys() == {"message", "type", "param", "code"}


def test_tokens_can_be_embedded_too(ask):
    assert len(ask("/v1/embeddings", {**EMBED, "input": [5, 6]}).body["data"]) == 1
    assert len(ask("/v1/embeddings", {**EMBED, "input": [[5], [6]]}).body["data"]) == 2


def test_the_same_request_has_the_same_answer(ask):
    assert ask("/v1/chat/completions", CHAT) == ask("/v1/chat/completions", CHAT)


def test_an_answer_says_how_many_tokens_it_cost(ask):
    done = ask("/v1/chat/completions", {**CHAT, "n": 3})
    assert len(done.body["choices"]) == 3
    assert done.body["usage"]["total_tokens"] == done.input_tokens + done.output_tokens


WORDS = {"type": "array", "items": {"type": "string"}}


@pytest.mark.parametrize(
    ("schema", "expected"),
    [
        ({"const": 5}, 5),
        ({"enum": ["cats", "dogs", "birds"]}, "dogs"),
        ({"type": "integer"}, 3),
        ({"type": "number"}, 3.0),
        ({"type": ["null", "string"]}, None),
        ({"anyOf": [{"type": "integer"}, {"type": "null"}]}, 3),
        ({"type": "array", "items": {"type": "integer"}}, [3]),
        ({"type": "object", "properties": {"count": {"type": "integer"}}}, {"count": 3}),
        ({"type": "string"}, "There were 3 dogs."),
        ({"type": "array", "items": {"type": "string"}}, ["there", "were", "dogs"]),
    ],
)
def test_a_schema_is_filled_from_the_text(ask, schema, expected):
    messages = [{"role": "user", "content": [{"type": "text", "text": "There were 3 dogs."}]}]
    shape = {"type": "json_schema", "json_schema": {"name": "x", "schema": schema}}
    done = ask("/v1/chat/completions", {**CHAT, "messages": messages, "response_format": shape})
    assert json.loads(done.body["choices"][0]["message"]["content"]) == expected


def test_after_a_repair_the_answer_is_about_the_document(ask):
    schema = {"type": "object", "properties": {"animal": {"enum": ["cats", "dogs", "birds"]}, "words": WORDS}}
    shape = {"type": "json_schema", "json_schema": {"name": "x", "schema": schema}}
    said = [("user", "<document>\nThere were 3 dogs.\n</document>"), ("assistant", "Birds?"), ("user", "Not valid.")]
    messages = [{"role": role, "content": text} for role, text in said]
    done = ask("/v1/chat/completions", {**CHAT, "messages": messages, "response_format": shape})
    answer = json.loads(done.body["choices"][0]["message"]["content"])
    assert answer == {"animal": "dogs", "words": ["there", "were", "dogs", "valid"]}


def test_a_schema_that_holds_itself_has_an_end(ask):
    schema: dict = {"type": "object", "properties": {}}
    schema["properties"]["child"] = {"type": "array", "items": {"type": "object", "properties": {"again": {}}}}
    shape = {"type": "json_schema", "json_schema": {"name": "x", "schema": schema}}
    done = ask("/v1/chat/completions", {**CHAT, "response_format": shape})
    assert "child" in json.loads(done.body["choices"][0]["message"]["content"])


def test_any_model_is_a_deployment_under_azures_paths(ask):
    assert ask("/v1/embeddings", {**EMBED, "model": "my-embeddings"}, any_model=True).body["model"] == "my-embeddings"
    assert ask("/v1/chat/completions", {**CHAT, "model": "my-chat"}, any_model=True).body["model"] == "my-chat"


class Shape(BaseModel):
    kind: Literal["circle", "square"]
    size: float = Field(ge=0, le=1)


class Drawing(BaseModel):
    shapes: list[Shape]
    main: Shape | None
    made: date
    at: datetime
    parent: Drawing | None
    parts: list[Drawing]


def test_an_answer_is_what_a_type_of_definitions_asks_for(ask):
    schema = OutputSchema.parse(Drawing)
    directive = build_directive(schema, "/v1/chat/completions")
    done = ask("/v1/chat/completions", {**CHAT, **directive, "max_completion_tokens": 4_000})
    answer = done.body["choices"][0]["message"]["content"]
    assert schema.check(answer.encode()) is None
    assert json.loads(answer)["shapes"][0]["kind"] in {"circle", "square"}
