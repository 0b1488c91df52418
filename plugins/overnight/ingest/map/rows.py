"""Lines to rows: the id of a line, its mapped values, and what is wrong with it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from enum import StrEnum

import msgspec

from overnight.errors import SpecError
from overnight.ingest.map.decoder import MalformedLineError
from overnight.ingest.map.field_map import SourceMap
from overnight.ingest.map.text_decoder import Check, InvalidOutputError, make_decoder
from overnight.ingest.read.lines import Line
from overnight.jobs.result_format import ExplainsAnswers, ResultFormat, ResultLine, to_rejection
from overnight.json_text import JsonBytes
from overnight.jsonpath import decode_text
from overnight.rejection import Rejection

MAX_ID_BYTES = 512
"""OpenSearch's limit for ``_id``, in UTF-8."""


class Reason(StrEnum):
    """Why a document was not written, where OpenSearch or the AI service did not say it themselves."""

    INVALID_LINE = "invalid_line"
    LINE_TOO_LONG = "line_too_long"
    MISSING_ID = "missing_id"
    INVALID_ID = "invalid_id"
    ID_TOO_LONG = "id_too_long"
    MISSING_VALUE = "missing_value"
    DUPLICATE_ID = "duplicate_id"
    SERVICE_ERROR = "service_error"
    INVALID_ROUTING = "invalid_routing"
    NO_PARTNER = "no_partner"
    INVALID_OUTPUT = "invalid_output"


@dataclass(slots=True)
class Row:
    """
    What one line gives.

    :param key: The id in UTF-8, ``None`` for a source without ids, or when the line's cannot be read.
    :param id: The id as JSON.
    :param routing: The routing value, ``None`` where the line has none.
    :param values: One for each mapped field, ``None`` where the line has none.
    :param rejection: Set when the line gives no document.
    :param is_blank: The line has nothing but white space: it is counted, and is no document.
    :param is_result: The line says what became of an item of a batch, or is too long to say.
    """

    key: bytes | None = None
    id: JsonBytes | None = None
    routing: str | None = None
    values: list[JsonBytes | None] | None = None
    rejection: Rejection | None = None
    is_blank: bool = False
    is_result: bool = False

    @property
    def text_id(self) -> str | None:
        """The id as a user knows it."""
        return self.key.decode() if self.key is not None else None


