"""Checking a request against the API's own model, which botocore carries, and complaining as AWS does."""

from __future__ import annotations

import re
from collections.abc import Iterator
from functools import lru_cache
from typing import Any

import botocore.session

from overnight.sandbox.sagemaker.errors import AwsError, invalid


@lru_cache(maxsize=1)
def _model() -> Any:
    return botocore.session.get_session().get_service_model("sagemaker")


def check_request(operation: str, request: Any) -> dict[str, Any]:
    """
    Return the request if it fits the operation's input.

    :raises AwsError: as AWS words it.
    """
    if not isinstance(request, dict):
        raise AwsError("SerializationException", "Start of structure or map found where not expected.")
    complaints = list(_check(_model().operation_model(operation).input_shape, request, ""))
    if complaints:
        errors = "error" if len(complaints) == 1 else "errors"
        raise invalid(f"{len(complaints)} validation {errors} detected: {'; '.join(complaints)}")
    return request


def _check(shape: Any, value: Any, path: str) -> Iterator[str]:
    match shape.type_name:
        case "structure":
            yield from _structure(shape, _typed(value, dict), path)
        case "list":
            items = _typed(value, list)
            yield from _bounds(shape, items, len(items), "length", path)
            for number, item in enumerate(items, 1):
                yield from _check(shape.member, item, f"{path}.{number}.member")
        case "map":
            yield from _bounds(shape, value, len(_typed(value, dict)), "length", path)
            for key, item in value.items():
                yield from _check(shape.key, key, f"{path}.key")
                yield from _check(shape.value, item, f"{path}.{key}.member")
        case "string":
            yield from _string(shape, _typed(value, str), path)
        case "integer" | "long" | "float" | "double":
            number = _typed(value, int | float)
            yield from _bounds(shape, number, number, "value", path)
        case "boolean":
            _typed(value, bool)
        case "timestamp":
            _typed(value, int | float | str)


def _structure(shape: Any, value: dict[str, Any], path: str) -> Iterator[str]:
    for name in shape.required_members:
        if value.get(name) is None:
            yield _complaint(None, _join(path, name), "Member must not be null")
    for name, member in shape.members.items():
        if value.get(name) is not None:
            yield from _check(member, value[name], _join(path, name))


def _string(shape: Any, value: str, path: str) -> Iterator[str]:
    yield from _bounds(shape, value, len(value), "length", path)
    if shape.enum and value not in shape.enum:
        yield _complaint(value, path, f"Member must satisfy enum value set: [{', '.join(shape.enum)}]")
    pattern = shape.metadata.get("pattern")
    if pattern and not _compiled(pattern).fullmatch(value):
        yield _complaint(value, path, f"Member must satisfy regular expression pattern: ^{pattern}")


def _bounds(shape: Any, value: Any, measure: float, what: str, path: str) -> Iterator[str]:
    low, high = shape.metadata.get("min"), shape.metadata.get("max")
    if low is not None and measure < low:
        yield _complaint(value, path, f"Member must have {what} greater than or equal to {low}")
    if high is not None and measure > high:
        yield _complaint(value, path, f"Member must have {what} less than or equal to {high}")


def _complaint(value: Any, path: str, rule: str) -> str:
    shown = "Value null" if value is None else f"Value '{value}'"
    return f"{shown} at '{path}' failed to satisfy constraint: {rule}"


def _typed(value: Any, kind: Any) -> Any:
    if not isinstance(value, kind) or (isinstance(value, bool) and kind is not bool):
        raise AwsError("SerializationException", f"{type(value).__name__} can not be converted to the expected type.")
    return value


def _join(path: str, name: str) -> str:
    # "S3Uri" becomes "s3Uri", and "KmsKeyId" becomes "kmsKeyId".
    small = name[0].lower() + name[1:]
    return f"{path}.{small}" if path else small


@lru_cache
def _compiled(pattern: str) -> re.Pattern[str]:
    # Python has no \p{…}; a class of all three of them is that of letters, digits and blanks.
    plain = pattern.replace(r"\p{L}\p{Z}\p{N}", r"\w\s")
    return re.compile(plain)
