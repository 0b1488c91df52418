"""A block of lines gives what its lines give one by one."""

from __future__ import annotations

import json
from typing import Any, ClassVar

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from overnight.ingest.map.field_map import compile_field_map
from overnight.ingest.map.row_block import BlockReader
from overnight.ingest.map.rows import Row, RowReader
from overnight.ingest.read.lines import LineBlock, split_blocks
from overnight.jobs.result_format import ResultLine
from overnight.rejection import Rejection

MAPS: dict[str, dict[str, Any]] = {
    "plain": {"_id": "$.id", "text": "$.t", "vector": "$.v"},
    "nested": {"_id": "$.id", "vector": "$.r.data[0].v", "text": "$.t"},
    "routing": {"_id": "$.id", "_routing": "$.p", "text": "$.t"},
    "no id": {"text": "$.t", "vector": "$.v"},
    "filter": {"_id": "$.id", "text": "$.a[*].t"},
    "answer": {"_id": "$.id", "label": "$.t.json().l"},
}
LINES = (
    b'{"id":"a","t":"x","v":[1.5,2],"p":"q","r":{"data":[{"v":1}]},"a":[{"t":1}]}',
    b'{"id": "b" , "t": "\xc3\xa9", "v": [1], "p": 7, "r": {"data": [{"v": [1,2]}]}}\r',
    b'{"id":7,"t":"{\\"l\\":1}","v":1,"p":null,"r":{"data":[]}}',
    b'{"id":-7,"t":null,"v":null,"p":"","r":null}',
    b'{"id":"q\\"\\u00e9","t":1,"v":2,"p":"\\u0061","r":"text"}',
    b'{"id":"a,\\",\\"b","t":1,"v":2}',
    b'{"id":"x\\ny","t":1,"v":2,"p":true}',
    b'{"id":"","t":1,"v":2}',
    b'{"id":1.5,"t":1,"v":2}',
    b'{"id":["x","y"],"t":1,"v":2}',
    b'{"id":{"x":"y"},"t":1,"v":2}',
    b'{"id":"' + b"x" * 512 + b'","t":1,"v":2}',
    b'{"id":"' + b"x" * 513 + b'","t":1,"v":2}',
    b'{"t":1,"v":2}',
    b'{"id":"n"}',
    b'{"id":"n","t":1}',
    b'{"id":"e","error":"slow"}',
    b'{"id":"a","t":1,"v":2} {"id":"b","t":1,"v":2}',
    b'{"id":"a",',
    b'"t":1,"v":2}',
    b'\xef\xbb\xbf{"id":"bom","t":1,"v":2}',
    b'{"id":"\xff","t":1,"v":2}',
    b'{"id":"long","t":"' + b"x" * 900 + b'","v":2}',
    b"[" * 3_000,
    b"[1]",
    b"\x00",
    b"  ",
    b"",
)


class Format:
    """Lines with an ``error`` are errors, those without an id are no results, and ``v`` may come as a text."""

    service: ClassVar[str] = "test"
    schemes: ClassVar[tuple[str, ...]] = ()

    def read(self, line: bytes) -> ResultLine | None:
        try:
            value = json.loads(line)
        except (ValueError, RecursionError):
            return None
        if not isinstance(value, dict) or "id" not in value:
            return None
        rejection = Rejection("service_error", value["error"]) if "error" in value else None
        return ResultLine(line.replace(b'"v":2', b'"v":"two"'), str(value["id"]), rejection)


def blocks(lines: list[bytes]) -> list[LineBlock]:
    return list(split_blocks([b"\n".join(lines)], 1_000))


def describe(row: Row) -> tuple[Any, ...]:
    rejection = (row.rejection.code, row.rejection.reason) if row.rejection is not None else None
    values = None
    if rejection is None and row.values is not None:
        values = [None if value is None else bytes(value) for value in row.values]
    return row.key, None if row.id is None else bytes(row.id), row.routing, values, rejection, row.is_blank


@pytest.mark.parametrize("reads_results", [False, True], ids=["documents", "results"])
@pytest.mark.parametrize("omit_missing", [False, True], ids=["reject", "omit"])
@pytest.mark.parametrize("field_map", MAPS.values(), ids=MAPS.keys())
@given(st.lists(st.sampled_from(LINES), max_size=12))
@settings(max_examples=40)
def test_a_block_is_its_lines(
    field_map: dict[str, Any], omit_missing: bool, reads_results: bool, lines: list[bytes]
) -> None:
    def reader() -> RowReader:
        (source_map,) = compile_field_map(field_map, [], 1)
        return RowReader(source_map, result_format=Format() if reads_results else None, omit_missing=omit_missing)

    at_once, one_by_one = reader(), reader()
    read = BlockReader(at_once)
    for block in blocks(lines):
        rows = read.read(block, 0)
        singles = [one_by_one.read(block.line(number)) for number in range(len(block))]
        one_by_one.count_all([row.is_result for row in singles], [row.is_blank for row in singles], 0)
        found = [describe(rows.row(number)) for number in range(len(block))]
        assert found == [describe(row) for row in singles]
        assert rows.refused.keys() == {n for n, row in enumerate(singles) if row.rejection is not None or row.is_blank}
        if not rows.is_sparse:
            good = [row.values or [] for n, row in enumerate(singles) if n not in rows.refused]
            assert not any(None in values for values in good)
    assert at_once.results == one_by_one.results


def test_every_line_that_can_be_plain_is_read_without_the_row_reader(monkeypatch: pytest.MonkeyPatch) -> None:
    (source_map,) = compile_field_map(MAPS["routing"], [], 1)
    rows = RowReader(source_map)
    seen: list[int] = []
    read = rows.read
    monkeypatch.setattr(rows, "read", lambda line: seen.append(line.number) or read(line))
    (block,) = blocks(
        [b'{"id":"%d","t":1,"p":%d}' % (n, n) for n in range(100)] + [b"broken", b'{"id":1,"t":2,"p":3}', b""]
    )
    found = BlockReader(rows).read(block)
    assert seen == [101]
    assert found.keys[-1] == b"1"
    assert list(found.refused) == [100]
