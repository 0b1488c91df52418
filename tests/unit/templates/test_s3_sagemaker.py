from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest
from airflow.sdk.exceptions import AirflowFailException, AirflowSkipException
from pydantic import ValidationError

from overnight.templates.s3_sagemaker_to_index import S3SageMakerToIndexConfig, skip_without_inputs


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


def test_the_cluster_cannot_skip_what_is_unchanged() -> None:
    given = {"input_uri": "s3://b/in/", "work_uri": "s3://b/work", "index_name": "docs", "model_name": "m"}
    assert S3SageMakerToIndexConfig(**given, skip_unchanged=True).skip_unchanged
    with pytest.raises(ValidationError, match="set engine to auto or client, or skip_unchanged to false"):
        S3SageMakerToIndexConfig(**given, skip_unchanged=True, engine="server")
