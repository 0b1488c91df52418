"""Answers that are not what was asked for, each with its own code."""

from __future__ import annotations

import json
from typing import Any

import pytest

from overnight.ingest.map.field_map import compile_field_map
from overnight.ingest.map.rows import Row, RowReader
from overnight.ingest.read.lines import Line
from overnight.services.openai.incomplete import explain_answer
from overnight.services.openai.result_format import RESULT_FORMAT


def chat(content: Any, finish_reason: str | None = "stop", **message: Any) -> dict[str, Any]:
    return {"choices": [{"message": {"content": content, **message}, "finish_reason": finish_reason}]}


def response(text: str | None, *, refusal: str | None = None, reason: str | None = None) -> dict[str, Any]:
    content = [{"type": "refusal", "refusal": refusal}] if refusal else [{"type": "output_text", "text": text}]
    return {
        "status": "incomplete" if reason else "completed",
        "incomplete_details": {"reason": reason} if reason else None,
        "output": [{"type": "reasoning"}, {"type": "message", "content": content}],
    }


def line(body: Any) -> bytes:
    return json.dumps({"custom_id": "d1", "response": {"status_code": 200, "body": body}, "error": None}).encode()


CUT = '{"label": "x'
INCOMPLETE = [
    (chat(CUT, "length"), "truncated", "length"),
    (chat(None, refusal="I can't help."), "refused", "I can't help."),
    (chat("I can't.", refusal="I can't."), "refused", "I can't."),
    (chat(CUT, "content_filter"), "content_filter", "filter"),
    (chat(None, "content_filter"), "content_filter", "filter"),
    (response(CUT, reason="max_output_tokens"), "truncated", "max_output_tokens"),
    (response(CUT, reason="content_filter"), "content_filter", "filter"),
    (response(None, refusal="No."), "refused", "No."),
    ({"choices": [{"text": CUT, "finish_reason": "length"}]}, "truncated", "length"),
]
PATHS = {
    "chat": "$.response.body.choices[0].message.content.json().label",
    "responses": "$.response.body.output[*].content[0].text.json().label",
    "completions": "$.response.body.choices[0].text.json().label",
}


def read(body: dict[str, Any], **options: Any) -> Row:
    way = "responses" if "output" in body else "completions" if "text" in body["choices"][0] else "chat"
    (part,) = compile_field_map({"_id": "$.custom_id", "label": PATHS[way]}, [], 1)
    data = line(body)
    return RowReader(part, **options).read(Line(1, 0, len(data), data))


@pytest.mark.parametrize(("body", "code", "words"), INCOMPLETE)
def test_it_is_rejected_with_its_own_code_and_keeps_its_id(body: dict[str, Any], code: str, words: str) -> None:
    row = read(body, result_format=RESULT_FORMAT)
    assert row.rejection is not None
    assert row.rejection.code == code
    assert words in row.rejection.reason
    assert row.text_id == "d1"


@pytest.mark.parametrize("body", [chat('{"label": "x"}'), chat('{"label": "x"}', "length"), response('{"label":"x"}')])
def test_what_can_be_read_is_taken(body: dict[str, Any]) -> None:
    row = read(body, result_format=RESULT_FORMAT)
    assert row.rejection is None
    assert [bytes(value or b"") for value in row.values or []] == [b'"x"']


@pytest.mark.parametrize("body", [chat("No JSON."), response("No JSON."), chat(CUT, None)])
def test_an_answer_that_ended_as_it_should_is_an_invalid_output(body: dict[str, Any]) -> None:
    for options in ({"result_format": RESULT_FORMAT}, {}):
        row = read(body, **options)
        assert row.rejection is not None
        assert row.rejection.code == "invalid_output"
        assert "no JSON" in row.rejection.reason
        assert row.text_id == "d1"


def test_a_member_that_the_answer_lacks_is_a_missing_value() -> None:
    row = read(chat('{"other": 1}'), result_format=RESULT_FORMAT)
    assert row.rejection is not None
    assert row.rejection.code == "missing_value"
    assert "json().label" in row.rejection.reason


@pytest.mark.parametrize("text", [b"", b"[]", b"{", b'{"response": 5}', line(None), line([]), line({"choices": {}})])
def test_a_line_of_another_form_says_nothing(text: bytes) -> None:
    assert explain_answer(text) is None
