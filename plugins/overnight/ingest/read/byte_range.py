"""A part of a file, named behind its URI: ``s3://bucket/key.jsonl#bytes=0-104857600``."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator
from typing import Final, NamedTuple

from overnight.errors import SpecError, shorten

MAX_OFFSET: Final = 2**63 - 1
"""Of a byte in a file, for the operating system and for object stores."""
_RANGE = re.compile(r"#bytes=([0-9]{1,100})-([0-9]{0,100})$")


class ByteRange(NamedTuple):
    """
    The lines between two places of a file.

    :param start: The first byte, which starts a line.
    :param end: The first byte that does not belong to it; ``None`` is the file's end.
    """

    start: int
    end: int | None = None

    def __str__(self) -> str:
        return f"#bytes={self.start}-{'' if self.end is None else self.end}"


class UnevenRangeError(ValueError):
    """A range does not start or end where a line does: it was not made for this file, or the file has changed."""


def split_range(uri: str) -> tuple[str, ByteRange | None]:
    """
    Return a URI without its byte range, and the range.

    :raises SpecError: it ends before it starts, or no file is so long.
    """
    match = _RANGE.search(uri)
    if match is None:
        return uri, None
    part = ByteRange(int(match[1]), int(match[2]) if match[2] else None)
    if part.end is not None and part.end <= part.start:
        raise SpecError(f"The byte range {part} is empty. Write #bytes=START-END; END is not included.")
    if max(part.start, part.end or 0) > MAX_OFFSET:
        raise SpecError(f"The byte range {shorten(str(part), 100)} lies behind the end of any file.")
    return uri[: match.start()], part


def first_byte(part: ByteRange, start: int) -> int:
    """Return where to read from for the line at ``start``: for a range's first line the line break before it, too."""
    return start - 1 if 0 < start == part.start else start


def within(chunks: Iterable[bytes], part: ByteRange, start: int) -> Iterator[bytes]:
    """
    Yield what lies in a range, from a line of it on.

    :param chunks: The file from :func:`first_byte` of the range and the line on.
    :raises UnevenRangeError: the range does not start or end between two lines.
    """
    position = first_byte(part, start)
    last = b"\n"
    for chunk in chunks:
        piece = chunk
        if position < start and piece:
            if piece[:1] != b"\n":
                raise UnevenRangeError(f"byte {start} is in the middle of a line")
            piece, position = piece[1:], start
        if part.end is not None and position + len(piece) > part.end:
            piece = piece[: part.end - position]
            if piece:
                yield piece
                last = piece[-1:]
            if last != b"\n":
                raise UnevenRangeError(f"byte {part.end} is in the middle of a line")
            return
        if piece:
            yield piece
            last = piece[-1:]
            position += len(piece)
            if position == part.end and last == b"\n":
                return
    if position < start or (part.end is not None and position < part.end):
        raise UnevenRangeError(f"the file has only {position} bytes")
