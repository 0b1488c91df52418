"""Values out of JSON that a line holds in a string: the answers of chat models."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Protocol, TypeAlias

from overnight.ingest.map.decoder import Lane, LineDecoder, MalformedLineError
from overnight.json_text import InvalidJsonTextError, JsonBytes, read_json_text, read_plain_text
from overnight.jsonpath import JsonPath

Check: TypeAlias = Callable[[bytes], str | None]
"""Says why a JSON is not what it should be, ``None`` when it is."""


class InvalidOutputError(ValueError):
    """
    A string that paths go into holds no JSON, or not the JSON that was asked for.

    :ivar values: What the other paths of the line found.
    """

    def __init__(self, message: str, values: list[JsonBytes | None]) -> None:
        super().__init__(message)
        self.values = values


class Decoder(Protocol):
    """Reads the values of some paths out of lines."""

    @property
    def lanes(self) -> list[Lane]:
        """How each path is read."""
        ...

    def decode(self, line: bytes) -> list[JsonBytes | None]:
        """Return one value per path, ``None`` where the line has none."""
        ...


def make_decoder(paths: Sequence[JsonPath], check: Check | None = None) -> Decoder:
    """
    Return what reads the values of these paths.

    :param check: What the JSON in each string that a path goes into must pass.
    """
    return TextDecoder(paths, check) if any(path.to_text is not None for path in paths) else LineDecoder(paths)


class TextDecoder:
    """
    Reads the values of paths of which some go into strings.

    A string is decoded once for all paths that go into it, and what is selected in it is spliced as it is written.
    """

    def __init__(self, paths: Sequence[JsonPath], check: Check | None = None) -> None:
        self._size = len(paths)
        self._direct = [number for number, path in enumerate(paths) if path.to_text is None]
        texts: dict[JsonPath, list[int]] = {}
        for number, path in enumerate(paths):
            if path.to_text is not None:
                texts.setdefault(path.to_text, []).append(number)
        self._texts = [
            _Text(to_text, numbers, [paths[number] for number in numbers], check) for to_text, numbers in texts.items()
        ]
        self._outer = LineDecoder([*(paths[number] for number in self._direct), *texts])

    @property
    def lanes(self) -> list[Lane]:
        """How each path is read; those into strings are ``text``."""
        lanes: list[Lane] = ["text"] * self._size
        for number, lane in zip(self._direct, self._outer.lanes, strict=False):
            lanes[number] = lane
        return lanes

    def decode(self, line: bytes) -> list[JsonBytes | None]:
        """
        Return one value per path, ``None`` where the line, or the JSON in its string, has none.

        :raises MalformedLineError: the line is not one JSON object.
        :raises InvalidOutputError: a string that is there holds no JSON, or one that does not pass the check.
        """
        found = self._outer.decode(line)
        values: list[JsonBytes | None] = [None] * self._size
        for number, value in zip(self._direct, found, strict=False):
            values[number] = value
        fault: str | None = None
        for text, value in zip(self._texts, found[len(self._direct) :], strict=True):
            try:
                text.read(value, values)
            except (InvalidJsonTextError, MalformedLineError) as error:
                fault = fault or f"what is at {text.path.text} is {error}"
            except InvalidOutputError as error:
                fault = fault or f"in the JSON at {text.path.text}, {error}"
        if fault is not None:
            raise InvalidOutputError(fault, values)
        return values


class _Text:
    """
    One string with JSON, and the paths that go into it.

    :param numbers: Where their values belong among those of all paths.
    """

    def __init__(self, path: JsonPath, numbers: Sequence[int], paths: Sequence[JsonPath], check: Check | None) -> None:
        self.path = path
        self._is_definite = path.is_definite
        self._check = check
        self._paths = tuple(zip(numbers, paths, strict=True))
        self._whole = [number for number, path in self._paths if path.in_text is None]
        inner = {number: path.in_text for number, path in self._paths if path.in_text is not None}
        self._numbers = tuple(inner)
        self._decoder = make_decoder(tuple(inner.values()))

    def read(self, value: JsonBytes | None, values: list[JsonBytes | None]) -> None:
        """Put what the paths select into ``values``."""
        if value is None:
            return
        first = value if self._is_definite else self.path.get_first(value)
        if first is None:
            return
        raw = bytes(first)
        if raw == b"null":
            return
        found: list[JsonBytes | None] | None = None
        text = read_plain_text(raw) if raw.startswith(b'"') else raw
        if text is not None and text.startswith(b"{"):
            # It is parsed here once; a check of its own before would be a second time.
            try:
                found = self._decoder.decode(text)
            except MalformedLineError:
                text = None
        if text is None or found is None:
            text = read_json_text(raw)
        if self._check is not None and (fault := self._check(text)) is not None:
            raise InvalidJsonTextError(f"not what was asked for: {fault}")
        if not text.startswith(b"{"):
            for number, path in self._paths:
                values[number] = path.find_in_text(text)
            return
        for number in self._whole:
            values[number] = text
        for number, inner in zip(self._numbers, found or self._decoder.decode(text), strict=True):
            values[number] = inner
