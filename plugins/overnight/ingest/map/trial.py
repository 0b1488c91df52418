"""What a request's field map makes of the first lines of its sources, before anything is written."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from itertools import islice
from typing import Any, Final

import msgspec

from overnight.ingest.formats import choose_formats
from overnight.ingest.map.decoder import Lane
from overnight.ingest.map.documents import DUPLICATE
from overnight.ingest.map.field_map import SourceMap, compile_field_map
from overnight.ingest.map.rows import Reason, Row, RowReader, Splicer
from overnight.ingest.map.text_decoder import Check
from overnight.ingest.read.lines import Line
from overnight.ingest.read.sources import Source, SourceReader
from overnight.ingest.request import IngestRequest, LoadOptions
from overnight.json_text import JsonBytes
from overnight.rejection import Rejection

PARTNER_LINES: Final = 100_000
"""Lines of each other source in which the rows of a join are looked for."""


@dataclass
class FieldTrial:
    """
    One path of the field map.

    :param field: What the value becomes: a field of the document, ``_id`` or ``_routing``.
    :param source: N of ``source[N]``.
    :param lane: How the value is read.
    :param found: Lines among those read that have a value there.
    :param example: The first value, as JSON.
    """

    field: str
    source: int
    path: str
    lane: Lane
    found: int = 0
    example: str | None = None


@dataclass
class SourceTrial:
    """
    One source.

    :param lines: Lines read.
    :param by_block: Whether its lines are read many at once; one path in another lane than ``fast`` prevents that.
    :param rejected: Lines that give no document, by code.
    """

    source: int
    uri: str
    lines: int = 0
    by_block: bool = True
    fields: list[FieldTrial] = field(default_factory=list)
    rejected: dict[str, int] = field(default_factory=dict)


@dataclass(frozen=True)
class DocumentTrial:
    """
    What one line comes to.

    :param uri: The file that the line is counted in.
    :param id: ``None`` where the load makes one, or the line's cannot be read.
    :param document: Decoded; ``None`` when the line gives none.
    :param code: Why it gives none, to count by, and ``reason`` in words.
    """

    source: int
    uri: str
    line: int
    id: str | None = None
    routing: str | None = None
    document: Any = None
    code: str | None = None
    reason: str | None = None


class FieldMapTrial:
    """
    A request's field map and sources.

    :param reader: Finds and reads the sources.
    :param options: As for the load.
    :param check: What the JSON in each string that a path goes into must pass.
    :raises SpecError: the map does not fit, or a source is not there.
    """

    def __init__(
        self, request: IngestRequest, reader: SourceReader, options: LoadOptions, check: Check | None = None
    ) -> None:
        uris = request.data_source.uris
        self._maps = compile_field_map(request.field_map, request.ingest_fields, len(uris))
        self._reader = reader
        self._options = options
        self._sources = [reader.resolve(number, part) for number, part in enumerate(uris)]
        formats = choose_formats(options.format, uris)
        self._rows = [
            RowReader(one, result_format=formats[number], omit_missing=options.missing_path == "omit", check=check)
            for number, one in enumerate(self._maps)
        ]

    def explain(self, count: int) -> list[SourceTrial]:
        """
        Say of each path how it is read and what it finds.

        :param count: Lines of each source to read.
        """
        return [self._explain(source, count) for source in self._sources]

    def documents(self, count: int) -> Iterator[DocumentTrial]:
        """
        Yield what the first lines come to, blank ones left out.

        In a join the lines are those of the first source that fields are taken from; rows of the others are looked for
        in their first :data:`PARTNER_LINES` lines.

        :param count: Lines to read.
        """
        main = next(source.index for source in self._sources if self._maps[source.index].has_values)
        lines = [(uri, line, self._rows[main].read(line)) for uri, line in self._read(self._sources[main], count)]
        wanted = {row.key for _, _, row in lines if row.key is not None}
        others = [one for one in self._sources if one.index != main and self._maps[one.index].is_used]
        partners = {source.index: self._find_rows(source, wanted) for source in others}
        splicer, seen = Splicer(self._maps), set[bytes]()
        for uri, line, row in lines:
            if row.is_blank:
                continue
            rows: list[Row | None] = [None] * len(self._sources)
            rows[main] = row
            if row.key is not None:
                for index, found in partners.items():
                    rows[index] = found.get(row.key)
            fault = self._find_fault(rows, seen, main)
            given = {"id": row.text_id, "routing": _get_routing(rows)}
            if fault is not None:
                yield DocumentTrial(main, uri, line.number, **given, code=fault.code, reason=fault.reason)
            else:
                made = msgspec.json.decode(b"".join(splicer.splice(rows)))
                yield DocumentTrial(main, uri, line.number, **given, document=made)

    def _explain(self, source: Source, count: int) -> SourceTrial:
        rows, source_map = self._rows[source.index], self._maps[source.index]
        trial = SourceTrial(source.index, source.uri, by_block=all(lane == "fast" for lane in rows.decoder.lanes))
        trial.fields = [
            FieldTrial(name, source.index, path.text, lane)
            for (name, path), lane in zip(source_map.paths.items(), rows.decoder.lanes, strict=True)
        ]
        for _, line in self._read(source, count):
            trial.lines += 1
            row = rows.read(line)
            if row.rejection is not None:
                code = row.rejection.code
                trial.rejected[code] = trial.rejected.get(code, 0) + 1
            for one, value in zip(trial.fields, _list_values(row, source_map), strict=True):
                if value is not None:
                    one.found += 1
                    one.example = one.example or bytes(value).decode()
        return trial

    def _read(self, source: Source, count: int) -> Iterator[tuple[str, Line]]:
        lines = ((file.name, line) for file in source.files for line in self._reader.lines(file))
        return islice(lines, count)

    def _find_rows(self, source: Source, wanted: set[bytes]) -> dict[bytes, Row]:
        found: dict[bytes, Row] = {}
        for _, line in self._read(source, PARTNER_LINES):
            row = self._rows[source.index].read(line)
            if row.key in wanted:
                found.setdefault(row.key, row)
                if len(found) == len(wanted):
                    break
        return found

    def _find_fault(self, rows: Sequence[Row | None], seen: set[bytes], main: int) -> Rejection | None:
        row = rows[main]
        if row is not None and row.key is not None and self._options.duplicates == "reject":
            if row.key in seen:
                return DUPLICATE
            seen.add(row.key)
        fault = next((one.rejection for one in rows if one is not None and one.rejection is not None), None)
        if fault is not None:
            return fault
        lacking = [
            f"source[{number}]" for number, one in enumerate(rows) if one is None and self._maps[number].has_values
        ]
        if lacking and self._options.unmatched == "missing":
            text = f"no row with this id in the first {PARTNER_LINES:,} lines of {', '.join(lacking)}"
            return Rejection(Reason.NO_PARTNER, text)
        return None


def make_check(options: LoadOptions) -> Check | None:
    """
    Return the check of the option ``output_schema``.

    :raises SpecError: it is no schema.
    """
    if options.output_schema is None:
        return None
    from overnight.output_schema import OutputSchema  # noqa: PLC0415 - its library takes a tenth of a second

    return OutputSchema.parse(options.output_schema).check


def _list_values(row: Row, source_map: SourceMap) -> list[JsonBytes | None]:
    values: list[JsonBytes | None] = [None] * len(source_map.fields)
    if row.values is not None:
        values = list(row.values)
    if source_map.routing is not None:
        values.append(msgspec.json.encode(row.routing) if row.routing is not None else None)
    if source_map.id is not None:
        values.append(row.id)
    return values


def _get_routing(rows: Sequence[Row | None]) -> str | None:
    # As of a field that several sources have, the last source's counts.
    return next((row.routing for row in reversed(rows) if row is not None and row.routing is not None), None)
