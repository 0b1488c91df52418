"""A schema as the directive of a request, held against what the official SDK sends for the same type."""

from __future__ import annotations

import json
from datetime import date
from typing import Any, Literal, Optional

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from openai.lib._pydantic import to_strict_json_schema
from pydantic import BaseModel, Field, create_model

from overnight.errors import SpecError
from overnight.ingest.map.text_decoder import make_decoder
from overnight.jsonpath import JsonPath
from overnight.output_schema import OutputSchema
from overnight.services.openai.structured import (
    build_directive,
    build_request_template,
    build_strict_schema,
    get_answer_path,
)


class Circle(BaseModel):
    kind: Literal["circle"]
    radius: float = Field(gt=0, description="in metres")


class Square(BaseModel):
    kind: Literal["square"]
    side: int | None = None


class Drawing(BaseModel):
    """A drawing."""

    title: str = Field(description="as it is written", max_length=80)
    shapes: list[Circle | Square] = []
    main: Circle | Square = Field(discriminator="kind")
    frame: Square = Field(description="around all")
    tags: list[Literal["a", "b"]]
    made: Optional[date] = None  # noqa: UP045 - as users write it
    parent: Optional["Drawing"] = None  # noqa: UP037, UP045


class Leaf(BaseModel):
    n: int


class Root(BaseModel):
    leaf: Leaf
    other: Leaf = Field(description="its own words")


# What the SDK leaves in and the service ignores or refuses, depending on its age.
_LEFT_OUT = {"title", "discriminator", "default", "maxLength"}


def comparable(schema: Any) -> Any:
    if isinstance(schema, dict):
        names = {"anyOf" if name == "oneOf" else name: value for name, value in schema.items()}
        return {name: comparable(value) for name, value in names.items() if name not in _LEFT_OUT}
    return [comparable(item) for item in schema] if isinstance(schema, list) else schema


@pytest.mark.parametrize("model", [Circle, Square, Root, Leaf])
def test_it_is_what_the_official_sdk_sends(model: type[BaseModel]) -> None:
    assert build_strict_schema(OutputSchema.parse(model)) == comparable(to_strict_json_schema(model))


def test_a_recursive_type_keeps_its_references() -> None:
    found = build_strict_schema(OutputSchema.parse(Drawing))
    # A member called title is no keyword.
    assert found["required"] == ["title", "shapes", "main", "frame", "tags", "made", "parent"]
    assert found["properties"]["parent"] == {"anyOf": [{"$ref": "#/$defs/Drawing"}, {"type": "null"}]}
    assert found["properties"]["main"] == {"anyOf": [{"$ref": "#/$defs/Circle"}, {"$ref": "#/$defs/Square"}]}
    assert found["properties"]["frame"]["description"] == "around all"
    assert found["properties"]["frame"]["additionalProperties"] is False
    assert found["properties"]["title"] == {"type": "string", "description": "as it is written"}
    assert set(found["$defs"]) == {"Circle", "Square", "Drawing"}


def test_the_directive_of_a_chat_and_of_a_response() -> None:
    schema = OutputSchema.parse(Leaf)
    strict = {
        "type": "object",
        "properties": {"n": {"type": "integer"}},
        "required": ["n"],
        "additionalProperties": False,
    }
    chat = build_directive(schema, "/v1/chat/completions")
    assert chat == {
        "response_format": {"type": "json_schema", "json_schema": {"name": "Leaf", "strict": True, "schema": strict}}
    }
    response = build_directive(schema, "/v1/responses")
    assert response == {"text": {"format": {"type": "json_schema", "name": "Leaf", "strict": True, "schema": strict}}}
    for endpoint in ("/v1/embeddings", "/v1/moderations"):
        with pytest.raises(SpecError, match="take no schema"):
            build_directive(schema, endpoint)


def test_a_name_is_made_of_what_the_service_takes() -> None:
    schema = OutputSchema.parse({"title": "Über uns: " + "x" * 80, **Leaf.model_json_schema() | {"title": "Ü b" * 40}})
    name = build_directive(schema, "/v1/chat/completions")["response_format"]["json_schema"]["name"]
    assert len(name) == 64
    assert name.isascii()


def of(member: Any, **others: Any) -> dict[str, Any]:
    return {"type": "object", "properties": {"a": member}, **others}


@pytest.mark.parametrize(
    ("schema", "words"),
    [
        (of({}), r"\$\.a: it may be anything"),
        (of({"description": "x"}), "may be anything"),
        (of({"type": "array"}), "items may be anything"),
        (of({"type": "array", "prefixItems": [{"type": "string"}]}), "no prefixItems"),
        (of({"type": "object", "additionalProperties": {"type": "string"}}), "list of {name, value}"),
        (of({"type": "string"}, additionalProperties=True), "names are not known"),
        ({"type": "object"}, "names are not known"),
        (of({"not": {"type": "string"}}), "no not"),
        (of({"allOf": [{"type": "string"}, {"minLength": 1}]}), "no allOf"),
        (of({"enum": list(range(1_001))}), "1,001 values of enums are more than the 1,000"),
        ({"type": "object", "properties": {f"a{n}": {"type": "null"} for n in range(5_001)}}, "5,001 members"),
    ],
)
def test_what_the_subset_has_no_words_for_is_refused_with_its_place(schema: dict[str, Any], words: str) -> None:
    with pytest.raises(SpecError, match=words):
        build_strict_schema(OutputSchema.parse(schema))


