from __future__ import annotations

from typing import Any
from unittest.mock import Mock

import pytest
from airflow.sdk import BaseOperator
from airflow.sdk.exceptions import AirflowFailException

from overnight.ingest.write import index
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
