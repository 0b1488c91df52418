"""A search finds what is nearest, whatever the graph of the vectors leaves out."""

from __future__ import annotations

import json
import random
from pathlib import Path

from overnight.ingest import LoadOptions, OpenSearchTarget, load
from overnight.ingest.search import search

DIMENSION = 16
# A graph with so few links that a search over it passes over many a document.
SPARSE = {"name": "hnsw", "engine": "lucene", "space_type": "l2", "parameters": {"m": 2, "ef_construction": 2}}
BODY = {
    "settings": {"index.knn": True, "number_of_replicas": 0},
    "mappings": {"properties": {"v": {"type": "knn_vector", "dimension": DIMENSION, "method": SPARSE}}},
}


def test_each_document_is_the_nearest_to_its_own_vector(
    target: OpenSearchTarget, index_name: str, tmp_path: Path
) -> None:
    dice = random.Random(1)
    vectors = {f"d{number}": [round(dice.gauss(0, 1), 6) for _ in range(DIMENSION)] for number in range(3_000)}
    path = tmp_path / "a.jsonl"
    path.write_text("".join(json.dumps({"id": name, "v": vector}) + "\n" for name, vector in vectors.items()))
    request = {
        "index_name": index_name,
        "field_map": {"_id": "$.id", "v": "$.v"},
        "data_source": {"source": [str(path)]},
    }
    assert load(request, target=target, options=LoadOptions(create_index=BODY)).indexed == len(vectors)
    target.post(f"{index_name}/_refresh")
    for name in dice.sample(list(vectors), 50):
        hits = search(target, index_name, name, embed=lambda text, _: vectors[text], size=1)
        assert [hit.id for hit in hits] == [name]
