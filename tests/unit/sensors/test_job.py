from __future__ import annotations

import asyncio
from functools import partial
from typing import Any

import pytest
from airflow.sdk.exceptions import AirflowFailException, AirflowSensorTimeout, TaskDeferred

from overnight.sensors.job import BatchJobSensor
from slowprint.airflow import to_event
from slowprint.operator import PrintOperator
from slowprint.server import Shop, connect


@pytest.fixture
def submitted(shop: Shop, task_run: Any) -> Any:
    task = PrintOperator(task_id="t", text_uri="s3://b/novel", pages=10, wait_for_completion=False)
    return task.execute(task_run.context)


def sensor(job: Any, **facts: Any) -> BatchJobSensor:
    return BatchJobSensor(task_id="s", job=job, **({"deferrable": False, "poke_interval": 0.01} | facts))


def test_it_waits_for_any_job_and_returns_what_its_operator_would(shop: Shop, submitted: Any, task_run: Any):
    shop.finish()
    outcome = sensor(submitted).execute(task_run.context)
    assert outcome["ref"] == submitted["ref"]
    assert outcome["results"]["files"][0]["uri"] == "s3://b/novel.printed"


def test_it_takes_the_text_of_a_rendered_template(shop: Shop, submitted: Any, task_run: Any):
    shop.finish()
    assert sensor(str(submitted)).execute(task_run.context)["ref"] == submitted["ref"]


def test_a_live_job_is_waited_for(shop: Shop, submitted: Any, task_run: Any):
    assert sensor(submitted).poke(task_run.context).is_done is False
    shop.finish()
    assert sensor(submitted).poke(task_run.context).is_done is True


def test_too_many_failures_fail_it_for_good(shop: Shop, submitted: Any, task_run: Any):
    shop.finish(spoiled=3)
    with pytest.raises(AirflowFailException, match="3 failed"):
        sensor(submitted).execute(task_run.context)
    assert sensor(submitted, allowed_failures=3).execute(task_run.context)["status"]["state"] == "partial"


def test_what_is_no_job_is_refused(shop: Shop, task_run: Any):
    with pytest.raises(AirflowFailException, match="is not a job"):
        sensor("p0").execute(task_run.context)


def test_an_unknown_service_is_refused_with_a_remedy(shop: Shop, task_run: Any):
    with pytest.raises(AirflowFailException, match=r"overnight\.job_hooks"):
        sensor({"service": "fastprint", "id": "1", "conn_id": "c"}).execute(task_run.context)


def test_it_defers_and_ends_with_the_event(shop: Shop, submitted: Any, task_run: Any):
    with pytest.raises(TaskDeferred) as raised:
        sensor(submitted, deferrable=True, timeout=60).execute(task_run.context)
    shop.finish()
    outcome = sensor(submitted).execute_complete(task_run.context, to_event(raised.value.trigger))
    assert outcome["status"]["state"] == "succeeded"


def test_its_timeout_leaves_the_job_running(shop: Shop, submitted: Any, task_run: Any):
    with pytest.raises(TaskDeferred) as raised:
        sensor(submitted, deferrable=True, timeout=0.05).execute(task_run.context)
    with pytest.raises(AirflowSensorTimeout, match="It runs on"):
        sensor(submitted).execute_complete(task_run.context, to_event(raised.value.trigger))
    assert shop.orders[0]["status"] == "waiting"


def test_killing_it_leaves_the_job_alone_unless_asked(shop: Shop, submitted: Any, task_run: Any):
    for cancel, status in ((False, "waiting"), (True, "withdrawn")):
        with pytest.raises(TaskDeferred) as raised:
            sensor(submitted, deferrable=True, cancel_on_kill=cancel).execute(task_run.context)
        asyncio.run(raised.value.trigger.on_kill())
        assert shop.orders[0]["status"] == status


def test_one_failing_look_is_borne(shop: Shop, submitted: Any, task_run: Any, monkeypatch: pytest.MonkeyPatch):
    connect(monkeypatch, "http://127.0.0.1:9")
    assert sensor(submitted).poke(task_run.context).is_done is False


@pytest.mark.parametrize("deferrable", [False, True])
@pytest.mark.parametrize("end", ["jammed", "withdrawn", "gone"])
def test_a_job_that_is_over_fails_it_for_good_and_names_the_remedy(
    shop: Shop, submitted: Any, task_run: Any, deferrable: bool, end: str
):
    if end == "gone":
        shop.orders.clear()
    shop.finish(end)
    finish = partial(sensor(submitted).execute, task_run.context)
    if deferrable:
        with pytest.raises(TaskDeferred) as raised:
            sensor(submitted, deferrable=True).execute(task_run.context)
        finish = partial(sensor(submitted).execute_complete, task_run.context, to_event(raised.value.trigger))
    with pytest.raises(AirflowFailException, match="clear the task that submitted it") as caught:
        finish()
    assert "retry submits" not in str(caught.value)
    assert shop.requests.count(("POST", "/orders")) == 1


def test_one_404_is_no_loss(shop: Shop, submitted: Any, task_run: Any):
    shop.forget_polls = 1
    assert sensor(submitted).poke(task_run.context).is_done is False


@pytest.mark.parametrize(
    "parameter", [{"cancel_on_kill": "maybe"}, {"allowed_failures": "True"}, {"allowed_failures": "-1"}]
)
def test_a_parameter_that_makes_no_sense_is_refused_before_the_first_poll(
    shop: Shop, submitted: Any, task_run: Any, parameter: dict[str, Any]
):
    before = len(shop.requests)
    with pytest.raises(AirflowFailException, match=next(iter(parameter))):
        sensor(submitted, **parameter).execute(task_run.context)
    assert len(shop.requests) == before


def test_its_parameters_may_be_text(shop: Shop, submitted: Any, task_run: Any):
    with pytest.raises(TaskDeferred) as raised:
        sensor(submitted, deferrable=True, cancel_on_kill="False", allowed_failures="3").execute(task_run.context)
    assert raised.value.trigger.cancel_on_kill is False
