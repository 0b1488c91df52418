from __future__ import annotations

from typing import Any

import pytest
from pydantic import ValidationError

from overnight.templates.llamacloud_extract_to_index import LlamaCloudExtractToIndexConfig

SCHEMA: dict[str, Any] = {
    "type": "object",
    "title": "Invoice",
    "properties": {
        "total": {"type": "number"},
        "due date": {"type": "string", "format": "date"},
        "items": {"type": "array", "items": {"type": "object", "properties": {"price": {"type": "number"}}}},
    },
}


def make(**changes: Any) -> LlamaCloudExtractToIndexConfig:
    given = {"sources": "s3://b/in/", "work_uri": "s3://b/work", "index_name": "i", "output_schema": SCHEMA}
    return LlamaCloudExtractToIndexConfig(**{**given, **changes})


def test_every_member_of_the_schema_is_a_field() -> None:
    assert make().build_field_map() == {
        "_id": "$.source_uri",
        "file.uri": "$.source_uri",
        "file.name": "$.name",
        "total": "$.extracted.total",
        "due date": "$.extracted['due date']",
        "items": "$.extracted.items",
    }
    properties = make(nested_lists=True).build_index()["mappings"]["properties"]
    assert properties["total"]["type"] == "double"
    assert properties["items"]["type"] == "nested"
    assert properties["file"]["properties"]["uri"] == {"type": "keyword"}
    assert "field_metadata" not in properties


@pytest.mark.parametrize("option", ["cite_sources", "confidence_scores"])
def test_what_the_service_says_of_each_field_is_kept_and_its_confidence_is_searched(option: str) -> None:
    config = make(extract_options={option: True})
    assert config.build_field_map()["field_metadata"] == "$.field_metadata"
    mapping = config.build_index()["mappings"]["properties"]["field_metadata"]
    assert mapping["dynamic"] is False
    assert mapping["properties"]["total"] == {"dynamic": False, "properties": {"confidence": {"type": "float"}}}


def test_the_authors_own_mapping_and_fields_come_first() -> None:
    body = {"settings": {"number_of_replicas": 0}, "mappings": {"properties": {"total": {"type": "float"}}}}
    built = make(index_body=body).build_index()
    assert built["settings"] == body["settings"]
    assert built["mappings"]["properties"]["total"] == {"type": "float"}
    own = make(field_map={"t": "$.extracted.total"})
    assert own.build_field_map() == {"_id": "$.source_uri", "t": "$.extracted.total"}
    assert own.build_index()["mappings"]["properties"] == {}


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"output_schema": None}, "output_schema or configuration_id"),
        ({"configuration_id": "cfg-1"}, "output_schema or configuration_id"),
        ({"output_schema": None, "configuration_id": "cfg-1"}, "needs a field_map"),
        (
            {
                "output_schema": None,
                "configuration_id": "cfg-1",
                "field_map": {"a": "$.a"},
                "extract_options": {"tier": "x"},
            },
            "a configuration_id has its own",
        ),
        ({"extract_options": {"extraction_target": "per_page"}}, "a list of results"),
    ],
)
def test_what_could_not_be_loaded_is_refused_before_it_is_paid_for(changes: dict[str, Any], words: str) -> None:
    with pytest.raises(ValidationError, match=words):
        make(**changes)


def test_a_field_of_two_things_and_a_path_that_is_none_are_refused() -> None:
    with pytest.raises(ValidationError, match="file would be a field"):
        make(output_schema={"type": "object", "properties": {"file": {"type": "string"}}})
    with pytest.raises(ValidationError, match="path"):
        make(field_map={"t": "no path"})
