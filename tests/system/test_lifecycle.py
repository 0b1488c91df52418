"""
Every exit of a job's life, in a real Airflow and with real kills.

``docs/lifecycle.md`` says what each of these tests holds.
"""

from __future__ import annotations

import os
import signal
from collections.abc import Callable, Mapping
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from .accounts import Account
from .conftest import Services, Standalone
from .console import Run, eventually

Accounts = Callable[[str], Account]


def states(batches: list[dict[str, Any]]) -> list[str]:
    return [batch["status"] for batch in batches]


def generations(batches: list[dict[str, Any]]) -> list[int]:
    return [int(batch["metadata"]["overnight_name"].split("-g")[1].split("-")[0]) for batch in batches]


def until(account: Account, dag_id: str, *wanted: str) -> list[dict[str, Any]]:
    """Wait until the batches of a DAG are in these states, the oldest first."""
    return eventually(
        lambda: batches if states(batches := account.batches(dag_id)) == list(wanted) else [],
        why=f"the batches of {dag_id} are {wanted}; they are {states(account.batches(dag_id))}",
    )


@pytest.fixture(scope="module", autouse=True)
def forgotten(runs: Mapping[str, Run], services: Services) -> dict[str, dict[str, Any]]:
    """
    By DAG, the batch of a job that its service forgot, or is silent about.

    Before the first test, because it takes half a minute until a job is taken for lost.
    """
    by_dag = {run.dag_id: run for run in runs.values()}
    before: dict[str, dict[str, Any]] = {}
    for dag_id, name in {"lost": "forgetful", "poll_gives_up": "silent"}.items():
        if dag_id in by_dag:
            by_dag[dag_id].wait("deferred")
            (before[dag_id],) = services.accounts[name].batches(dag_id)
            services.accounts[name].stop()
    if "lost" in before:
        services.accounts["forgetful"].start(data="nothing")
        services.accounts["forgetful"].let_go()
    return before


# --- The worker dies -----------------------------------------------------------------------------------------------


@pytest.mark.dag_run("dies_before_submit")
def test_a_worker_that_dies_before_the_submit_costs_nothing(run: Run, account: Accounts) -> None:
    assert run.finish() == "success", run.logs()
    assert run.task()["try_number"] == 2
    assert generations(account("quick").batches(run.dag_id)) == [0]


@pytest.mark.dag_run("dies_after_submit")
def test_a_worker_that_dies_between_the_answer_and_the_record_pays_once(run: Run, account: Accounts) -> None:
    assert run.finish() == "success", run.logs()
    assert run.task()["try_number"] == 2
    (batch,) = account("quick").batches(run.dag_id)
    assert run.xcom()["ref"]["id"] == batch["id"]
    assert run.record()["ref"]["id"] == batch["id"]
    assert "was created by an earlier try that died before recording it" in run.log()


@pytest.mark.dag_run("not_durable")
def test_a_job_that_is_not_durable_is_paid_for_by_every_try(run: Run, account: Accounts) -> None:
    assert run.finish() == "success", run.logs()
    batches = account("quick").batches(run.dag_id)
    assert len(batches) == 2
    assert run.xcom()["ref"]["id"] == batches[1]["id"]


@pytest.mark.dag_run("worker_dies")
def test_a_worker_that_dies_while_it_waits_is_followed_by_one_that_attaches(
    run: Run, account: Accounts, released: Account
) -> None:
    assert run.finish() == "success", run.logs()
    assert run.task()["try_number"] == 2
    (batch,) = released.batches(run.dag_id)
    assert run.xcom()["ref"]["id"] == batch["id"]
    assert "was submitted by an earlier try and is running" in run.log()


# --- The triggerer dies, and the deadline --------------------------------------------------------------------------


@pytest.fixture(scope="module")
def held(runs: Mapping[str, Run], services: Services, airflow: Standalone) -> dict[str, str]:
    """The batches of deferred tasks whose triggerer was killed and replaced, and of one whose worker was killed."""
    by_dag = {run.dag_id: run for run in runs.values()}
    before: dict[str, str] = {}
    for dag_id, name in {"triggerer_dies": "held", "deadline_and_triggerer": "stuck"}.items():
        if dag_id in by_dag:
            by_dag[dag_id].wait("deferred", "failed")
            (batch,) = services.accounts[name].batches(dag_id)
            before[dag_id] = batch["id"]
    airflow.kill_triggerer()
    airflow.start_triggerer()
    if "worker_dies" in by_dag:
        waiting = by_dag["worker_dies"]
        waiting.wait("running")
        (batch,) = eventually(lambda: services.accounts["held"].batches("worker_dies"), why="a batch to wait for")
        eventually(lambda: "Waiting for" in waiting.log(number=1), why="the worker waits")
        os.kill(waiting.task()["pid"], signal.SIGKILL)
        before["worker_dies"] = batch["id"]
        waiting.wait("running", beyond=1)
        eventually(lambda: "Waiting for" in waiting.log(number=2), why="another worker waits")
    return before


