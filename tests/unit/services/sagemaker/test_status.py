from __future__ import annotations

from datetime import UTC, datetime
from typing import Any

import pytest

from overnight.errors import CredentialsError, RequestRefusedError, UnavailableError
from overnight.jobs import FailureCause, JobKey, JobRef, JobState
from overnight.services.sagemaker.results import TransformOutputs
from overnight.services.sagemaker.service import SageMakerTransformService
from overnight.services.sagemaker.status import parse_cause, read_status

REF = JobRef(service="sagemaker", id="job-1", conn_id="aws_default")
BAD = "ClientError: See job logs for more information"


def made(good: int, bad: int) -> TransformOutputs:
    outputs = tuple((f"s3://b/in/{number}", f"s3://b/out/{number}.out") for number in range(good))
    return TransformOutputs("s3://b/in/", outputs, tuple(f"s3://b/in/bad-{number}" for number in range(bad)))


@pytest.mark.parametrize(
    ("word", "came", "state"),
    [
        ("InProgress", None, JobState.RUNNING),
        ("Stopping", None, JobState.CANCELLING),
        ("Stopped", None, JobState.CANCELLED),
        ("Completed", made(3, 0), JobState.SUCCEEDED),
        ("Completed", made(2, 1), JobState.PARTIAL),
        ("Completed", made(0, 1), JobState.FAILED),
        ("Completed", None, JobState.SUCCEEDED),
        ("Failed", made(2, 1), JobState.PARTIAL),
        ("Failed", made(0, 3), JobState.FAILED),
        ("Failed", made(3, 0), JobState.FAILED),
        ("Failed", None, JobState.FAILED),
        ("Reconsidering", None, JobState.RUNNING),
    ],
)
def test_the_state_follows_the_word_and_the_outputs(word: str, came: TransformOutputs | None, state: JobState) -> None:
    status = read_status({"TransformJobStatus": word}, came)
    assert (status.state, status.raw) == (state, word)


@pytest.mark.parametrize(
    ("reason", "cause"),
    [
        (BAD, FailureCause.INPUT),
        ("AlgorithmError: See job logs for more information", FailureCause.INPUT),
        ("Unable to get response from algorithm", FailureCause.INPUT),
        ("InternalServerError: We encountered an internal error. Please try again.", FailureCause.SERVICE),
        ("Internal error. Please try again.", FailureCause.SERVICE),
        ("CapacityError: Unable to provision requested ML compute capacity.", FailureCause.SERVICE),
        ("ResourceLimitExceeded: The account-level service limit is 0", FailureCause.LIMITS),
        ("ClientError: Access denied to s3://b/in", FailureCause.CREDENTIALS),
        ("ClientError: Please ensure that the role has s3:GetObject permissions", FailureCause.CREDENTIALS),
        ("", None),
        ("Something new", None),
    ],
)
def test_the_blame_follows_the_reason(reason: str, cause: FailureCause | None) -> None:
    assert parse_cause(reason) is cause


def test_errors_carry_the_reason_and_name_some_of_the_missing_inputs() -> None:
    status = read_status({"TransformJobStatus": "Failed", "FailureReason": BAD}, made(1, 12))
    assert (status.errors[0].code, status.errors[0].message) == ("ClientError", "See job logs for more information")
    assert len(status.errors) == 12
    assert status.errors[-1].message == "2 more have none"
    assert (status.counts.total, status.counts.succeeded, status.counts.failed) == (13, 1, 12)


def described(word: str) -> dict[str, Any]:
    return {
        "TransformJobStatus": word,
        "TransformJobName": "job-1",
        "TransformInput": {"DataSource": {"S3DataSource": {"S3DataType": "S3Prefix", "S3Uri": "s3://b/in/"}}},
        "TransformOutput": {"S3OutputPath": "s3://b/out"},
        "CreationTime": datetime.now(UTC),
    }


def test_a_running_job_costs_one_call_a_look() -> None:
    flow = SageMakerTransformService("aws_default").status(REF)
    assert next(flow).operation == "DescribeTransformJob"
    with pytest.raises(StopIteration) as stop:
        flow.send(described("InProgress"))
    assert stop.value.value.state is JobState.RUNNING


def test_outputs_that_may_not_be_listed_leave_the_state_and_are_told() -> None:
    flow = SageMakerTransformService("aws_default").status(REF)
    next(flow)
    flow.send(described("Completed"))
    with pytest.raises(StopIteration) as stop:
        flow.throw(CredentialsError("no s3:ListBucket"))
    status = stop.value.value
    assert status.state is JobState.SUCCEEDED
    assert status.counts.total is None
    assert "no s3:ListBucket" in status.errors[0].message


def test_outputs_that_cannot_be_listed_just_now_are_asked_for_again() -> None:
    flow = SageMakerTransformService("aws_default").status(REF)
    next(flow)
    flow.send(described("Failed"))
    with pytest.raises(UnavailableError):
        flow.throw(UnavailableError("S3 is away"))


def test_a_stop_that_is_refused_while_the_job_runs_is_raised() -> None:
    flow = SageMakerTransformService("aws_default").cancel(REF)
    assert next(flow).operation == "StopTransformJob"
    assert flow.throw(RequestRefusedError("not now")).operation == "DescribeTransformJob"
    with pytest.raises(RequestRefusedError, match="not now"):
        flow.send(described("InProgress"))


def test_a_listing_is_bounded_and_by_name() -> None:
    key = JobKey(dag_id="d", task_id="t", run_id="r", fingerprint="0" * 16)
    flow = SageMakerTransformService("aws_default").find(key, datetime(2026, 11, 23, tzinfo=UTC))
    call = next(flow)
    assert call.arguments["NameContains"] == key.tag
    assert call.arguments["CreationTimeAfter"] < datetime(2026, 11, 23, tzinfo=UTC)
    summary = {"TransformJobStatus": "InProgress", "CreationTime": datetime.now(UTC)}
    with pytest.raises(StopIteration) as stop:
        flow.send({"TransformJobSummaries": [{"TransformJobName": f"not-ours-{key.tag}", **summary}]})
    assert stop.value.value is None


def test_the_page_is_the_consoles() -> None:
    assert SageMakerTransformService("c").console_url(REF) is None
    console = "https://console.aws.amazon.com/sagemaker/home?region=eu-west-1"
    assert SageMakerTransformService("c", console).console_url(REF) == f"{console}#/transform-jobs/job-1"