class RowReader:
    """
    Turns the lines of one source into rows.

    :param source_map: What is taken from a line.
    :param result_format: Of a source that is a batch's result: its error lines are rejected with the service's own code
        and message. ``None`` for a source of documents, whose members are the user's own, whatever they are called.
    :param omit_missing: Whether a line without one of the mapped values is fine.
    :param check: What the JSON in each string that a path goes into must pass.
    """

    results: int = 0
    """Lines among those counted that are results of the format: what a service's own count is held against."""

    def __init__(
        self,
        source_map: SourceMap,
        *,
        result_format: ResultFormat | None = None,
        omit_missing: bool = False,
        check: Check | None = None,
    ) -> None:
        self._fields = tuple(source_map.fields.items())
        self.has_id = source_map.id is not None
        self.routing = source_map.routing
        self.omits_missing = omit_missing
        self._format = result_format
        paths = list(source_map.paths.values())
        # What a source without answers lacks is for the map to say.
        self._reads_answers = any(path.to_text is not None for path in paths)
        self.width = len(paths)
        self.decoder = make_decoder(paths, check)
        """Reads the values of the fields, of the routing and of the id, in this order."""
        self._unreadable = 0
        self._file = -1

    @property
    def reads_results(self) -> bool:
        """Whether the source is a batch's result."""
        return self._format is not None

    def read_result(self, data: bytes) -> ResultLine | None:
        """Return what the result format makes of a line; ``None`` for one that is no result."""
        return self._format.read(data) if self._format is not None else None

    def count_all(self, results: Sequence[bool], blanks: Sequence[bool], file: int) -> None:
        """
        Count lines among those of the source; a line that is read again is not counted again.

        A line that cannot be read in the middle of good ones is the service's own; at a file's end the file was cut.

        :param results: Which are results.
        :param blanks: Which are blank.
        :param file: The number of the file in the source.
        """
        if file != self._file:
            self._file, self._unreadable = file, 0
        for is_result, is_blank in zip(results, blanks, strict=True):
            if is_result:
                self.results += self._unreadable + 1
                self._unreadable = 0
            elif not is_blank:
                self._unreadable += 1

    def read(self, line: Line) -> Row:
        """Return the row of a line; whatever is wrong with the line is in ``row.rejection``."""
        data = line.data
        if data is None:
            size = line.end - line.offset
            row = _reject(Reason.LINE_TOO_LONG, f"the line has {size:,} bytes, more than max_line_bytes")
            row.is_result = self._format is not None
            return row
        row = Row()
        if self._format is not None and (result := self._format.read(data)) is not None:
            data = result.data
            row.rejection = result.rejection
            row.is_result = result.id is not None
        try:
            values = self.decoder.decode(data)
        except MalformedLineError as error:
            if not data.strip():
                return Row(is_blank=True)
            return _reject(Reason.INVALID_LINE, str(error))
        except InvalidOutputError as error:
            values = error.values
            row.rejection = row.rejection or self._explain(data) or Rejection(Reason.INVALID_OUTPUT, str(error))
        if self.has_id:
            self._take_id(row, values.pop())
        absent = []
        if self.routing is not None:
            routing = values.pop()
            if routing is None and not self.omits_missing:
                absent.append(self.routing.text)
            elif routing is not None:
                row.routing, fault = self.read_routing(routing)
                row.rejection = row.rejection or fault
        row.values = values
        if row.rejection is None and (absent or None in values):
            self._check_values(row, values, absent, data)
        return row

    @staticmethod
    def read_routing(value: JsonBytes) -> tuple[str | None, Rejection | None]:
        """Return a routing value, or what is wrong with it; ``null`` and ``""`` are none, as for OpenSearch."""
        raw = bytes(value)
        if raw[:1] == b'"':
            return decode_text(raw) or None, None
        if raw.lstrip(b"-").isdigit():
            return raw.decode(), None
        if raw == b"null":
            return None, None
        text = f"the routing must be a string or an integer, not {_excerpt(raw)}"
        return None, Rejection(Reason.INVALID_ROUTING, text)

    def _explain(self, data: bytes) -> Rejection | None:
        return self._format.explain(data) if isinstance(self._format, ExplainsAnswers) else None

    def _take_id(self, row: Row, value: JsonBytes | None) -> None:
        if value is None:
            row.rejection = row.rejection or Rejection(Reason.MISSING_ID, "the line has no id")
            return
        raw = bytes(value)
        if raw[:1] == b'"':
            row.id = value
            row.key = decode_text(raw).encode() if b"\\" in raw else raw[1:-1]
        elif raw.lstrip(b"-").isdigit():
            row.id = b'"%b"' % raw
            row.key = raw
        else:
            row.rejection = row.rejection or Rejection(
                Reason.INVALID_ID, f"the id must be a string or an integer, not {_excerpt(raw)}"
            )
            return
        if not row.key or len(row.key) > MAX_ID_BYTES:
            size = len(row.key)
            row.key = row.id = None
            row.rejection = row.rejection or (
                Rejection(Reason.ID_TOO_LONG, f"the id has {size} bytes; OpenSearch takes {MAX_ID_BYTES}")
                if size
                else Rejection(Reason.INVALID_ID, "the id is empty")
            )

    def _check_values(self, row: Row, values: list[JsonBytes | None], absent: list[str], data: bytes) -> None:
        if self.omits_missing and any(value is not None for value in values):
            return
        absent = [path.text for (_, path), value in zip(self._fields, values, strict=True) if value is None] + absent
        reason = f"the line has no value at {', '.join(absent)}"
        if self._reads_answers and (explained := self._explain(data)) is not None:
            row.rejection = explained
            return
        error = find_error(data)
        if error is None:
            row.rejection = Rejection(Reason.MISSING_VALUE, reason)
        else:
            # A line of some service's that nobody named: what it says explains what it lacks.
            row.rejection = Rejection(error.code, f"{reason}; its error: {error.reason}")


