from __future__ import annotations

from typing import Any

import pytest
from airflow.sdk.exceptions import AirflowFailException

from overnight.operators.cancel import CancelBatchJobOperator
from slowprint.operator import PrintOperator
from slowprint.server import Shop


@pytest.fixture
def submitted(shop: Shop, task_run: Any) -> Any:
    task = PrintOperator(task_id="t", text_uri="s3://b/novel", pages=10, wait_for_completion=False)
    return task.execute(task_run.context)


def test_it_cancels_any_job(shop: Shop, submitted: Any, task_run: Any):
    outcome = CancelBatchJobOperator(task_id="c", job=submitted).execute(task_run.context)
    assert outcome["status"]["state"] == "cancelled"
    assert shop.orders[0]["status"] == "withdrawn"


def test_a_job_that_is_over_stays_as_it_is(shop: Shop, submitted: Any, task_run: Any):
    shop.finish()
    outcome = CancelBatchJobOperator(task_id="c", job=submitted).execute(task_run.context)
    assert outcome["status"]["state"] == "succeeded"


def test_an_unknown_job_fails_for_good(shop: Shop, submitted: Any, task_run: Any):
    shop.orders.clear()
    with pytest.raises(AirflowFailException, match="no such order"):
        CancelBatchJobOperator(task_id="c", job=submitted).execute(task_run.context)
