"""An operation of AWS and its refusal, as a service's flows have them: botocore is not needed to say what is called."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, Final, TypeAlias

from overnight.errors import ServiceError

SAGEMAKER: Final = "sagemaker"
S3: Final = "s3"


@dataclass(frozen=True)
class AwsCall:
    """
    One operation, before there is a client.

    :param service: As boto3 names it: ``sagemaker``, ``s3``.
    :param operation: As the API reference names it: ``DescribeTransformJob``, ``ListObjectsV2``.
    """

    service: str
    operation: str
    # Environments and tags may be private.
    arguments: Mapping[str, Any] = field(default_factory=dict, repr=False)


@dataclass(frozen=True)
class AwsRefusal:
    """
    What an operation answered in place of a result.

    :param code: AWS's own word for it.
    :param message: Its first line: further lines of a refused signature repeat the request's headers.
    :param status: The HTTP status.
    """

    call: AwsCall
    code: str
    message: str
    status: int | None

    @property
    def text(self) -> str:
        """The operation, and what was answered."""
        return f"{self.call.service} {self.call.operation}: {self.code}: {self.message}"


Explain: TypeAlias = Callable[[AwsRefusal], ServiceError | None]
"""Returns the error for a refusal in a service's own words; ``None`` for one in the words of all of AWS."""