@pytest.fixture(scope="module")
def released(held: dict[str, str], services: Services) -> Account:
    """The account whose batches went on only after the kills."""
    services.accounts["held"].let_go()
    return services.accounts["held"]


@pytest.mark.dag_run("triggerer_dies")
def test_a_triggerer_that_dies_is_followed_by_one_that_goes_on_watching(
    run: Run, held: dict[str, str], released: Account
) -> None:
    assert run.finish() == "success", run.logs()
    assert run.task()["try_number"] == 1
    (batch,) = released.batches(run.dag_id)
    assert held[run.dag_id] == batch["id"] == run.xcom()["ref"]["id"]


@pytest.mark.dag_run("deadline_and_triggerer")
def test_the_deadline_counts_from_the_submit_whatever_becomes_of_triggerers(
    run: Run, held: dict[str, str], account: Accounts
) -> None:
    run.wait("failed")
    (batch,) = until(account("stuck"), run.dag_id, "cancelled")
    assert held[run.dag_id] == batch["id"]
    deadline = datetime.fromisoformat(run.record()["submitted_at"]) + timedelta(seconds=30)
    assert batch["cancelling_at"] >= int(deadline.timestamp())
    assert f"was not over by its deadline, {deadline.isoformat(timespec='seconds')}" in run.log()


@pytest.mark.dag_run("deadline_retried")
def test_a_missed_deadline_cancels_the_job_and_a_retry_submits_a_new_one(run: Run, account: Accounts) -> None:
    assert run.finish() == "failed"
    assert generations(until(account("stuck"), run.dag_id, "cancelled", "cancelled")) == [0, 1]


@pytest.mark.dag_run("deadline_spared")
def test_a_missed_deadline_can_leave_the_job_running_for_the_retry(run: Run, released: Account) -> None:
    assert run.finish() == "success", run.logs()
    assert run.task()["try_number"] > 1
    assert states(released.batches(run.dag_id)) == ["completed"]


# --- Somebody marks or clears the task -----------------------------------------------------------------------------


@pytest.mark.parametrize(
    "state",
    [
        pytest.param("failed", marks=pytest.mark.dag_run("marked_failed")),
        pytest.param("success", marks=pytest.mark.dag_run("marked_success")),
    ],
)
def test_marking_a_deferred_task_cancels_its_job(state: str, run: Run, account: Accounts) -> None:
    run.wait("deferred")
    run.mark(state)
    until(account("stuck"), run.dag_id, "cancelled")
    assert run.task()["state"] == state


@pytest.mark.dag_run("marked_spared")
def test_marking_a_deferred_task_can_leave_the_job_running(run: Run, account: Accounts) -> None:
    run.wait("deferred")
    run.mark("failed")
    eventually(lambda: "is left running" in run.log(), why="the trigger says that it leaves the job alone")
    assert states(account("stuck").batches(run.dag_id)) == ["in_progress"]


@pytest.mark.dag_run("marked_on_worker")
def test_marking_a_task_that_waits_on_a_worker_cancels_its_job(run: Run, account: Accounts) -> None:
    run.wait("running")
    eventually(lambda: "Waiting for" in run.log(), why="the worker waits")
    run.mark("failed")
    until(account("stuck"), run.dag_id, "cancelled")


@pytest.mark.dag_run("cleared_deferred")
def test_clearing_a_deferred_task_cancels_its_job_and_submits_a_new_generation(run: Run, account: Accounts) -> None:
    run.wait("deferred")
    run.clear()
    batches = until(account("stuck"), run.dag_id, "cancelled", "in_progress")
    assert generations(batches) == [0, 1]
    run.wait("deferred", beyond=1)


@pytest.mark.dag_run("cleared_early")
def test_a_task_that_is_cleared_waits_for_its_trigger_to_cancel_the_job(
    run: Run, account: Accounts, folder: Path
) -> None:
    run.wait("deferred")
    run.clear()
    run.wait("running", beyond=1)
    eventually(lambda: "waiting for the trigger to cancel" in run.log(number=2), why="the worker waits")
    (folder / "may-cancel").touch()
    run.wait("deferred", beyond=1)
    assert generations(until(account("stuck"), run.dag_id, "cancelled", "in_progress")) == [0, 1]


@pytest.mark.dag_run("cleared_on_worker")
def test_clearing_a_task_that_waits_on_a_worker_cancels_its_job_and_submits_a_new_generation(
    run: Run, account: Accounts
) -> None:
    run.wait("running")
    eventually(lambda: "Waiting for" in run.log(), why="the worker waits")
    run.clear()
    assert generations(until(account("stuck"), run.dag_id, "cancelled", "in_progress")) == [0, 1]
    run.mark("failed")


