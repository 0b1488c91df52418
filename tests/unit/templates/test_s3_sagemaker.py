from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest
from airflow.sdk.exceptions import AirflowFailException, AirflowSkipException

from overnight.templates.s3_sagemaker_to_index import skip_without_inputs


def skip(found: Any) -> None:
    context: Any = {"ti": SimpleNamespace(xcom_pull=lambda *, task_ids: found)}
    skip_without_inputs(context)


def test_the_transform_is_skipped_when_nothing_is_left_to_do() -> None:
    skip({"manifest": "s3://b/x.manifest"})
    with pytest.raises(AirflowSkipException, match="output already"):
        skip({"manifest": None})


@pytest.mark.parametrize("found", [None, {}, [], "a text"], ids=str)
def test_a_list_of_inputs_that_is_not_there_is_named(found: Any) -> None:
    with pytest.raises(AirflowFailException, match=r"Clear it\."):
        skip(found)
