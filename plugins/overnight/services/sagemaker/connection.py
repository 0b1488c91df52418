"""How to reach SageMaker, and the S3 that its jobs read and write."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any, Final

from botocore.config import Config

from overnight.certificates import explain_tls
from overnight.services.sagemaker.causes import explain
from overnight.transport.aws import AwsTransport

BOTO_CONFIG: Final = Config(
    # boto repeats every call, also a creating one, which is harmless for CreateTransformJob: a second one of the same
    # name is refused, and no job is paid twice. The watch above has hours of patience of its own.
    retries={"mode": "standard", "total_max_attempts": 5},
    connect_timeout=10,
    read_timeout=60,
)
"""What a client has unless its connection says otherwise."""


def transport(connect: Callable[[str], Any]) -> AwsTransport:
    """
    Return a transport that understands SageMaker's refusals. Does no I/O.

    :param connect: Makes the boto3 client of a service, ``sagemaker`` or ``s3``, when it is first needed.
    """

    def connect_once(service: str) -> Any:
        client = connect(service)
        client.meta.events.register_first("needs-retry", partial(_refuse_retry, service))
        return client

    return AwsTransport(connect_once, explain)


def _refuse_retry(service: str, caught_exception: BaseException | None = None, **_: Any) -> None:
    """
    Break a call off that boto would repeat although every attempt fails alike: for its TLS.

    :param caught_exception: What the attempt ended with, by botocore's name for it.
    """
    refused = explain_tls(caught_exception, service)
    if refused is not None:
        raise refused from caught_exception
