"""One source, line by line, as documents."""

from __future__ import annotations

import zlib
from collections.abc import Iterator
from dataclasses import dataclass
from hashlib import blake2b
from typing import Literal, NamedTuple

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


@dataclass(slots=True)
class Document:
    """
    A document to be written.

    :param id: Its ``_id`` as JSON.
    :param rows: What it is made of, one per source.
    :param parts: Its source, in pieces of JSON.
    """

    id: JsonBytes
    rows: list[Row | None]
    parts: list[JsonBytes]
    place: DocumentPlace


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


@dataclass(slots=True)
class ReadItem:
    """
    What one line read (or, of a join, one id left over) comes to.

    :param cursor: Where a later attempt may go on when everything up to here is done; ``None``: not here.
    :param source: The source whose line was read; ``None`` when none was.
    :param bytes: Of that line.
    :param is_blank: The line is blank: counted, and no document.
    :param lacking: The sources that have no row for this id, when it is missing.
    """

    cursor: Cursor | None
    source: int | None = None
    bytes: int = 0
    document: Document | None = None
    dead_letter: DeadLetter | None = None
    lacking: tuple[int, ...] = ()
    is_blank: bool = False


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
        self._rows = rows
        self._splicer = splicer
        self._ids = ids

    def items(self, start: Cursor | None) -> Iterator[ReadItem]:
        """
        Yield one item per line after ``start``.

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
            for line in self._reader.lines(file, position):
                row = self._rows.read(line)
                self._rows.count(row, number)
                if number < start.file or line.end <= done:
                    if row.key is not None and self._ids is not None:
                        self._ids.see(row.key)
                    continue
                cursor = Cursor(number, Position(line.end, line.number))
                yield self._read_item(cursor, file.name, prefix, line, row)

    def _read_item(self, cursor: Cursor, uri: str, prefix: str, line: Line, row: Row) -> ReadItem:
        item = ReadItem(cursor, 0, line.end - line.offset, is_blank=row.is_blank)
        if row.is_blank:
            return item
        if row.key is not None and self._ids is not None and not self._ids.see(row.key):
            row.rejection = Rejection(Reason.DUPLICATE_ID, "an earlier line of this source has the same id")
        if row.rejection is not None:
            item.dead_letter = build_dead_letter("rejected", row.rejection, 0, uri, line, row)
            return item
        if row.key is None:
            row.key = b"%b-%x-%08x" % (prefix.encode(), line.offset, zlib.crc32(line.data or b""))
            row.id = b'"%b"' % row.key
        rows: list[Row | None] = [row]
        place = DocumentPlace(0, uri, line.number, line.offset, row.key.decode(), row.routing)
        item.document = Document(row.id or b"", rows, self._splicer.splice(rows), place)
        return item


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
