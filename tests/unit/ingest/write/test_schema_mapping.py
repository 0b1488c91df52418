"""Which field of an index a part of a schema becomes; that a real node takes the answers is tested with it."""

from __future__ import annotations

from datetime import date, datetime
from enum import Enum
from typing import Any, Literal

import pytest
from pydantic import BaseModel, Field, IPvAnyAddress, create_model

from overnight.errors import SpecError
from overnight.ingest.write.schema_mapping import build_field_mappings
from overnight.output_schema import OutputSchema

DISABLED = {"type": "object", "enabled": False}


class Color(Enum):
    RED = "red"
    BLUE = "blue"


class Item(BaseModel):
    name: str
    amount: float | None = None


class Other(BaseModel):
    name: str
    when: date


class Clash(BaseModel):
    name: Item


class Tree(BaseModel):
    title: str
    children: list[Tree] = []


def map_schema(part: dict[str, Any], **options: Any) -> dict[str, Any]:
    schema = OutputSchema.parse({"type": "object", "properties": {"x": part}})
    return build_field_mappings(schema, **options)["x"]


def map_type(kind: Any, **options: Any) -> dict[str, Any]:
    body = create_model("Answer", x=(kind, ...)).model_json_schema()
    return build_field_mappings(OutputSchema.parse(body), **options)["x"]


@pytest.mark.parametrize(
    ("kind", "expected"),
    [
        (int, "long"),
        (float, "double"),
        (int | float, "double"),
        (bool, "boolean"),
        (str, "text"),
        (date, "date"),
        (datetime | None, "date"),
        (IPvAnyAddress, "keyword"),
        (Color, "keyword"),
        (Literal["a", "b"], "keyword"),
        (Literal[1, 2], "long"),
        (Literal[1, "a"] | None, "keyword"),
        (Literal[True], "boolean"),
        (list[str], "text"),
        (list[list[int]], "long"),
        (str | list[str], "text"),
        (int | str, "text"),
        (int | bool, "keyword"),
        (date | int, "keyword"),
        (tuple[int, float], "double"),
    ],
    ids=str,
)
def test_the_type_of_a_field(kind: Any, expected: str) -> None:
    assert map_type(kind)["type"] == expected


@pytest.mark.parametrize(
    ("part", "expected"),
    [
        ({"type": "string", "maxLength": 256}, "keyword"),
        ({"type": "string", "maxLength": 257}, "text"),
        ({"type": "string", "pattern": "^[A-Z]{2}$"}, "keyword"),
        ({"type": "string", "format": "uuid"}, "keyword"),
        ({"type": "string", "format": "ipv4"}, "ip"),
        ({"type": ["string", "null"], "format": "date-time"}, "date"),
        ({"allOf": [{"type": "integer"}]}, "long"),
        ({"oneOf": [{"type": "null"}, {"type": "boolean"}]}, "boolean"),
    ],
    ids=str,
)
def test_what_a_schema_says_of_a_text(part: dict[str, Any], expected: str) -> None:
    assert map_schema(part)["type"] == expected


def test_a_text_is_a_term_too_and_a_term_is_none_that_lucene_refuses() -> None:
    assert map_type(str)["fields"]["keyword"] == {"type": "keyword", "ignore_above": 256}
    assert map_type(Color)["ignore_above"] * 4 <= 32_766


def test_what_only_the_schema_reads_is_not_refused_by_the_node() -> None:
    for kind in (int, float, date):
        assert map_type(kind)["ignore_malformed"] is True


def test_objects_of_a_list_are_together_or_documents_of_their_own() -> None:
    fields = {"name": map_type(str), "amount": map_type(float)}
    assert map_type(Item) == {"type": "object", "dynamic": "false", "properties": fields}
    assert map_type(list[Item]) == map_type(Item)
    assert map_type(list[Item], nested_lists=True) == map_type(Item) | {"type": "nested"}
    assert map_type(Item, nested_lists=True)["type"] == "object"
    assert map_type(list[Item] | Item | None, nested_lists=True)["type"] == "nested"


def test_objects_that_go_together_are_one_field_and_those_that_do_not_are_kept_only() -> None:
    assert map_type(Item | Other)["properties"].keys() == {"name", "amount", "when"}
    assert map_type(Item | Clash)["properties"]["name"] == DISABLED


@pytest.mark.parametrize("kind", [str | Item, list[Item | int], dict[str, int], Any, list[Any], Tree | str], ids=str)
def test_what_cannot_be_one_field_is_kept_and_not_indexed(kind: Any) -> None:
    assert map_type(kind) == DISABLED


def test_a_type_that_holds_itself_ends() -> None:
    assert map_type(Tree)["properties"]["children"] == DISABLED


def test_members_whose_names_opensearch_does_not_have() -> None:
    assert map_schema({"type": "object", "properties": {"a.b": {"type": "string"}}}) == DISABLED
    for name in ("a.b", "", " "):
        with pytest.raises(SpecError, match="no field of the name"):
            build_field_mappings(OutputSchema.parse({"type": "object", "properties": {name: {"type": "string"}}}))


def test_an_open_object_is_kept_and_not_indexed() -> None:
    part = {"type": "object", "properties": {"a": {"type": "string"}}, "additionalProperties": {"type": "integer"}}
    assert map_schema(part) == DISABLED


class Shared(BaseModel):
    one: Item = Field(description="first")
    two: Item


def test_the_same_definition_twice_is_no_recursion() -> None:
    found = build_field_mappings(OutputSchema.parse(Shared))
    assert found["one"] == found["two"] == map_type(Item)
