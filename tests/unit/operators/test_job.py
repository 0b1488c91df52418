from __future__ import annotations

import asyncio
import json
from collections.abc import Callable
from datetime import datetime, timedelta
from importlib import import_module
from pathlib import Path
from typing import Any

import pytest
from airflow.sdk.exceptions import AirflowFailException, AirflowTaskTimeout, TaskDeferred

from overnight.errors import DeadlineExceededError, JobLostError, TransientError
from overnight.jobs.attach import Attempt
from overnight.links.job import CONSOLE_URL_KEY
from overnight.operators.job import RECORD
from slowprint.airflow import to_event
from slowprint.operator import PrintOperator
from slowprint.server import Shop, connect


def operator(**facts: Any) -> PrintOperator:
    facts = {"text_uri": "s3://b/novel", "pages": 10, "poll_interval": 0.01, "deferrable": False} | facts
    return PrintOperator(task_id="t", **facts)


def posts(shop: Shop) -> int:
    return shop.requests.count(("POST", "/orders"))


def deferred(task: PrintOperator, run: Any) -> Any:
    with pytest.raises(TaskDeferred) as raised:
        task.execute(run.context)
    return raised.value.trigger


class TestWaitingInAWorker:
    def test_submits_waits_and_returns_references_and_counts(self, shop: Shop, task_run: Any):
        shop.status_after_order = "printed"
        outcome = operator().execute(task_run.context)
        assert outcome["ref"] == {"service": "slowprint", "id": "p0", "conn_id": "slowprint_default", "version": 2}
        assert outcome["status"]["state"] == "succeeded"
        assert outcome["results"]["files"] == [{"kind": "output", "uri": "s3://b/novel.printed"}]
        assert task_run.state[RECORD]["ending"] == "accepted"
        assert task_run.xcoms[CONSOLE_URL_KEY] == ""

    def test_bad_input_is_refused_before_anything_is_sent(self, shop: Shop, task_run: Any):
        with pytest.raises(AirflowFailException, match="less than or equal to 500"):
            operator(pages=501).execute(task_run.context)
        with pytest.raises(AirflowFailException, match="allowed_failures"):
            operator(allowed_failures="many").execute(task_run.context)
        assert shop.requests == []

    def test_the_deadline_counts_from_the_submit_and_cancels(self, shop: Shop, task_run: Any):
        with pytest.raises(DeadlineExceededError, match="Asked for the cancellation"):
            operator(deadline=0.05).execute(task_run.context)
        assert shop.orders[0]["status"] == "withdrawn"
        assert task_run.state[RECORD]["ending"] == "finished"

    def test_a_deadline_may_leave_the_job_running(self, shop: Shop, task_run: Any):
        with pytest.raises(DeadlineExceededError):
            operator(deadline=0.05, cancel_on_deadline=False).execute(task_run.context)
        assert shop.orders[0]["status"] == "waiting"
        assert task_run.state[RECORD]["ending"] is None

    def test_wrong_credentials_fail_for_good(self, shop: Shop, task_run: Any, monkeypatch: pytest.MonkeyPatch):
        connect(monkeypatch, shop.url, "water")
        with pytest.raises(AirflowFailException, match="401") as raised:
            operator().execute(task_run.context)
        assert "water" not in str(raised.value)
        assert posts(shop) == 0


