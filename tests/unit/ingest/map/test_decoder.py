from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from overnight.ingest.map.decoder import LineDecoder, MalformedLineError
from overnight.jsonpath import JsonPath, Segment, locate

NAMES = ("a", "b", "a b", "ü", "response", "body", "x-y", "0")


def decode(line: bytes | str, *paths: str) -> list[bytes | None]:
    decoder = LineDecoder([JsonPath.parse(path) for path in paths])
    values = decoder.decode(line.encode() if isinstance(line, str) else line)
    return [bytes(value) if value is not None else None for value in values]


EXACT = [
    *("9007199254740993", "1e-7", "-0.0", "1.50", "123456789012345678901234567890", "1E+400"),
    *(r'"\u00e9\n\/"', '"é"', '""', "[1.0, 2.50]", '{"b" : 1.0}', "null", "true"),
]


@pytest.mark.parametrize("value", EXACT)
@pytest.mark.parametrize("path", ["$.a", "$.deep.list[1]", "$.deep['list'][-1]", "$.deep.*", "$..a"])
def test_a_value_keeps_its_bytes(value: str, path: str) -> None:
    (found,) = decode(f'{{"a":{value},"deep":{{"list":[0,{value}]}}}}', path)
    assert found is not None
    assert value.encode() in found


def test_many_paths_of_one_line() -> None:
    line = '{"id":7,"a b":{"c":[1.0,{"d":2}]},"response":{"body":{"data":[{"embedding":[1e-7]},{"embedding":[2]}]}}}'
    paths = ["$.id", "$['a b'].c[0]", '$["a b"].c[1].d', "$.response.body.data[0].embedding"]
    assert decode(line, *paths, "$.response.body.data[1].embedding") == [b"7", b"1.0", b"2", b"[1e-7]", b"[2]"]


def test_a_path_may_end_where_another_goes_on() -> None:
    line = '{"a":{"b":{"c":1}},"l":[[5]]}'
    assert decode(line, "$.a", "$.a.b.c", "$.a.b", "$.l", "$.l[0][0]") == [
        b'{"b":{"c":1}}',
        b"1",
        b'{"c":1}',
        b"[[5]]",
        b"5",
    ]


def test_null_is_a_value_and_absence_is_none() -> None:
    assert decode('{"a":null}', "$.a", "$.b", "$.a.b", "$.c[0]") == [b"null", None, None, None]


@pytest.mark.parametrize(
    "stray", ["5", "true", '"text"', '{"b":"text"}', '["text"]', "null", "[]", "[5]", "{}", '[{"x":1}]', '{"c":[]}']
)
def test_another_type_on_the_way_is_no_value_and_spares_the_others(stray: str) -> None:
    assert decode(f'{{"a":{stray},"id":1}}', "$.a.b.c", "$.a[0].b", "$.id") == [None, None, b"1"]


def test_of_a_repeated_member_the_last_counts() -> None:
    assert decode('{"a":1,"a":2,"b":{"c":1},"b":{"c":3}}', "$.a", "$.b.c", "$.*") == [b"2", b"3", b'[2,{"c":3}]']


def test_a_body_that_is_a_json_string_is_read_as_its_object() -> None:
    body = {"data": [{"embedding": [0.25, 1e-7]}], "text": "a\nb"}
    line = json.dumps({"response": {"status_code": 200, "body": json.dumps(body, indent=1)}})
    vector, text, every = decode(
        line, "$.response.body.data[0].embedding", "$.response.body.text", "$.response.body.data[*].embedding"
    )
    assert json.loads(vector or b"") == [0.25, 1e-7]
    assert (text, json.loads(every or b"")) == (rb'"a\nb"', [[0.25, 1e-7]])
    assert b"\n" not in (vector or b"") + (every or b"")


def test_filters_wildcards_slices_and_descent_give_arrays_of_exact_values() -> None:
    line = '{"a":[{"b":1.0,"c":"x"},{"b":2.50,"c":"\\u00e9"},{"c":3}]}'
    assert decode(line, "$.a[*].b", "$.a[?(@.b > 1)].c", "$.a[0:2]", "$..b", "$.a[7:9]", "$.z[*]") == [
        b"[1.0,2.50]",
        rb'["\u00e9"]',
        rb'[{"b":1.0,"c":"x"},{"b":2.50,"c":"\u00e9"}]',
        b"[1.0,2.50]",
        b"[]",
        b"[]",
    ]


