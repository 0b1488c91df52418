from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from overnight.jobs import FailureCause, JobState
from overnight.services.ml_commons.status import STUCK_AFTER, parse_cause, read_ingestion, read_prediction

NOW = datetime(2026, 11, 23, tzinfo=UTC)


def _task(state: str, remote: dict[str, Any] | None = None, age: timedelta = timedelta(), **fields: Any) -> Any:
    created = int((NOW - age).timestamp() * 1000)
    return {"state": state, "create_time": created, **({"remote_job": remote} if remote else {}), **fields}


def _batch(status: str, total: float, completed: float, failed: float) -> dict[str, Any]:
    # The plugin makes every number of a remote answer a float.
    counts = {"total": total, "completed": completed, "failed": failed}
    return {"object": "batch", "id": "b", "status": status, "request_counts": counts, "dlq": None}


@pytest.mark.parametrize(
    ("task", "state"),
    [
        (_task("RUNNING", _batch("validating", 0.0, 0.0, 0.0)), JobState.QUEUED),
        (_task("RUNNING", _batch("in_progress", 3.0, 1.0, 0.0)), JobState.RUNNING),
        (_task("COMPLETED", _batch("completed", 3.0, 3.0, 0.0)), JobState.SUCCEEDED),
        (_task("COMPLETED", _batch("completed", 3.0, 2.0, 1.0)), JobState.PARTIAL),
        # Completed, and without any output: nothing of it is a success.
        (_task("COMPLETED", {**_batch("completed", 0.0, 0.0, 0.0), "output_file_id": None}), JobState.FAILED),
        # A cancelled task stays RUNNING for a while.
        (_task("RUNNING", _batch("cancelling", 3.0, 1.0, 0.0)), JobState.CANCELLING),
        (_task("EXPIRED", _batch("expired", 3.0, 1.0, 0.0)), JobState.EXPIRED),
        (_task("UNREACHABLE", _batch("in_progress", 3.0, 1.0, 0.0)), JobState.RUNNING),
        (_task("UNREACHABLE", _batch("completed", 1.0, 1.0, 0.0)), JobState.SUCCEEDED),
        (_task("UNREACHABLE"), JobState.RUNNING),
        (_task("CREATED", {"TransformJobArn": "arn:x/n"}), JobState.QUEUED),
        (_task("RUNNING", {"TransformJobStatus": "InProgress"}), JobState.RUNNING),
        (_task("COMPLETED", {"TransformJobStatus": "Completed"}), JobState.SUCCEEDED),
        (_task("RUNNING", {"TransformJobStatus": "Stopping"}), JobState.CANCELLING),
        (_task("CANCELLED", {"TransformJobStatus": "Stopped"}), JobState.CANCELLED),
        (_task("COMPLETED", {"status": "PartiallyCompleted"}), JobState.PARTIAL),
        (_task("COMPLETED", {"status": "complete", "job_id": "j"}), JobState.SUCCEEDED),
        (_task("RUNNING", {"status": "something new"}), JobState.RUNNING),
        (_task("CREATED"), JobState.QUEUED),
    ],
)
def test_the_remote_job_counts_before_the_tasks_own_state(task: Any, state: JobState) -> None:
    assert read_prediction(task, NOW).state is state


def test_a_batch_without_any_output_is_not_paid_for_again_by_a_retry() -> None:
    status = read_prediction(_task("COMPLETED", {**_batch("completed", 3.0, 0.0, 3.0), "output_file_id": None}))
    assert (status.state, status.cause) == (JobState.FAILED, None)
    assert "does not say why" in status.warnings[0]


def test_counts_are_whole_numbers() -> None:
    counts = read_prediction(_task("COMPLETED", _batch("completed", 3.0, 2.0, 1.0))).counts
    assert counts.model_dump_json() == '{"total":3,"succeeded":2,"failed":1}'


def test_a_prediction_that_stays_created_without_a_remote_job_is_lost() -> None:
    status = read_prediction(_task("CREATED", age=STUCK_AFTER * 2), NOW)
    assert (status.state, status.cause) == (JobState.FAILED, FailureCause.SERVICE)


def test_a_failed_transform_job_says_why_and_who_can_mend_it() -> None:
    remote = {"TransformJobStatus": "Failed", "FailureReason": "AlgorithmError: See job logs"}
    status = read_prediction(_task("FAILED", remote))
    assert (status.state, status.cause) == (JobState.FAILED, FailureCause.INPUT)
    assert "AlgorithmError" in status.describe()


def test_an_ingestion_that_every_node_outlived_died_with_its_own() -> None:
    task = _task("CREATED", age=timedelta(hours=1))
    since = NOW - timedelta(hours=1)
    assert read_ingestion(task).state is JobState.RUNNING
    assert read_ingestion(task, (since - timedelta(days=1), NOW)).state is JobState.RUNNING
    lost = read_ingestion(task, (since + timedelta(minutes=1), NOW))
    assert (lost.state, lost.cause) == (JobState.FAILED, FailureCause.SERVICE)


@pytest.mark.parametrize(
    ("error", "cause"),
    [
        ("region must not be null.", FailureCause.CREDENTIALS),
        ("Access key ID cannot be blank.", FailureCause.CREDENTIALS),
        ("Access Denied (Service: S3, Status Code: 403)", FailureCause.CREDENTIALS),
        ("The specified bucket does not exist (Service: S3, Status Code: 404)", FailureCause.INPUT),
        ("Missing property in path $['x']", FailureCause.INPUT),
        ("Can't find class for type zzz", FailureCause.INPUT),
        ("rejected execution of primary operation [coordinating_and_primary_bytes=…]", FailureCause.LIMITS),
        ("We are out of ideas", None),
    ],
)
def test_an_ingestions_error_says_who_can_mend_it(error: str, cause: FailureCause | None) -> None:
    assert parse_cause(error) is cause
    assert read_ingestion(_task("FAILED", error=error)).cause is cause
