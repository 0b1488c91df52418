"""Documents with what a ``_bulk`` body has around each."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from io import BytesIO
from itertools import accumulate, repeat
from operator import add
from typing import NamedTuple

import msgspec

from overnight.ingest.map.documents import Documents
from overnight.ingest.write.sink import Frame
from overnight.json_text import JsonBytes

_encode = msgspec.json.Encoder().encode


class Framed(NamedTuple):
    """
    A stretch of a body.

    :param pieces: Of each document (with its frame) so many as of every other.
    :param width: How many that are.
    :param ends: Where each document ends.
    """

    pieces: list[JsonBytes]
    width: int
    ends: list[int]

    def write(self, body: BytesIO, start: int, end: int) -> None:
        """Write some of the documents."""
        # Once, to where they stay: to join them first would be a second copy.
        body.writelines(self.pieces[start * self.width : end * self.width])


def frame(documents: Documents, around: Frame) -> Framed:
    """Return documents as they stand in a body."""
    pieces: list[bytes | Sequence[JsonBytes]] = [around.head, documents.ids]
    routings = documents.places.routings
    if routings is not None:
        pieces.append([around.routing + _encode(routing) if routing is not None else b"" for routing in routings])
    pieces += [around.middle, *documents.pieces, around.tail]
    template = _unite(pieces)
    size, width = len(documents), len(template)
    parts: list[JsonBytes] = [b""] * (size * width)
    sizes: Iterable[int] = repeat(sum(len(piece) for piece in template if isinstance(piece, bytes)), size)
    for position, piece in enumerate(template):
        if isinstance(piece, bytes):
            parts[position::width] = [piece] * size
        else:
            parts[position::width] = piece
            sizes = map(add, sizes, map(len, piece))
    return Framed(parts, width, list(accumulate(sizes)))


def _unite(pieces: Sequence[bytes | Sequence[JsonBytes]]) -> list[bytes | Sequence[JsonBytes]]:
    """Return pieces with no two beside each other that are the same in all documents."""
    united: list[bytes | Sequence[JsonBytes]] = []
    for piece in pieces:
        last = united[-1] if united else None
        if isinstance(piece, bytes) and isinstance(last, bytes):
            united[-1] = last + piece
        else:
            united.append(piece)
    return united
