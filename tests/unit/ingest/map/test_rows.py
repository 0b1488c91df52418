"""One line, one row: its id, its values, and why it gives no document."""

from __future__ import annotations

import json
from typing import Any, ClassVar

import pytest
from hypothesis import given
from hypothesis import strategies as st

from overnight.errors import SpecError
from overnight.ingest.map.field_map import SourceMap, compile_field_map
from overnight.ingest.map.rows import MAX_ID_BYTES, Row, RowReader, Splicer, find_error
from overnight.ingest.read.lines import Line
from overnight.jobs.result_format import ResultLine
from overnight.rejection import Rejection

MAP = {"_id": "$.id", "text": "$.t", "vector": "$.v"}


def maps(field_map: dict[str, Any] = MAP, sources: int = 1) -> tuple[SourceMap, ...]:
    return compile_field_map(field_map, [], sources)


def line(data: Any) -> Line:
    raw = data if isinstance(data, bytes) else json.dumps(data, ensure_ascii=False, separators=(",", ":")).encode()
    return Line(1, 0, len(raw) + 1, raw)


def read(data: Any, field_map: dict[str, Any] = MAP, **options: Any) -> Row:
    return RowReader(maps(field_map)[0], **options).read(line(data))


def get_values(row: Row) -> list[bytes | None]:
    return [None if value is None else bytes(value) for value in row.values or []]


def test_a_row_has_the_id_and_the_values_as_they_were_written() -> None:
    row = read(b'{"id": "a", "t": "x\\u00e9", "v": [1e-7, 9007199254740993]}')
    assert row.rejection is None
    assert (row.key, bytes(row.id or b""), row.text_id, row.is_blank) == (b"a", b'"a"', "a", False)
    assert get_values(row) == [b'"x\\u00e9"', b"[1e-7, 9007199254740993]"]


@pytest.mark.parametrize(
    ("written", "key", "id_json"),
    [
        (b'"a"', b"a", b'"a"'),
        (b'"\\u0061\\""', b'a"', b'"\\u0061\\""'),
        (b"7", b"7", b'"7"'),
        (b"-7", b"-7", b'"-7"'),
        (b"123456789012345678901234567890", b"123456789012345678901234567890", b'"123456789012345678901234567890"'),
    ],
)
def test_an_id_is_a_text_or_a_whole_number(written: bytes, key: bytes, id_json: bytes) -> None:
    row = read(b'{"id":%b,"t":1,"v":1}' % written)
    assert row.rejection is None
    assert (row.key, bytes(row.id or b"")) == (key, id_json)


@pytest.mark.parametrize(
    ("data", "rejection"),
    [
        ({"t": 1, "v": 1}, Rejection("missing_id", "the line has no id")),
        ({"id": "", "t": 1, "v": 1}, Rejection("invalid_id", "the id is empty")),
        ({"id": 1.5, "t": 1, "v": 1}, Rejection("invalid_id", "the id must be a string or an integer, not 1.5")),
        ({"id": None, "t": 1, "v": 1}, Rejection("invalid_id", "the id must be a string or an integer, not null")),
        ({"id": True, "t": 1, "v": 1}, Rejection("invalid_id", "the id must be a string or an integer, not true")),
        (
            {"id": ["x" * 300], "t": 1, "v": 1},
            Rejection("invalid_id", f'the id must be a string or an integer, not ["{"x" * 198}…'),
        ),
        ({"id": "x" * 513, "t": 1, "v": 1}, Rejection("id_too_long", "the id has 513 bytes; OpenSearch takes 512")),
        ({"id": "a", "v": 1}, Rejection("missing_value", "the line has no value at $.t")),
        ({"id": "a"}, Rejection("missing_value", "the line has no value at $.t, $.v")),
        (
            {"id": "a", "error": "slow"},
            Rejection("service_error", "the line has no value at $.t, $.v; its error: slow"),
        ),
        ({}, Rejection("missing_id", "the line has no id")),
        ([1], Rejection("invalid_line", "not a JSON object")),
    ],
)
def test_what_is_wrong_with_a_line_is_named(data: Any, rejection: Rejection) -> None:
    row = read(data)
    assert row.rejection == rejection
    assert not row.is_blank


