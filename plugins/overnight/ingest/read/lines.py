"""Bytes to lines, in bounded memory, each with its number and its offset."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import NamedTuple

_BOM = b"\xef\xbb\xbf"


class Position(NamedTuple):
    """A place between two lines: how many bytes and lines lie before it."""

    offset: int = 0
    lines: int = 0


START = Position()


class Line(NamedTuple):
    """
    One line of a file.

    :param number: From 1.
    :param offset: Of its first byte, in the uncompressed file.
    :param end: Where the next line starts.
    :param data: Without its line break; ``None`` for a line over the limit, whose bytes were dropped.
    """

    number: int
    offset: int
    end: int
    data: bytes | None


def skip(chunks: Iterable[bytes], count: int) -> Iterator[bytes]:
    """Drop the first ``count`` bytes of a stream."""
    for chunk in chunks:
        if count >= len(chunk):
            count -= len(chunk)
        elif count:
            yield chunk[count:]
            count = 0
        else:
            yield chunk


def split_lines(chunks: Iterable[bytes], limit: int, start: Position = START) -> Iterator[Line]:
    r"""
    Cut a stream into lines.

    A last line without a line break counts, an empty rest after the last line break does not. ``\r\n`` ends a
    line as ``\n`` does. A UTF-8 byte order mark at the very start belongs to no line.

    :param limit: Bytes; of a longer line no more than this is ever held.
    :param start: Where in the file the stream starts.
    """
    offset, number = start
    held: list[bytes] = []  # the start of the line that the next chunk goes on with
    held_bytes = 0
    for chunk in chunks:
        pieces = chunk.split(b"\n")
        rest = pieces.pop()
        for piece in pieces:
            if held_bytes:
                held.append(piece)
                size = held_bytes + len(piece)
                data = b"".join(held) if size <= limit else None
                held, held_bytes = [], 0
            else:
                size = len(piece)
                data = piece if size <= limit else None
            number += 1
            end = offset + size + 1
            yield _line(number, offset, end, data)
            offset = end
        if rest:
            held_bytes += len(rest)
            if held_bytes <= limit:
                held.append(rest)
            else:
                held = []
    if held_bytes:
        yield _line(number + 1, offset, offset + held_bytes, b"".join(held) if held_bytes <= limit else None)


def _line(number: int, offset: int, end: int, data: bytes | None) -> Line:
    return Line(number, offset, end, bare(data, offset) if data is not None else None)


def bare(data: bytes, offset: int) -> bytes:
    """Return a line's bytes without what belongs to the file: a carriage return, a byte order mark at its start."""
    if data.endswith(b"\r"):
        data = data[:-1]
    return data.removeprefix(_BOM) if offset == 0 else data
