from __future__ import annotations

from typing import Any
from unittest.mock import Mock

import pytest
from airflow.sdk import BaseOperator
from airflow.sdk.exceptions import AirflowFailException

from overnight.ingest.write import index
from overnight.ingest.write.sink import IndexInfo, IndexMissingError, VectorField
from overnight.operators.index import (
    OpenSearchCreateIndexOperator,
    OpenSearchHook,
    OpenSearchSwapAliasOperator,
    OpenSearchVerifyIndexOperator,
)


@pytest.fixture
def calls(monkeypatch: pytest.MonkeyPatch) -> dict[str, Mock]:
    """What the operators ask of the index."""
    found = Mock(dimensions={"v": 3})
    found.name = "docs"
    made = {
        "create_index": Mock(),
        "inspect_index": Mock(return_value=found),
        "verify": Mock(return_value=7),
        "swap_alias": Mock(return_value=[]),
    }
    for name, mock in made.items():
        monkeypatch.setattr(index, name, mock)
    monkeypatch.setattr(OpenSearchHook, "target", Mock())
    return made


def execute(operator: type[BaseOperator], **arguments: Any) -> Any:
    """Run a task whose arguments have been rendered."""
    return operator(task_id="t", **arguments).execute({})


@pytest.mark.parametrize(("text", "made"), [("False", 0), ("false", 0), ("0", 0), (False, 0), ("True", 1), (True, 1)])
def test_create_as_text_means_what_it_says(calls: dict[str, Mock], text: Any, made: int) -> None:
    execute(OpenSearchCreateIndexOperator, index_name="docs", create=text, body={"mappings": {}})
    assert calls["create_index"].call_count == made


@pytest.mark.parametrize("text", ["3", 3, "None", "", None])
def test_a_dimension_as_text_is_a_number_or_none(calls: dict[str, Mock], text: Any) -> None:
    body = {"mappings": {"properties": {"v": {"type": "knn_vector", "dimension": 3}}}}
    execute(OpenSearchCreateIndexOperator, index_name="docs", body=body, dimension=text)
    assert calls["create_index"].call_args.args[2] == body


def test_another_dimension_as_text_is_refused(calls: dict[str, Mock]) -> None:
    with pytest.raises(AirflowFailException, match="not 4"):
        execute(OpenSearchCreateIndexOperator, index_name="docs", create=False, dimension="4")


INFO = IndexInfo("docs", "u", vectors={"v": VectorField(3)}, fields={"v": "knn_vector", "text": "text"})


def test_vectors_that_fit_the_index_are_taken(calls: dict[str, Mock]) -> None:
    calls["inspect_index"].return_value = INFO
    execute(OpenSearchCreateIndexOperator, index_name="docs", create=False, vectors={"v": "3"})


@pytest.mark.parametrize(
    ("vectors", "why"),
    [({"v": 4}, "'v' is a vector of 3 in the index, but the first documents have 4"), ({"vv": 3}, "mean 'v'")],
)
def test_vectors_that_do_not_fit_the_index_are_refused(calls: dict[str, Mock], vectors: Any, why: str) -> None:
    calls["inspect_index"].return_value = INFO
    with pytest.raises(AirflowFailException, match=why):
        execute(OpenSearchCreateIndexOperator, index_name="docs", create=False, vectors=vectors)


def make_body(**vector: Any) -> dict[str, Any]:
    inner = {"v": {"type": "knn_vector", **vector}, "w": {"type": "knn_vector", "dimension": 9}}
    return {"mappings": {"properties": {"o": {"properties": inner}}}}


def test_a_new_index_gets_the_length_that_the_vectors_will_have(calls: dict[str, Mock]) -> None:
    calls["inspect_index"].return_value = IndexInfo("docs", "u", vectors={"o.v": VectorField(3)})
    execute(OpenSearchCreateIndexOperator, index_name="docs", body=make_body(), vectors={"o.v": 3})
    assert calls["create_index"].call_args.args[2] == make_body(dimension=3)


def test_an_index_is_not_created_for_vectors_of_another_length(calls: dict[str, Mock]) -> None:
    calls["inspect_index"].side_effect = IndexMissingError("none")
    with pytest.raises(AirflowFailException, match="length 3, and index_body gives 'o.v' the dimension 4"):
        execute(OpenSearchCreateIndexOperator, index_name="docs", body=make_body(dimension=4), vectors={"o.v": 3})
    assert not calls["create_index"].called


def test_of_an_index_that_is_there_its_own_mapping_counts(calls: dict[str, Mock]) -> None:
    calls["inspect_index"].return_value = IndexInfo("docs", "u", vectors={"o.v": VectorField(3)})
    execute(OpenSearchCreateIndexOperator, index_name="docs", body=make_body(dimension=4), vectors={"o.v": 3})


def test_the_numbers_of_a_verification_may_be_texts(calls: dict[str, Mock]) -> None:
    execute(OpenSearchVerifyIndexOperator, index_name="docs", at_least="5", count="7", dimensions={"v": "3"})
    given = calls["verify"].call_args.kwargs
    assert (given["at_least"], given["count"], given["dimensions"]) == (5, 7, {"v": 3})
    execute(OpenSearchVerifyIndexOperator, index_name="docs", count="None")
    assert calls["verify"].call_args.kwargs["count"] is None


@pytest.mark.parametrize(("text", "drops"), [("False", False), ("True", True), (False, False)])
def test_drop_old_as_text_means_what_it_says(calls: dict[str, Mock], text: Any, drops: bool) -> None:
    execute(OpenSearchSwapAliasOperator, alias="live", index_name="docs", drop_old=text)
    assert calls["swap_alias"].call_args.kwargs == {"drop_old": drops}


@pytest.mark.parametrize(
    ("operator", "wrong"),
    [
        (OpenSearchCreateIndexOperator, {"create": "perhaps"}),
        (OpenSearchCreateIndexOperator, {"dimension": "many"}),
        (OpenSearchCreateIndexOperator, {"vectors": {"v": "many"}}),
        (OpenSearchVerifyIndexOperator, {"at_least": "many"}),
        (OpenSearchVerifyIndexOperator, {"at_least": "-1"}),
        (OpenSearchVerifyIndexOperator, {"count": "all"}),
        (OpenSearchSwapAliasOperator, {"alias": "live", "drop_old": "perhaps"}),
    ],
)
def test_what_is_no_number_or_truth_value_is_refused_by_its_name_before_the_index_is_asked(
    calls: dict[str, Mock], operator: type[BaseOperator], wrong: dict[str, Any]
) -> None:
    with pytest.raises(AirflowFailException, match=[*wrong][-1]):
        execute(operator, index_name="docs", **wrong)
    assert not any(call.called for call in calls.values())
