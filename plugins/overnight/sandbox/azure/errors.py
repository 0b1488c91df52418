"""The errors of the API, in the shape that its reference gives them."""

from __future__ import annotations

from typing import Any, Final, Literal, TypeAlias

Code: TypeAlias = Literal[
    "conflict",
    "contentFilter",
    "fileImportFailed",
    "forbidden",
    "internalFailure",
    "invalidPayload",
    "itemDoesAlreadyExist",
    "jsonlValidationFailed",
    "notFound",
    "quotaExceeded",
    "serviceUnavailable",
    "tooManyRequests",
    "unauthorized",
    "unexpectedEntityState",
]

DESCRIPTIONS: Final[dict[Code, tuple[int, str]]] = {
    "conflict": (409, "The requested operation conflicts with the current resource state."),
    "contentFilter": (400, "The content was refused by our safety system."),
    "fileImportFailed": (400, "Import of file failed."),
    "forbidden": (403, "The operation is forbidden for the current user/api key."),
    "internalFailure": (500, "Internal error. Please retry."),
    "invalidPayload": (400, "The request data is invalid for this operation."),
    "itemDoesAlreadyExist": (409, "The item does already exist."),
    "jsonlValidationFailed": (400, "Validation of jsonl data failed."),
    "notFound": (404, "The resource is not found."),
    "quotaExceeded": (429, "Quota exceeded."),
    "serviceUnavailable": (503, "The service is currently not available."),
    "tooManyRequests": (429, "Too many requests. Please retry later."),
    "unauthorized": (401, "The current user/api key is not authorized for the operation."),
    "unexpectedEntityState": (409, "The operation cannot be executed in the current resource's state."),
}
"""By code: the HTTP status, which the reference does not give, and the message."""


class ApiError(Exception):
    """
    A request that is refused, or what a job failed of.

    :param target: Where the error happened.
    :param headers: Sent with the answer.
    """

    def __init__(
        self,
        code: Code,
        message: str | None = None,
        *,
        target: str | None = None,
        headers: dict[str, str] | None = None,
    ) -> None:
        self.status, default = DESCRIPTIONS[code]
        self.code = code
        self.message = message or default
        self.target = target
        self.headers = headers or {}
        super().__init__(self.message)

    @property
    def error(self) -> dict[str, Any]:
        """The ``Error`` object."""
        error: dict[str, Any] = {"code": self.code, "message": self.message}
        if self.target is not None:
            error["target"] = self.target
        if self.code == "invalidPayload":
            error["innererror"] = {"code": "invalidPayload"}
        return error

    @property
    def body(self) -> dict[str, Any]:
        """The answer's JSON."""
        return {"error": self.error}


def invalid(target: str, message: str) -> ApiError:
    """Say that a part of the request is wrong."""
    return ApiError("invalidPayload", message, target=target)
