"""Send the reading calls to SageMaker and S3, and check that their answers are what botocore documents."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime
from typing import Annotated, Any, Final, NotRequired, TypeVar

from pydantic import ConfigDict, Field, TypeAdapter, ValidationError, with_config
from typing_extensions import TypedDict

from overnight.errors import MAX_TEXT, UnavailableError, shorten
from overnight.transport.aws_call import S3, SAGEMAKER, AwsCall
from overnight.transport.flow import Flow
from overnight.validation import describe_faults

_CONFIG: Final = ConfigDict(strict=True, extra="allow", hide_input_in_errors=True)

Name = Annotated[str, Field(min_length=1, max_length=MAX_TEXT)]
"""A name, ARN or URI."""


@with_config(_CONFIG)
class _S3DataSource(TypedDict):
    S3DataType: Name
    S3Uri: Name


@with_config(_CONFIG)
class _DataSource(TypedDict):
    S3DataSource: _S3DataSource


@with_config(_CONFIG)
class _Input(TypedDict):
    DataSource: _DataSource


@with_config(_CONFIG)
class _Output(TypedDict):
    S3OutputPath: Name


@with_config(_CONFIG)
class _Resources(TypedDict):
    InstanceType: Name


@with_config(_CONFIG)
class _Summary(TypedDict):
    TransformJobName: Name
    TransformJobStatus: Name
    CreationTime: datetime
    FailureReason: NotRequired[str | None]


@with_config(_CONFIG)
class _Job(_Summary):
    ModelName: NotRequired[Name | None]
    TransformJobArn: NotRequired[Name | None]
    TransformInput: _Input
    TransformOutput: _Output
    TransformResources: NotRequired[_Resources | None]
    TransformStartTime: NotRequired[datetime | None]


@with_config(_CONFIG)
class _JobPage(TypedDict):
    TransformJobSummaries: list[_Summary]
    NextToken: NotRequired[str | None]


@with_config(_CONFIG)
class _Object(TypedDict):
    Key: Name
    Size: int
    LastModified: datetime


@with_config(_CONFIG)
class _ObjectPage(TypedDict):
    Contents: NotRequired[list[_Object] | None]
    IsTruncated: NotRequired[bool | None]
    NextContinuationToken: NotRequired[str | None]


_JOB: Final[TypeAdapter[Any]] = TypeAdapter(_Job)
_JOB_PAGE: Final[TypeAdapter[Any]] = TypeAdapter(_JobPage)
_OBJECT_PAGE: Final[TypeAdapter[Any]] = TypeAdapter(_ObjectPage)

AnswerT = TypeVar("AnswerT")


def describe_job(name: str) -> Flow[dict[str, Any]]:
    """
    Describe a job.

    :raises NotFoundError: SageMaker does not know it.
    :raises UnavailableError: the answer is no job's description.
    """
    call = AwsCall(SAGEMAKER, "DescribeTransformJob", {"TransformJobName": name})
    return _check(_JOB, (yield call), call)


def list_job_pages(arguments: Mapping[str, Any]) -> Flow[tuple[list[dict[str, Any]], Mapping[str, Any] | None]]:
    """Return one page of transform jobs, and the arguments of the next one; ``None`` when it is the last."""
    call = AwsCall(SAGEMAKER, "ListTransformJobs", arguments)
    page = _check(_JOB_PAGE, (yield call), call)
    return page["TransformJobSummaries"], _get_next(arguments, "NextToken", page.get("NextToken"))


def list_object_pages(arguments: Mapping[str, Any]) -> Flow[tuple[list[dict[str, Any]], Mapping[str, Any] | None]]:
    """Return one page of a bucket's objects, and the arguments of the next one; ``None`` when it is the last."""
    call = AwsCall(S3, "ListObjectsV2", arguments)
    page = _check(_OBJECT_PAGE, (yield call), call)
    token = page.get("NextContinuationToken") if page.get("IsTruncated") else None
    return page.get("Contents") or [], _get_next(arguments, "ContinuationToken", token)


def _get_next(arguments: Mapping[str, Any], name: str, token: str | None) -> Mapping[str, Any] | None:
    if not token:
        return None
    if arguments.get(name) == token:
        raise UnavailableError("AWS names the same page as the next one again, so the list has no end.")
    return {**arguments, name: token}


def _check(adapter: TypeAdapter[Any], answer: Any, call: AwsCall) -> dict[str, Any]:
    try:
        checked: dict[str, Any] = adapter.validate_python(answer)
    except ValidationError as error:
        faults = shorten(describe_faults(error), 500)
        raise UnavailableError(
            f"{call.service} {call.operation}: the answer is not the documented one ({faults})."
        ) from None
    return checked