def test_a_rejected_id_is_no_key_and_a_rejected_value_keeps_it() -> None:
    for data in ({"id": "x" * (MAX_ID_BYTES + 1), "t": 1, "v": 1}, {"id": "", "t": 1, "v": 1}):
        row = read(data)
        assert (row.key, row.id, row.text_id) == (None, None, None)
    assert read({"id": "a"}).key == b"a"
    assert read({"id": "é" * 256, "t": 1, "v": 1}).rejection is None


def test_a_line_that_is_too_long_says_how_long() -> None:
    row = RowReader(maps()[0]).read(Line(3, 10, 2_011, None))
    assert row.rejection == Rejection("line_too_long", "the line has 2,001 bytes, more than max_line_bytes")


@pytest.mark.parametrize("data", [b"", b"   ", b"\t", b"\r", b"\x0b\x0c"])
def test_white_space_is_a_blank_line_and_no_rejection(data: bytes) -> None:
    assert read(data) == Row(is_blank=True)


@pytest.mark.parametrize("data", [b"\xa0", b"\0", b"{", b"x"])
def test_anything_else_is_not(data: bytes) -> None:
    row = read(data)
    assert row.rejection is not None
    assert row.rejection.code == "invalid_line"
    assert not row.is_blank


def test_values_may_be_left_out_when_that_is_allowed_but_not_all_of_them() -> None:
    row = read({"id": "a", "v": 1}, omit_missing=True)
    assert (row.rejection, get_values(row)) == (None, [None, b"1"])
    assert read({"id": "a"}, omit_missing=True).rejection == Rejection(
        "missing_value", "the line has no value at $.t, $.v"
    )


def test_a_source_without_ids_has_rows_without_keys() -> None:
    row = read({"t": 1}, {"text": "$.t"})
    assert (row.key, row.id, row.rejection, get_values(row)) == (None, None, None, [b"1"])


class Shouting:
    """Results in capitals; a line with "!" failed, one without "id" is none."""

    service: ClassVar[str] = "shouting"
    schemes: ClassVar[tuple[str, ...]] = ()

    def read(self, data: bytes) -> ResultLine | None:
        if b'"id"' not in data:
            return None
        rejection = Rejection("loud", "too loud") if b"!" in data else None
        return ResultLine(data.replace(b"A", b"a"), "a", rejection)


def test_a_result_format_says_what_is_read_and_what_failed() -> None:
    field_map = {"_id": "$.id", "text": "$.t"}
    row = read(b'{"id":"A","t":1}', field_map, result_format=Shouting())
    assert (row.key, row.rejection, get_values(row)) == (b"a", None, [b"1"])
    row = read(b'{"id":"A","t":"!"}', field_map, result_format=Shouting())
    assert (row.key, row.rejection) == (b"a", Rejection("loud", "too loud"))
    # The service's reason goes before what follows from it.
    assert read(b'{"id":"A!"}', field_map, result_format=Shouting()).rejection == Rejection("loud", "too loud")
    assert read(b'{"id":["!"]}', field_map, result_format=Shouting()).rejection == Rejection("loud", "too loud")
    row = read(b'{"x":"A"}', field_map, result_format=Shouting())
    assert row.rejection == Rejection("missing_id", "the line has no id")


@pytest.mark.parametrize(
    ("document", "found"),
    [
        ({"error": "slow"}, Rejection("service_error", "slow")),
        ({"error": {"code": "rate", "message": "slow"}}, Rejection("rate", "slow")),
        ({"error": {"errorCode": 400, "errorMessage": "slow"}}, Rejection("400", "slow")),
        ({"errorMessage": "slow", "errorType": "x"}, Rejection("service_error", "slow")),
        ({"errors": [{"message": "slow"}]}, Rejection("service_error", "slow")),
        ({"response": {"body": {"error": {"message": "slow"}}}}, Rejection("service_error", "slow")),
        ({"a": {"b": {"c": {"error": "too deep"}}}}, None),
        ({"a": [{"error": "in an array"}]}, None),
        ({"error": None, "x": {"error": ""}}, None),
        ({"error": None, "response": {"error": "slow"}}, Rejection("service_error", "slow")),
        ([1], None),
    ],
)
def test_an_error_is_found_wherever_a_service_writes_it(document: Any, found: Rejection | None) -> None:
    assert find_error(json.dumps(document).encode()) == found


def test_what_python_cannot_hold_has_no_error() -> None:
    assert find_error(b'{"error":1e400') is None


values = st.none() | st.booleans() | st.integers() | st.text(max_size=5) | st.lists(st.integers(), max_size=3)


