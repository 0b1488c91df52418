"""Bytes to lines, in bounded memory, each with its number and its offset."""

from __future__ import annotations

import io
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import accumulate
from typing import Final, NamedTuple

BLOCK_BYTES: Final = 256 << 10
"""Lines of about so many bytes are a block: few enough to stay in the processor's cache."""
BLOCK_LINES: Final = 2_000
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


@dataclass(frozen=True, slots=True)
class LineBlock:
    """
    Some lines of a file in columns, so that what is done with each can be done with all of them at once.

    :param numbers: As of :class:`Line`; so are ``offsets`` and ``ends``.
    :param raws: With their line breaks; ``None`` for a line over the limit.
    :param is_whole: Whether no line is over the limit.
    """

    numbers: Sequence[int]
    offsets: Sequence[int]
    ends: Sequence[int]
    raws: Sequence[bytes | None]
    is_whole: bool = True

    def __len__(self) -> int:
        return len(self.raws)

    def line(self, index: int) -> Line:
        """Return one line of the block."""
        return Line(self.numbers[index], self.offsets[index], self.ends[index], self.data(index))

    def data(self, index: int) -> bytes | None:
        """Return the bytes of one line, as :attr:`Line.data` has them."""
        raw, offset = self.raws[index], self.offsets[index]
        return bare(raw.removesuffix(b"\n"), offset) if raw is not None else None


def split_lines(chunks: Iterable[bytes], limit: int, start: Position = START) -> Iterator[Line]:
    """Cut a stream into lines; see :func:`split_blocks`."""
    for block in split_blocks(chunks, limit, start):
        for index in range(len(block)):
            yield block.line(index)


def split_blocks(chunks: Iterable[bytes], limit: int, start: Position = START) -> Iterator[LineBlock]:
    r"""
    Cut a stream into lines, some kilobytes of them at once.

    A last line without a line break counts, an empty rest after the last line break does not. ``\r\n`` ends a
    line as ``\n`` does. A UTF-8 byte order mark at the very start belongs to no line.

    :param limit: Bytes; of a longer line no more than this is ever held.
    :param start: Where in the file the stream starts.
    """
    offset, number = start
    held: list[bytes] = []  # the start of the line that the next chunk goes on with
    held_bytes = 0
    for chunk in chunks:
        # Its readlines() searches with memchr; bytes.split() looks at each byte.
        stream = io.BytesIO(chunk)
        while raws := stream.readlines(BLOCK_BYTES):
            rest = b"" if raws[-1].endswith(b"\n") else raws.pop()
            if raws and held_bytes:
                held.append(raws[0])
                size = held_bytes + len(raws[0])
                if size - 1 > limit:
                    number += 1
                    yield LineBlock((number,), (offset,), (offset + size,), (None,), is_whole=False)
                    offset += size
                    del raws[0]
                else:
                    raws[0] = b"".join(held)
                held, held_bytes = [], 0
            for first in range(0, len(raws), BLOCK_LINES):
                block = _block(number, offset, raws[first : first + BLOCK_LINES], limit)
                yield block
                number, offset = block.numbers[-1], block.ends[-1]
            if rest:
                held_bytes += len(rest)
                if held_bytes <= limit:
                    held.append(rest)
                else:
                    held = []
    if held_bytes:
        raw = b"".join(held) if held_bytes <= limit else None
        yield LineBlock((number + 1,), (offset,), (offset + held_bytes,), (raw,), is_whole=raw is not None)


def _block(number: int, offset: int, raws: Sequence[bytes], limit: int) -> LineBlock:
    sizes = list(map(len, raws))
    places = list(accumulate(sizes, initial=offset))
    is_whole = max(sizes) - 1 <= limit
    return LineBlock(
        range(number + 1, number + 1 + len(raws)),
        places[:-1],
        places[1:],
        raws if is_whole else [raw if len(raw) - 1 <= limit else None for raw in raws],
        is_whole,
    )


def bare(data: bytes, offset: int) -> bytes:
    """Return a line's bytes without what belongs to the file: a carriage return, a byte order mark at its start."""
    if data.endswith(b"\r"):
        data = data[:-1]
    return data.removeprefix(_BOM) if offset == 0 else data
