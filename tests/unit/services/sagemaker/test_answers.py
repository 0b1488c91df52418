"""Whatever SageMaker and S3 answer, every verb ends in a result or in a ServiceError of bounded length."""

from __future__ import annotations

from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from overnight.errors import NotFoundError, SpecError
from overnight.jobs import JobKey
from overnight.services.sagemaker.service import SageMakerTransformService
from overnight.services.sagemaker.spec import SageMakerTransformSpec
from overnight.transport.aws_call import AwsCall
from overnight.transport.flow import Flow
from unit.services.answers import check

KEY = JobKey(dag_id="d", task_id="t", run_id="r", fingerprint="0" * 16)
CREATED = datetime.now(UTC) - timedelta(minutes=5)
SERVICE = SageMakerTransformService("conn")
REF = SERVICE.ref(KEY.name)
SPEC = SageMakerTransformSpec(
    model_name="m",
    input_uri="s3://b/in/",
    output_uri="s3://b/out/",
    instance_type="ml.m5.large",
    content_type="application/jsonlines",
    split_type="Line",
    assemble_with="Line",
)


def good(
    status: str, *, exists: bool = True, names: tuple[str, ...] = ("a", "b")
) -> Callable[[], Callable[[AwsCall], Any]]:
    job = {
        **SPEC.request(KEY.name, {}), "TransformJobArn": "arn:x", "TransformJobStatus": status, "CreationTime": CREATED,
        "TransformStartTime": CREATED, "FailureReason": "ClientError: See job logs",
    }  # fmt: skip

    def answer(call: AwsCall) -> Any:
        match call.operation:
            case "ListTransformJobs":
                return {"TransformJobSummaries": [job, {**job, "TransformJobName": "other"}]}
            case "ListObjectsV2":
                folder = call.arguments["Prefix"]
                suffix = ".out" if folder == "out/" else ""
                contents = [{"Key": f"{folder}{name}{suffix}", "Size": 9, "LastModified": CREATED} for name in names]
                return {"Contents": contents[:1] if suffix else contents, "IsTruncated": False}
            case "DescribeTransformJob" if not exists:
                raise NotFoundError("no", status=404)
            case "DescribeTransformJob":
                return job
        return {}

    return lambda: answer


@pytest.mark.parametrize("status", ["Completed", "Failed", "InProgress"])
def test_reading_verbs(status: str) -> None:
    since = datetime.fromtimestamp(0, UTC)
    verbs: dict[str, Callable[[], Flow[Any]]] = {
        "find": lambda: SERVICE.find(KEY, since),
        "status": lambda: SERVICE.status(REF),
        "cancel": lambda: SERVICE.cancel(REF),
        "results": lambda: SERVICE.results(REF),
        "list_statuses": lambda: SERVICE.list_statuses({KEY.name}),
        "list_queue": lambda: SageMakerTransformService("conn").list_queue("ml.m5.large"),
        "list_own": lambda: SERVICE.list_own(since),
    }
    check(verbs, good(status), also=(SpecError,))


@pytest.mark.parametrize("exists", [True, False])
@pytest.mark.parametrize("names", [("a", "b"), ("a", "_SUCCESS")])
def test_submit(exists: bool, names: tuple[str, ...]) -> None:
    service = good("InProgress", exists=exists, names=names)
    check({"submit": lambda: SERVICE.submit(SPEC, KEY)}, service, also=(SpecError,))
