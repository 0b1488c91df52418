"""Nothing is paid without having been asked: a person's yes and no, and a budget over three days of a backfill."""

from __future__ import annotations

from typing import Any

import orjson
import pytest

from overnight.costs.spending import SpendingRecord

from .conftest import Services
from .console import Run
from .pipeline import A_DAY, PIPELINE, first

ASKING = {"count": A_DAY, "parts": 2, "approve_above": "1 tokens"}
WAITS_IN_NO_WORKER = "awaiting_input"


def uploads(services: Services, account: str) -> list[str]:
    """Return what was sent to an account beside the one word that the model is probed with."""
    sent = [request for request in services.accounts[account].requests() if request["method"] != "GET"]
    return [request["path"] for request in sent if request["path"] != "/v1/embeddings"]


def let_the_worker_end(others: list[Run]) -> None:
    """
    Wait for what takes longer than a worker needs to end.

    A task whose answer comes before the scheduler has heard of that end is taken for one that failed, and tried again.
    """
    for run in others:
        run.finish()


def test_a_budget_refuses_the_third_of_three_days_of_a_backfill(
    runs: dict[str, Run], budgeted: list[Run], services: Services
) -> None:
    # Those that wait for an answer are waiting by the time that these are over.
    assert runs
    let_the_worker_end(budgeted)
    assert sorted(run.task("approve")["state"] for run in budgeted) == ["failed", "success", "success"]
    (refused,) = [run for run in budgeted if run.task("approve")["state"] == "failed"]
    assert refused.facts()["state"] == "failed"
    tasks = {task["task_id"]: (task["state"], task["try_number"]) for task in refused.tasks()}
    assert (tasks["approve"], tasks["report"]) == (("failed", 1), ("failed", 1))
    assert f"{A_DAY} requests for about 2" in refused.log("approve")
    assert "are more than is left of cost_budget=50.00 USD/month: 2 other runs of" in refused.log("approve")

    # What the service knows of: two days, each with one file and one batch.
    batches = services.accounts["frugal"].batches("budgeted")
    assert {batch["metadata"]["overnight_run"] for batch in batches} == {
        run.run_id for run in budgeted if run != refused
    }
    assert sorted(uploads(services, "frugal")) == ["/v1/batches"] * 2 + ["/v1/files"] * 2

    # What the two cost in the end is in the place of what was estimated.
    records = [
        SpendingRecord.model_validate(orjson.loads(services.documents.read(run.xcom("approve")["spending_uri"])))
        for run in budgeted
        if run != refused
    ]
    assert {record.reserved.cost for record in records} == {0}
    assert {name for record in records for name in record.jobs} == {batch["id"] for batch in batches}
    costs: dict[str, Any] = {run.run_id: run.xcom("report")["cost"]["cost"] for run in budgeted if run != refused}
    assert {record.run_id: float(record.total.cost) for record in records} == {
        name: float(cost) for name, cost in costs.items()
    }


@pytest.mark.dag_run(PIPELINE, {"account": "approved", "index": "approved", **ASKING})
def test_a_run_that_is_approved_goes_on_and_says_what_it_cost(
    run: Run, services: Services, budgeted: list[Run]
) -> None:
    let_the_worker_end(budgeted)
    run.wait(WAITS_IN_NO_WORKER, task_id="approve")
    asked = run.question("approve")
    assert asked["subject"].startswith(f"{PIPELINE}: {A_DAY} requests for about 0.")
    assert "parts: 2" in asked["body"]
    assert uploads(services, "approved") == []

    run.answer("approve", "Approve")
    assert run.finish() == "success", [(task["task_id"], task["state"]) for task in run.tasks()]
    assert run.xcom("approve")["asked"]
    assert run.xcom("approve")["by"]
    assert services.documents.indexed("approved").keys() == {doc["id"] for doc in first(A_DAY)}
    report = run.xcom("report")
    assert 0.8 < float(report["cost"]["cost"]) / float(report["estimate"]["cost"]) < 1.3
    assert report["usage"]["input"] == report["cost"]["input"]


@pytest.mark.dag_run(PIPELINE, {"account": "rejected", "index": "rejected", **ASKING})
def test_of_a_run_that_is_rejected_nothing_was_uploaded(run: Run, services: Services, budgeted: list[Run]) -> None:
    let_the_worker_end(budgeted)
    run.wait(WAITS_IN_NO_WORKER, task_id="approve")
    run.answer("approve", "Reject")
    assert run.finish() == "failed"
    tasks = {task["task_id"]: (task["state"], task["try_number"]) for task in run.tasks()}
    assert tasks["approve"] == ("failed", 1)
    assert tasks["report"] == ("failed", 1)
    assert {state for state, _ in (tasks[name] for name in ("batch.embed", "batch.load", "verify"))} == {
        "upstream_failed"
    }
    for task_id in ("approve", "report"):
        assert f"rejected {A_DAY} requests for about 0." in run.log(task_id), task_id
    report = run.xcom("report", "report")
    assert (report["submitted"], report["missing"], report["reasons"]) == (A_DAY, A_DAY, {"not_approved": A_DAY})
    assert services.accounts["rejected"].batches(PIPELINE) == []
    assert uploads(services, "rejected") == []
    assert services.documents.indexed("rejected") == {}