@pytest.mark.dag_run("cleared_finished")
def test_clearing_a_finished_task_submits_a_new_generation(run: Run, account: Accounts) -> None:
    assert run.finish() == "success", run.logs()
    first = run.xcom()["ref"]["id"]
    run.clear()
    run.wait("success", beyond=1)
    batches = account("quick").batches(run.dag_id)
    assert generations(batches) == [0, 1]
    assert [first, run.xcom()["ref"]["id"]] == [batch["id"] for batch in batches]


@pytest.mark.dag_run("cleared_reused")
def test_clearing_a_finished_task_can_go_on_with_its_results(run: Run, account: Accounts) -> None:
    assert run.finish() == "success", run.logs()
    first = run.xcom()
    run.clear()
    run.wait("success", beyond=1)
    assert "on_clear is 'reuse'" in run.logs()
    assert generations(account("quick").batches(run.dag_id)) == [0]
    assert run.xcom() == first


@pytest.mark.dag_run("cleared_reused_gone")
def test_clearing_a_finished_task_submits_anew_when_its_results_are_gone(run: Run, account: Accounts) -> None:
    assert run.finish() == "success", run.logs()
    (batch,) = account("quick").batches(run.dag_id)
    account("quick").delete_file(batch["output_file_id"])
    run.clear()
    run.wait("success", beyond=1)
    assert generations(account("quick").batches(run.dag_id)) == [0, 1]


# --- The spec changes ----------------------------------------------------------------------------------------------


@pytest.mark.dag_run("changed_refused")
def test_a_changed_spec_is_refused_and_the_job_left_alone(run: Run, account: Accounts) -> None:
    assert run.finish() == "failed"
    assert run.task()["try_number"] == 2
    assert "submitted with another spec" in run.log()
    assert "on_changed_spec='restart'" in run.log()
    assert states(account("stuck").batches(run.dag_id)) == ["in_progress"]


@pytest.mark.dag_run("changed_restarted")
def test_a_changed_spec_can_replace_the_job(run: Run, account: Accounts) -> None:
    batches = until(account("stuck"), run.dag_id, "cancelled", "in_progress")
    assert generations(batches) == [0, 1]
    assert [batch["metadata"]["try"] for batch in batches] == ["1", "2"]


# --- The service is silent, refuses, or loses the job --------------------------------------------------------------


@pytest.mark.dag_run("poll_gives_up")
def test_a_watch_that_gives_up_leaves_the_job_and_a_retry_attaches(
    run: Run, account: Accounts, forgotten: dict[str, dict[str, Any]]
) -> None:
    run.wait("up_for_retry", "scheduled", "queued", "running", beyond=1)
    account("silent").start()
    account("silent").let_go()
    assert run.finish() == "success", run.logs()
    (batch,) = account("silent").batches(run.dag_id)
    assert run.xcom()["ref"]["id"] == batch["id"] == forgotten[run.dag_id]["id"]
    assert "a retry attaches to it again" in run.logs()


@pytest.mark.dag_run("wrong_key")
def test_a_wrong_key_fails_the_task_without_a_retry(run: Run, account: Accounts) -> None:
    assert run.finish() == "failed"
    assert run.task()["try_number"] == 1
    assert "401" in run.log()
    assert account("quick").batches(run.dag_id) == []


@pytest.mark.dag_run("key_rotated")
def test_a_key_that_is_revoked_fails_the_task_and_clearing_it_attaches(run: Run, account: Accounts) -> None:
    run.wait("deferred")
    account("rotated").stop()
    account("rotated").start(key="sk-another")
    assert run.finish() == "failed"
    assert run.task()["try_number"] == 1
    assert "was left as it is; mend that and clear the task" in run.log()
    account("rotated").stop()
    account("rotated").start()
    account("rotated").let_go()
    run.clear()
    run.wait("success", beyond=1)
    (batch,) = account("rotated").batches(run.dag_id)
    assert run.xcom()["ref"]["id"] == batch["id"]


@pytest.mark.dag_run("lost")
def test_a_job_that_the_service_forgot_is_submitted_again_by_the_retry(
    run: Run, account: Accounts, forgotten: dict[str, dict[str, Any]]
) -> None:
    assert run.finish() == "success", run.logs()
    (batch,) = account("forgetful").batches(run.dag_id)
    assert generations([forgotten[run.dag_id], batch]) == [0, 1]
    assert "is lost; a retry submits the work again" in run.log(number=1)


@pytest.mark.dag_run("expired")
def test_an_expired_job_is_submitted_again_by_the_retry(run: Run, account: Accounts) -> None:
    assert run.finish() == "success", run.logs()
    batches = account("expiring").batches(run.dag_id)
    assert (states(batches), generations(batches)) == (["expired", "completed"], [0, 1])
    assert run.xcom()["ref"]["id"] == batches[1]["id"]


