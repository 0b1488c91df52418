"""An index before anything is paid for; tests/unit/operators/test_index.py has the operator over it."""

from __future__ import annotations

from typing import Any

import pytest

from overnight.errors import SpecError
from overnight.ingest import OpenSearchTarget
from overnight.ingest.write.index_preparation import prepare_index
from overnight.ingest.write.sink import IndexMissingError
from unit.ingest.fake_opensearch import FakeOpenSearch

BODY = {"mappings": {"properties": {"v": {"type": "knn_vector"}}}}


def test_a_missing_index_is_created_with_the_length_that_the_vectors_will_have(
    opensearch: FakeOpenSearch, target: OpenSearchTarget
) -> None:
    assert prepare_index(target, "new", body=BODY, vectors={"v": 3}).dimensions == {"v": 3}
    assert BODY["mappings"]["properties"]["v"] == {"type": "knn_vector"}


def test_a_missing_index_without_a_body_is_refused(opensearch: FakeOpenSearch, target: OpenSearchTarget) -> None:
    with pytest.raises(IndexMissingError):
        prepare_index(target, "new")
    assert "new" not in opensearch.indices


@pytest.mark.parametrize("expected", [{"dimension": 4}, {"vectors": {"v": 4}}])
def test_an_index_that_does_not_take_the_vectors_is_refused(
    opensearch: FakeOpenSearch, target: OpenSearchTarget, expected: dict[str, Any]
) -> None:
    opensearch.create("docs", {"v": {"type": "knn_vector", "dimension": 3}})
    assert prepare_index(target, "docs", dimension=3, vectors={"v": 3}).name == "docs"
    with pytest.raises(SpecError):
        prepare_index(target, "docs", **expected)
