"""Checks of operator parameters behind their templates: what a template rendered may be text."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from contextlib import suppress
from functools import cache
from types import NoneType, UnionType
from typing import Any, Final, Union, get_args, get_origin, get_type_hints

from airflow.sdk import BaseOperator
from pydantic import TypeAdapter, ValidationError

from overnight.errors import SpecError, shorten

_BOOLEAN: Final = TypeAdapter(bool)
_TEXT_SHAPES: Final = frozenset({str, NoneType, Sequence, Mapping})


def check_parameters(task: BaseOperator) -> None:
    """
    Check what templates and XComs made of an operator's templated parameters, as far as its constructor says.

    A parameter annotated as a text, a list of texts, or either beside a mapping, is one. Every text can be sent as
    UTF-8, and the keys of every mapping are texts, as in JSON. Numbers, durations and truth values have readers of
    their own.

    :raises SpecError: one is something else, such as the ``None`` of a task that left no XCom.
    """
    hints = _find_hints(type(task))
    for name in task.template_fields:
        value = getattr(task, name, None)
        hint = hints.get(name, Any)
        shapes = {get_origin(kind) or kind for kind in (get_args(hint) if _is_union(hint) else (hint,))}
        # A hook takes its default connection for None.
        if value is None and name.endswith("conn_id"):
            continue
        if str in shapes and shapes <= _TEXT_SHAPES and not _fits(value, shapes):
            wanted = "a text" + (", or a list of texts" if Sequence in shapes else "")
            raise SpecError(
                f"{name}={shorten(repr(value), 200)} is not {wanted}. Give one; where an XCom stands for it, look at "
                "what the task before left."
            )
        check_texts(name, value)


def require_count(value: object, name: str) -> int:
    """
    Return a parameter that has to be a whole number of 1 or more, also as the text that a template made of it.

    :raises SpecError: it is none.
    """
    try:
        number = int(value)  # type: ignore[call-overload]
    except (TypeError, ValueError, OverflowError):
        number = 0
    if number < 1:
        raise SpecError(f"{name}={shorten(repr(value), 200)} is no whole number of 1 or more.")
    return int(number)


def require_truth(value: object, name: str) -> bool:
    """
    Return a parameter that has to be true or false, also as the text that a template made of it.

    :raises SpecError: it is neither.
    """
    try:
        return _BOOLEAN.validate_python(value)
    except ValidationError:
        raise SpecError(f"{name}={shorten(repr(value), 200)} is neither true nor false.") from None


def require_mapping(value: object, name: str) -> Mapping[str, Any]:
    """
    Return a parameter that has to be an object.

    :param name: The parameter's, for the error's text.
    :raises SpecError: it is something else, such as the text that a template made of an object.
    """
    if isinstance(value, Mapping):
        return value
    raise SpecError(
        f"{name}={shorten(repr(value), 200)} is no object. Give a dict; a template that stands for a whole dict needs "
        "render_template_as_native_obj=True on the DAG, or an XCom (the `output` of a task)."
    )


@cache
def _find_hints(kind: type) -> dict[str, Any]:
    hints: dict[str, Any] = {}
    for base in reversed(kind.__mro__):
        # A package's own operator may import names for type checkers only.
        with suppress(NameError):
            hints |= get_type_hints(vars(base).get("__init__", object.__init__))
    return hints


def _is_union(hint: Any) -> bool:
    return get_origin(hint) in (Union, UnionType)


def _fits(value: object, shapes: set[Any]) -> bool:
    if isinstance(value, str):
        return True
    if value is None:
        return NoneType in shapes
    if isinstance(value, Mapping):
        return Mapping in shapes
    return Sequence in shapes and isinstance(value, Sequence) and all(isinstance(part, str) for part in value)


def check_texts(name: str, value: object) -> None:
    """
    Check that every text in a value can be sent as UTF-8, and that keys are texts, as in JSON.

    :param name: The parameter's, for the error's text.
    :raises SpecError: one cannot, or is none.
    """
    left = [value]
    while left:
        part = left.pop()
        if isinstance(part, str):
            if not part.isascii():
                try:
                    part.encode()
                except UnicodeEncodeError:
                    raise SpecError(
                        f"{name} has a text with half of a surrogate pair, {shorten(ascii(part), 200)}, which cannot "
                        "be sent. Correct the text, or what decoded it."
                    ) from None
        elif isinstance(part, Mapping):
            for key, inner in part.items():
                if not isinstance(key, str):
                    raise SpecError(f"{name} has the key {shorten(repr(key), 200)}, which is no text. Quote it.")
                left += (key, inner)
        elif isinstance(part, list | tuple):
            left += part