@pytest.mark.dag_run("broken")
def test_a_job_that_failed_at_the_service_is_submitted_again_by_the_retry(run: Run, account: Accounts) -> None:
    assert run.finish() == "success", run.logs()
    batches = account("broken").batches(run.dag_id)
    assert (states(batches), generations(batches)) == (["failed", "completed"], [0, 1])


@pytest.mark.dag_run("bad_input")
def test_a_job_that_failed_for_its_input_is_not_tried_again(run: Run, account: Accounts) -> None:
    assert run.finish() == "failed"
    assert run.task()["try_number"] == 1
    assert states(account("quick").batches(run.dag_id)) == ["failed"]
    assert "The fault is in the input. Mend that and clear the task." in run.log()


@pytest.mark.dag_run("refused_input")
def test_bad_input_is_refused_before_anything_is_uploaded(run: Run, account: Accounts) -> None:
    assert run.finish() == "failed"
    assert run.task()["try_number"] == 1
    assert "line 11" in run.log()
    assert account("quick").batches(run.dag_id) == []


@pytest.mark.dag_run("cancelled_elsewhere")
def test_a_job_that_somebody_else_cancelled_is_not_submitted_again_by_a_retry(run: Run, account: Accounts) -> None:
    run.wait("deferred")
    (batch,) = account("stuck").batches(run.dag_id)
    account("stuck").cancel(batch["id"])
    assert run.finish() == "failed"
    assert run.task()["try_number"] == 1
    assert states(account("stuck").batches(run.dag_id)) == ["cancelled"]
    assert "It was not this task that cancelled it" in run.log()
    run.clear()
    run.wait("deferred", beyond=1)
    assert generations(account("stuck").batches(run.dag_id)) == [0, 1]


# --- The job is over, and not all is well --------------------------------------------------------------------------


@pytest.mark.dag_run("too_many_failed")
def test_too_many_failed_lines_fail_the_task_and_a_larger_allowance_goes_on_with_the_same_job(
    run: Run, account: Accounts, airflow: Standalone
) -> None:
    assert run.finish() == "failed"
    assert run.task()["try_number"] == 1
    assert "Raise allowed_failures and clear the task" in run.log()
    airflow.console.post("/variables", {"key": "too_many_failed", "value": "2"})
    run.clear()
    run.wait("success", beyond=1)
    (batch,) = account("lossy").batches(run.dag_id)
    assert run.xcom()["ref"]["id"] == batch["id"]


@pytest.mark.dag_run("some_failed")
def test_as_many_failed_lines_as_are_allowed_are_a_success(run: Run, account: Accounts) -> None:
    assert run.finish() == "success", run.logs()
    status = run.xcom()["status"]
    assert (status["state"], status["counts"]) == ("partial", {"total": 10, "succeeded": 8, "failed": 1})


@pytest.mark.dag_run("lapsed")
def test_results_that_lapsed_fail_at_once_and_clearing_the_job_gets_them_anew(run: Run, account: Accounts) -> None:
    assert run.finish() == "success", run.logs("results")
    assert run.xcom()["status"]["results_expire_at"] is not None
    account("aging").advance(2 * 3600)
    run.clear("results")
    assert run.finish() == "failed"
    assert run.task("results")["try_number"] == 2
    assert "404" in run.log("results")
    run.clear("job")
    run.wait("success", beyond=1)
    # The results have still failed, and so has the run.
    assert run.finish() == "failed"
    run.clear("results")
    assert run.finish() == "success", run.logs("results")
    assert run.task("results")["try_number"] == 3
    assert generations(account("aging").batches(run.dag_id)) == [0, 1]


# --- Somebody else waits -------------------------------------------------------------------------------------------


@pytest.mark.dag_run("handed_over")
def test_a_job_that_is_handed_over_is_awaited_by_sensors_and_submitted_anew_once_it_is_over(
    run: Run, account: Accounts
) -> None:
    assert run.finish() == "success", run.logs("poked") + run.logs("deferred")
    (batch,) = account("quick").batches(run.dag_id)
    for sensor in ("poked", "deferred"):
        assert run.xcom(sensor)["ref"]["id"] == batch["id"]
        assert run.xcom(sensor)["status"]["state"] == "succeeded"
    run.clear()
    run.wait("success", beyond=1)
    assert generations(account("quick").batches(run.dag_id)) == [0, 1]


@pytest.mark.dag_run("called_off")
def test_the_cancel_operator_ends_a_job_that_runs(run: Run, account: Accounts) -> None:
    assert run.finish() == "success", run.logs("cancel")
    until(account("stuck"), run.dag_id, "cancelled")
