"""What an answer must be, by a type or by a JSON Schema."""

from __future__ import annotations

import json
from dataclasses import dataclass
from datetime import date
from typing import Any, Literal

import pytest
from pydantic import BaseModel, Field
from typing_extensions import TypedDict

from overnight.errors import SpecError
from overnight.output_schema import OutputSchema


class Topic(BaseModel):
    name: str = Field(min_length=1)
    score: float = Field(ge=0, le=1)


class Answer(BaseModel):
    """What a document is about."""

    label: Literal["guide", "reference"]
    topics: list[Topic]
    since: date | None = None


@dataclass
class Point:
    x: int
    y: int


class Size(TypedDict):
    width: int


class Tree(BaseModel):
    children: list[Tree] = []


SCHEMA = {
    "title": "Point",
    "type": "object",
    "properties": {"x": {"type": "integer"}, "name": {"$ref": "#/$defs/Name"}},
    "required": ["x"],
    "additionalProperties": False,
    "$defs": {"Name": {"type": "string", "maxLength": 3}},
}
GOOD = {"label": "guide", "topics": [{"name": "a", "score": 0.5}], "since": "2026-01-31"}


def check(schema: Any, answer: Any) -> str | None:
    text = answer if isinstance(answer, bytes) else json.dumps(answer).encode()
    return OutputSchema.parse(schema).check(text)


@pytest.mark.parametrize("given", [f"{__name__}.Answer", f"{__name__}:Answer", Answer])
def test_a_type_is_given_by_its_path_or_as_it_is(given: Any) -> None:
    schema = OutputSchema.parse(given)
    assert schema.name == "Answer"
    assert schema.schema_body == Answer.model_json_schema()
    assert schema.check(json.dumps(GOOD).encode()) is None


@pytest.mark.parametrize(
    ("schema", "answer"),
    [(Point, {"x": 1, "y": 2}), (Size, {"width": 1}), (Tree, {"children": [{"children": []}]}), (SCHEMA, {"x": 1})],
)
def test_other_types_and_schemas_of_objects(schema: Any, answer: Any) -> None:
    assert check(schema, answer) is None


@pytest.mark.parametrize(
    ("answer", "fault"),
    [
        ({**GOOD, "label": "poem"}, "$.label: Input should be 'guide' or 'reference'"),
        ({**GOOD, "topics": [{"name": "", "score": 2}]}, "$.topics[0].name: String should have at least 1 character"),
        ({**GOOD, "topics": [{"name": "a", "score": "0.5"}]}, "$.topics[0].score: Input should be a valid number"),
        ({"label": "guide"}, "$.topics: Field required"),
        ({**GOOD, "since": "yesterday"}, "$.since: Input should be a valid date"),
        ([GOOD], "$: Input should be an object"),
        (b"{", "$: Invalid JSON"),
    ],
)
def test_a_fault_is_named_with_its_place(answer: Any, fault: str) -> None:
    found = check(Answer, answer)
    assert found is not None
    assert fault in found


def test_what_the_answer_holds_and_the_fourth_fault_are_not_repeated() -> None:
    found = check(Answer, {"label": "s" * 10_000, "topics": [{"name": 1, "score": "t" * 10_000}, 5, 6, 7]})
    assert found is not None
    assert len(found) < 500
    assert "sss" not in found
    assert found.count(";") == 2


@pytest.mark.parametrize(
    ("answer", "fault"),
    [
        ({"x": "1"}, "$.x: '1' is not of type 'integer'"),
        ({"x": 1, "name": "long"}, "$.name: 'long' is too long"),
        ({}, "$: 'x' is a required property"),
        ({"x": 1, "y": 2}, "'y' was unexpected"),
        (b"[", "end of data"),
        ({"x": "y" * 10_000}, "$.x: it is not valid under type: integer"),
    ],
)
def test_a_fault_by_a_json_schema(answer: Any, fault: str) -> None:
    found = check(SCHEMA, answer)
    assert found is not None
    assert fault in found
    assert len(found) < 600


@pytest.mark.parametrize(
    ("given", "words"),
    [
        ("nowhere.Model", "cannot be imported.*package.module.Model"),
        (f"{__name__}.Nothing", "cannot be imported"),
        ("", "cannot be imported"),
        ("a b", "cannot be imported"),
        (f"{__name__}.check", "is no class"),
        ({"type": "objekt"}, "no JSON Schema"),
        ({"type": "object", "properties": 5}, "no JSON Schema"),
        ({"type": "string"}, "none at its root"),
        ({}, "none at its root"),
        ({"$ref": "#/$defs/None"}, "there is no"),
        ({"$ref": "https://example.com/schema.json"}, "leads out of the schema"),
        ({"$ref": "#"}, "leads out of the schema or nowhere"),
        (list[int], "cannot be imported|none at its root"),
    ],
)
def test_what_is_no_schema_of_an_object_is_refused(given: Any, words: str) -> None:
    with pytest.raises(SpecError, match=words):
        OutputSchema.parse(given)


def test_nothing_is_fetched_from_anywhere() -> None:
    schema = {"type": "object", "properties": {"a": {"$ref": "http://localhost:9/a.json"}}}
    with pytest.raises(SpecError, match="leads out of the schema"):
        OutputSchema.parse(schema)
