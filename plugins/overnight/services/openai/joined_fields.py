"""The fields of an index that come of documents joined with their answers."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import Any, Final

EMBEDDING_FIELDS: Final = {"embedding": "source[1].$.response.body.data[0].embedding"}
"""What an index gets of the answer to one embedding, when nothing else is said."""
_EMBEDDING: Final = re.compile(r"source\[1\].*\.data\[\d+\]\.embedding$")


def join_fields(
    field_map: Mapping[str, Any] | None,
    ingest_fields: Sequence[str],
    *,
    id_path: str,
    text_path: str,
    answer: Mapping[str, str],
) -> dict[str, Any]:
    """
    Return ``field_map`` and ``ingest_fields`` of a load that joins each document with its answer, by its id.

    :param field_map: Field of the index to JSONPath; ``source[0]`` is the document, ``source[1]`` its answer. Without
        one the index gets the text and ``answer``.
    :param ingest_fields: JSONPaths of document fields to index by their name.
    """
    fields = field_map or {"text": f"source[0].{text_path}", **answer}
    return {
        "field_map": {"_id": [f"source[0].{id_path}", "source[1].$.custom_id"], **fields},
        "ingest_fields": [path if "source[" in path else f"source[0].{path}" for path in ingest_fields],
    }


def list_vector_fields(field_map: Mapping[str, Any]) -> list[str]:
    """Return the fields of the index that get an embedding."""
    return [name for name, path in field_map.items() if isinstance(path, str) and _EMBEDDING.search(path)]


def find_unreadable(endpoint: str, field_map: Mapping[str, Any] | None) -> str | None:
    """
    Say why the answers of an endpoint could not be loaded; ``None`` when nothing is wrong.

    :param field_map: What the user gives; its default reads embeddings.
    """
    if endpoint.endswith("/embeddings"):
        return None
    if not field_map:
        return (
            f"field_map is empty, and its default reads embeddings, which answers of {endpoint} do not have; "
            'give one such as {"answer": "source[1].$.response.body.choices[0].message.content"}'
        )
    vectors = list_vector_fields(field_map)
    if vectors:
        return f"field_map reads embeddings into {', '.join(vectors)}, and answers of {endpoint} have none"
    return None
