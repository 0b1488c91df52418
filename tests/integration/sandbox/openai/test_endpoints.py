"""Every endpoint of the Batch API, answered as the official SDK's models have it: alone and in a batch."""

from __future__ import annotations

import base64
import struct
import zlib
from typing import Any

import openai
import pytest
from openai.types import Completion, CreateEmbeddingResponse, ImagesResponse, ModerationCreateResponse, Video
from openai.types.chat import ChatCompletion
from openai.types.responses import Response
from pydantic import BaseModel

REFERENCE = {"image_url": "https://example.org/a.png"}
REQUESTS: dict[str, tuple[type[BaseModel], list[dict[str, Any]]]] = {
    "/v1/responses": (
        Response,
        [
            {"model": "gpt-4.1", "input": "There were 3 dogs. They sang.", "instructions": "Be brief."},
            {"model": "gpt-4.1", "input": [{"role": "user", "content": [{"type": "input_text", "text": "A dog."}]}]},
            {"model": "gpt-4.1", "input": "There were 3 dogs.", "reasoning": {"effort": "low"}},
            {"model": "gpt-4.1", "input": "dogs and cats " * 30, "max_output_tokens": 16},
        ],
    ),
    "/v1/chat/completions": (
        ChatCompletion,
        [{"model": "gpt-4o", "messages": [{"role": "user", "content": "There were 3 dogs."}]}],
    ),
    "/v1/embeddings": (CreateEmbeddingResponse, [{"model": "text-embedding-3-small", "input": "x", "dimensions": 8}]),
    "/v1/completions": (Completion, [{"model": "gpt-3.5-turbo-instruct", "prompt": "There were 3 dogs."}]),
    "/v1/moderations": (
        ModerationCreateResponse,
        [
            {"input": "I will kill you, idiot."},
            {"model": "omni-moderation-latest", "input": ["a dog", "murder"]},
            {"input": [{"type": "text", "text": "a dog"}, {"type": "image_url", "image_url": {"url": "https://x"}}]},
        ],
    ),
    "/v1/images/generations": (
        ImagesResponse,
        [
            {"model": "gpt-image-1", "prompt": "a dog"},
            {"model": "gpt-image-1", "prompt": "a cat", "n": 2, "size": "1536x1024", "quality": "low"},
        ],
    ),
    "/v1/images/edits": (ImagesResponse, [{"model": "gpt-image-1", "prompt": "a dog", "images": [REFERENCE]}]),
    "/v1/videos": (Video, [{"model": "sora-2", "prompt": "a dog", "seconds": "8", "input_reference": REFERENCE}]),
}
CLOCK = {"created", "created_at", "completed_at", "expires_at"}


