"""How to reach SageMaker, and the S3 that its jobs read and write."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Final

from botocore.config import Config

from overnight.services.sagemaker.causes import explain
from overnight.transport.aws import AwsTransport

SAGEMAKER: Final = "sagemaker"
S3: Final = "s3"

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
    return AwsTransport(connect, explain)
