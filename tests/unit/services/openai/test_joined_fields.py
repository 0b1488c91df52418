"""The fields that documents and their answers become."""

from __future__ import annotations

from typing import Any

import pytest

from overnight.services.openai.joined_fields import EMBEDDING_FIELDS, find_unreadable, join_fields, list_vector_fields

EMBEDDING = "source[1].$.response.body.data[0].embedding"


def test_without_a_field_map_the_index_gets_text_and_answer() -> None:
    found = join_fields(None, ["$.title"], id_path="$.sku", text_path="$.t", answer=EMBEDDING_FIELDS)
    assert found == {
        "field_map": {
            "_id": ["source[0].$.sku", "source[1].$.custom_id"],
            "text": "source[0].$.t",
            "embedding": EMBEDDING,
        },
        "ingest_fields": ["source[0].$.title"],
    }


def test_a_field_map_goes_before_the_default() -> None:
    found = join_fields({"v": EMBEDDING}, ["source[1].$.id"], id_path="$.id", text_path="$.t", answer=EMBEDDING_FIELDS)
    assert found["field_map"].keys() == {"_id", "v"}
    assert found["ingest_fields"] == ["source[1].$.id"]
    assert list_vector_fields(found["field_map"]) == ["v"]


@pytest.mark.parametrize(
    ("endpoint", "field_map", "why"),
    [
        ("/v1/embeddings", None, None),
        ("/v1/chat/completions", {"a": "source[1].$.x"}, None),
        ("/v1/chat/completions", None, "field_map is empty"),
        ("/v1/chat/completions", {"v": EMBEDDING}, "reads embeddings into v"),
    ],
)
def test_answers_that_the_field_map_cannot_read_are_named(
    endpoint: str, field_map: dict[str, Any] | None, why: str | None
) -> None:
    found = find_unreadable(endpoint, field_map)
    assert found is None if why is None else why in str(found)
