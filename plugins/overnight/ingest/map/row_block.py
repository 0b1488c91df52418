"""Rows in columns: a block of lines read at once, with objects only for the lines that give no document."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass, field
from itertools import compress
from typing import Final, TypeVar

from overnight.ingest.map.decoder import LineDecoder
from overnight.ingest.map.rows import MAX_ID_BYTES, Row, RowReader
from overnight.ingest.read.lines import LineBlock
from overnight.json_text import JsonBytes
from overnight.rejection import Rejection

T = TypeVar("T")
# What is in quotes without a quote or a backslash is a whole text, so these are as many ids as were put together.
_PLAIN_IDS: Final = re.compile(rb'"[^"\\]{1,%d}"(?:,"[^"\\]{1,%d}")*+' % (MAX_ID_BYTES, MAX_ID_BYTES))


@dataclass(slots=True)
class RowBlock:
    """
    What the lines of a block give; one entry per line in each column.

    :param keys: As of :class:`~overnight.ingest.map.rows.Row`; so are ``ids`` and ``routings``.
    :param columns: One for each mapped field.
    :param routings: ``None`` where the field map has no routing.
    :param refused: The rows that give no document, by their number in the block. The columns have nothing for them,
        but the keys.
    :param is_sparse: Whether some of the values are ``None``.
    """

    lines: LineBlock
    keys: list[bytes | None]
    ids: list[JsonBytes | None]
    columns: list[list[JsonBytes | None]]
    routings: list[str | None] | None
    refused: dict[int, Row] = field(default_factory=dict)
    is_sparse: bool = False

    def row(self, index: int) -> Row:
        """Return one row."""
        return self.refused.get(index) or Row(
            self.keys[index],
            self.ids[index],
            self.routings[index] if self.routings is not None else None,
            [column[index] for column in self.columns],
        )

    def refuse(self, index: int, rejection: Rejection) -> Row:
        """Give a row a rejection, whatever it was."""
        row = self.refused[index] = self.row(index)
        row.rejection = rejection
        return row


def spread(block: RowBlock, numbers: list[int], size: int) -> RowBlock:
    """
    Return a block with the rows at other places, and nothing between them.

    :param numbers: Where each row goes.
    :param size: Rows of the new block.
    """
    if numbers == [*range(size)]:
        return block

    def move(column: Sequence[T | None]) -> list[T | None]:
        moved: list[T | None] = [None] * size
        for number, value in zip(numbers, column, strict=True):
            moved[number] = value
        return moved

    return RowBlock(
        block.lines,
        move(block.keys),
        move(block.ids),
        [move(column) for column in block.columns],
        move(block.routings) if block.routings is not None else None,
        {numbers[index]: row for index, row in block.refused.items()},
        block.is_sparse,
    )


class BlockReader:
    """
    Reads blocks of lines as a :class:`RowReader` reads lines.

    What is usual is read in columns; each line in which anything is unusual is handed to the row reader, so there is
    one place that says what is wrong with a line.
    """

    def __init__(self, rows: RowReader) -> None:
        self._rows = rows
        self._decoder = rows.decoder if isinstance(rows.decoder, LineDecoder) and rows.decoder.is_plain else None

    def read(self, lines: LineBlock, file: int | None = None) -> RowBlock:
        """
        Return the rows of a block.

        :param file: The number of the file in the source, to count its results; ``None`` for lines that were counted.
        """
        rows, size = self._rows, len(lines)
        odd: set[int] = set()
        results: list[bool] | None = None
        columns: list[list[JsonBytes | None]]
        if self._decoder is None or not lines.is_whole:
            odd.update(range(size))
            columns = [[None] * size for _ in range(rows.width)]
            results = [False] * size if rows.reads_results else None
        else:
            texts: Sequence[bytes | None] = lines.raws
            if rows.reads_results:
                texts, results = self._unwrap(lines, odd)
            columns = self._decoder.decode_all(texts, odd)  # type: ignore[assignment, arg-type]
        nothing: list[JsonBytes | None] = [None] * size
        raw_ids = columns.pop() if rows.has_id else nothing
        raw_routings = columns.pop() if rows.routing is not None else None
        keys: list[bytes | None] = [None] * size
        ids = nothing
        if rows.has_id and len(odd) < size:
            keys, ids = _read_ids(raw_ids, odd)
        block = RowBlock(
            lines,
            keys,
            ids,
            columns,
            self._read_routings(raw_routings, odd) if raw_routings is not None else None,
            is_sparse=self._find_absent(columns, odd),
        )
        for index in sorted(odd):
            self._read_one(block, index, results)
        if results is not None and file is not None:
            rows.count_all(
                results, [row.is_blank if (row := block.refused.get(n)) else False for n in range(size)], file
            )
        return block

    def _unwrap(self, lines: LineBlock, odd: set[int]) -> tuple[list[bytes | None], list[bool]]:
        """Return the lines as JSONPaths read them, and which are results."""
        texts: list[bytes | None] = []
        results: list[bool] = []
        for index in range(len(lines)):
            data = lines.data(index) or b""
            found = self._rows.read_result(data)
            if found is not None and found.rejection is not None:
                odd.add(index)
            texts.append(found.data if found is not None else data)
            results.append(found is not None and found.id is not None)
        return texts, results

    def _read_routings(self, raws: list[JsonBytes | None], odd: set[int]) -> list[str | None]:
        routings: list[str | None] = [None] * len(raws)
        for index, raw in enumerate(raws):
            if index in odd or not raw:
                odd.add(index)
                continue
            routings[index], fault = self._rows.read_routing(raw)
            if fault is not None:
                odd.add(index)
        return routings

    def _find_absent(self, columns: list[list[JsonBytes | None]], odd: set[int]) -> bool:
        """Note the lines that lack a value; where that is allowed, ``None`` stands for it. Whether there is one."""
        absent: list[tuple[list[JsonBytes | None], int]] = []
        if len(odd) == (len(columns[0]) if columns else 0):
            return False
        for column in columns:
            if 0 in map(len, column):  # type: ignore[arg-type]
                empty = [not value for value in column]
                absent += [(column, index) for index in compress(range(len(column)), empty) if index not in odd]
        if not self._rows.omits_missing:
            odd.update(index for _, index in absent)
            return False
        for column, index in absent:
            column[index] = None
        odd.update(index for _, index in absent if all(column[index] is None for column in columns))
        return bool(absent)

    def _read_one(self, block: RowBlock, index: int, results: list[bool] | None) -> None:
        row = self._rows.read(block.lines.line(index))
        block.keys[index], block.ids[index] = row.key, row.id
        if block.routings is not None:
            block.routings[index] = row.routing
        if results is not None:
            results[index] = row.is_result
        if row.rejection is not None or row.is_blank or row.values is None:
            block.refused[index] = row
            return
        for column, value in zip(block.columns, row.values, strict=True):
            column[index] = value
            block.is_sparse = block.is_sparse or value is None


def _read_ids(raws: list[JsonBytes | None], odd: set[int]) -> tuple[list[bytes | None], list[JsonBytes | None]]:
    """Return the ids in UTF-8 and as JSON, and note those that are no plain texts or whole numbers."""
    found = list(map(bytes, raws))  # type: ignore[arg-type]
    together = b",".join(found)
    ids: list[JsonBytes | None] = [*found]
    keys: list[bytes | None]
    if _PLAIN_IDS.fullmatch(together):
        keys = [*together[1:-1].split(b'","')]
        return keys, ids
    keys = [raw[1:-1] for raw in found]
    for index, raw in enumerate(found):
        if raw[:1] == b'"' and b"\\" not in raw and 2 < len(raw) <= MAX_ID_BYTES + 2:
            continue
        if raw.lstrip(b"-").isdigit() and len(raw) <= MAX_ID_BYTES:
            keys[index], ids[index] = raw, b'"%b"' % raw
        else:
            odd.add(index)
    return keys, ids
