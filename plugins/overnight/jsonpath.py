"""
JSONPaths that find bytes: a match is a slice of the line as it was written, never parsed and written again.

One segment is our own: ``.json()`` goes on inside of a string that holds JSON, such as a chat model's answer
(``$.response.body.choices[0].message.content.json().label``).
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import Enum
from typing import TYPE_CHECKING, Any, Final, NamedTuple, TypeAlias

import msgspec

from overnight.errors import SpecError, shorten
from overnight.json_text import JsonBytes, read_json_text

if TYPE_CHECKING:
    from jsonpath_ng import JSONPath

Segment: TypeAlias = str | int
"""A member name or an array index (negative ones count from the end)."""
MAX_QUOTED: Final = 300
"""Characters of a path, or of what is wrong with it, that an error quotes."""

_PLAIN_SEGMENT = re.compile(
    r"""
      \. (?P<name> [^\s.\[\]'"*?@()$,:]+ )
    | \[ \s* (?P<index> -?\d+ ) \s* \]
    | \[ \s* ' (?P<single> (?: [^'\\] | \\. )+ ) ' \s* \]
    | \[ \s* " (?P<double> (?: [^"\\] | \\. )+ ) " \s* \]
    """,
    re.VERBOSE,
)
_SELECTING_SEGMENT = re.compile(
    r"""
      \. (?P<name> [^\s.\[\]'"*?@()$,:]+ )
    | \[ \? \( @ \. (?P<member> \w+ ) \s* == \s* (?P<quote> ['"] ) (?P<value> [^'"\\]* ) (?P=quote) \) \]
    """,
    re.VERBOSE,
)
_ESCAPED = re.compile(r"\\(.)")
_QUOTED = re.compile(r"""'(?:[^'\\]|\\.)*'|"(?:[^"\\]|\\.)*\"""")
_READ_TEXT: Final = ".json()"
_members = msgspec.json.Decoder(dict[str, msgspec.Raw])
_elements = msgspec.json.Decoder(list[msgspec.Raw])
_text = msgspec.json.Decoder(str)


class Selection(NamedTuple):
    """``[?(@.member=='value')]``: the elements of an array whose member is this text."""

    member: str
    value: str


@dataclass(frozen=True)
class JsonPath:
    """
    One JSONPath.

    :param text: As the user wrote it, from the ``$`` on.
    :param segments: The way from the root, when the path is plain (names and indices only). ``None`` for a path with
        filters, wildcards, slices or ``..``, which jsonpath-ng evaluates, and for one with ``.json()``.
    :param selecting: The way of a path of names and selections, which is followed without jsonpath-ng.
    :param to_text: Of a path with ``.json()``: the way to the string. Of many matches it is the first.
    :param in_text: Of such a path: what is selected in the string's JSON; ``None`` for all of it.
    """

    text: str
    segments: tuple[Segment, ...] | None
    expression: JSONPath | None = field(default=None, compare=False, repr=False)
    selecting: tuple[str | Selection, ...] | None = None
    to_text: JsonPath | None = None
    in_text: JsonPath | None = None

    @classmethod
    def parse(cls, text: str) -> JsonPath:
        """
        Compile a path.

        :raises SpecError: it is no JSONPath, or selects the whole line.
        """
        if not text.startswith("$"):
            raise SpecError(f"{shorten(text, MAX_QUOTED)!r} is no JSONPath: it must start with '$'.")
        position = _find_read_text(text)
        if position is not None:
            rest = text[position + len(_READ_TEXT) :]
            return cls(
                text, None, to_text=cls.parse(text[:position]), in_text=cls.parse(f"${rest}") if rest.strip() else None
            )
        segments = _parse_segments(text)
        if segments == ():
            raise SpecError(
                f"{shorten(text, MAX_QUOTED)!r} selects the whole line; name a value in it, such as '$.text'."
            )
        if segments is not None:
            return cls(text, segments)
        return cls(text, None, _compile(text), _parse_selecting(text))

    def find(self, line: JsonBytes) -> JsonBytes | None:
        """
        Return what the path selects in one line of valid JSON, ``None`` when there is nothing.

        A path that can match many times (a wildcard, say) gives an array of its matches, an empty one for none,
        as Jayway's JSONPath does in ML Commons.

        :raises InvalidJsonTextError: the string that ``.json()`` reads holds no JSON.
        """
        if self.to_text is not None:
            value = self.to_text.find_first(line)
            return self.find_in_text(read_json_text(value)) if value is not None else None
        if self.segments is not None:
            return locate(line, self.segments)
        return self.evaluate(line)

    def find_first(self, line: JsonBytes) -> JsonBytes | None:
        """Return the first match that is not ``null``, ``None`` when there is none."""
        found = self.find(line)
        return self.get_first(found) if found is not None else None

    def get_first(self, found: JsonBytes) -> JsonBytes | None:
        """Return the first match, not ``null``, of what :meth:`find` returned."""
        matches = [found] if self.is_definite else _elements.decode(found)
        return next((match for match in matches if bytes(match) != b"null"), None)

    def find_in_text(self, text: bytes) -> JsonBytes | None:
        """Return what a path with ``.json()`` selects in the JSON of its string."""
        return self.in_text.find(text) if self.in_text is not None else text

    @property
    def is_definite(self) -> bool:
        """Whether it can match once at most."""
        if self.to_text is not None:
            return self.in_text is None or self.in_text.is_definite
        return self.segments is not None or _is_definite(self.expression or _compile(self.text))

    @property
    def last_segment(self) -> str:
        """The name of what it selects."""
        if self.to_text is not None:
            return (self.in_text or self.to_text).last_segment
        if self.segments is not None and isinstance(self.segments[-1], str):
            return self.segments[-1]
        return self.text.rpartition(".")[2]

    def evaluate(self, line: JsonBytes) -> JsonBytes | None:
        """Return the matches of any path as they are written in the line."""
        if self.selecting is not None and (selected := _select(line, self.selecting)) is not None:
            return b"[" + b",".join(selected) + b"]"
        expression = self.expression or _compile(self.text)
        document = _unwrap_body(json.loads(bytes(line)))
        found: list[JsonBytes] = []
        for match in expression.find(document):
            segments = _get_segments(match)
            value = msgspec.json.encode(match.value) if segments is None else locate(line, segments)
            if value is not None:
                found.append(value)
        if _is_definite(expression):
            return found[0] if found else None
        return b"[" + b",".join(found) + b"]"


def _find_read_text(text: str) -> int | None:
    """Return where the first ``.json()`` of a path begins that is not in a quoted name."""
    masked = _QUOTED.sub(lambda quoted: "'" * len(quoted[0]), text)
    position = masked.find(_READ_TEXT)
    return position if position >= 0 else None


def locate(line: JsonBytes, segments: tuple[Segment, ...]) -> JsonBytes | None:
    """
    Follow plain segments into one JSON text and return the bytes of what is there, or ``None``.

    ``$.response.body`` may be an object or, as some OpenAI-compatible servers write it, a string with the object's
    JSON.
    """
    value: JsonBytes = line
    for depth, segment in enumerate(segments):
        if segments[:depth] == _BODY and _first_byte(value) == b'"':
            # Raw line breaks are white space here: inside of strings JSON has them escaped. In a bulk body they would
            # end the document.
            value = _text.decode(value).replace("\r", " ").replace("\n", " ").encode()
        try:
            value = _members.decode(value)[segment] if isinstance(segment, str) else _elements.decode(value)[segment]
        except (msgspec.DecodeError, KeyError, IndexError):
            return None
    return value


_BODY = ("response", "body")


def parse_plain(text: str) -> tuple[Segment, ...]:
    """
    Return the names and indices of a path that can match one value at most; none for ``$``, the whole document.

    The ``$`` may be left out: ``meta.titles[0]``, ``['a b']``.

    :raises SpecError: it is no JSONPath, or has filters, wildcards or slices.
    """
    rooted = text if text.startswith("$") else f"${text}" if text.startswith("[") else f"$.{text}"
    segments = _parse_segments(rooted)
    if segments is None:
        _compile(rooted)
        raise SpecError(
            f"{shorten(text, MAX_QUOTED)!r} could match many values; use names and positions only, such as "
            "$.meta.titles[0]."
        )
    return segments


class Missing(Enum):
    """Stands for a value that is not there; ``None`` is a value."""

    MISSING = "missing"


MISSING: Final = Missing.MISSING


def get_value(document: Any, segments: tuple[Segment, ...]) -> Any:
    """Return what is at plain segments of a document that was parsed, :data:`MISSING` when there is nothing."""
    value = document
    for segment in segments:
        if isinstance(segment, str):
            # Most are plain dictionaries, and asking an abstract class is slow.
            is_object = type(value) is dict or isinstance(value, Mapping)
            value = value.get(segment, MISSING) if is_object else MISSING
        else:
            is_there = isinstance(value, list) and -len(value) <= segment < len(value)
            value = value[segment] if is_there else MISSING
        if value is MISSING:
            break
    return value


def _parse_segments(text: str) -> tuple[Segment, ...] | None:
    """Return the segments behind the ``$`` of a plain path, ``None`` for any other."""
    segments: list[Segment] = []
    position = 1
    while position < len(text):
        match = _PLAIN_SEGMENT.match(text, position)
        if match is None:
            return None
        position = match.end()
        if match["index"] is not None:
            segments.append(int(match["index"]))
        else:
            quoted = match["single"] or match["double"]
            segments.append(_ESCAPED.sub(r"\1", quoted) if quoted else match["name"])
    return tuple(segments)


def _parse_selecting(text: str) -> tuple[str | Selection, ...] | None:
    """Return the way of a path that has nothing but names and selections by a text, ``None`` for any other."""
    way: list[str | Selection] = []
    position = 1
    while position < len(text):
        match = _SELECTING_SEGMENT.match(text, position)
        if match is None:
            return None
        position = match.end()
        way.append(match["name"] if match["name"] is not None else Selection(match["member"], match["value"]))
    return tuple(way)


def _select(line: JsonBytes, way: tuple[str | Selection, ...]) -> list[JsonBytes] | None:
    """Follow a way with selections; ``None`` where it comes upon what only jsonpath-ng knows what to do with."""
    found: list[JsonBytes] = [line]
    for depth, segment in enumerate(way):
        following: list[JsonBytes] = []
        for value in found:
            first = _first_byte(value)
            if isinstance(segment, str):
                if first == b"{":
                    members = _members.decode(value)
                    if segment in members:
                        following.append(members[segment])
                elif first == b'"' and way[:depth] == _BODY:
                    return None
            elif first == b"[":
                following += [element for element in _elements.decode(value) if _is_selected(element, segment)]
            elif first == b"{":
                return None
        found = following
    return found


def _is_selected(element: JsonBytes, selection: Selection) -> bool:
    if _first_byte(element) != b"{":
        return False
    value = _members.decode(element).get(selection.member)
    return value is not None and _first_byte(value) == b'"' and _text.decode(value) == selection.value


def _compile(text: str) -> JSONPath:
    # Its parser's tables take longer to import than all of a DAG's plain paths.
    from jsonpath_ng.exceptions import JSONPathError  # noqa: PLC0415 - not at parse
    from jsonpath_ng.ext.parser import parse  # noqa: PLC0415

    try:
        return parse(text)
    # The lexer and the parser raise their own errors, plain Exceptions among them.
    except (JSONPathError, Exception) as error:
        raise SpecError(f"{shorten(text, MAX_QUOTED)!r} is no JSONPath: {shorten(str(error), MAX_QUOTED)}") from error


def _is_definite(expression: JSONPath) -> bool:
    """Whether a path can match once at most."""
    from jsonpath_ng import Child, Fields, Index, Root  # noqa: PLC0415 - not at parse

    if isinstance(expression, Child):
        return _is_definite(expression.left) and _is_definite(expression.right)
    if isinstance(expression, Fields):
        return len(expression.fields) == 1 and expression.fields[0] != "*"
    if isinstance(expression, Index):
        return len(expression.indices) == 1
    # jsonpath-ng's functions (`len`, sub(...), arithmetic) are not of Jayway's grammar; each gives one value.
    return isinstance(expression, Root) or type(expression).__module__ not in _SELECTORS


_SELECTORS = ("jsonpath_ng.jsonpath", "jsonpath_ng.ext.filter")


def _get_segments(match: Any) -> tuple[Segment, ...] | None:
    """Return the way to a match, or ``None`` when the value was computed and stands nowhere in the line."""
    from jsonpath_ng import Fields, Index, Root  # noqa: PLC0415 - not at parse

    segments: list[Segment] = []
    while match is not None and not isinstance(match.path, Root):
        if isinstance(match.path, Fields):
            segments.append(match.path.fields[0])
        elif isinstance(match.path, Index):
            segments.append(match.path.indices[0])
        else:
            return None
        match = match.context
    return tuple(reversed(segments)) if match is not None else None


def _unwrap_body(document: Any) -> Any:
    response = document.get("response") if isinstance(document, dict) else None
    if isinstance(response, dict) and isinstance(response.get("body"), str):
        try:
            body = json.loads(response["body"])
        except ValueError:
            return document
        return {**document, "response": {**response, "body": body}}
    return document


def _first_byte(value: JsonBytes) -> bytes:
    return bytes(memoryview(value)[:1])


def decode_text(value: JsonBytes) -> str:
    """Return the text of a JSON string."""
    return _text.decode(value)


def to_segment(name: str) -> str:
    """Return the segment of a path that goes to a member, whatever its name."""
    if _PLAIN_NAME.fullmatch(name):
        return f".{name}"
    quoted = name.replace("\\", "\\\\").replace("'", "\\'")
    return f"['{quoted}']"


_PLAIN_NAME: Final = re.compile(r"[A-Za-z_][A-Za-z0-9_]*")
