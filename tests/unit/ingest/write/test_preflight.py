"""The first documents against the index: what would be useless is refused before anything is sent."""

from __future__ import annotations

import base64
import struct
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from overnight.errors import SpecError
from overnight.ingest import OpenSearchTarget, load
from overnight.ingest.write.preflight import measure_vector
from overnight.ingest.write.sink import VectorField
from unit.ingest.fake_opensearch import FakeOpenSearch
from unit.ingest.test_load import request, write


def floats(count: int) -> str:
    return base64.b64encode(struct.pack(f"<{count}f", *range(count))).decode()


def octets(count: int) -> str:
    return base64.b64encode(bytes(range(count))).decode()


LENGTHS = [
    ("float", 4, [1.0, 2, 3, 4], True),
    ("float", 4, [1.0, 2, 3], False),
    ("float", 4, floats(4), True),
    ("float", 4, floats(3), False),
    ("float", 4, octets(7), False),
    ("byte", 8, [1] * 8, True),
    ("byte", 8, [1] * 2, False),
    ("byte", 8, octets(8), True),
    ("byte", 8, octets(9), False),
    ("binary", 64, [1] * 8, True),
    ("binary", 64, [1] * 64, False),
    ("binary", 64, octets(8), True),
    ("binary", 64, octets(64), False),
]


@pytest.mark.parametrize(("data_type", "dimension", "value", "fits"), LENGTHS)
@pytest.mark.parametrize("is_nested", [False, True])
def test_a_vector_has_the_length_that_its_data_type_asks_for(
    data_type: str,
    dimension: int,
    value: Any,
    fits: bool,
    is_nested: bool,
    opensearch: FakeOpenSearch,
    target: OpenSearchTarget,
    tmp_path: Path,
) -> None:
    vector = {"v": {"type": "knn_vector", "dimension": dimension, "data_type": data_type}}
    opensearch.create("docs", {"m": {"properties": vector}} if is_nested else vector)
    line = {"id": "a", "v": {"v": value} if is_nested else value}
    path = write(tmp_path / "a.jsonl", [line, {**line, "id": "b"}])
    wanted = request(path, field_map={"_id": "$.id", "m" if is_nested else "v": "$.v"})
    if fits:
        assert load(wanted, target=target).indexed == 2
        return
    with pytest.raises(SpecError, match=rf"is a vector of {dimension}.*Nothing was written"):
        load(wanted, target=target)
    assert opensearch.bulks == []


def test_one_fitting_vector_lets_opensearch_judge_the_others(
    opensearch: FakeOpenSearch, target: OpenSearchTarget, tmp_path: Path
) -> None:
    opensearch.create("docs", {"v": {"type": "knn_vector", "dimension": 2}})
    path = write(tmp_path / "a.jsonl", [{"id": "a", "v": [1, 2, 3]}, {"id": "b", "v": [1, 2]}, {"id": "c", "v": None}])
    assert load(request(path, field_map={"_id": "$.id", "v": "$.v"}), target=target).indexed == 3


EMBEDDING = {"embedding": {"type": "knn_vector", "dimension": 3}}


@pytest.mark.parametrize(
    ("properties", "field", "value", "names"),
    [
        (EMBEDDING, "embeding", [0.1, 0.2, 0.3], r"'embeding'.*Did you mean 'embedding'"),
        (EMBEDDING, "vec", [0.1, 0.2, 0.3], r"Did you mean 'embedding'"),
        (EMBEDDING, "vec", [0.1, 0.2], r"The vector fields are 'embedding' of 3"),
        (EMBEDDING, "meta", {"embedding": [1, 2, 3]}, r"'meta\.embedding'"),
        (EMBEDDING, "meta.embedding", [1, 2, 3], r"'meta\.embedding'"),
        ({"meta": {"properties": EMBEDDING}}, "meta", {"embeding": [1, 2, 3]}, r"Did you mean 'meta\.embedding'"),
    ],
)
def test_a_vector_for_a_field_that_is_none_is_refused_and_the_near_field_named(
    properties: dict[str, Any],
    field: str,
    value: Any,
    names: str,
    opensearch: FakeOpenSearch,
    target: OpenSearchTarget,
    tmp_path: Path,
) -> None:
    opensearch.create("docs", properties)
    path = write(tmp_path / "a.jsonl", [{"id": "a", "v": value}])
    with pytest.raises(SpecError, match=names):
        load(request(path, field_map={"_id": "$.id", field: "$.v"}), target=target)
    assert opensearch.bulks == []


@pytest.mark.parametrize(
    ("properties", "mappings", "value"),
    [
        ({"v": {"type": "float"}}, {}, [1, 2, 3]),
        ({**EMBEDDING, "v": {"type": "float"}}, {}, [1, 2, 3]),
        ({**EMBEDDING, "v": {"type": "object", "enabled": False}}, {}, {"x": [1, 2, 3]}),
        ({**EMBEDDING, "v": {"type": "flat_object"}}, {}, {"x": [1, 2, 3]}),
        (EMBEDDING, {}, ["a", "b"]),
        (EMBEDDING, {}, [True, False]),
        (EMBEDDING, {}, 3),
        (EMBEDDING, {"dynamic_templates": [{"v": {"mapping": {"type": "knn_vector", "dimension": 3}}}]}, [1, 2, 3]),
    ],
)
def test_other_arrays_go_in(
    properties: dict[str, Any],
    mappings: dict[str, Any],
    value: Any,
    opensearch: FakeOpenSearch,
    target: OpenSearchTarget,
    tmp_path: Path,
) -> None:
    opensearch.create("docs", properties)
    opensearch.indices["docs"]["mappings"] |= mappings
    path = write(tmp_path / "a.jsonl", [{"id": "a", "v": value}])
    assert load(request(path, field_map={"_id": "$.id", "v": "$.v"}), target=target).indexed == 1


@given(
    st.one_of(
        st.none(), st.booleans(), st.text(), st.floats(), st.lists(st.one_of(st.integers(), st.text()), max_size=5)
    ),
    st.sampled_from(["float", "byte", "binary"]),
)
def test_any_value_is_measured_or_is_no_vector(value: Any, data_type: str) -> None:
    length = measure_vector(value, VectorField(64, data_type))
    if isinstance(value, list):
        is_numbers = all(isinstance(item, int) and not isinstance(item, bool) for item in value)
        assert length == (len(value) if is_numbers else None)
    elif not isinstance(value, str):
        assert length is None


@given(st.integers(1, 64))
def test_base64_is_measured_in_numbers(count: int) -> None:
    assert measure_vector(floats(count), VectorField(8)) == count
    assert measure_vector(octets(count), VectorField(8, "byte")) == count
    assert measure_vector(octets(count), VectorField(64, "binary")) == count
