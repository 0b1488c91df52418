"""
What SageMaker's words mean: one table for the ``FailureReason`` of a job.

A ClientError is what the container answered with a 4xx, or what could not be read; an AlgorithmError is a container
that broke: the input or the model, which no retry mends.
https://docs.aws.amazon.com/sagemaker/latest/dg/batch-transform-errors.html
"""

from __future__ import annotations

from typing import Final

from overnight.jobs.cause import Cause, find_text_cause, text_cause
from overnight.jobs.model import FailureCause

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
