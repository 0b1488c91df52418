"""Calls to AWS through boto3, blocking or on an event loop, with this package's errors."""

from __future__ import annotations

import asyncio
import re
import threading
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, Final, Literal

from botocore import xform_name
from botocore.config import Config
from botocore.exceptions import (
    BotoCoreError,
    ClientError,
    CredentialRetrievalError,
    HTTPClientError,
    IncompleteReadError,
    InvalidRegionError,
    NoCredentialsError,
    NoRegionError,
    ParamValidationError,
    PartialCredentialsError,
    ProfileNotFound,
    ReadTimeoutError,
    ResponseStreamingError,
    SSOError,
    TokenRetrievalError,
)
from botocore.exceptions import ConnectionError as BotoConnectionError
from botocore.parsers import ResponseParserError

from overnight.errors import (
    CredentialsError,
    NotFoundError,
    RateLimitedError,
    RequestRefusedError,
    ServiceError,
    UnavailableError,
)
from overnight.transport.flow import Transport

AwsService = Literal["sagemaker", "s3"]

BOTO_CONFIG: Final = Config(
    # boto repeats every call, also a creating one. CreateTransformJob bears that: a second one of the same name
    # is refused, and no job is paid twice. The watch above has hours of patience of its own.
    retries={"mode": "standard", "total_max_attempts": 5},
    connect_timeout=10,
    read_timeout=60,
)
"""What a client has unless its connection says otherwise."""

MAX_MESSAGE: Final = 1_000

_THROTTLED: Final = frozenset(
    {
        "BandwidthLimitExceeded",
        "LimitExceededException",
        "PriorRequestNotComplete",
        "RequestLimitExceeded",
        "RequestThrottled",
        "RequestThrottledException",
        "SlowDown",
        "Throttling",
        "ThrottledException",
        "ThrottlingException",
        "TooManyRequestsException",
    }
)
_CREDENTIALS: Final = frozenset(
    {
        "AccessDenied",
        "AccessDeniedException",
        "AuthFailure",
        "ExpiredToken",
        "ExpiredTokenException",
        "IncompleteSignature",
        "InvalidAccessKeyId",
        "InvalidClientTokenId",
        "InvalidSignatureException",
        "InvalidToken",
        "MissingAuthenticationToken",
        "MissingAuthenticationTokenException",
        "NotAuthorized",
        "OptInRequired",
        "RequestExpired",
        "SignatureDoesNotMatch",
        "UnauthorizedOperation",
        "UnrecognizedClientException",
    }
)
_OF_A_JOB: Final = frozenset({"DescribeTransformJob", "StopTransformJob"})
# SageMaker says of a job that is not there what it says of a wrong parameter, in several words.
_NOT_FOUND: Final = re.compile(r"could not find|not found|does not exist", re.IGNORECASE)
_NO_QUOTA: Final = re.compile(r"\bis 0 Instances\b")


@dataclass(frozen=True)
class AwsCall:
    """
    One operation, before there is a client.

    :param operation: As the API reference names it: ``DescribeTransformJob``, ``ListObjectsV2``.
    """

    operation: str
    # Environments and tags may be private.
    arguments: Mapping[str, Any] = field(default_factory=dict, repr=False)
    service: AwsService = "sagemaker"