def without_clock(body: dict[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in body.items() if name not in CLOCK}


@pytest.mark.parametrize("endpoint", REQUESTS)
def test_a_batch_answers_what_the_endpoint_answers_in_the_sdks_own_shape(emulator, endpoint):
    model, bodies = REQUESTS[endpoint]
    lines = [
        {"custom_id": f"d{number}", "method": "POST", "url": endpoint, "body": body}
        for number, body in enumerate(bodies)
    ]
    batch = emulator.reaches(emulator.submit(lines, endpoint), "completed")
    assert (batch.endpoint, batch.model) == (endpoint, bodies[-1].get("model", "omni-moderation-latest"))
    assert (batch.request_counts.completed, batch.request_counts.failed) == (len(bodies), 0)
    assert batch.usage.total_tokens == batch.usage.input_tokens + batch.usage.output_tokens > 0
    answers = {line["custom_id"]: line["response"]["body"] for line in emulator.lines(batch.output_file_id)}
    for number, body in enumerate(bodies):
        found = answers[f"d{number}"]
        # Strict: nothing has to be converted to be of the type that the SDK has.
        model.model_validate(found, strict=True, extra="forbid")
        alone = emulator.client().post(endpoint.removeprefix("/v1"), body=body, cast_to=object)
        assert without_clock(alone) == without_clock(found)


def test_the_sdks_own_methods_read_the_answers(emulator):
    client = emulator.client()
    response = client.responses.create(model="gpt-4.1", input="There were 3 dogs. They sang.")
    assert response.output_text in "There were 3 dogs. They sang."
    assert response.status == "completed"
    moderation = client.moderations.create(input=["murder", "a dog"])
    assert [result.flagged for result in moderation.results] == [True, False]
    assert moderation.results[0].categories.violence
    assert moderation.results[0].category_scores.violence > 0.5
    images = client.images.generate(model="gpt-image-1", prompt="a dog", size="1024x1536")
    header, *chunks = read_png(base64.b64decode(images.data[0].b64_json))
    assert struct.unpack(">II", header[1][:8]) == (1024, 1536)
    assert [kind for kind, _ in chunks] == [b"PLTE", b"IDAT", b"IEND"]
    assert len(zlib.decompress(chunks[1][1])) == 1536 * 1025


def read_png(data: bytes) -> list[tuple[bytes, bytes]]:
    assert data[:8] == b"\x89PNG\r\n\x1a\n"
    at, chunks = 8, []
    while at < len(data):
        (length,) = struct.unpack(">I", data[at : at + 4])
        kind, content = data[at + 4 : at + 8], data[at + 8 : at + 8 + length]
        assert struct.unpack(">I", data[at + 8 + length : at + 12 + length]) == (zlib.crc32(kind + content),)
        chunks.append((kind, content))
        at += length + 12
    return chunks


@pytest.mark.parametrize(
    ("endpoint", "body", "text"),
    [
        ("/responses", {"model": "gpt-4o"}, "'input'"),
        ("/responses", {"model": "gpt-4o", "input": []}, "empty array"),
        ("/responses", {"model": "gpt-4o", "input": 5}, "expected an array"),
        ("/responses", {"model": "gpt-4o", "input": ["x"]}, "expected an object"),
        ("/responses", {"model": "gpt-4o", "input": [{"content": "x"}]}, "role"),
        ("/responses", {"model": "gpt-4o", "input": "x", "max_output_tokens": 15}, ">= 16"),
        ("/responses", {"model": "gpt-4o", "input": "x", "text": {"format": {"type": "json_schema"}}}, "schema"),
        ("/responses", {"model": "gpt-4o", "input": "x", "stream": True}, "does not stream"),
        ("/moderations", {}, "'input'"),
        ("/moderations", {"input": []}, "cannot be empty"),
        ("/moderations", {"input": [5]}, "invalid"),
        ("/images/generations", {"model": "gpt-image-1"}, "'prompt'"),
        ("/images/generations", {"model": "gpt-image-1", "prompt": 5}, "expected a string"),
        ("/images/generations", {"model": "gpt-image-1", "prompt": "x" * 32_001}, "too long"),
        ("/images/generations", {"model": "gpt-image-1", "prompt": "x", "n": 11}, "<= 10"),
        ("/images/generations", {"model": "gpt-image-1", "prompt": "x", "size": "1x1"}, "1024x1024"),
        ("/images/edits", {"model": "gpt-image-1", "prompt": "x"}, "'images'"),
        ("/images/edits", {"model": "gpt-image-1", "prompt": "x", "images": {}}, "expected an array"),
        ("/images/edits", {"model": "gpt-image-1", "prompt": "x", "images": []}, "1 to 16"),
        ("/images/edits", {"model": "gpt-image-1", "prompt": "x", "images": ["a"]}, "image_url"),
        ("/videos", {"model": "sora-2"}, "'prompt'"),
        ("/videos", {"model": "sora-2", "prompt": 5}, "expected a string"),
        ("/videos", {"model": "sora-2", "prompt": "x", "seconds": "5"}, "'4', '8', '12'"),
        ("/videos", {"model": "sora-2", "prompt": "x", "size": "1x1"}, "720x1280"),
        ("/videos", {"model": "sora-2", "prompt": "x", "input_reference": "a"}, "input_reference"),
    ],
)
def test_a_request_is_refused_with_a_reason(emulator, endpoint, body, text):
    with pytest.raises(openai.BadRequestError, match=text):
        emulator.client().post(endpoint, body=body, cast_to=object)


def test_a_response_fills_the_schema_it_is_given(emulator):
    schema = {
        "type": "object",
        "properties": {"dogs": {"type": "integer"}},
        "required": ["dogs"],
        "additionalProperties": False,
    }
    shape = {"format": {"type": "json_schema", "name": "count", "schema": schema, "strict": True}}
    response = emulator.client().responses.create(model="gpt-4.1", input="There were 3 dogs.", text=shape)
    assert response.output_text == '{"dogs":3}'


@pytest.mark.parametrize("fault", ["answers_invalid", "answers_truncated", "answers_refused"])
def test_a_response_goes_wrong_as_a_chat_does(emulator, fault):
    emulator.put("faults", **{fault: 1})
    body = {"model": "gpt-4.1", "input": "There were 3 dogs.", "text": {"format": {"type": "json_object"}}}
    line = {"custom_id": "a", "method": "POST", "url": "/v1/responses", "body": body}
    batch = emulator.reaches(emulator.submit([line], "/v1/responses"), "completed")
    (found,) = emulator.lines(batch.output_file_id)
    response = Response.model_validate(found["response"]["body"], strict=True)
    content = response.output[0].content[0]
    if fault == "answers_refused":
        assert content.type == "refusal"
        assert content.refusal
    elif fault == "answers_truncated":
        assert (response.status, response.incomplete_details.reason) == ("incomplete", "max_output_tokens")
    else:
        assert response.output_text == "Here is what I found: it depends."
