"""An index before anything is paid for: created if it is missing, and held against the vectors that will be written."""

from __future__ import annotations

import copy
from collections.abc import Mapping
from typing import Any

import orjson

from overnight.errors import SpecError
from overnight.ingest.write import index
from overnight.ingest.write.preflight import Preflight
from overnight.ingest.write.sink import IndexInfo, IndexMissingError
from overnight.ingest.write.target import OpenSearchTarget


def prepare_index(
    target: OpenSearchTarget,
    name: str,
    *,
    body: Mapping[str, Any] | None = None,
    dimension: int | None = None,
    vectors: Mapping[str, int] | None = None,
) -> IndexInfo:
    """
    Make sure that an index is there and takes the vectors that will be written; return what it is.

    :param name: The index, alias or data stream.
    :param body: What a missing one is created with; ``None``: a missing one is refused.
    :param dimension: Put into every ``knn_vector`` field of the body, and held against those of an existing index.
    :param vectors: Length of the vectors that will be written, by field.
    :raises SpecError: there is no such index, or its vectors have another length.
    :raises ServiceError: OpenSearch refuses, or does not answer.
    """
    if body is not None:
        body = with_dimension(body, dimension)
        if vectors:
            body, wrong = with_vectors(body, vectors)
            if wrong is not None and not _exists(target, name):
                raise SpecError(wrong)
        index.create_index(target, name, body)
    found = index.inspect_index(target, name)
    if dimension is not None and found.dimensions and dimension not in found.dimensions.values():
        raise SpecError(
            f"The vectors of {name!r} have the dimensions {dict(found.dimensions)}, not "
            f"{dimension}. Load into a new index, or ask the model for the dimension of this one."
        )
    if vectors:
        check_vectors(found, vectors)
    return found


def check_vectors(found: IndexInfo, vectors: Mapping[str, int]) -> None:
    """
    Hold the vectors that will be written against an index, as a load does with its first documents.

    :raises SpecError: one has another length, or its field is none that the index knows.
    """
    for name, length in vectors.items():
        preflight = Preflight(found)
        sample = {name: [0.0] * length, "@timestamp": "1970-01-01T00:00:00Z"}
        preflight.add([orjson.dumps(sample)])
        preflight.finish()


def with_vectors(body: Mapping[str, Any], vectors: Mapping[str, int]) -> tuple[dict[str, Any], str | None]:
    """
    Return an index body in which the named ``knn_vector`` fields have a dimension, and what is wrong with one.

    :param vectors: Length by dotted name of a field.
    """
    filled = copy.deepcopy(dict(body))
    wrong = None
    for name, length in vectors.items():
        field: Any = filled.get("mappings")
        for part in name.split("."):
            field = (field.get("properties") or {}).get(part) if isinstance(field, dict) else None
        if not isinstance(field, dict) or field.get("type") != "knn_vector" or "model_id" in field:
            continue
        dimension = field.setdefault("dimension", length)
        if dimension != length:
            wrong = (
                f"The vectors will have the length {length}, and index_body gives {name!r} the dimension {dimension}. "
                "Ask the model for that length (dimension), or correct index_body. Nothing was created or paid."
            )
    return filled, wrong


def _exists(target: OpenSearchTarget, name: str) -> bool:
    try:
        index.inspect_index(target, name)
    except IndexMissingError:
        return False
    return True


def with_dimension(body: Mapping[str, Any], dimension: int | None) -> dict[str, Any]:
    """Return an index body whose ``knn_vector`` fields, at any depth, have a dimension."""
    if dimension is None:
        return dict(body)
    return {
        key: with_dimension(value, dimension) if isinstance(value, Mapping) else value
        for key, value in {**body, **({"dimension": dimension} if body.get("type") == "knn_vector" else {})}.items()
    }
