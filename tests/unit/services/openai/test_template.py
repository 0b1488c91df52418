from __future__ import annotations

from typing import Any

import orjson
import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError

from overnight.jsonpath import parse_plain
from overnight.rejection import RejectedError
from overnight.services.openai.input import RequestTemplate


def body_of(body: dict[str, Any], document: Any) -> Any:
    template = RequestTemplate(endpoint="/v1/responses", body=body)
    return template.render({"id": "1", **document})[1]["body"]


def test_an_embeddings_request() -> None:
    template = RequestTemplate.embeddings("m", text_path="$.meta.text", id_path="$.key", dimensions=8)
    assert template.render({"key": "k1", "meta": {"text": "hello"}}) == (
        "k1",
        {
            "custom_id": "k1",
            "method": "POST",
            "url": "/v1/embeddings",
            "body": {"model": "m", "input": "hello", "encoding_format": "float", "dimensions": 8},
        },
    )


def test_a_chat_request() -> None:
    template = RequestTemplate.chat("m", system="Be ${tone}.", prompt="Name: ${$.name}", options={"temperature": 0})
    assert template.render({"id": 5, "tone": "kind", "name": "x"})[1]["body"] == {
        "model": "m",
        "messages": [{"role": "system", "content": "Be kind."}, {"role": "user", "content": "Name: x"}],
        "temperature": 0,
    }


@pytest.mark.parametrize("value", [1, 1.5, True, "text", ["a"], {"b": 1}])
def test_a_lone_hole_keeps_the_values_type(value: Any) -> None:
    assert body_of({"model": "m", "x": ["${value}"]}, {"value": value})["x"] == [value]


def test_holes_inside_a_text_become_text() -> None:
    document = {"n": 1, "o": {"a": None}, "t": 'say "hi"', "l": ["x", "y"]}
    assert body_of({"x": "${n}|${o}|${t}|${l[1]}|${l[-1]}"}, document)["x"] == '1|{"a":null}|say "hi"|y|y'


def test_a_doubled_dollar_stands_for_itself() -> None:
    assert body_of({"x": "$${n} costs $5 {really} ${n}"}, {"n": 1})["x"] == "${n} costs $5 {really} 1"


@given(st.text(min_size=1).filter(str.strip))
def test_no_document_can_change_the_request_around_it(text: str) -> None:
    body = body_of({"model": "m", "x": "before ${text} after", "y": "${text}"}, {"text": text})
    assert body == {"model": "m", "x": f"before {text} after", "y": text}
    if not any("\ud800" <= character <= "\udfff" for character in text):
        assert orjson.loads(orjson.dumps(body)) == body


def test_what_a_document_holds_is_no_template() -> None:
    assert body_of({"x": "a ${text}"}, {"text": "${id} $${id}"})["x"] == "a ${id} $${id}"


@pytest.mark.parametrize(
    ("document", "reason"),
    [
        ({}, "missing"),
        ({"text": None}, "missing"),
        ({"text": ""}, "empty"),
        ({"text": " \n"}, "empty"),
        ({"text": []}, "empty"),
        ({"text": 5}, "not_text"),
        ({"text": ["a", ""]}, "not_text"),
    ],
)
def test_a_document_without_a_text_is_no_embeddings_request(document: Any, reason: str) -> None:
    with pytest.raises(RejectedError) as caught:
        RequestTemplate.embeddings("m").render({"id": 1, **document})
    assert caught.value.rejection.code == reason


@pytest.mark.parametrize("text", ["a", ["a", "b"], [1, 2]])
def test_texts_and_tokens_can_be_embedded(text: Any) -> None:
    assert RequestTemplate.embeddings("m").render({"id": 1, "text": text})[1]["body"]["input"] == text


@pytest.mark.parametrize(
    ("value", "reason"),
    [(None, "no_id"), ("", "no_id"), (True, "bad_id"), (1.5, "bad_id"), ([], "bad_id"), ({"a": 1}, "bad_id")],
)
def test_an_id_is_a_text_or_a_whole_number(value: Any, reason: str) -> None:
    with pytest.raises(RejectedError) as caught:
        RequestTemplate.embeddings("m").custom_id({"id": value})
    assert caught.value.rejection.code == reason
    assert RequestTemplate.embeddings("m").custom_id({"id": 0}) == "0"


@pytest.mark.parametrize(
    ("path", "steps"),
    [
        ("$.a.b[0]", ("a", "b", 0)),
        ("a.b", ("a", "b")),
        ("$['a b'].c", ("a b", "c")),
        ("$.a-b", ("a-b",)),
        ("$.a[-1]", ("a", -1)),
    ],
)
def test_plain_paths(path: str, steps: tuple[str | int, ...]) -> None:
    assert parse_plain(path) == steps


@pytest.mark.parametrize("path", ["$.*", "$..a", "a[*]", "a[0:2]", "$.a[?(@.b)]", "$.a,b", "", "$.", "a b c"])
def test_a_path_to_many_values_or_to_nowhere_is_refused_at_once(path: str) -> None:
    with pytest.raises(ValidationError, match=r"JSONPath|many values"):
        RequestTemplate(endpoint="/v1/responses", body={"x": f"${{{path}}}"} if path else {"x": 1}, id_path=path)


def test_a_template_survives_its_dump() -> None:
    template = RequestTemplate.chat("m", prompt="${a}")
    assert RequestTemplate.model_validate(template.model_dump()).render({"id": 1, "a": "x"}) == template.render(
        {"id": 1, "a": "x"}
    )
