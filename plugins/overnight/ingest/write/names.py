"""Names of indices and aliases: OpenSearch's own rules, and the one place where a name is quoted for a path."""

from __future__ import annotations

from typing import Final
from urllib.parse import quote

from overnight.errors import SpecError

_FORBIDDEN: Final = frozenset('\\/*?"<>| ,#:')
_MAX_BYTES: Final = 255


def check_index_name(name: str) -> str:
    """
    Return the name of one index, alias or data stream, unchanged.

    The rules are those of OpenSearch's ``MetadataCreateIndexService.validateIndexOrAliasName``. They are checked here
    first: in a URL's path, a name that breaks them would be read as something else and reach another index.

    :raises SpecError: no index and no alias can have this name.
    """
    problem = _find_problem(name)
    if problem is not None:
        raise SpecError(f"{name[:300]!r} is not the name of one index or alias: it {problem}.")
    return name


def check_new_index_name(name: str) -> str:
    """
    Return the name of an index that can be created; an alias may have upper case, an index may not.

    :raises SpecError: no index can have this name.
    """
    if check_index_name(name) != name.lower():
        raise SpecError(f"{name!r} is not the name of an index: it must be in lower case.")
    return name


def quote_index_name(name: str) -> str:
    """
    Return a checked name as one segment of a URL's path.

    :raises SpecError: no index and no alias can have this name.
    """
    return quote(check_index_name(name), safe="")


def _find_problem(name: str) -> str | None:
    found = sorted(_FORBIDDEN & set(name)) + [repr(character) for character in name if not character.isprintable()]
    if not name:
        return "is empty"
    if found:
        return "must not contain " + " ".join("a blank" if character == " " else character for character in found)
    if name in (".", ".."):
        return "must not be '.' or '..'"
    if name.startswith(("_", "-", "+")):
        return "must not start with '_', '-' or '+'"
    size = len(name.encode("utf-8", "replace"))
    return f"has {size} bytes, and {_MAX_BYTES} are allowed" if size > _MAX_BYTES else None
