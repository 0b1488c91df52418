"""
Several sources, joined by id into one write per document.

One source, the driver, is streamed. Of the others only ids and byte offsets are kept (on disk), and their rows
are read when the driver's line with the same id comes by. Where reading at random is dear — a remote or compressed
file — a source is copied to a temporary file once; the driver is chosen so that the most of this is saved.
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from typing import BinaryIO

from overnight.ingest.map.documents import Cursor, Document, DocumentPlace, ReadItem, build_dead_letter
from overnight.ingest.map.field_map import SourceMap
from overnight.ingest.map.row_index import Place, RowIndex
from overnight.ingest.map.rows import Reason, Row, RowReader, Splicer
from overnight.ingest.read.lines import Line, Position, bare
from overnight.ingest.read.sources import Source, SourceReader
from overnight.rejection import Rejection

_UNKNOWN_SIZE = 1 << 62


def choose_driver(sources: Sequence[Source], maps: Sequence[SourceMap]) -> int:
    """Return the number of the source to stream: the largest of those that random reads would need a copy of."""

    def cost(source: Source) -> tuple[bool, bool, int, int]:
        size = source.size if source.size is not None else _UNKNOWN_SIZE
        # A source without fields (an error file, say) is small, and little is read from it.
        return maps[source.index].has_values, not source.is_seekable, size, -source.index

    return max((source for source in sources if maps[source.index].is_used), key=cost).index


class JoinedSources:
    """
    The documents of several sources.

    A source is *needed* when fields or routing values are taken from it: an id that a needed source lacks is missing.
    A source with an ``_id`` only (an OpenAI error file) just adds its rejections.

    :param keep_unmatched: Whether an id that some source lacks is written with the fields that are there.
    """

    def __init__(
        self,
        sources: Sequence[Source],
        maps: Sequence[SourceMap],
        reader: SourceReader,
        rows: Sequence[RowReader],
        *,
        splicer: Splicer,
        index: RowIndex,
        keep_unmatched: bool,
    ) -> None:
        self._driver = choose_driver(sources, maps)
        self._sources = sources
        self._others = [source for source in sources if source.index != self._driver and maps[source.index].is_used]
        self._needed = [source.index for source in sources if maps[source.index].has_values]
        self._reader = reader
        self._rows = rows
        self._splicer = splicer
        self._index = index
        self._keep_unmatched = keep_unmatched
        self._files: dict[int, list[tuple[BinaryIO, int]]] = {}

    def items(self, start: Cursor | None) -> Iterator[ReadItem]:
        """
        Yield one item per line, and one per id that the driver lacks.

        :param start: Where the driver goes on; what comes before is read again for the ids, and yields nothing.
        """
        try:
            for source in self._others:
                for item in self._read_in(source):
                    if start is None:
                        yield item
            yield from self._drive(start or Cursor())
            for source in self._others:
                for key, _ in self._index.unseen(source.index):
                    self._index.see(key)
                    yield self._join(ReadItem(None), key, None, None, "")
        finally:
            for file in {file for files in self._files.values() for file, _ in files}:
                file.close()

    def _read_in(self, source: Source) -> Iterator[ReadItem]:
        """Note the ids and offsets of a source that is not streamed."""
        spool = None if source.is_seekable else self._index.spool()
        files = self._files.setdefault(source.index, [])
        for number, file in enumerate(source.files):
            if file.local_path is not None and spool is None:
                files.append((open(file.local_path, "rb"), 0))  # noqa: PTH123, SIM115
            elif spool is not None:
                files.append((spool, spool.tell() - file.start.offset))
            for line in self._reader.lines(file, tee=spool):
                item = ReadItem(None, source.index, line.end - line.offset)
                row = self._rows[source.index].read(line)
                self._rows[source.index].count(row, number)
                item.is_blank = row.is_blank
                if row.is_blank:
                    pass
                elif row.key is None:
                    rejection = row.rejection or Rejection(Reason.MISSING_ID, "the line has no id")
                    item.dead_letter = build_dead_letter("rejected", rejection, source.index, file.name, line, row)
                elif not self._index.add(source.index, row.key, Place(number, line.number, line.offset, line.end)):
                    item.dead_letter = build_dead_letter("rejected", _DUPLICATE, source.index, file.name, line, row)
                yield item
        if spool is not None:
            spool.flush()

    def _drive(self, start: Cursor) -> Iterator[ReadItem]:
        for number, file in enumerate(self._sources[self._driver].files):
            done = start.position.offset if number == start.file else 0
            for line in self._reader.lines(file):
                row = self._rows[self._driver].read(line)
                self._rows[self._driver].count(row, number)
                if number < start.file or line.end <= done:
                    if row.key is not None:
                        self._index.see(row.key)
                    continue
                item = ReadItem(Cursor(number, Position(line.end, line.number)), self._driver, line.end - line.offset)
                item.is_blank = row.is_blank
                if row.is_blank:
                    yield item
                elif row.key is None:
                    rejection = row.rejection or Rejection(Reason.MISSING_ID, "the line has no id")
                    item.dead_letter = build_dead_letter("rejected", rejection, self._driver, file.name, line, row)
                    yield item
                elif not self._index.see(row.key):
                    item.dead_letter = build_dead_letter("rejected", _DUPLICATE, self._driver, file.name, line, row)
                    yield item
                else:
                    yield self._join(item, row.key, row, line, file.name)

    def _join(self, item: ReadItem, key: bytes, row: Row | None, line: Line | None, uri: str) -> ReadItem:
        """Bring the rows of one id together."""
        rows: list[Row | None] = [None] * len(self._sources)
        found: list[tuple[int, str, Line, Row]] = []
        if row is not None and line is not None:
            rows[self._driver] = row
            found.append((self._driver, uri, line, row))
        for source in self._others:
            at = self._index.find(source.index, key)
            if at is not None:
                other = self._fetch(source.index, at)
                rows[source.index] = partner = self._rows[source.index].read(other)
                found.append((source.index, source.files[at.file].name, other, partner))
        for index, where, read, one in found:
            if one.rejection is not None:
                item.dead_letter = build_dead_letter("rejected", one.rejection, index, where, read, one)
                return item
        first, where, read, one = found[0]
        lacking = tuple(index for index in self._needed if rows[index] is None)
        if lacking and (not self._keep_unmatched or len(lacking) == len(self._needed)):
            names = ", ".join(f"source[{index}]" for index in lacking)
            rejection = Rejection(Reason.NO_PARTNER, f"{names} has no row with this id")
            item.dead_letter = build_dead_letter("missing", rejection, first, where, read, one)
            item.lacking = lacking
            return item
        # As of a field that several sources have, the last source's counts.
        routings = [part.routing for part in rows if part is not None and part.routing is not None]
        routing = routings[-1] if routings else None
        place = DocumentPlace(first, where, read.number, read.offset, key.decode(), routing)
        item.document = Document(one.id or b"", rows, self._splicer.splice(rows), place)
        return item

    def _fetch(self, source: int, place: Place) -> Line:
        file, base = self._files[source][place.file]
        data = os.pread(file.fileno(), place.end - place.offset, base + place.offset)
        return Line(place.line, place.offset, place.end, bare(data.removesuffix(b"\n"), place.offset))


_DUPLICATE = Rejection(Reason.DUPLICATE_ID, "an earlier line of this source has the same id")