_ERROR_NAMES = ("error", "errorMessage", "error_message", "errors")
_ERROR_DEPTH = 3


def find_error(data: bytes) -> Rejection | None:
    """Return the words of an error that a line of an unknown service holds, at most three objects deep."""
    try:
        levels = [msgspec.json.decode(data)]
    except (msgspec.DecodeError, RecursionError):
        return None
    for _ in range(_ERROR_DEPTH):
        objects = [value for value in levels if isinstance(value, dict)]
        for value in objects:
            for name in _ERROR_NAMES:
                error = value.get(name)
                if error:
                    error = error[0] if isinstance(error, list) else error
                    return to_rejection(value if isinstance(error, str) else error, Reason.SERVICE_ERROR)
        levels = [member for value in objects for member in value.values()]
    return None


def _reject(code: Reason, text: str) -> Row:
    return Row(rejection=Rejection(code, text))


def _excerpt(raw: bytes, size: int = 200) -> str:
    return raw[:size].decode(errors="replace") + ("…" if len(raw) > size else "")


class Splicer:
    """
    Writes documents as JSON out of the bytes of their values.

    :param maps: Of all sources. A field that several sources have is the last source's, and where both are objects
        they are merged, as partial updates in the order of the sources would do it.
    """

    def __init__(self, maps: tuple[SourceMap, ...]) -> None:
        self._slots: dict[str, list[tuple[int, int]]] = {}
        for source, source_map in enumerate(maps):
            for position, name in enumerate(source_map.fields):
                self._slots.setdefault(name, []).append((source, position))
        if not self._slots:
            raise SpecError("No field is mapped.")
        self._names = {name: msgspec.json.encode(name) + b":" for name in self._slots}
        first = next(iter(self._slots))
        self._plain = (
            [(b"{" if name == first else b",") + prefix for name, prefix in self._names.items()]
            if len(maps) == 1
            else None
        )

    def splice(self, rows: list[Row | None]) -> list[JsonBytes]:
        """Return the pieces of the document of one row per source (``None``: the source has none)."""
        parts: list[JsonBytes] = []
        if self._plain is not None and rows[0] is not None and rows[0].values is not None:
            values = rows[0].values
            if None not in values:
                for prefix, value in zip(self._plain, values, strict=True):
                    parts += (prefix, value)  # type: ignore[arg-type]
                parts.append(b"}")
                return parts
        opening = b"{"
        for name, slots in self._slots.items():
            found: JsonBytes | None = None
            for source, position in slots:
                row = rows[source]
                value = row.values[position] if row is not None and row.values is not None else None
                if value is not None:
                    found = value if found is None else _merge(found, value)
            if found is not None:
                parts += (opening, self._names[name], found)
                opening = b","
        parts.append(b"}" if parts else b"{}")
        return parts

    def join_columns(self, columns: Sequence[Sequence[Sequence[JsonBytes | None]]]) -> list[bytes | list[JsonBytes]]:
        """
        Return documents in columns: what each is made of, in order; bytes alone are the same in all of them.

        :param columns: By source and field; without a ``None``.
        """
        pieces: list[bytes | list[JsonBytes]] = []
        opening = b"{"
        for name, slots in self._slots.items():
            found: list[JsonBytes] | None = None
            for source, position in slots:
                values: list[JsonBytes] = columns[source][position]  # type: ignore[assignment]
                found = values if found is None else list(map(_merge, found, values))
            pieces += [opening + self._names[name], found or []]
            opening = b","
        pieces.append(b"}")
        return pieces


_object = msgspec.json.Decoder(dict[str, msgspec.Raw])


def _merge(old: JsonBytes, new: JsonBytes) -> JsonBytes:
    try:
        members: dict[str, JsonBytes] = dict(_object.decode(old))
        changes = _object.decode(new)
    except msgspec.ValidationError:
        return new
    for name, value in changes.items():
        members[name] = _merge(members[name], value) if name in members else value
    return (
        b"{" + b",".join(b"%b:%b" % (msgspec.json.encode(name), bytes(value)) for name, value in members.items()) + b"}"
    )
