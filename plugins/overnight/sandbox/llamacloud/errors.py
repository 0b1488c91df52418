"""The errors of the API, in FastAPI's own shape, which is what the service answers with."""

from __future__ import annotations

from typing import Any

from fastapi import HTTPException
from fastapi.exceptions import RequestValidationError


class ApiError(HTTPException):
    """
    A request that is refused: ``{"detail": …}``.

    :param status: The HTTP status.
    """

    def __init__(self, status: int, detail: Any, headers: dict[str, str] | None = None) -> None:
        super().__init__(status_code=status, detail=detail, headers=headers)


def invalid(place: tuple[str | int, ...], message: str, value: Any = None) -> RequestValidationError:
    """Return a 422 as FastAPI itself makes it, for what only the handler can check."""
    return RequestValidationError([{"type": "value_error", "loc": place, "msg": message, "input": value}])
