"""A search over an index that was loaded: by the vectors it has, or by its texts."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any, Final
from urllib.parse import quote

from pydantic import BaseModel, ConfigDict

from overnight.errors import NotFoundError, SpecError
from overnight.ingest.write.target import OpenSearchTarget
from overnight.ingest.write.unchanged import FIELD
from overnight.transport.http import Retry

NEIGHBOURS: Final = 10_000
"""
The most that OpenSearch takes for ``k``.

An HNSW graph is searched as wide as ``k``; a narrow search passes over the best answer now and then. Where a filter
lets through no more than ``k`` documents of a segment, Lucene compares all of them instead (`k-NN search with filters
<https://docs.opensearch.org/latest/vector-search/filter-search-knn/efficient-knn-filtering/>`__).
"""
MAX_HITS: Final = 100

Embed = Callable[[str, int], list[float]]
"""Makes the vector of a text, of the length that the index has."""


class VectorField(BaseModel):
    """
    A field of vectors and their length.

    :param engine: As the mapping names it; ``None`` when it does not.
    """

    model_config = ConfigDict(frozen=True)

    name: str
    dimension: int
    engine: str | None

    def make_query(self, vector: list[float]) -> dict[str, Any]:
        """Return the query for the nearest vectors."""
        # nmslib refuses a filter, and a mapping without an engine may mean it.
        filtered: dict[str, Any] = {"filter": {"match_all": {}}} if self.engine == "lucene" else {}
        return {"knn": {self.name: {"vector": vector, "k": NEIGHBOURS, **filtered}}}


class Hit(BaseModel):
    """
    One document that was found.

    :param text: Its field ``text``, or the first of its texts; empty when it has none.
    :param fields: All its other fields but the vectors.
    """

    model_config = ConfigDict(frozen=True)

    id: str
    score: float
    text: str
    fields: dict[str, Any]


def find_vector_field(target: OpenSearchTarget, index: str) -> VectorField | None:
    """
    Return the first field of vectors of an index or alias; ``None`` when it has none.

    :raises SpecError: there is no such index.
    """
    try:
        found = target.get(f"{quote(index, safe='')}/_mapping")
    except NotFoundError:
        raise SpecError(f"There is no index {index!r}. Load it first, or name another.") from None
    for mapping in found.values():
        for name, field in mapping.get("mappings", {}).get("properties", {}).items():
            if field.get("type") == "knn_vector" and isinstance(field.get("dimension"), int):
                engine = field.get("method", {}).get("engine")
                return VectorField(name=name, dimension=field["dimension"], engine=engine)
    return None


def search(target: OpenSearchTarget, index: str, text: str, *, embed: Embed | None = None, size: int = 10) -> list[Hit]:
    """
    Return the documents that are nearest to a text, the best first.

    With Lucene's vectors they are exactly the nearest in segments of up to :data:`NEIGHBOURS` documents.

    :param embed: Makes the text's vector. Without it, or when the index has no vectors, the words are searched for.
    :param size: How many at most.
    :raises SpecError: there is no such index, the text is empty, or ``size`` is out of range.
    """
    if not text.strip():
        raise SpecError("The text to search for is empty.")
    if not 1 <= size <= MAX_HITS:
        raise SpecError(f"size is {size}; take 1 to {MAX_HITS}.")
    field = find_vector_field(target, index)
    query: dict[str, Any] = {"simple_query_string": {"query": text}}
    if field is not None and embed is not None:
        query = field.make_query(embed(text, field.dimension))
    return find(target, index, query, size=size, hidden=[field.name] if field is not None else [])


def find(
    target: OpenSearchTarget, index: str, query: Mapping[str, Any], *, size: int, hidden: Sequence[str] = ()
) -> list[Hit]:
    """
    Return the documents that a query finds, the best first.

    :param query: In OpenSearch's own terms.
    :param hidden: Fields that are not wanted, such as vectors.
    """
    body = {"size": size, "_source": {"excludes": [FIELD, *hidden]}, "query": query}
    answer = target.post(f"{quote(index, safe='')}/_search", body, retry=Retry.SAFE)
    return [_read(hit) for hit in answer["hits"]["hits"]]


def _read(hit: Mapping[str, Any]) -> Hit:
    fields = dict(hit.get("_source") or {})
    name = (
        "text"
        if isinstance(fields.get("text"), str)
        else next((name for name, value in fields.items() if isinstance(value, str)), None)
    )
    text = fields.pop(name) if name is not None else ""
    return Hit(id=hit["_id"], score=hit["_score"] or 0.0, text=text, fields=fields)