class TestPayOnce:
    def test_a_retry_attaches_to_the_job_of_the_try_before(self, shop: Shop, task_run: Any):
        deferred(operator(deferrable=True), task_run)
        shop.finish()
        outcome = operator().execute(task_run.context)
        assert outcome["ref"]["id"] == "p0"
        assert posts(shop) == 1

    def test_a_job_whose_worker_died_before_the_record_is_adopted(self, shop: Shop, task_run: Any):
        deferred(operator(deferrable=True), task_run)
        intent = {**task_run.state[RECORD], "ref": None, "submitted_at": None}
        task_run.state[RECORD] = intent
        shop.finish()
        assert operator().execute(task_run.context)["ref"]["id"] == "p0"
        assert posts(shop) == 1

    def test_a_lost_state_store_still_finds_the_job(self, shop: Shop, task_run: Any):
        deferred(operator(deferrable=True), task_run)
        task_run.state.clear()
        shop.finish()
        assert operator().execute(task_run.context)["ref"]["id"] == "p0"
        assert posts(shop) == 1

    def test_a_lost_answer_to_the_submit_is_looked_up(self, shop: Shop, task_run: Any):
        shop.lose_answers, shop.status_after_order = 1, "printed"
        assert operator().execute(task_run.context)["ref"]["id"] == "p0"
        assert posts(shop) == 1

    def test_clearing_a_finished_task_starts_a_new_generation(self, shop: Shop, task_run: Any):
        shop.status_after_order = "printed"
        operator().execute(task_run.context)
        task_run.max_tries += 1
        outcome = operator().execute(task_run.context)
        assert outcome["ref"]["id"] == "p1"
        assert task_run.state[RECORD]["generation"] == 1

    def test_a_worker_that_dies_before_airflow_hears_of_its_success_costs_nothing(self, shop: Shop, task_run: Any):
        shop.status_after_order = "printed"
        first = operator().execute(task_run.context)
        assert operator().execute(task_run.context) == first
        assert posts(shop) == 1

    def test_a_cleared_job_that_was_cancelled_is_submitted_anew(self, shop: Shop, task_run: Any):
        trigger = deferred(operator(deferrable=True), task_run)
        asyncio.run(trigger.on_kill())
        assert shop.orders[0]["status"] == "withdrawn"
        deferred(operator(deferrable=True), task_run)
        assert [order["status"] for order in shop.orders] == ["withdrawn", "waiting"]

    def test_a_changed_spec_is_refused_or_restarted(self, shop: Shop, task_run: Any):
        deferred(operator(deferrable=True), task_run)
        with pytest.raises(AirflowFailException, match="another spec"):
            operator(pages=11).execute(task_run.context)
        assert posts(shop) == 1
        deferred(operator(pages=11, deferrable=True, on_changed_spec="restart"), task_run)
        assert [order["status"] for order in shop.orders] == ["withdrawn", "waiting"]

    def test_a_job_gone_from_the_service_is_submitted_anew(self, shop: Shop, task_run: Any):
        deferred(operator(deferrable=True), task_run)
        assert task_run.state[RECORD]["answered"] is True
        shop.orders.clear()
        deferred(operator(deferrable=True), task_run)
        assert task_run.state[RECORD]["generation"] == 1

    def test_without_durability_every_try_submits(self, shop: Shop, task_run: Any):
        shop.status_after_order = "printed"
        operator(durable=False).execute(task_run.context)
        operator(durable=False).execute(task_run.context)
        assert posts(shop) == 2
        assert not task_run.state

    def test_a_job_that_was_handed_over_is_not_submitted_twice_while_it_lives(self, shop: Shop, task_run: Any):
        first = operator(wait_for_completion=False).execute(task_run.context)
        again = operator(wait_for_completion=False).execute(task_run.context)
        assert first == again
        assert first["status"] is None
        assert posts(shop) == 1


class TestDeferring:
    def test_the_event_ends_the_task_in_a_fresh_operator(self, shop: Shop, task_run: Any):
        trigger = deferred(operator(deferrable=True), task_run)
        shop.finish()
        outcome = operator().execute_complete(task_run.context, to_event(trigger))
        assert outcome["status"]["counts"] == {"total": 10, "succeeded": 10, "failed": 0}
        assert task_run.state[RECORD]["ending"] == "accepted"

    @pytest.mark.parametrize(("allowed", "ok"), [(2, False), (3, True), ("30%", True), (0.2, False)])
    def test_allowed_failures_decide_over_a_partial_job(self, shop: Shop, task_run: Any, allowed: Any, ok: bool):
        trigger = deferred(operator(deferrable=True), task_run)
        shop.finish(spoiled=3)
        event = to_event(trigger)
        if ok:
            outcome = operator(allowed_failures=allowed).execute_complete(task_run.context, event)
            assert outcome["status"]["state"] == "partial"
            return
        with pytest.raises(AirflowFailException, match="3 failed"):
            operator(allowed_failures=allowed).execute_complete(task_run.context, event)
        # What is paid for is there for a more generous second run.
        assert operator(allowed_failures=3).execute(task_run.context)["ref"]["id"] == "p0"

    def test_what_the_service_broke_is_retried_as_a_new_job(self, shop: Shop, task_run: Any):
        trigger = deferred(operator(deferrable=True), task_run)
        shop.finish("jammed")
        with pytest.raises(JobLostError):
            operator().execute_complete(task_run.context, to_event(trigger))
        deferred(operator(deferrable=True), task_run)
        assert posts(shop) == 2

    def test_silence_leaves_the_job_alone_and_a_retry_attaches(self, shop: Shop, task_run: Any, monkeypatch: Any):
        trigger = deferred(operator(deferrable=True, patience=0.0), task_run)
        connect(monkeypatch, "http://127.0.0.1:9")
        with pytest.raises(TransientError, match="attaches to it again"):
            operator().execute_complete(task_run.context, to_event(trigger))
        assert task_run.state[RECORD]["ending"] is None


