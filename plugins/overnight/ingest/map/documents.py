"""One source as documents, a block of lines at once."""

from __future__ import annotations

import zlib
from bisect import bisect_right
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from hashlib import blake2b
from typing import Final, Literal, NamedTuple

from overnight.ingest.map.row_block import BlockReader, RowBlock
from overnight.ingest.map.row_index import RowIndex
from overnight.ingest.map.rows import Reason, Row, RowReader, Splicer
from overnight.ingest.read.lines import Line, Position
from overnight.ingest.read.sources import Source, SourceReader
from overnight.ingest.report.dead_letters import DeadLetter, excerpt
from overnight.json_text import JsonBytes
from overnight.rejection import Rejection


class Cursor(NamedTuple):
    """How far the source that is streamed has been read: the number of a file and the place in it."""

    file: int = 0
    position: Position = Position()


class DocumentPlace(NamedTuple):
    """
    Which line a document is counted and reported under, and where it is looked for in the index.

    :param routing: Its routing value, where it has one of its own.
    """

    source: int
    uri: str
    line: int
    offset: int
    id: str
    routing: str | None = None


class Places(NamedTuple):
    """
    The places of some documents, in columns.

    :param lines: And the others: as of :class:`DocumentPlace`.
    :param routings: ``None`` when no document has a routing value of its own.
    """

    source: int
    uri: str
    lines: Sequence[int]
    offsets: Sequence[int]
    ids: Sequence[str]
    routings: Sequence[str | None] | None

    def get(self, number: int) -> DocumentPlace:
        """Return one document's place."""
        return DocumentPlace(
            self.source,
            self.uri,
            self.lines[number],
            self.offsets[number],
            self.ids[number],
            self.routings[number] if self.routings is not None else None,
        )

    def part(self, start: int, end: int) -> Places:
        """Return the places of some of the documents."""
        if start == 0 and end == len(self.ids):
            return self
        part = slice(start, end)
        routings = self.routings[part] if self.routings is not None else None
        return Places(self.source, self.uri, self.lines[part], self.offsets[part], self.ids[part], routings)


@dataclass(slots=True)
class Documents:
    """
    Documents to be written, in columns: those of lines that follow each other.

    :param ids: Each ``_id`` as JSON.
    :param pieces: What each document is made of, in order; bytes alone are the same in all of them.
    :param ends: Where the line after each begins; none when they are of no line of the source that is streamed.
    :param file: The number of the file of these lines.
    """

    places: Places
    ids: Sequence[JsonBytes]
    pieces: list[bytes | list[JsonBytes]]
    ends: Sequence[int] = ()
    file: int = 0

    def __len__(self) -> int:
        return len(self.ids)

    def parts(self, number: int) -> list[JsonBytes]:
        """Return one document, in pieces of JSON."""
        return [piece if isinstance(piece, bytes) else piece[number] for piece in self.pieces]

    def cursor(self, count: int) -> Cursor | None:
        """Return where a later attempt may go on when so many of these are done."""
        return Cursor(self.file, Position(self.ends[count - 1], self.places.lines[count - 1])) if self.ends else None

    def line_bytes(self, start: int, end: int) -> int:
        """Return the size of the lines of some of the documents."""
        return self.ends[end - 1] - self.places.offsets[start] if self.ends else 0


@dataclass(slots=True)
class ReadItem:
    """
    What lines that give no document come to (or, of a join, one id left over).

    :param cursor: Where a later attempt may go on when everything up to here is done; ``None``: not here.
    :param source: The source whose lines were read; ``None`` when none was.
    :param bytes: Of these lines.
    :param is_blank: The line is blank: counted, and no document.
    :param lacking: The sources that have no row for this id, when it is missing.
    :param lines: How many they are.
    """

    cursor: Cursor | None
    source: int | None = None
    bytes: int = 0
    dead_letter: DeadLetter | None = None
    lacking: tuple[int, ...] = ()
    is_blank: bool = False
    lines: int = 1


def cut(count: int, start: int, apart: Iterable[int]) -> Iterator[tuple[int, int]]:
    """
    Cut the numbers from ``start`` to ``count`` into runs, in order.

    :param apart: Numbers that are a run of their own.
    """
    for number in sorted(apart):
        if number < start:
            continue
        if start < number:
            yield start, number
        yield number, number + 1
        start = number + 1
    if start < count:
        yield start, count


