"""
Fields out of a text by rule: what the emulator has instead of a language model.

A field is found where the text names it at the start of a line, as forms, e-mails and front matter do:
``Invoice number: 4711``. The property's name (its underscores read as blanks), or its ``title``, is what is looked for;
case does not matter. What follows is read as the schema's type says:

* string: the rest of the line; with ``format: date``, the first ISO date on it; with ``enum``, the value found on it,
* number, integer: the first number on the line; boolean: yes, no, true or false,
* array: the items after the label, divided by commas or semicolons, or the list below it (``- item``),
* object: its properties, looked for in the whole text.

A string property called ``title`` that is not named in the text is its first heading or line. Whatever is not found is
``null``. The result of a text and a schema is always the same.

A citation is the line that names the field, with its page; a confidence is drawn from field and line.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import Any

from overnight.sandbox.emulator.draws import unit

_NUMBER = re.compile(r"-?\d[\d,_ ]*(?:\.\d+)?")
_DATE = re.compile(r"\d{4}-\d{2}-\d{2}")
_ITEM = re.compile(r"\s*(?:[-*+]|\d+\.)\s+(.+)")
_TRUE, _FALSE = ("yes", "true"), ("no", "false")


def extract(text: str, schema: Mapping[str, Any]) -> dict[str, Any]:
    """Return an object with every property of an object schema."""
    properties: Mapping[str, Any] = schema.get("properties") or {}
    return {name: _field(text, name, part if isinstance(part, dict) else {}) for name, part in properties.items()}


def describe_fields(
    pages: Sequence[tuple[int, str]], found: Mapping[str, Any], schema: Mapping[str, Any], *, cite: bool, score: bool
) -> dict[str, Any]:
    """
    Return where each value was found, in the form of the values: of an object its members, of a list its items.

    What was not found has nothing.

    :param pages: Number and text.
    :param found: What :func:`extract` found in all of them.
    :param cite: Whether to say on which page, in which line.
    :param score: Whether to say how certain it is.
    """
    described: dict[str, Any] = {}
    for name, part in (schema.get("properties") or {}).items():
        part = part if isinstance(part, dict) else {}  # noqa: PLW2901
        value = found.get(name)
        if isinstance(value, dict):
            described[name] = describe_fields(pages, value, part, cite=cite, score=score)
        elif value is not None:
            entry = _describe(pages, name, str(part.get("title") or name), cite=cite, score=score)
            described[name] = [entry] * len(value) if isinstance(value, list) else entry
    return described


def _describe(pages: Sequence[tuple[int, str]], name: str, title: str, *, cite: bool, score: bool) -> dict[str, Any]:
    places = ((number, _find_label(text, label)) for number, text in pages for label in (title, name))
    # A title that no line names is the heading of the first page.
    number, line = next(
        ((number, match[0].strip()) for number, match in places if match), (pages[0][0], _heading(pages[0][1]) or "")
    )
    entry: dict[str, Any] = {}
    if cite:
        entry["citation"] = [{"page": number, "matching_text": line}]
    if score:
        confidence = round(0.8 + 0.2 * unit(0, name, line), 4)
        entry |= {"confidence": confidence, "extraction_confidence": confidence, "parsing_confidence": 1.0}
    return entry


def _field(text: str, name: str, schema: Mapping[str, Any]) -> Any:
    kind = _kind(schema)
    if kind == "object":
        return extract(text, schema)
    line, below = _labelled(text, str(schema.get("title") or name)) or _labelled(text, name) or (None, "")
    if line is None:
        return _heading(text) if (name, kind) == ("title", "string") else None
    if kind == "array":
        return _items(line, below, schema.get("items") or {})
    return _value(line, schema)


def _kind(schema: Mapping[str, Any]) -> str:
    """Return the one type; of ``anyOf`` and a list of types, which pydantic writes, the first that is not null."""
    kind = schema.get("type")
    if kind is None and isinstance(schema.get("anyOf"), list):
        kind = [_kind(option) for option in schema["anyOf"] if isinstance(option, dict)]
    if isinstance(kind, list):
        kind = next((one for one in kind if one != "null"), "string")
    return str(kind or "string")


def _labelled(text: str, name: str) -> tuple[str, str] | None:
    match = _find_label(text, name)
    return (match["rest"].strip().strip('"'), text[match.end() + 1 :]) if match else None


def _find_label(text: str, name: str) -> re.Match[str] | None:
    words = r"[\s_-]+".join(re.escape(word) for word in re.split(r"[\s_-]+", name) if word)
    label = rf"^[ \t]*(?:#+[ \t]+|[-*+][ \t]+)?\**{words}\**[ \t]*[:=][ \t]*\**(?P<rest>[^\n]*)$"
    return re.search(label, text, re.IGNORECASE | re.MULTILINE)


def _heading(text: str) -> str | None:
    line = next((line for line in text.splitlines() if line.strip()), None)
    return line.strip().lstrip("#").strip() or None if line is not None else None


def _items(line: str, below: str, schema: Mapping[str, Any]) -> list[Any]:
    if line:
        found = [part.strip() for part in re.split(r"[,;]", line.strip("[]")) if part.strip()]
    else:
        found = []
        for following in below.splitlines():
            item = _ITEM.fullmatch(following)
            if item is None:
                break
            found.append(item[1].strip())
    return [_value(one, schema) for one in found]


def _value(line: str, schema: Mapping[str, Any]) -> Any:
    if not line:
        return None
    kind = _kind(schema)
    if kind in ("number", "integer"):
        number = _NUMBER.search(line)
        if number is None:
            return None
        value = float(re.sub(r"[,_ ]", "", number[0]))
        return int(value) if kind == "integer" else value
    if kind == "boolean":
        word = line.split(maxsplit=1)[0].strip(".,;").lower()
        return True if word in _TRUE else False if word in _FALSE else None
    if "enum" in schema:
        return next((option for option in schema["enum"] if str(option).lower() in line.lower()), None)
    if schema.get("format") == "date":
        date = _DATE.search(line)
        return date[0] if date else None
    return line