def interrupted(monkeypatch: pytest.MonkeyPatch, interrupt: Callable[[], None]) -> None:
    """Have something happen during the first poll of the wait."""
    from slowprint.service import PrintService

    status = PrintService.status
    happened: list[str] = []

    def poll(self: Any, ref: Any) -> Any:
        if not happened:
            happened.append(ref.id)
            interrupt()
        return (yield from status(self, ref))

    monkeypatch.setattr(PrintService, "status", poll)


def test_killing_a_waiting_worker_cancels_the_job(shop: Shop, task_run: Any, monkeypatch: pytest.MonkeyPatch):
    task = operator()
    interrupted(monkeypatch, task.on_kill)
    with pytest.raises(AirflowFailException, match="withdrawn"):
        task.execute(task_run.context)
    assert shop.orders[0]["status"] == "withdrawn"


@pytest.mark.parametrize("off", [False, "False"])
def test_killing_a_waiting_worker_can_leave_the_job_running(
    shop: Shop, task_run: Any, monkeypatch: pytest.MonkeyPatch, off: Any
):
    task = operator(cancel_on_kill=off, deadline=0.05, cancel_on_deadline=False)
    interrupted(monkeypatch, task.on_kill)
    with pytest.raises(DeadlineExceededError):
        task.execute(task_run.context)
    assert ("POST", "/orders/p0/withdraw") not in shop.requests


def test_killing_a_task_that_does_not_wait_does_nothing(shop: Shop):
    operator().on_kill()
    assert shop.requests == []


class TestExecutionTimeout:
    def run_out_of_time(self, task: PrintOperator, task_run: Any, monkeypatch: pytest.MonkeyPatch) -> None:
        """Do what Airflow's task runner does when ``execution_timeout`` passes."""

        def passed() -> None:
            raise AirflowTaskTimeout("Timeout")

        with monkeypatch.context() as patch:
            # The time passes while it waits, not while it attaches.
            wait = Attempt.wait

            def wait_interrupted(self: Any, record: Any) -> Any:
                interrupted(patch, passed)
                return wait(self, record)

            patch.setattr(Attempt, "wait", wait_interrupted)
            try:
                task.execute(task_run.context)
            except AirflowTaskTimeout:
                task.on_kill()
            else:
                pytest.fail("it did not pass")

    def test_it_ends_the_try_and_not_the_job_and_the_retry_attaches(
        self, shop: Shop, task_run: Any, monkeypatch: pytest.MonkeyPatch
    ):
        for _ in range(3):
            self.run_out_of_time(operator(), task_run, monkeypatch)
        assert shop.orders[0]["status"] == "waiting"
        shop.finish()
        assert operator().execute(task_run.context)["ref"]["id"] == "p0"
        assert posts(shop) == 1

    def test_it_ends_a_deferred_try_in_the_same_way(self, shop: Shop, task_run: Any):
        task = operator(deferrable=True, execution_timeout=timedelta(microseconds=1))
        trigger = deferred(task, task_run)
        with pytest.raises(DeadlineExceededError, match=r"execution_timeout.*a retry attaches to it"):
            operator().execute_complete(task_run.context, to_event(trigger))
        assert shop.orders[0]["status"] == "waiting"
        shop.finish()
        assert operator().execute(task_run.context)["ref"]["id"] == "p0"
        assert posts(shop) == 1


class TestParametersAsText:
    """What a template makes of a parameter is text."""

    def test_all_of_them_are_read(self, shop: Shop, task_run: Any):
        text = {
            "poll_interval": "0.01",
            "deadline": "PT1H",
            "patience": "60",
            "cancel_on_deadline": "False",
            "cancel_on_kill": "False",
            "allowed_failures": "10%",
            "on_changed_spec": "restart",
        }
        trigger = deferred(operator(deferrable=True, **text), task_run)
        submitted = datetime.fromisoformat(task_run.state[RECORD]["submitted_at"]).timestamp()
        assert (trigger.poll_interval, trigger.deadline, trigger.patience) == (0.01, submitted + 3600, 60.0)
        assert (trigger.cancel_on_deadline, trigger.cancel_on_kill) == (False, False)

    @pytest.mark.parametrize(
        "parameter",
        [
            {"poll_interval": "soon"},
            {"poll_interval": 0},
            {"poll_interval": float("nan")},
            {"deadline": "-1"},
            {"patience": "inf"},
            {"cancel_on_deadline": "perhaps"},
            {"cancel_on_kill": ""},
            {"wait_for_completion": "maybe"},
            {"deferrable": "maybe"},
            {"durable": "maybe"},
            {"on_changed_spec": "ask"},
            {"allowed_failures": "True"},
        ],
        ids=lambda parameter: next(iter(parameter)),
    )
    def test_what_is_none_is_refused_before_anything_is_asked_or_submitted(
        self, shop: Shop, task_run: Any, parameter: dict[str, Any]
    ):
        with pytest.raises(AirflowFailException, match=f"{next(iter(parameter))}=.*Nothing was submitted"):
            operator(**parameter).execute(task_run.context)
        assert shop.requests == []
        assert not task_run.state


