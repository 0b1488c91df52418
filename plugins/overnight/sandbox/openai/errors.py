"""The errors of the API, in the one shape that OpenAI gives all of them."""

from __future__ import annotations

from typing import Any


class ApiError(Exception):
    """
    A request that is refused.

    :param status: The HTTP status.
    :param code: The machine-readable word; many of OpenAI's errors have none.
    :param headers: Sent with the answer.
    """

    def __init__(
        self,
        status: int,
        message: str,
        *,
        type: str = "invalid_request_error",  # noqa: A002 - the API's own word
        param: str | None = None,
        code: str | None = None,
        headers: dict[str, str] | None = None,
    ) -> None:
        super().__init__(message)
        self.status = status
        self.message = message
        self.type = type
        self.param = param
        self.code = code
        self.headers = headers or {}

    @property
    def body(self) -> dict[str, Any]:
        """The answer's JSON."""
        return {"error": {"message": self.message, "type": self.type, "param": self.param, "code": self.code}}


def missing_parameter(name: str) -> ApiError:
    """Say that a required parameter is not there."""
    return ApiError(400, f"Missing required parameter: '{name}'.", param=name, code="missing_required_parameter")


def invalid_type(name: str, expected: str, value: Any) -> ApiError:
    """Say that a parameter is of another JSON type than it should be."""
    article = "an" if expected[0] in "aeiou" else "a"
    found = _json_type(value)
    other = "an" if found[0] in "aeiou" else "a"
    return ApiError(
        400,
        f"Invalid type for '{name}': expected {article} {expected}, but got {other} {found} instead.",
        param=name,
        code="invalid_type",
    )


def invalid_value(name: str, value: Any, supported: list[str]) -> ApiError:
    """Say that a parameter is none of the values there are."""
    values = ", ".join(f"'{item}'" for item in supported)
    return ApiError(
        400,
        f"Invalid value: '{value}'. Supported values are: {values}.",
        param=name,
        code="invalid_value",
    )


def out_of_range(name: str, value: float, low: float, high: float) -> ApiError:
    """Say that a number is too small or too large."""
    number = "integer" if isinstance(value, int) else "decimal"
    above = value > high
    word, sign, bound = ("above maximum", "<=", high) if above else ("below minimum", ">=", low)
    return ApiError(
        400,
        f"Invalid '{name}': {number} {word} value. Expected a value {sign} {bound}, but got {value} instead.",
        param=name,
        code=f"{number}_{'above_max' if above else 'below_min'}_value",
    )


def model_not_found(name: str) -> ApiError:
    """Say that there is no such model."""
    return ApiError(
        404,
        f"The model `{name}` does not exist or you do not have access to it.",
        code="model_not_found",
    )


def server_error(status: int = 500) -> ApiError:
    """Say that the server is at fault."""
    return ApiError(
        status,
        "The server had an error while processing your request. Sorry about that!",
        type="server_error",
    )


def _json_type(value: Any) -> str:
    if value is None:
        return "null"
    for kind, name in ((bool, "boolean"), (int, "integer"), (float, "decimal"), (str, "string"), (list, "array")):
        if isinstance(value, kind):
            return name
    return "object"
