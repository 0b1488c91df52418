from __future__ import annotations

from typing import Any

import pytest

from overnight.errors import SpecError
from overnight.ingest.map.field_map import SourceMap, compile_field_map


def paths(source_map: SourceMap) -> dict[str, str]:
    found = {name: path.text for name, path in source_map.fields.items()}
    return {"_id": source_map.id.text, **found} if source_map.id is not None else found


def test_the_documented_single_file_example() -> None:
    field_map = {
        "chapter": "$.content[0]",
        "title": "$.content[1]",
        "chapter_embedding": "$.SageMakerOutput[0]",
        "_id": "$.id",
    }
    (only,) = compile_field_map(field_map, ["$.id"], 1)
    assert paths(only) == {**field_map, "id": "$.id"}


def test_the_documented_many_files_example() -> None:
    maps = compile_field_map(
        {
            "question": "source[1].$.body.input[0]",
            "question_embedding": "source[0].$.response.body.data[0].embedding",
            "_id": ["source[0].$.custom_id", "source[1].$.custom_id", "source[2].$.id"],
        },
        ["source[2].$.custom_field1", "source[2].$.deep.custom_field2"],
        3,
    )
    assert [paths(part) for part in maps] == [
        {"_id": "$.custom_id", "question_embedding": "$.response.body.data[0].embedding"},
        {"_id": "$.custom_id", "question": "$.body.input[0]"},
        {"_id": "$.id", "custom_field1": "$.custom_field1", "custom_field2": "$.deep.custom_field2"},
    ]


def test_of_a_list_the_last_path_for_a_source_wins() -> None:
    (only,) = compile_field_map({"a": ["$.x", "source[0].$.y"]}, [], 1)
    assert paths(only) == {"a": "$.y"}


def test_with_one_source_prefix_and_root_may_be_left_out() -> None:
    (only,) = compile_field_map({"a": "source[0].$.x", "b": "y.z", "c": "$['n m'][0]"}, [], 1)
    assert paths(only) == {"a": "$.x", "b": "$.y.z", "c": "$['n m'][0]"}


def test_a_member_named_source_is_no_prefix() -> None:
    (only,) = compile_field_map({"a": "$.source[3].x"}, [], 1)
    assert paths(only) == {"a": "$.source[3].x"}


@pytest.mark.parametrize(
    ("ingest_field", "name"),
    [("$.a.b", "b"), ("$.a['b c']", "b c"), ("$.a.c[0]", "c[0]"), ("$.a[*].d", "d"), ("$._id", "_id")],
)
def test_an_ingest_field_is_named_by_its_last_segment(ingest_field: str, name: str) -> None:
    (only,) = compile_field_map({"other": "$.x"}, [ingest_field], 1)
    assert paths(only)[name] == ingest_field


def test_ten_is_not_one() -> None:
    sources = 11
    ids = [f"source[{n}].$.id" for n in range(sources)]
    maps = compile_field_map({"_id": ids, "a": "source[10].$.x", "b": "source[1].$.x"}, [], sources)
    assert [list(part.fields) for part in maps] == [[], ["b"], *[[]] * 8, ["a"]]


@pytest.mark.parametrize(
    ("field_map", "sources", "remedy"),
    [
        ({}, 1, "map no field"),
        ({"_id": "$.id"}, 1, "map no field"),
        ({"a": 5}, 1, "must be a JSONPath"),
        ({"a": []}, 1, "must be a JSONPath"),
        ({"a": None}, 1, "must be a JSONPath"),
        ({"a": "$.x"}, 2, "names no source"),
        ({"a": "source[0].$.x"}, 2, r"source\[0\].*add 'source\[0\]"),
        ({"a": "source[2].$.x", "_id": ["source[0].$.i", "source[1].$.i"]}, 2, "there are 2 sources"),
        ({"a": "source[1].$.x"}, 1, "there are 1 sources"),
        ({"a": "source[0].x"}, 1, "has no JSONPath"),
        ({"a": "$"}, 1, "whole line"),
        ({"a": "$.x[?("}, 1, "no JSONPath"),
        ({"a": "$.x["}, 1, "no JSONPath"),
    ],
)
def test_what_cannot_be_carried_out_is_refused(field_map: dict[str, Any], sources: int, remedy: str) -> None:
    with pytest.raises(SpecError, match=remedy):
        compile_field_map(field_map, [], sources)


def test_routing_is_no_field() -> None:
    (only,) = compile_field_map({"_routing": "$.parent", "text": "$.t"}, [], 1)
    assert only.routing is not None
    assert (only.routing.text, paths(only)) == ("$.parent", {"text": "$.t"})
    first, second = compile_field_map(
        {"_id": ["source[0].$.id", "source[1].$.id"], "t": "source[0].$.t", "_routing": ["source[1].$.parent"]}, [], 2
    )
    assert first.routing is None
    assert second.routing is not None
    assert second.has_values
    (only,) = compile_field_map({"text": "$.t"}, ["$.meta._routing"], 1)
    assert only.routing is not None


@pytest.mark.parametrize("name", ["_index", "_source", "_version", "_seq_no", "_field_names", "_ignored"])
def test_metadata_that_no_document_can_have_is_refused(name: str) -> None:
    with pytest.raises(SpecError, match=rf"'{name}' is metadata.*'{name[1:]}'"):
        compile_field_map({"text": "$.t", name: "$.x"}, [], 1)
    with pytest.raises(SpecError, match=rf"'{name}' is metadata"):
        compile_field_map({"text": "$.t"}, [f"$.meta.{name}"], 1)


def test_routing_alone_is_no_document() -> None:
    with pytest.raises(SpecError, match="map no field"):
        compile_field_map({"_id": "$.id", "_routing": "$.parent"}, [], 1)
