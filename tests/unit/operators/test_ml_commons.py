from __future__ import annotations

from typing import Any

import pytest
from pydantic import ValidationError

from overnight.operators.ml_commons import MLCommonsBatchPredictOperator


@pytest.mark.parametrize(
    ("options", "allowed"),
    [
        ({}, False),
        ({"allow_unnamed": True}, True),
        ({"allow_unnamed": "True"}, True),
        ({"allow_unnamed": "false"}, False),
        ({"durable": False}, True),
    ],
)
def test_a_job_without_a_name_is_the_users_choice(task_run: Any, options: dict[str, Any], allowed: bool) -> None:
    operator = MLCommonsBatchPredictOperator(task_id="t", model_id="m", **options)
    spec = operator.build_spec(task_run.context)
    assert spec.allow_unnamed is allowed
    # The choice is no other job.
    named = MLCommonsBatchPredictOperator(task_id="t", model_id="m").build_spec(task_run.context)
    assert spec.fingerprint("os") == named.fingerprint("os")


def test_a_choice_that_is_none_is_refused(task_run: Any) -> None:
    operator = MLCommonsBatchPredictOperator(task_id="t", model_id="m", allow_unnamed="perhaps")
    with pytest.raises(ValidationError, match="allow_unnamed"):
        operator.build_spec(task_run.context)
