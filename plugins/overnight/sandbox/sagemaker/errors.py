"""The errors of the API, in the shape and the words of AWS."""

from __future__ import annotations


class AwsError(Exception):
    """
    A call that is refused.

    :param code: The name of the exception, which SDKs make their error class of.
    """

    def __init__(self, code: str, message: str, *, status: int = 400) -> None:
        super().__init__(message)
        self.code = code
        self.message = message
        self.status = status

    @property
    def body(self) -> dict[str, str]:
        """The answer's JSON."""
        # The modelled exceptions write Message, the general ones message; SDKs read both.
        name = "Message" if self.code.startswith("Resource") else "message"
        return {"__type": self.code, name: self.message}


def invalid(message: str) -> AwsError:
    """Say that a request is wrong, and also, as SageMaker does, that something is not there."""
    return AwsError("ValidationException", message)


def in_use(arn: str) -> AwsError:
    """Say that a job's name was given before."""
    return AwsError(
        "ResourceInUse",
        f"Job name must be unique within an AWS account and region, and a job with this name already exists ({arn})",
    )


def internal() -> AwsError:
    """Say that the server is at fault."""
    return AwsError(
        "InternalFailure",
        "The request processing has failed because of an unknown error, exception or failure.",
        status=500,
    )