def test_more_levels_than_the_service_takes() -> None:
    schema: dict[str, Any] = {"type": "string"}
    for _ in range(11):
        schema = of(schema)
    with pytest.raises(SpecError, match="more than 10 objects deep"):
        build_strict_schema(OutputSchema.parse(schema))


def test_an_all_of_one_is_that_one() -> None:
    found = build_strict_schema(OutputSchema.parse(of({"allOf": [{"type": "string"}], "description": "x"})))
    assert found["properties"]["a"] == {"type": "string", "description": "x"}


SCALARS: list[Any] = [int, str, bool, float, date, Literal["x", "y"], Literal[1, 2]]


def wrap(inner: st.SearchStrategy[Any]) -> st.SearchStrategy[Any]:
    members = st.dictionaries(st.sampled_from(["a", "b", "c_d", "title", "type"]), inner, min_size=1, max_size=3)
    models = members.map(lambda fields: create_model("Part", **{name: (kind, ...) for name, kind in fields.items()}))  # type: ignore[call-overload]
    return (
        inner.map(lambda kind: list[kind])  # type: ignore[valid-type]
        | inner.map(lambda kind: Optional[kind])  # noqa: UP045
        | st.tuples(inner, st.sampled_from(SCALARS)).map(lambda kinds: kinds[0] | kinds[1])
        | models
    )


kinds = st.recursive(st.sampled_from(SCALARS), wrap, max_leaves=6)
models = st.dictionaries(st.sampled_from(["label", "items", "x", "default"]), kinds, min_size=1, max_size=3).map(
    lambda fields: create_model("Model", **{name: (kind, ...) for name, kind in fields.items()})  # type: ignore[call-overload]
)


@settings(suppress_health_check=[HealthCheck.too_slow, HealthCheck.filter_too_much, HealthCheck.data_too_large])
@given(data=st.data(), model=models)
def test_what_a_type_dumps_passes_its_own_schemas_and_is_spliced_as_it_is(data: st.DataObject, model: Any) -> None:
    schema = OutputSchema(json_schema=model.model_json_schema())
    strict = build_strict_schema(schema)
    value = data.draw(st.builds(model).filter(_is_exact))
    answer = value.model_dump_json().encode()
    by_type = _check_type(model, answer)
    assert by_type == value
    assert schema.check(answer) is None
    assert OutputSchema(json_schema=strict).check(answer) is None
    line = json.dumps({"response": {"body": {"choices": [{"message": {"content": answer.decode()}}]}}}).encode()
    path = JsonPath.parse(f"{get_answer_path('/v1/chat/completions')}.json()")
    (found,) = make_decoder([path], schema.check).decode(line)
    assert json.loads(bytes(found or b"")) == value.model_dump(mode="json")


def _is_exact(value: BaseModel) -> bool:
    # What JSON has no number for, and integers of a length that no parser of JSON need take.
    text = value.model_dump_json()
    try:
        return type(value).model_validate_json(text, strict=True) == value and "null" not in text.replace(":null", "")
    except ValueError:
        return False


def _check_type(model: type[BaseModel], answer: bytes) -> BaseModel:
    return model.model_validate_json(answer, strict=True)


DOCUMENT = {"id": 7, "text": ["not", "a text"], "kind": "${$.id}"}


@pytest.mark.parametrize(
    ("endpoint", "name", "limit"),
    [
        ("/v1/chat/completions", "messages", "max_completion_tokens"),
        ("/v1/responses", "input", "max_output_tokens"),
    ],
)
def test_a_request_asks_for_an_answer_about_the_text_of_a_document(endpoint: str, name: str, limit: str) -> None:
    schema = OutputSchema.parse(Leaf)
    template = build_request_template(
        schema, model="m", instruction="A ${kind}.", endpoint=endpoint, output_limit=90, options={"temperature": 0}
    )
    custom_id, request = template.render(DOCUMENT)
    assert (custom_id, request["url"]) == ("7", endpoint)
    # What a document holds is text in a message, never a part of it or a placeholder.
    assert request["body"] == {
        "model": "m",
        name: [
            {"role": "system", "content": "A ${$.id}."},
            {"role": "user", "content": '<document>\n["not","a text"]\n</document>'},
        ],
        limit: 90,
        "temperature": 0,
        **build_directive(schema, endpoint),
    }


def test_a_placeholder_in_a_schema_is_its_own_text() -> None:
    properties = {"price": {"type": "string", "description": "such as ${12}", "enum": ["${a}", "$${b}"]}}
    schema = OutputSchema.parse({"type": "object", "properties": properties})
    body = build_request_template(schema, model="m", instruction="do").render({"id": "a", "text": "b"})[1]["body"]
    assert body["response_format"]["json_schema"]["schema"]["properties"] == properties


def test_options_that_are_made_of_other_parameters_are_refused() -> None:
    with pytest.raises(SpecError, match="messages, model in the options"):
        build_request_template(
            OutputSchema.parse(Leaf), model="m", instruction="do", options={"model": "n", "messages": []}
        )
