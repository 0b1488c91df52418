"""Calls to AWS through boto3, blocking or on an event loop, with this package's errors."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable
from functools import partial
from typing import Any, Final

from botocore import xform_name
from botocore.exceptions import (
    BotoCoreError,
    ClientError,
    CredentialRetrievalError,
    HTTPClientError,
    IncompleteReadError,
    InvalidProxiesConfigError,
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

from overnight.certificates import explain_tls
from overnight.errors import (
    ConnectionConfigError,
    CredentialsError,
    RateLimitedError,
    RequestRefusedError,
    ServiceError,
    UnavailableError,
    shorten,
)
from overnight.transport.aws_call import AwsCall, AwsRefusal, Explain
from overnight.transport.flow import TimeIsUpError, Transport, call_within

MAX_MESSAGE: Final = 1_000
_UNREADABLE: Final = (AttributeError, KeyError, TypeError, UnicodeDecodeError, RecursionError)
"""What boto's parser raises about an answer of another form than AWS has, beside its own error."""
CALL_SECONDS: Final = 900.0
"""All the time that one operation has, boto's own attempts included."""

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
# Said with 400, too.
_TRANSIENT: Final = frozenset(
    {"InternalError", "InternalFailure", "InternalServerException", "RequestTimeout", "RequestTimeoutException",
     "ServiceUnavailable", "ServiceUnavailableException"}
)  # fmt: skip
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


def _explain_nothing(_: AwsRefusal) -> None:
    return None


class AwsTransport(Transport[AwsCall, dict[str, Any]]):
    """
    Carry out calls with boto3 clients, which are made when they are first needed.

    A stream in an answer (an object's ``Body``) is read to its end. On an event loop, everything, the making of a
    client included, runs in a thread: boto3 blocks, and looks credentials up over the network.

    :param connect: Makes the client of a service. It may raise :class:`ServiceError` and what botocore raises.
    :param explain: Knows the refusals that are the service's own.
    """

    def __init__(self, connect: Callable[[str], Any], explain: Explain = _explain_nothing) -> None:
        self._connect = connect
        self._explain = explain
        self._clients: dict[str, Any] = {}
        # boto3's sessions are not to be shared by threads while a client is made of them.
        self._lock = threading.Lock()

    def send(self, call: AwsCall) -> dict[str, Any]:
        """
        Carry out one call, blocking.

        :raises ServiceError: see :func:`to_service_error`.
        """
        try:
            return call_within(CALL_SECONDS, partial(self._send, call))
        except TimeIsUpError:
            raise UnavailableError(
                f"{call.service} {call.operation}: no whole answer came within {CALL_SECONDS:.0f} s."
            ) from None
        except (BotoCoreError, ClientError, ResponseParserError) as error:
            raise to_service_error(error, call, self._explain) from error
        except OSError as error:
            where = f"{call.service} {call.operation}"
            if error.filename is None:
                raise UnavailableError(f"{where}: {shorten(str(error), MAX_MESSAGE)}") from error
            # Credentials are read when they are first needed: a web identity's token, say.
            raise ConnectionConfigError(
                f"{where}: {error.filename}: {error.strerror}. The AWS connection, or this "
                "machine's AWS configuration, names this file; put it there on every worker and triggerer."
            ) from None

    def _send(self, call: AwsCall) -> dict[str, Any]:
        method = getattr(self._client(call.service), xform_name(call.operation))
        try:
            answer: dict[str, Any] = method(**call.arguments)
        except _UNREADABLE as error:
            raise UnavailableError(
                f"{call.service} {call.operation}: what answers at the connection's endpoint is not AWS, or its answer "
                f"was changed on the way ({type(error).__name__}). Check the endpoint."
            ) from error
        body = answer.get("Body")
        if body is not None:
            answer["Body"] = body.read()
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

    def _client(self, service: str) -> Any:
        with self._lock:
            if service not in self._clients:
                self._clients[service] = self._connect(service)
            return self._clients[service]


def to_service_error(error: Exception, call: AwsCall, explain: Explain = _explain_nothing) -> ServiceError:
    """
    Translate what boto raised.

    :param explain: Knows the refusals that are the service's own.
    :return: :class:`RateLimitedError` for throttling, :class:`UnavailableError` where no usable answer came,
        :class:`CredentialsError`, what ``explain`` says, and :class:`RequestRefusedError` for the rest.
    """
    if isinstance(error, ClientError):
        refusal = _read_refusal(error, call)
        return (
            _explain_common(refusal)
            or explain(refusal)
            or RequestRefusedError(refusal.text, status=refusal.status, code=refusal.code)
        )
    refused = explain_tls(error, call.service)
    if refused is not None:
        return refused
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
        case InvalidProxiesConfigError():
            return ConnectionConfigError(f"{text} Correct the proxies in the AWS connection's config_kwargs.")
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


def _read_refusal(error: ClientError, call: AwsCall) -> AwsRefusal:
    facts = error.response.get("Error", {})
    status = error.response.get("ResponseMetadata", {}).get("HTTPStatusCode")
    return AwsRefusal(
        call,
        code=str(facts.get("Code") or "Unknown"),
        message=_first_line(str(facts.get("Message") or "no message")),
        status=status if isinstance(status, int) else None,
    )


def _explain_common(refusal: AwsRefusal) -> ServiceError | None:
    """Return the error for what every service of AWS says in the same words."""
    code, status, call = refusal.code, refusal.status, refusal.call
    if code in _THROTTLED or status == 429:
        return RateLimitedError(refusal.text, status=429, code=code)
    if code in _TRANSIENT or (status is not None and status >= 500):
        return UnavailableError(refusal.text, status=status, code=code)
    if code in _CREDENTIALS or status in (401, 403):
        action = "s3:ListBucket" if call.operation == "ListObjectsV2" else f"{call.service}:{call.operation}"
        remedy = f"Check the AWS connection's keys, and that its role may {action}."
        return CredentialsError(f"{refusal.text} {remedy}", status=status or 403, code=code)
    return None


def _first_line(message: str) -> str:
    line = message.strip().partition("\n")[0].strip()[:MAX_MESSAGE]
    return line if line.endswith((".", "!", "?")) else f"{line}."
