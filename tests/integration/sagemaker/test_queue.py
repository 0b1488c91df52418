"""More transform jobs than the account has instances for: none fails, each has its turn."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from urllib.parse import urlsplit

import pytest

from integration.task_instances import Task, run_all
from overnight.operators.sagemaker import SageMakerBatchTransformOperator
from overnight.sandbox.services import SERVICES

from .conftest import Account

JOBS = 5
QUOTA = 2


@pytest.mark.parametrize("budget", [None, {"instances": 1}], ids=["the quota", "the users budget"])
def test_jobs_that_there_are_no_instances_for_wait_their_turn(
    account: Account,
    sagemaker_url: str,
    s3_endpoint: str,
    monkeypatch: pytest.MonkeyPatch,
    tmp_path: Path,
    budget: dict[str, int] | None,
) -> None:
    environment = {
        **SERVICES["s3"].environment(urlsplit(s3_endpoint).port or 0),
        **SERVICES["sagemaker"].environment(urlsplit(sagemaker_url).port or 0),
    }
    for name, value in environment.items():
        monkeypatch.setenv(name, value)
    account.limits(instances=QUOTA)
    # No job ends before the others wait.
    account.pace(starting=600.0)
    for number in range(JOBS):
        account.put_lines(f"in-{number}/1.jsonl", "sea")

    def build(number: int) -> Callable[[], SageMakerBatchTransformOperator]:
        return lambda: SageMakerBatchTransformOperator(
            task_id="embed",
            model_name=account.model,
            input_uri=account.uri(f"in-{number}/"),
            output_uri=account.uri(f"out-{number}/"),
            instance_type="ml.m5.large",
            content_type="application/json",
            accept="application/json",
            split_type="Line",
            assemble_with="Line",
            strategy="SingleRecord",
            input_filter="$.content",
            join_source="Input",
            poll_interval=0.3,
            deferrable=True,
            budget=budget,
        )

    tasks = [Task(build(number), str(tmp_path), number) for number in range(JOBS)]
    outcomes = run_all(tasks, waiting=JOBS - QUOTA, let_go=lambda: account.pace(starting=0.0))

    assert [outcome["status"]["state"] for outcome in outcomes] == ["succeeded"] * JOBS
    assert len({outcome["ref"]["id"] for outcome in outcomes}) == JOBS
    assert any(task.rooms for task in tasks)
    statuses = [call["status"] for call in account.calls("CreateTransformJob")]
    assert statuses.count(200) == JOBS
    # Within a budget nothing has to be refused.
    assert (400 in statuses) is (budget is None)