class AwsTransport(Transport[AwsCall, dict[str, Any]]):
    """
    Carry out calls with boto3 clients, which are made when they are first needed.

    A stream in an answer (an object's ``Body``) is read to its end. On an event loop, everything, the making of a
    client included, runs in a thread: boto3 blocks, and looks credentials up over the network.

    :param connect: Makes the client of a service. It may raise :class:`ServiceError` and what botocore raises.
    """

    def __init__(self, connect: Callable[[AwsService], Any]) -> None:
        self._connect = connect
        self._clients: dict[AwsService, Any] = {}
        # boto3's sessions are not to be shared by threads while a client is made of them.
        self._lock = threading.Lock()

    def send(self, call: AwsCall) -> dict[str, Any]:
        """
        Carry out one call, blocking.

        :raises ServiceError: see :func:`to_service_error`.
        """
        try:
            method = getattr(self._client(call.service), xform_name(call.operation))
            answer: dict[str, Any] = method(**call.arguments)
            body = answer.get("Body")
            if body is not None:
                answer["Body"] = body.read()
        except (BotoCoreError, ClientError, ResponseParserError) as error:
            raise to_service_error(error, call) from error
        return answer

    async def asend(self, call: AwsCall) -> dict[str, Any]:
        """Carry out one call in a thread."""
        return await asyncio.to_thread(self.send, call)

    def close(self) -> None:
        """Close the clients' connections."""
        for client in self._clients.values():
            client.close()
        self._clients.clear()

    async def aclose(self) -> None:
        """Close the clients' connections."""
        self.close()

    def _client(self, service: AwsService) -> Any:
        with self._lock:
            if service not in self._clients:
                self._clients[service] = self._connect(service)
            return self._clients[service]


def to_service_error(error: Exception, call: AwsCall) -> ServiceError:
    """
    Translate what boto raised.

    :return: :class:`RateLimitedError` for throttling, :class:`UnavailableError` where no usable answer came,
        :class:`CredentialsError`, :class:`NotFoundError` for a job that SageMaker does not know, and
        :class:`RequestRefusedError` for the rest.
    """
    if isinstance(error, ClientError):
        return _refusal(error, call)
    text = f"{call.service} {call.operation}: {_first_line(str(error))}"
    match error:
        case (
            NoCredentialsError()
            | PartialCredentialsError()
            | CredentialRetrievalError()
            | TokenRetrievalError()
            | SSOError()
            | ProfileNotFound()
        ):
            return CredentialsError(f"{text} Give the AWS connection credentials, or the machine a role.")
        case NoRegionError() | InvalidRegionError():
            return CredentialsError(f"{text} Set region_name in the AWS connection's extra.")
        case ParamValidationError():
            return RequestRefusedError(text)
        case (
            BotoConnectionError()
            | HTTPClientError()
            | ReadTimeoutError()
            | IncompleteReadError()
            | ResponseStreamingError()
            | ResponseParserError()
        ):
            return UnavailableError(text)
    return RequestRefusedError(text)


def _refusal(error: ClientError, call: AwsCall) -> ServiceError:
    facts = error.response.get("Error", {})
    code = str(facts.get("Code") or "Unknown")
    message = _first_line(str(facts.get("Message") or "no message"))
    status = error.response.get("ResponseMetadata", {}).get("HTTPStatusCode")
    status = status if isinstance(status, int) else None
    text = f"{call.service} {call.operation}: {code}: {message}"
    if code in _THROTTLED or status == 429:
        return RateLimitedError(text, status=429, code=code)
    if status is not None and status >= 500:
        return UnavailableError(text, status=status, code=code)
    if code in _CREDENTIALS or status in (401, 403):
        # A refused signature's further lines repeat the request's headers, the session token among them.
        action = "s3:ListBucket" if call.operation == "ListObjectsV2" else f"{call.service}:{call.operation}"
        remedy = f"Check the AWS connection's keys, and that its role may {action}."
        return CredentialsError(f"{text} {remedy}", status=status or 403, code=code)
    if call.operation in _OF_A_JOB and (code == "ResourceNotFound" or _NOT_FOUND.search(message)):
        return NotFoundError(text, status=404, code=code)
    if code == "ResourceLimitExceeded":
        if _NO_QUOTA.search(message):
            return RequestRefusedError(
                f"{text} Raise the quota in AWS Service Quotas, or take another instance type.",
                status=status,
                code=code,
            )
        # Others hold the instances just now; nothing was created.
        return RateLimitedError(text, status=status, code=code)
    return RequestRefusedError(text, status=status, code=code)


def _first_line(message: str) -> str:
    line = message.strip().partition("\n")[0].strip()[:MAX_MESSAGE]
    return line if line.endswith((".", "!", "?")) else f"{line}."