class SingleSource:
    """
    The documents of a source on its own.

    Without an ``_id`` in the field map a document's id is made of the file's URI, the line's offset and a checksum
    of the line: loading the same file again writes the same documents again instead of doubling them (as ML
    Commons' automatic ids would), and a file whose lines changed adds documents.

    :param ids: Where ids are noted, to refuse the second line with the same; ``None`` lets the later line win.
    """

    def __init__(
        self,
        source: Source,
        reader: SourceReader,
        rows: RowReader,
        splicer: Splicer,
        ids: RowIndex | None,
    ) -> None:
        self._source = source
        self._reader = reader
        self._blocks = BlockReader(rows)
        self._splicer = splicer
        self._ids = ids

    def items(self, start: Cursor | None) -> Iterator[ReadItem | Documents]:
        """
        Yield what the lines after ``start`` come to.

        When ids are noted, the lines before it are read too, for their ids only.
        """
        start = start or Cursor()
        for number, file in enumerate(self._source.files):
            if number < start.file and self._ids is None:
                continue
            done = start.position.offset if number == start.file else 0
            # Of the whole file, so that an id does not depend on how the file was cut.
            prefix = blake2b(file.origin.encode(), digest_size=9).hexdigest()
            position = start.position if number == start.file and self._ids is None else Position()
            for lines in self._reader.blocks(file, position):
                rows = self._blocks.read(lines, number)
                first = len(lines) if number < start.file else bisect_right(lines.ends, done)
                if self._ids is not None:
                    for repeated in self._ids.see_all(rows.keys):
                        if repeated >= first:
                            rows.refuse(repeated, DUPLICATE)
                if first < len(lines):
                    yield from self._read_items(number, file.name, prefix, rows, first)

    def _read_items(
        self, file: int, uri: str, prefix: str, rows: RowBlock, start: int
    ) -> Iterator[ReadItem | Documents]:
        lines = rows.lines
        for first, end in cut(len(lines), start, rows.refused):
            row = rows.refused.get(first)
            if row is not None:
                line = lines.line(first)
                item = ReadItem(Cursor(file, Position(line.end, line.number)), 0, line.end - line.offset)
                item.is_blank = row.is_blank
                if row.rejection is not None:
                    item.dead_letter = build_dead_letter("rejected", row.rejection, 0, uri, line, row)
                yield item
                continue
            part = slice(first, end)
            offsets, keys = lines.offsets[part], rows.keys[part]
            ids: list[JsonBytes | None] = rows.ids[part]
            if keys[0] is None:
                keys = [
                    b"%b-%x-%08x" % (prefix.encode(), offset, zlib.crc32(lines.data(number) or b""))
                    for number, offset in enumerate(offsets, first)
                ]
                ids = [b'"%b"' % key for key in keys if key is not None]
            routings = rows.routings[part] if rows.routings is not None else None
            places = Places(0, uri, lines.numbers[part], offsets, decode_keys(keys), routings)
            pieces = splice_rows(self._splicer, [rows], part)
            yield Documents(places, ids, pieces, lines.ends[part], file)  # type: ignore[arg-type]


def splice_rows(splicer: Splicer, blocks: Sequence[RowBlock | None], part: slice) -> list[bytes | list[JsonBytes]]:
    """Return the documents of some rows in columns; one block per source (``None``: it has no values)."""
    if any(block.is_sparse for block in blocks if block is not None):
        numbers = range(*part.indices(len(next(block for block in blocks if block is not None).keys)))
        return [
            [
                b"".join(splicer.splice([block.row(number) if block is not None else None for block in blocks]))
                for number in numbers
            ]
        ]
    columns = [[column[part] for column in block.columns] if block is not None else [] for block in blocks]
    return splicer.join_columns(columns)


def decode_keys(keys: Sequence[bytes | None]) -> list[str]:
    """Return ids as texts."""
    # One decoding for all of them, unless there is a line break in an id.
    ids = b"\n".join(keys).decode().split("\n")  # type: ignore[arg-type]
    return ids if len(ids) == len(keys) else [key.decode() for key in keys if key is not None]


DUPLICATE: Final = Rejection(Reason.DUPLICATE_ID, "an earlier line of this source has the same id")


def build_dead_letter(  # noqa: PLR0917 - in the order of a sentence
    outcome: Literal["rejected", "missing"], rejection: Rejection, source: int, uri: str, line: Line, row: Row | None
) -> DeadLetter:
    """Return the dead letter of a line."""
    return DeadLetter(
        outcome,
        uri,
        source,
        line.number,
        line.offset,
        rejection.code,
        rejection.reason,
        id=row.text_id if row is not None else None,
        routing=row.routing if row is not None else None,
        text=excerpt(line.data),
    )
