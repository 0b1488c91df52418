from __future__ import annotations

import pytest

from overnight.errors import NotFoundError, RateLimitedError, RequestRefusedError, ServiceError
from overnight.jobs import FailureCause
from overnight.services.sagemaker.causes import TEXT_CAUSES, explain, get_cause
from overnight.services.sagemaker.status import read_status
from overnight.transport.aws_call import AwsCall, AwsRefusal

REASONS = [
    ("ClientError: AccessDenied when reading s3://b/k", FailureCause.CREDENTIALS, 0),
    ("Unable to assume the role arn:x", FailureCause.CREDENTIALS, 0),
    ("ThrottlingException: Rate exceeded", FailureCause.SERVICE, 1),
    ("ResourceLimitExceeded: the account-level service limit", FailureCause.LIMITS, 2),
    ("InternalServerError: We encountered an internal error. Please try again.", FailureCause.SERVICE, 3),
    ("CapacityError: Unable to provision requested ML compute capacity.", FailureCause.SERVICE, 3),
    ("ClientError: See job logs for more information", FailureCause.INPUT, 4),
    ("AlgorithmError: See job logs for more information", FailureCause.INPUT, 4),
]


@pytest.mark.parametrize(("reason", "cause", "row"), REASONS)
def test_each_reason_has_its_row(reason: str, cause: FailureCause, row: int) -> None:
    known = get_cause(reason)
    assert known is TEXT_CAUSES[row].cause
    assert known.cause is cause
    status = read_status({"TransformJobStatus": "Failed", "FailureReason": reason})
    assert status.cause is cause
    assert status.warnings == (known.remedy,)


def test_no_row_is_left_out_here() -> None:
    assert {row for *_, row in REASONS} == set(range(len(TEXT_CAUSES)))


def test_an_unknown_reason_is_quoted_and_said_to_be_unknown() -> None:
    status = read_status({"TransformJobStatus": "Failed", "FailureReason": "The moon is full"})
    assert status.cause is None
    assert "The moon is full" in str(status.errors[0])
    assert "does not know" in status.warnings[0]


@pytest.mark.parametrize(
    ("operation", "code", "message", "kind"),
    [
        ("DescribeTransformJob", "ValidationException", "Could not find requested job with name: x", NotFoundError),
        ("DescribeTransformJob", "ValidationException", "Requested resource not found.", NotFoundError),
        ("StopTransformJob", "ResourceNotFound", "x", NotFoundError),
        ("StopTransformJob", "ValidationException", "Could not find job to update with name: x", NotFoundError),
        ("StopTransformJob", "ValidationException", "the transform job is in status Completed.", None),
        ("CreateTransformJob", "ValidationException", 'Could not find model "arn".', None),
        ("CreateTransformJob", "ResourceInUse", "Job name must be unique within an AWS account", None),
        ("CreateTransformJob", "ResourceLimitExceeded", "is 2 Instances, with utilization of 2", RateLimitedError),
        ("CreateTransformJob", "ResourceLimitExceeded", "is 0 Instances, with current", RequestRefusedError),
        ("ListObjectsV2", "NoSuchBucket", "The specified bucket does not exist", None),
    ],
)
def test_each_refused_call_has_its_error(
    operation: str, code: str, message: str, kind: type[ServiceError] | None
) -> None:
    found = explain(AwsRefusal(AwsCall("sagemaker", operation), code, message, 400))
    assert (type(found) if found is not None else None) is kind
    if found is not None:
        assert message in str(found)
        # Only a job can be gone.
        assert (found.status == 404) is (kind is NotFoundError)
