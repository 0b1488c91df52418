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
from overnight.transport.aws import AwsTransport, to_service_error
from overnight.transport.aws_call import AwsCall, AwsRefusal

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
        (refusal("RequestTimeout"), UnavailableError),
        (refusal("AccessDeniedException"), CredentialsError),
        (refusal("ExpiredTokenException"), CredentialsError),
        (refusal("UnrecognizedClientException"), CredentialsError),
        (refusal("SomethingNew", status=403), CredentialsError),
        (refusal("ValidationException", "1 validation error detected"), RequestRefusedError),
        (refusal("ResourceInUse"), RequestRefusedError),
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
    with pytest.raises(ServiceError) as message:
        raising(error).send(AwsCall("sagemaker", "ListTransformJobs"))
    assert type(message.value) is kind
    assert str(message.value).startswith("sagemaker ListTransformJobs: ")
    assert message.value.__cause__ is error


def test_a_refused_signature_does_not_repeat_the_requests_headers() -> None:
    message = "The request signature we calculated does not match.\n\nx-amz-security-token:SECRETTOKEN\n"
    found = to_service_error(refusal("SignatureDoesNotMatch", message, 403), AwsCall("sagemaker", "ListTransformJobs"))
    assert "SECRETTOKEN" not in str(found)
    assert "sagemaker:ListTransformJobs" in str(found)


def test_a_denied_listing_names_the_right_that_is_missing() -> None:
    found = to_service_error(refusal("AccessDenied", status=403), AwsCall("s3", "ListObjectsV2"))
    assert "s3:ListBucket" in str(found)


def test_a_call_does_not_show_its_arguments() -> None:
    assert "private" not in repr(AwsCall("sagemaker", "CreateTransformJob", {"Environment": {"A": "private"}}))


def test_an_objects_body_is_read_to_its_end() -> None:
    class Body:
        def read(self) -> bytes:
            return b"all"

    transport = AwsTransport(lambda service: Client(lambda **_: {"Body": Body()}))
    assert transport.send(AwsCall("s3", "GetObject")) == {"Body": b"all"}


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
    await transport.asend(AwsCall("sagemaker", "ListTransformJobs"))
    await transport.asend(AwsCall("sagemaker", "ListTransformJobs"))
    assert len(made) == 1
    assert len(threads) == 3
    assert threading.get_ident() not in threads
    await transport.aclose()
    assert made[0].closed


def test_a_client_that_cannot_be_made_is_told_like_any_other_failure() -> None:
    def connect(service: str) -> Any:
        raise NoRegionError

    with pytest.raises(CredentialsError, match="region_name"):
        AwsTransport(connect).send(AwsCall("sagemaker", "ListTransformJobs"))


def test_a_services_own_words_are_its_own_to_explain() -> None:
    def explain(refused: AwsRefusal) -> ServiceError | None:
        return NotFoundError(refused.text, status=404) if refused.code == "Gone" else None

    call = AwsCall("sagemaker", "ListTransformJobs")
    assert type(to_service_error(refusal("Gone"), call, explain)) is NotFoundError
    assert type(to_service_error(refusal("Other"), call, explain)) is RequestRefusedError
    assert type(to_service_error(refusal("Gone", status=503), call, explain)) is UnavailableError


def test_an_operation_that_never_ends_is_given_up(monkeypatch: pytest.MonkeyPatch) -> None:
    over = threading.Event()
    monkeypatch.setattr("overnight.transport.aws.CALL_SECONDS", 0.05)
    transport = AwsTransport(lambda service: Client(lambda **_: over.wait()))
    with pytest.raises(UnavailableError, match="no whole answer"):
        transport.send(AwsCall("sagemaker", "ListTransformJobs"))
    over.set()