@given(st.dictionaries(st.sampled_from(["id", "t", "v", "error"]), values))
def test_a_row_is_a_document_or_a_rejection_and_never_both(document: dict[str, Any]) -> None:
    row = read(document)
    if row.rejection is not None:
        assert row.rejection.code
        assert row.rejection.reason
        return
    assert row.key is not None
    assert row.values is not None
    parts = Splicer(maps()).splice([row])
    assert json.loads(b"".join(map(bytes, parts))) == {"text": document["t"], "vector": document["v"]}


# --- The splicer ---------------------------------------------------------------------------------------------------


def splice(field_map: dict[str, Any], *documents: Any) -> Any:
    every = maps(field_map, len(documents))
    rows = [
        RowReader(one, omit_missing=True).read(line(document)) if document is not None else None
        for one, document in zip(every, documents, strict=True)
    ]
    return json.loads(b"".join(map(bytes, Splicer(every).splice(rows))))


def test_fields_that_are_not_there_are_left_out_of_the_document() -> None:
    assert splice(MAP, {"id": 1, "v": 2}) == {"vector": 2}
    assert splice(MAP, {"id": 1, "t": 1, "v": None}) == {"text": 1, "vector": None}


JOIN = {"_id": ["source[0].$.id", "source[1].$.id"], "m": ["source[0].$.m", "source[1].$.m"], "n": "source[1].$.n"}


@pytest.mark.parametrize(
    ("first", "second", "document"),
    [
        ({"m": 1}, {"m": 2, "n": 3}, {"m": 2, "n": 3}),
        ({"m": {"a": 1, "b": 1}}, {"m": {"b": 2, "c": 2}, "n": 3}, {"m": {"a": 1, "b": 2, "c": 2}, "n": 3}),
        ({"m": {"a": {"x": 1}}}, {"m": {"a": {"y": 2}}, "n": 3}, {"m": {"a": {"x": 1, "y": 2}}, "n": 3}),
        ({"m": {"a": 1}}, {"m": 5, "n": 3}, {"m": 5, "n": 3}),
        ({"m": 5}, {"m": {"a": 1}, "n": 3}, {"m": {"a": 1}, "n": 3}),
        ({"m": 5}, {"n": 3}, {"m": 5, "n": 3}),
    ],
)
def test_objects_of_several_sources_are_merged_and_the_last_value_wins(first: Any, second: Any, document: Any) -> None:
    assert splice(JOIN, {"id": 1, **first}, {"id": 1, **second}) == document


def test_a_source_without_a_row_adds_nothing() -> None:
    assert splice(JOIN, {"id": 1, "m": 5}, None) == {"m": 5}
    assert splice(JOIN, None, {"id": 1, "n": 3}) == {"n": 3}


def test_no_fields_are_no_document() -> None:
    with pytest.raises(SpecError, match="No field is mapped"):
        Splicer((SourceMap(None, {}),))


ROUTED = {"_id": "$.id", "text": "$.t", "_routing": "$.r"}


@pytest.mark.parametrize(
    ("written", "routing"),
    [(b'"a"', "a"), (b'"\\u00e9\\""', 'é"'), (b"7", "7"), (b"-7", "-7"), (b"null", None), (b'""', None)],
)
def test_a_routing_value_is_a_text_or_a_whole_number_or_none(written: bytes, routing: str | None) -> None:
    row = read(b'{"id":"x","t":1,"r":%b}' % written, ROUTED)
    assert (row.rejection, row.routing, row.text_id, get_values(row)) == (None, routing, "x", [b"1"])


@pytest.mark.parametrize("written", [b"1.5", b"true", b'{"a":1}', b'["a"]'])
def test_another_routing_value_rejects_its_line(written: bytes) -> None:
    row = read(b'{"id":"x","t":1,"r":%b}' % written, ROUTED)
    assert row.rejection is not None
    assert (row.rejection.code, row.text_id) == ("invalid_routing", "x")


def test_a_line_without_a_routing_value_is_rejected_unless_values_may_be_missing() -> None:
    row = read({"id": "x", "t": 1}, ROUTED)
    assert row.rejection is not None
    assert (row.rejection.code, row.rejection.reason) == ("missing_value", "the line has no value at $.r")
    row = read({"id": "x"}, ROUTED)
    assert row.rejection is not None
    assert row.rejection.reason == "the line has no value at $.t, $.r"
    row = read({"id": "x", "t": 1}, ROUTED, omit_missing=True)
    assert (row.rejection, row.routing) == (None, None)
