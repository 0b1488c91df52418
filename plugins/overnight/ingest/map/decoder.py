"""
Mapped values out of a JSON line without parsing them.

The paths become nested :class:`msgspec.Struct` types whose leaves are :class:`msgspec.Raw`: msgspec walks a line
once, checks its syntax, and hands back slices of it. An embedding of a thousand floats costs no more than its
bytes, and a value reaches the index exactly as it was written (2**53+1, 1e-7, escapes).
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from enum import Enum
from operator import attrgetter, itemgetter
from typing import Any, Literal, TypeAlias

import msgspec

from overnight.json_text import JsonBytes
from overnight.jsonpath import JsonPath, Segment

Getter: TypeAlias = Callable[[Any], Any]
Lane: TypeAlias = Literal["fast", "text", "general"]
"""How a path is read: with the others in one pass, out of a string that holds JSON, or on its own."""

_ABSENT = msgspec.Raw(b"")


class MalformedLineError(ValueError):
    """The line is not one JSON object in UTF-8."""


class LineDecoder:
    """
    Reads the values of some paths out of lines.

    :param paths: Plain paths are read in one pass; the others are evaluated one by one.
    """

    def __init__(self, paths: Sequence[JsonPath]) -> None:
        self._paths = tuple(paths)
        root = _Node()
        typed = [path.segments for path in self._paths if path.segments and isinstance(path.segments[0], str)]
        typed = [segments for segments in typed if root.add(segments)]
        kind = root.to_type()
        self._decoder = msgspec.json.Decoder(kind)
        self._blank = kind() if root.children else None
        self._getters = [root.getter(path.segments) if path.segments in typed else None for path in self._paths]

    def decode(self, line: bytes) -> list[JsonBytes | None]:
        """
        Return one value per path, ``None`` where the line has none.

        A value of another type on the way (``$.a.b`` where ``a`` is a number) counts as none; a ``null`` at the end
        of the path is a value.

        :raises MalformedLineError: the text names the fault and its byte.
        """
        try:
            if not line.isascii():
                line.decode()
            found = self._decoder.decode(line)
        except msgspec.ValidationError:
            return self._decode_each(line)
        except msgspec.DecodeError as error:
            raise MalformedLineError(f"not JSON: {error}") from error
        except UnicodeDecodeError as error:
            raise MalformedLineError(f"not UTF-8: {error.reason} (byte {error.start})") from error
        except RecursionError as error:
            raise MalformedLineError("nested too deeply") from error
        values: list[JsonBytes | None] = []
        for path, getter in zip(self._paths, self._getters, strict=True):
            if getter is None:
                values.append(self._find(path, line))
                continue
            try:
                value = getter(found)
            except (AttributeError, IndexError, TypeError):
                value = self._find(path, line)
            values.append(None if value is _ABSENT else value)
        return values

    @property
    def is_plain(self) -> bool:
        """Whether all paths are read in one pass, so that :meth:`decode_all` can be used."""
        return None not in self._getters

    @property
    def lanes(self) -> list[Lane]:
        """How each path is read."""
        return ["fast" if getter is not None else "general" for getter in self._getters]

    def decode_all(self, lines: Sequence[bytes], odd: set[int]) -> list[list[JsonBytes]]:
        """
        Return one column of values per path, with an empty value where a line has none.

        :param odd: Is given the numbers of the lines that are not plain; :meth:`decode` reads them, or says what is
            wrong with them. What the columns have for them is nothing.
        """
        if not all(map(bytes.isascii, lines)):
            odd.update(number for number, line in enumerate(lines) if not _is_text(line))
        found = _map_all(self._decoder.decode, lines, self._blank, odd)
        return [_map_all(getter, found, _ABSENT, odd) for getter in self._getters if getter is not None]

    def _decode_each(self, line: bytes) -> list[JsonBytes | None]:
        """Read a line in which something on the way to a value is of another type than the paths expect."""
        try:
            _object.decode(line)
        except msgspec.ValidationError as error:
            raise MalformedLineError("not a JSON object") from error
        except msgspec.DecodeError as error:
            raise MalformedLineError(f"not JSON: {error}") from error
        except RecursionError as error:
            raise MalformedLineError("nested too deeply") from error
        return [self._find(path, line) for path in self._paths]

    @staticmethod
    def _find(path: JsonPath, line: bytes) -> JsonBytes | None:
        try:
            return path.find(line)
        except (RecursionError, ValueError) as error:
            raise MalformedLineError(f"{path.text} cannot be evaluated: {error}") from error


_object = msgspec.json.Decoder(dict[str, msgspec.Raw])


def _is_text(line: bytes) -> bool:
    if line.isascii():
        return True
    try:
        line.decode()
    except UnicodeDecodeError:
        return False
    return True


def _map_all(work: Getter, values: Sequence[Any], default: Any, odd: set[int]) -> list[Any]:
    """Return what a piece of work makes of each value, and a default where it fails; these are noted."""
    done: list[Any] = []
    while True:
        try:
            # What was made before an error stays in the list.
            done.extend(map(work, values[len(done) :] if done else values))
        except (msgspec.MsgspecError, RecursionError, AttributeError, IndexError, TypeError):
            odd.add(len(done))
            done.append(default)
        else:
            return done


class _Item(Enum):
    """Stands in the tree for every index of an array: msgspec gives all elements one type."""

    ANY = "[]"


@dataclass
class _Node:
    """One place in the tree of the paths; a leaf when it has no children."""

    children: dict[str | _Item, _Node] = field(default_factory=dict)
    is_leaf: bool = False

    def add(self, segments: tuple[Segment, ...]) -> bool:
        """Add a path; ``False``, and nothing added, when one typed tree cannot hold it beside the others."""
        if not segments:
            self.is_leaf = not self.children
            return self.is_leaf
        segment = segments[0] if isinstance(segments[0], str) else _Item.ANY
        if self.is_leaf or not _is_field_name(segment):
            return False
        if any(type(other) is not type(segment) for other in self.children):
            return False
        child = self.children.get(segment) or _Node()
        if not child.add(segments[1:]):
            return False
        self.children[segment] = child
        return True

    def to_type(self, name: str = "Line") -> Any:
        if self.is_leaf:
            return msgspec.Raw
        item = self.children.get(_Item.ANY)
        if item is not None:
            return list[item.to_type(f"{name}_item") if item.is_leaf else item.to_optional(f"{name}_item")]  # type: ignore[misc]
        return msgspec.defstruct(
            name,
            [
                (_field(n), msgspec.Raw, _ABSENT)
                if child.is_leaf
                else (_field(n), child.to_optional(f"{name}_{n}"), None)
                for n, child in enumerate(self.children.values())
            ],
            rename={_field(n): str(segment) for n, segment in enumerate(self.children)},
            gc=False,
        )

    def to_optional(self, name: str) -> Any:
        """Return the type with the strays that are common: ``null``, and the JSON string of ``response.body``."""
        # An index would find something in a string.
        return self.to_type(name) | None if _Item.ANY in self.children else self.to_type(name) | str | None

    def getter(self, segments: tuple[Segment, ...]) -> Getter:
        """Return what takes one path's value from a decoded line; it raises when something on the way is not there."""
        node, getters = self, []
        for segment in segments:
            key = segment if isinstance(segment, str) else _Item.ANY
            getters.append(
                attrgetter(_field(list(node.children).index(key))) if isinstance(segment, str) else itemgetter(segment)
            )
            node = node.children[key]
        return _chain(getters)


def _field(n: int) -> str:
    return f"f{n}"


def _is_field_name(segment: str | _Item) -> bool:
    """Whether msgspec takes this name; the very few others are read one by one."""
    return isinstance(segment, _Item) or not any(character in '"\\' or character < " " for character in segment)


def _chain(getters: Sequence[Getter]) -> Getter:
    if len(getters) == 1:
        return getters[0]

    def get(value: Any) -> Any:
        for getter in getters:
            value = getter(value)
        return value

    return get