@pytest.mark.parametrize(
    ("line", "fault"),
    [
        (b"", "truncated"),
        (b'{"a":1', "truncated"),
        (b'{"a":1}{"a":2}', "trailing characters"),
        (b'{"a":NaN}', "malformed"),
        (b'{"a":[1.0,Infinity]}', "malformed"),
        (b'{"a":1,"z":-Infinity}', "malformed"),
        (b'{"a":"\\ud800"}', "not JSON"),
        (b'{"a":"\\udc00 and more"}', "surrogate"),
        (b'{"a":1,"z":{"\\ud83d\\n":1}}', "not JSON"),
        (b'{"a":"\x00"}', "malformed"),
        (b'{"a":"\r"}', "malformed"),
        (b'{"a":01}', "malformed"),
        (b'{"z":tru}', "malformed"),
        (b'{"a":{"b":5},"z":"\\x"}', "malformed"),
        (b"[1]", "not a JSON object"),
        (b"null", "not a JSON object"),
        (b'"a"', "not a JSON object"),
        (b'{"a":"\xff"}', "not UTF-8"),
        (b'{"\xc3":1}', "not UTF-8"),
        (b'{"a":' + b"[" * 100_000 + b"]" * 100_000 + b"}", "nested too deeply"),
    ],
)
def test_a_line_that_is_no_object_is_refused_with_its_fault(line: bytes, fault: str) -> None:
    for path in ("$.a", "$.a.b.c"):
        with pytest.raises(MalformedLineError, match=fault):
            decode(line, path)


values = st.recursive(
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats(allow_nan=False, allow_infinity=False)
    | st.text(max_size=5)
    | st.sampled_from([2**53 + 1, 1e-7, 'é\n"\\']),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.sampled_from(NAMES), inner, max_size=4),
    max_leaves=12,
)
lines = st.dictionaries(st.sampled_from(NAMES), values, max_size=5)
steps = st.tuples(st.sampled_from(NAMES)) | st.builds(
    lambda first, rest: (first, *rest),
    st.sampled_from(NAMES),
    st.lists(st.sampled_from(NAMES) | st.integers(-2, 2), max_size=3),
)


def text_of(way: tuple[Segment, ...]) -> str:
    return "$" + "".join(f"[{step}]" if isinstance(step, int) else f"['{step}']" for step in way)


@given(lines, st.lists(steps, min_size=1, max_size=5), st.booleans())
@example({"response": {"body": '{"a":1}'}}, [("response", "body", "a")], True)
@example({"a": {"b": "0"}}, [("a", "b", 0)], True)
@example({"response": {"body": "5"}}, [("response", "body", "a"), ("response", "body")], False)
def test_the_fast_way_and_the_library_find_the_same_bytes(
    document: dict[str, Any], ways: list[tuple[Segment, ...]], ascii_only: bool
) -> None:
    line = json.dumps(document, ensure_ascii=ascii_only).encode()
    paths = [JsonPath.parse(text_of(way)) for way in ways]
    assert [path.segments for path in paths] == ways
    fast = LineDecoder(paths).decode(line)
    for path, way, value in zip(paths, ways, fast, strict=True):
        slow = path.evaluate(line)
        found = bytes(value) if value is not None else None
        assert found == (bytes(slow) if slow is not None else None)
        walked = locate(line, way)
        assert found == (bytes(walked) if walked is not None else None)


@given(lines)
def test_what_is_found_is_what_json_reads(document: dict[str, Any]) -> None:
    line = json.dumps(document).encode()
    decoder = LineDecoder([JsonPath.parse(f"$['{name}']") for name in NAMES])
    for name, value in zip(NAMES, decoder.decode(line), strict=True):
        assert (value is not None) == (name in document)
        if value is not None:
            assert json.loads(bytes(value)) == document[name]
