"""
What SageMaker's words mean: the codes of a refused call, and one table for the ``FailureReason`` of a job.

A ClientError is what the container answered with a 4xx, or what could not be read; an AlgorithmError is a container
that broke: the input or the model, which no retry mends.
https://docs.aws.amazon.com/sagemaker/latest/dg/batch-transform-errors.html
"""

from __future__ import annotations

import re
from typing import Final

from overnight.errors import NotFoundError, RateLimitedError, RequestRefusedError, ServiceError
from overnight.jobs.cause import Cause, find_text_cause, text_cause
from overnight.jobs.model import FailureCause
from overnight.transport.aws_call import AwsRefusal

NAME_TAKEN: Final = "ResourceInUse"
"""The code of a creation under a name that is, or was, another job's."""

_OF_A_JOB: Final = frozenset({"DescribeTransformJob", "StopTransformJob"})
# SageMaker says of a job that is not there what it says of a wrong parameter, in several words.
_NOT_FOUND: Final = re.compile(r"could not find|not found|does not exist", re.IGNORECASE)
_NO_QUOTA: Final = re.compile(r"\bis 0 Instances\b")

TEXT_CAUSES: Final = (
    text_cause(
        r"access\s?denied|not authorized|(?:expired|invalid)\s?token|\bpermissions?\b|unable to assume|assume the role",
        FailureCause.CREDENTIALS,
        "Give the model's execution role the right to read the input, write the output and pull the image.",
    ),
    text_cause(
        r"throttl(?:ing|ed)|rate ?exceeded|slow ?down|too ?many ?requests",
        FailureCause.SERVICE,
        "AWS had too much to do for this account; submit again.",
    ),
    text_cause(
        r"limit\s?exceeded|service limit|\bquota\b",
        FailureCause.LIMITS,
        "Raise the quota in AWS Service Quotas, or take fewer or other instances.",
    ),
    text_cause(
        r"internal\s?(?:server|service)?\s?error|internal failure|capacity\s?error|insufficient.*capacity"
        r"|unable to provision|please try again",
        FailureCause.SERVICE,
        "SageMaker failed, or has no such instances just now; submit again, or take another instance type.",
    ),
    text_cause(
        r"\b(?:client|algorithm)\s?error\b|unable to get response from algorithm",
        FailureCause.INPUT,
        "The container refuses a record, or broke on it; see the job's logs in CloudWatch "
        "(/aws/sagemaker/TransformJobs).",
    ),
)


def get_cause(reason: str) -> Cause | None:
    """Return what a ``FailureReason`` means; ``None`` for words that no row has."""
    return find_text_cause(TEXT_CAUSES, reason)


def explain(refusal: AwsRefusal) -> ServiceError | None:
    """Return the error for a refusal in SageMaker's own words; ``None`` for any other."""
    operation, code = refusal.call.operation, refusal.code
    if operation in _OF_A_JOB and (code == "ResourceNotFound" or _NOT_FOUND.search(refusal.message)):
        return NotFoundError(refusal.text, status=404, code=code)
    if code != "ResourceLimitExceeded":
        return None
    if _NO_QUOTA.search(refusal.message):
        text = f"{refusal.text} Raise the quota in AWS Service Quotas, or take another instance type."
        return RequestRefusedError(text, status=refusal.status, code=code)
    # Others hold the instances just now; nothing was created.
    return RateLimitedError(refusal.text, status=refusal.status, code=code)
