"""A run that costs little passes through; one that costs more waits, and what is rejected was never uploaded."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any
from unittest.mock import Mock

import pytest
from airflow.sdk import DAG
from airflow.sdk.exceptions import AirflowFailException, TaskAwaitingInput

from overnight.costs.estimate import CostEstimate, Workload
from overnight.costs.prices import PriceTable
from overnight.costs.spending import read_record
from overnight.operators.approval import REFUSED_KEY, CostApprovalOperator
from overnight.storage import Storage

PASSED = {"asked": False, "by": None, "spending_uri": None}


def estimate(**fields: Any) -> dict[str, Any]:
    given = {"requests": 50_000, "bytes": 9, "parts": 1, "model": "text-embedding-3-small", "counted": "by hand"}
    work = Workload(**{"input": 300_000_000, "output": 0, **given, **fields})
    return CostEstimate.of(work, PriceTable.shipped()).model_dump(mode="json")


class Step:
    """The operator, and what it asked of Airflow."""

    def __init__(
        self, monkeypatch: pytest.MonkeyPatch, given: Any = None, *, run_id: str = "manual__1", **arguments: Any
    ) -> None:
        self.asked: list[dict[str, Any]] = []
        monkeypatch.setattr(
            "airflow.providers.standard.operators.hitl.upsert_hitl_detail", lambda **detail: self.asked.append(detail)
        )
        with DAG("nightly"):
            self.operator = CostApprovalOperator(task_id="approve", estimate=given or estimate(), **arguments)
        self.ti = Mock()
        self.context: Any = {
            "ti": self.ti,
            "task_instance": self.ti,
            "dag": self.operator.dag,
            "run_id": run_id,
            "task": self.operator,
        }

    def execute(self) -> dict[str, Any]:
        return self.operator.execute(self.context)

    def answer(self, choice: str, **fields: Any) -> dict[str, Any]:
        event = {
            "chosen_options": [choice],
            "params_input": {},
            "responded_at": datetime.now(UTC),
            "responded_by_user": {"id": "7", "name": "ada"},
        }
        return self.operator.execute_complete(self.context, {**event, **fields})

    @property
    def pushed(self) -> dict[str, Any]:
        return {call.kwargs["key"]: call.kwargs["value"] for call in self.ti.xcom_push.call_args_list}


@pytest.mark.parametrize("threshold", [None, "", "None", "3 USD", 3, "300000000 tokens", "5 USD"], ids=repr)
def test_a_run_that_costs_no_more_passes_through(threshold: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    step = Step(monkeypatch, approve_above=threshold)
    assert step.execute() == PASSED
    assert (step.asked, step.pushed) == ([], {})


@pytest.mark.parametrize("threshold", ["2.99 USD", 0, "299,999,999 tokens"])
def test_a_run_that_costs_more_waits_and_shows_the_estimate(threshold: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    step = Step(monkeypatch, approve_above=threshold)
    with pytest.raises(TaskAwaitingInput) as parked:
        step.execute()
    assert (parked.value.method_name, parked.value.timeout) == ("execute_complete", None)
    (asked,) = step.asked
    assert asked["subject"] == "nightly: 50,000 requests for about 3.00 USD"
    assert asked["options"] == ["Approve", "Reject"]
    assert "* input: 300,000,000 tokens (by hand)\n" in asked["body"]
    assert "Nothing has been uploaded." in asked["body"]


@pytest.mark.parametrize("unknown", [{"model": "mine"}, {"model": "gpt-4o", "output": None}])
def test_a_price_that_is_not_known_is_above_every_amount(
    unknown: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    step = Step(monkeypatch, estimate(**unknown), approve_above="1000000 USD")
    with pytest.raises(TaskAwaitingInput):
        step.execute()
    assert step.asked[0]["subject"] == "nightly: 50,000 requests for a price that is not known"
    assert "* price: unknown: " in step.asked[0]["body"]


def test_nothing_to_send_needs_no_approval(monkeypatch: pytest.MonkeyPatch) -> None:
    step = Step(monkeypatch, estimate(requests=0, input=0, model="mine"), approve_above=0)
    assert step.execute() == PASSED


def test_an_approved_run_goes_on_and_says_who_approved(monkeypatch: pytest.MonkeyPatch) -> None:
    step = Step(monkeypatch, approve_above=1)
    assert step.answer("Approve") == {"asked": True, "by": "ada", "spending_uri": None}
    assert step.pushed == {}


def test_a_rejected_run_fails_without_a_retry_and_leaves_the_reason(monkeypatch: pytest.MonkeyPatch) -> None:
    step = Step(monkeypatch, approve_above=1)
    text = (
        "ada rejected 50,000 requests for about 3.00 USD. Nothing was uploaded. "
        "Clear the task approve to be asked again."
    )
    with pytest.raises(AirflowFailException) as refused:
        step.answer("Reject")
    assert str(refused.value) == text
    assert step.pushed == {REFUSED_KEY: text}


def test_an_answer_that_does_not_come_is_a_no(monkeypatch: pytest.MonkeyPatch) -> None:
    step = Step(monkeypatch, approve_above=1, approval_hours="0.5")
    with pytest.raises(TaskAwaitingInput) as parked:
        step.execute()
    assert parked.value.timeout == timedelta(minutes=30)
    with pytest.raises(AirflowFailException, match=r"Nobody approved 50,000 .* within approval_hours=0\.5\. Nothing"):
        step.answer("", error="timed out", error_type="timeout")
    assert REFUSED_KEY in step.pushed


def test_who_answered_may_be_unknown(monkeypatch: pytest.MonkeyPatch) -> None:
    step = Step(monkeypatch, approve_above=1)
    assert step.answer("Approve", responded_by_user=None)["by"] == "somebody"


@pytest.mark.parametrize(
    ("arguments", "reason"),
    [
        ({"approve_above": "much"}, "approve_above='much' is no amount of money"),
        ({"approve_above": "5 EUR"}, "approve_above is in EUR, and the prices are in USD"),
        ({"approve_above": 1, "approval_hours": 0}, "approval_hours=0 is no number of hours"),
        ({"approve_above": 1, "approval_hours": "soon"}, "approval_hours='soon'"),
        ({"approve_above": 1, "approval_hours": "1e14"}, "approval_hours='1e14'"),
        ({"cost_budget": "5 USD/month"}, "cost_budget needs cost_budget_uri"),
        ({"cost_budget": "5 USD", "cost_budget_uri": "/s"}, "cost_budget='5 USD' is no budget"),
        ({"given": "None"}, "estimate does not fit"),
        ({"given": {"cost": 1}}, "estimate does not fit"),
    ],
)
def test_what_is_no_limit_is_refused(arguments: dict[str, Any], reason: str, monkeypatch: pytest.MonkeyPatch) -> None:
    step = Step(monkeypatch, **arguments)
    with pytest.raises(AirflowFailException) as refused:
        step.execute()
    assert reason in str(refused.value)
    assert step.asked == []


def test_who_is_asked_and_how_they_hear_of_it_can_be_said_for_a_whole_dag() -> None:
    notifier = Mock()
    with DAG("nightly", default_args={"assigned_users": [{"id": "7", "name": "ada"}], "notifiers": [notifier]}):
        operator = CostApprovalOperator(task_id="approve", estimate=estimate(), approve_above=1)
    assert operator.assigned_users == [{"id": "7", "name": "ada"}]
    assert operator.notifiers == [notifier]


# --- A budget ------------------------------------------------------------------------------------------------------


def test_a_run_within_the_budget_puts_its_cost_down_and_one_that_is_not_fails_for_good(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    budget = {"cost_budget": "5 USD/month", "cost_budget_uri": str(tmp_path), "aws_conn_id": None}
    passed = Step(monkeypatch, **budget).execute()
    assert read_record(passed["spending_uri"], Storage()).total.cost == 3
    # The same run again.
    assert Step(monkeypatch, **budget).execute() == passed

    other = Step(monkeypatch, run_id="manual__2", **budget)
    with pytest.raises(
        AirflowFailException, match=r"1 other runs of .* reserved 3\.00 USD, and 2\.00 USD are left"
    ) as no:
        other.execute()
    assert other.pushed == {REFUSED_KEY: str(no.value)}


def test_nobody_is_asked_about_what_the_budget_refuses(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    step = Step(monkeypatch, approve_above=1, cost_budget="2 USD/day", cost_budget_uri=str(tmp_path), aws_conn_id=None)
    with pytest.raises(AirflowFailException, match="cost_budget=2"):
        step.execute()
    assert step.asked == []


def test_a_run_that_waits_has_put_nothing_down_and_one_that_is_rejected_takes_it_back(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    step = Step(monkeypatch, approve_above=1, cost_budget="5 USD/day", cost_budget_uri=str(tmp_path), aws_conn_id=None)
    with pytest.raises(TaskAwaitingInput):
        step.execute()
    assert list(tmp_path.rglob("*.json")) == []
    uri = step.answer("Approve")["spending_uri"]
    assert read_record(uri, Storage()).total.cost == 3
    # It was cleared, and is asked again.
    with pytest.raises(AirflowFailException, match="ada rejected"):
        step.answer("Reject")
    assert read_record(uri, Storage()).total.cost == 0
