"""
Values that a user gave: their forms, and what is wrong with them in words.

pydantic's own text quotes the value, which may be large or a secret.
"""

from __future__ import annotations

import re
from datetime import timedelta
from typing import Any, Final, TypeVar

from pydantic import BaseModel, ValidationError

from overnight.errors import MAX_TEXT, SpecError, shorten

ModelT = TypeVar("ModelT", bound=BaseModel)

_AGE: Final = re.compile(r"(\d{1,5})\s*([dw])")
_MAX_PLACE: Final = 200
"""Characters of a place: the keys of a mapping are part of it, and come from outside."""


def describe_faults(error: ValidationError, whole: str = "the whole") -> str:
    """
    Return the places that are wrong, each with what pydantic, or our own validator, says of it.

    :param whole: What the value itself is called where no part of it is the fault.
    """
    faults = []
    for fault in error.errors(include_input=False, include_context=False, include_url=False):
        place = shorten(".".join(map(str, fault["loc"])), _MAX_PLACE) or whole
        faults.append(f"{place}: {fault['msg'].removeprefix('Value error, ')}")
    return shorten("; ".join(faults), MAX_TEXT)


def parse_parameter(model: type[ModelT], value: Any, name: str) -> ModelT:
    """
    Read an object that a user gave as a parameter.

    :param name: The parameter's, for the error's text.
    :raises SpecError: it does not fit the model; the text names the places and quotes no value.
    """
    try:
        return model.model_validate(value)
    except ValidationError as error:
        raise SpecError(
            f"{name} does not fit: {describe_faults(error, name)}. It may hold {', '.join(model.model_fields)}."
        ) from None


def parse_age(text: str, name: str = "older_than") -> timedelta:
    """
    Read ``"30d"`` or ``"6w"``.

    :raises SpecError: it is neither.
    """
    found = _AGE.fullmatch(text.strip())
    if found is None:
        raise SpecError(f'{name}={shorten(repr(text), 100)} is no age; write days or weeks: "30d", "6w".')
    return timedelta(days=int(found[1]) * (7 if found[2] == "w" else 1))
