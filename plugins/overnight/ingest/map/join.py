"""
Several sources, joined by id into one write per document.

One source, the driver, is streamed. Of the others only ids and byte offsets are kept (on disk), and their rows
are read when the driver's line with the same id comes by. Where reading at random is dear — a remote or compressed
file — a source is copied to a temporary file once; the driver is chosen so that the most of this is saved.
"""

from __future__ import annotations

import os
from bisect import bisect_right
from collections.abc import Iterator, Mapping, Sequence
from typing import BinaryIO, Final

from overnight.ingest.map.documents import (
    DUPLICATE,
    Cursor,
    Documents,
    Places,
    ReadItem,
    build_dead_letter,
    cut,
    decode_keys,
    splice_rows,
)
from overnight.ingest.map.field_map import SourceMap
from overnight.ingest.map.row_block import BlockReader, RowBlock, spread
from overnight.ingest.map.row_index import FoundRows, RowIndex
from overnight.ingest.map.rows import Reason, Row, RowReader, Splicer
from overnight.ingest.read.lines import Line, LineBlock, Position
from overnight.ingest.read.sources import Source, SourceReader
from overnight.json_text import JsonBytes
from overnight.rejection import Rejection

_UNKNOWN_SIZE = 1 << 62
_GAP_BYTES: Final = 16 << 10
"""What is read in vain between two rows sooner than with one more call."""
_SPAN_BYTES: Final = 1 << 20


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
        self._blocks = [BlockReader(one) for one in rows]
        self._splicer = splicer
        self._index = index
        self._keep_unmatched = keep_unmatched
        self._opened: list[BinaryIO] = []
        self._stored: dict[int, list[tuple[int, int]]] = {}
        """Of each source the descriptors of its files, and where in them the file begins."""

    def items(self, start: Cursor | None) -> Iterator[ReadItem | Documents]:
        """
        Yield what the lines come to, and the ids that the driver lacks.

        :param start: Where the driver goes on; what comes before is read again for the ids, and yields nothing.
        """
        try:
            for source in self._others:
                for item in self._read_in(source):
                    if start is None:
                        yield item
            yield from self._drive(start or Cursor())
            for source in self._others:
                for key in self._index.unseen(source.index):
                    self._index.see(key)
                    yield self._join(ReadItem(None), key, None, None, "")
        finally:
            for file in self._opened:
                file.close()

    def _read_in(self, source: Source) -> Iterator[ReadItem]:
        """Note the ids and offsets of a source that is not streamed."""
        spool = None if source.is_seekable else self._index.spool()
        stored = self._stored.setdefault(source.index, [])
        for number, file in enumerate(source.files):
            if file.local_path is not None and spool is None:
                self._opened.append(open(file.local_path, "rb"))  # noqa: PTH123, SIM115
                stored.append((self._opened[-1].fileno(), 0))
            elif spool is not None:
                stored.append((spool.fileno(), spool.tell() - file.start.offset))
            for lines in self._reader.blocks(file, tee=spool):
                rows = self._blocks[source.index].read(lines, number)
                yield from self._note(source.index, number, file.name, rows)
        if spool is not None:
            spool.flush()

    def _note(self, source: int, file: int, uri: str, rows: RowBlock) -> Iterator[ReadItem]:
        lines = rows.lines
        repeated = set(self._index.add_all(source, rows.keys, file, lines))
        apart = repeated | {number for number, key in enumerate(rows.keys) if key is None}
        for first, end in cut(len(lines), 0, apart):
            size = lines.ends[end - 1] - lines.offsets[first]
            item = ReadItem(None, source, size, lines=end - first)
            if rows.keys[first] is None:
                row = rows.row(first)
                item.is_blank = row.is_blank
                if not row.is_blank:
                    rejection = row.rejection or _NO_ID
                    line = lines.line(first)
                    item.dead_letter = build_dead_letter("rejected", rejection, source, uri, line, row)
            elif first in repeated:
                line, row = lines.line(first), rows.row(first)
                item.dead_letter = build_dead_letter("rejected", DUPLICATE, source, uri, line, row)
            yield item

    def _drive(self, start: Cursor) -> Iterator[ReadItem | Documents]:
        for number, file in enumerate(self._sources[self._driver].files):
            done = start.position.offset if number == start.file else 0
            for lines in self._reader.blocks(file):
                rows = self._blocks[self._driver].read(lines, number)
                first = len(lines) if number < start.file else bisect_right(lines.ends, done)
                repeated = {index for index in self._index.see_all(rows.keys) if index >= first}
                if first < len(lines):
                    yield from self._join_block(number, file.name, rows, first, repeated)

    def _join_block(
        self, file: int, uri: str, rows: RowBlock, start: int, repeated: set[int]
    ) -> Iterator[ReadItem | Documents]:
        """Bring the rows of a block's ids together, and those that are not all good each on its own."""
        lines = rows.lines
        apart = repeated | rows.refused.keys()
        joined: list[RowBlock | None] = [None] * len(self._sources)
        joined[self._driver] = rows
        asked = {key: n for n, key in enumerate(rows.keys) if n >= start and n not in apart and key is not None}
        for source in self._others:
            found = self._index.find_all(source.index, [*asked])
            if source.index not in self._needed:
                # It adds nothing but its rejections.
                apart.update(asked[key] for key in found.keys)
                continue
            joined[source.index] = partner = self._find_partners(source.index, found, asked, len(lines))
            apart.update(partner.refused)
        for first, end in cut(len(lines), start, apart):
            if first not in apart:
                part = slice(first, end)
                keys = decode_keys(rows.keys[part])
                places = Places(
                    self._driver, uri, lines.numbers[part], lines.offsets[part], keys, _find_routings(joined, part)
                )
                pieces = splice_rows(self._splicer, joined, part)
                yield Documents(places, rows.ids[part], pieces, lines.ends[part], file)  # type: ignore[arg-type]
                continue
            line, row = lines.line(first), rows.row(first)
            item = ReadItem(Cursor(file, Position(line.end, line.number)), self._driver, line.end - line.offset)
            item.is_blank = row.is_blank
            if row.is_blank:
                yield item
            elif row.key is None or first in repeated:
                rejection = DUPLICATE if row.key is not None else row.rejection or _NO_ID
                item.dead_letter = build_dead_letter("rejected", rejection, self._driver, uri, line, row)
                yield item
            else:
                yield self._join(item, row.key, row, line, uri)

    def _find_partners(self, source: int, found: FoundRows, asked: Mapping[bytes, int], size: int) -> RowBlock:
        """
        Return the rows of a source with the ids of a block, each in the place of its partner's.

        :param asked: The number of each id in the block.
        :param size: Of the block.
        """
        numbers = [asked[key] for key in found.keys]
        partner = spread(self._blocks[source].read(self._fetch_all(source, found)), numbers, size)
        if len(numbers) < len(asked):
            partner.refused.update((number, Row()) for number in {*asked.values()}.difference(numbers))
        return partner

    def _join(self, item: ReadItem, key: bytes, row: Row | None, line: Line | None, uri: str) -> ReadItem | Documents:
        """Bring the rows of one id together."""
        rows: list[Row | None] = [None] * len(self._sources)
        found: list[tuple[int, str, Line, Row]] = []
        if row is not None and line is not None:
            rows[self._driver] = row
            found.append((self._driver, uri, line, row))
        for source in self._others:
            at = self._index.find_all(source.index, (key,))
            if at.keys:
                other = self._fetch_all(source.index, at).line(0)
                rows[source.index] = partner = self._rows[source.index].read(other)
                found.append((source.index, source.files[at.files[0]].name, other, partner))
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
        places = Places(first, where, (read.number,), (read.offset,), (key.decode(),), (routing,))
        ends = (line.end,) if line is not None else ()
        pieces: list[bytes | list[JsonBytes]] = [[b"".join(self._splicer.splice(rows))]]
        return Documents(places, (one.id or b"",), pieces, ends, item.cursor.file if item.cursor is not None else 0)

    def _fetch_all(self, source: int, found: FoundRows) -> LineBlock:
        """Read rows of a source; those that lie side by side at once."""
        files, offsets, ends, stored = found.files, found.offsets, found.ends, self._stored[source]
        raws: list[bytes] = []
        first, count = 0, len(offsets)
        while first < count:
            file, start = files[first], offsets[first]
            last = first + 1
            while (
                last < count
                and files[last] == file
                and offsets[last] - ends[last - 1] <= _GAP_BYTES
                and ends[last] - start <= _SPAN_BYTES
            ):
                last += 1
            descriptor, base = stored[file]
            span = os.pread(descriptor, ends[last - 1] - start, base + start)
            if last - first == 1:
                raws.append(span)
            else:
                raws += [span[offsets[n] - start : ends[n] - start] for n in range(first, last)]
            first = last
        return LineBlock(found.numbers, offsets, ends, raws)


def _find_routings(blocks: Sequence[RowBlock | None], part: slice) -> list[str | None] | None:
    """Return the routing values of some rows; as of a field that several sources have, the last source's counts."""
    found: list[str | None] | None = None
    for block in blocks:
        if block is not None and block.routings is not None:
            own = block.routings[part]
            found = own if found is None else [b if b is not None else a for a, b in zip(found, own, strict=True)]
    return found


_NO_ID = Rejection(Reason.MISSING_ID, "the line has no id")
