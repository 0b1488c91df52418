"""Checks of operator parameters behind their templates: what a template rendered may be text."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from overnight.errors import SpecError, shorten


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