class TestFailing:
    def test_a_failed_task_leaves_its_reference_and_where_the_results_are(self, shop: Shop, task_run: Any):
        trigger = deferred(operator(deferrable=True), task_run)
        shop.finish(spoiled=3)
        with pytest.raises(AirflowFailException):
            operator().execute_complete(task_run.context, to_event(trigger))
        left = task_run.xcoms["return_value"]
        assert left["ref"]["id"] == "p0"
        assert left["status"]["counts"]["failed"] == 3
        assert left["results"]["files"][0]["uri"] == "s3://b/novel.printed"

    def test_a_task_that_gives_up_leaves_its_reference(self, shop: Shop, task_run: Any):
        with pytest.raises(DeadlineExceededError):
            operator(deadline=0.05).execute(task_run.context)
        assert task_run.xcoms["return_value"]["ref"]["id"] == "p0"


class TestMissingJob:
    def test_a_404_right_after_the_submit_costs_nothing(self, shop: Shop, task_run: Any):
        shop.status_after_order, shop.forget_polls = "printed", 1
        assert operator().execute(task_run.context)["ref"]["id"] == "p0"
        assert posts(shop) == 1

    def test_a_job_that_never_answers_is_final_and_not_paid_for_again(self, shop: Shop, task_run: Any):
        shop.forget_polls = 1_000
        shop.hide_from_list = True
        with pytest.raises(AirflowFailException, match="another address or account"):
            operator().execute(task_run.context)
        assert posts(shop) == 1

    def test_a_job_that_is_listed_is_waited_for_although_its_own_address_has_none(self, shop: Shop, task_run: Any):
        shop.forget_polls = 1_000
        with pytest.raises(TransientError, match="lists slowprint job p0"):
            operator(patience=0).execute(task_run.context)
        assert task_run.state[RECORD]["ending"] is None
        assert posts(shop) == 1

    def test_a_trigger_finds_it_in_the_list_too(self, shop: Shop, task_run: Any):
        trigger = deferred(operator(deferrable=True, patience=0), task_run)
        shop.forget_polls = 1_000
        with pytest.raises(TransientError, match="lists slowprint job p0"):
            operator().execute_complete(task_run.context, to_event(trigger))
        assert task_run.state[RECORD]["ending"] is None

    def test_a_job_that_a_trigger_loses_is_submitted_again_by_the_retry(self, shop: Shop, task_run: Any):
        trigger = deferred(operator(deferrable=True), task_run)
        shop.orders.clear()
        with pytest.raises(JobLostError):
            operator().execute_complete(task_run.context, to_event(trigger))
        deferred(operator(deferrable=True), task_run)
        assert posts(shop) == 2


class TestVersion1:
    """What the first version left in Airflow's database goes on."""

    VERSION_1: dict[str, Any] = json.loads((Path(__file__).parents[1] / "version_1.json").read_text())

    def test_its_trigger_runs_and_its_task_goes_on(self, shop: Shop, task_run: Any):
        shop.orders.append({"id": "p0", "name": "n", "text": "s3://b/novel", "pages": 10, "spoiled": 0})
        shop.orders[0]["status"] = "printed"
        path, arguments = self.VERSION_1["trigger"]
        module, _, name = path.rpartition(".")
        trigger = getattr(import_module(module), name)(**arguments)
        outcome = operator().execute_complete(task_run.context, to_event(trigger))
        assert outcome["results"]["files"][0]["uri"] == "s3://b/novel.printed"
        assert task_run.state[RECORD]["ending"] == "accepted"

    def test_its_event_is_read(self, shop: Shop, task_run: Any):
        shop.orders.append({"id": "p0", "name": "n", "text": "s3://b/novel", "pages": 3, "spoiled": 2})
        shop.orders[0]["status"] = "jammed"
        with pytest.raises(JobLostError, match="fault is the service's"):
            operator().execute_complete(task_run.context, self.VERSION_1["event"])
        assert task_run.state[RECORD]["ending"] == "finished"
