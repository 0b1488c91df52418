"""Files that a command is given by name, and options that it passes on."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from overnight.errors import SpecError


def read_text(path: Path) -> str:
    """
    Return what a file of UTF-8 holds.

    :raises SpecError: it cannot be read.
    """
    try:
        return path.read_text(encoding="utf-8-sig")
    except OSError as error:
        raise SpecError(f"{path} cannot be read: {error.strerror}.") from error
    except UnicodeDecodeError as error:
        raise SpecError(f"{path} is not UTF-8 (byte {error.start} is not). Save it as UTF-8.") from error


def read_json(path: Path) -> Any:
    """
    Return the value in a JSON file.

    :raises SpecError: it cannot be read, or is not JSON.
    """
    text = read_text(path)
    try:
        return json.loads(text)
    except (ValueError, RecursionError) as error:
        raise SpecError(f"{path} is not JSON: {error}.") from error


def read_pairs(options: list[str]) -> dict[str, Any]:
    """
    Read ``NAME=VALUE``, each value JSON where it is any.

    :raises SpecError: one has no ``=``.
    """
    given: dict[str, Any] = {}
    for text in options:
        name, equals, value = text.partition("=")
        if not equals:
            raise SpecError(f"--option {text!r}: write NAME=VALUE.")
        try:
            given[name] = json.loads(value)
        except ValueError:
            given[name] = value
    return given
