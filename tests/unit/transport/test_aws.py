from __future__ import annotations

import threading
from collections.abc import Callable
from typing import Any

import pytest
from botocore.exceptions import (
    BotoCoreError,
    ClientError,
    ConnectionClosedError,
    ConnectTimeoutError,
    EndpointConnectionError,
    InvalidRegionError,
    NoCredentialsError,
    NoRegionError,
    ParamValidationError,
    ProfileNotFound,
    ReadTimeoutError,
    SSOTokenLoadError,
)
from botocore.parsers import ResponseParserError

from overnight.errors import (
    CredentialsError,
    NotFoundError,
    RateLimitedError,
    RequestRefusedError,
    ServiceError,
    UnavailableError,
)
from overnight.transport.aws import AwsCall, AwsTransport, to_service_error

URL = "https://api.sagemaker.us-east-1.amazonaws.com/"


def refusal(code: str, message: str = "Told.", status: int = 400) -> ClientError:
    answer: Any = {"Error": {"Code": code, "Message": message}, "ResponseMetadata": {"HTTPStatusCode": status}}
    return ClientError(answer, "CreateTransformJob")


class Client:
    def __init__(self, verb: Callable[..., Any]) -> None:
        self.list_transform_jobs = self.get_object = verb
        self.closed = False

    def close(self) -> None:
        self.closed = True


def raising(error: Exception) -> AwsTransport:
    def verb(**_: Any) -> Any:
        raise error

    return AwsTransport(lambda service: Client(verb))


@pytest.mark.parametrize(
    ("error", "kind"),
    [
        (refusal("ThrottlingException", "Rate exceeded"), RateLimitedError),
        (refusal("SlowDown", status=503), RateLimitedError),
        (refusal("TooManyRequestsException", status=429), RateLimitedError),
        (refusal("InternalFailure", status=500), UnavailableError),
        (refusal("ServiceUnavailable", status=503), UnavailableError),
        (refusal("AccessDeniedException"), CredentialsError),
        (refusal("ExpiredTokenException"), CredentialsError),
        (refusal("UnrecognizedClientException"), CredentialsError),
        (refusal("SomethingNew", status=403), CredentialsError),
        (refusal("ValidationException", "1 validation error detected"), RequestRefusedError),
        (refusal("ResourceInUse"), RequestRefusedError),
        (refusal("ResourceLimitExceeded", "limit is 2 Instances, with current utilization of 2"), RateLimitedError),
        (refusal("ResourceLimitExceeded", "limit is 0 Instances, with current"), RequestRefusedError),
        (NoCredentialsError(), CredentialsError),
        (ProfileNotFound(profile="x"), CredentialsError),
        (SSOTokenLoadError(error_msg="x"), CredentialsError),
        (NoRegionError(), CredentialsError),
        (InvalidRegionError(region_name="x y"), CredentialsError),
        (EndpointConnectionError(endpoint_url=URL), UnavailableError),
        (ConnectTimeoutError(endpoint_url=URL), UnavailableError),
        (ReadTimeoutError(endpoint_url=URL), UnavailableError),
        (ConnectionClosedError(endpoint_url=URL), UnavailableError),
        (ResponseParserError("not JSON"), UnavailableError),
        (ParamValidationError(report="x"), RequestRefusedError),
        (BotoCoreError(), RequestRefusedError),
    ],
)
def test_what_boto_raises_says_who_can_mend_it(error: Exception, kind: type[ServiceError]) -> None:
    with pytest.raises(ServiceError) as told:
        raising(error).send(AwsCall("ListTransformJobs"))
    assert type(told.value) is kind
    assert str(told.value).startswith("sagemaker ListTransformJobs: ")
    assert told.value.__cause__ is error


@pytest.mark.parametrize(
    ("operation", "code", "message", "kind"),
    [
        ("DescribeTransformJob", "ValidationException", "Could not find requested job with name: x", NotFoundError),
        ("DescribeTransformJob", "ValidationException", "Requested resource not found.", NotFoundError),
        ("StopTransformJob", "ResourceNotFound", "x", NotFoundError),
        ("StopTransformJob", "ValidationException", "Could not find job to update with name: x", NotFoundError),
        (
            "StopTransformJob",
            "ValidationException",
            "The request was rejected because the transform job is in status Completed.",
            RequestRefusedError,
        ),
        ("CreateTransformJob", "ValidationException", 'Could not find model "arn".', RequestRefusedError),
        ("ListObjectsV2", "NoSuchBucket", "The specified bucket does not exist", RequestRefusedError),
    ],
)
def test_only_a_job_can_be_gone(operation: str, code: str, message: str, kind: type[ServiceError]) -> None:
    found = to_service_error(refusal(code, message), AwsCall(operation))
    assert type(found) is kind
    assert (found.status == 404) is (kind is NotFoundError)


def test_a_refused_signature_does_not_repeat_the_requests_headers() -> None:
    message = "The request signature we calculated does not match.\n\nx-amz-security-token:SECRETTOKEN\n"
    found = to_service_error(refusal("SignatureDoesNotMatch", message, 403), AwsCall("ListTransformJobs"))
    assert "SECRETTOKEN" not in str(found)
    assert "sagemaker:ListTransformJobs" in str(found)


def test_a_denied_listing_names_the_right_that_is_missing() -> None:
    found = to_service_error(refusal("AccessDenied", status=403), AwsCall("ListObjectsV2", service="s3"))
    assert "s3:ListBucket" in str(found)


def test_a_call_does_not_show_its_arguments() -> None:
    assert "private" not in repr(AwsCall("CreateTransformJob", {"Environment": {"A": "private"}}))


def test_an_objects_body_is_read_to_its_end() -> None:
    class Body:
        def read(self) -> bytes:
            return b"all"

    transport = AwsTransport(lambda service: Client(lambda **_: {"Body": Body()}))
    assert transport.send(AwsCall("GetObject", service="s3")) == {"Body": b"all"}


async def test_on_an_event_loop_clients_are_made_and_asked_in_a_thread() -> None:
    threads: list[int] = []
    made: list[Client] = []

    def note(**_: Any) -> dict[str, Any]:
        threads.append(threading.get_ident())
        return {}

    def connect(service: str) -> Client:
        note()
        made.append(Client(note))
        return made[-1]

    transport = AwsTransport(connect)
    await transport.asend(AwsCall("ListTransformJobs"))
    await transport.asend(AwsCall("ListTransformJobs"))
    assert len(made) == 1
    assert len(threads) == 3
    assert threading.get_ident() not in threads
    await transport.aclose()
    assert made[0].closed


def test_a_client_that_cannot_be_made_is_told_like_any_other_failure() -> None:
    def connect(service: str) -> Any:
        raise NoRegionError

    with pytest.raises(CredentialsError, match="region_name"):
        AwsTransport(connect).send(AwsCall("ListTransformJobs"))
