"""The two readings of one JSONPath agree: slices of a line's bytes, and values of a parsed document."""

from __future__ import annotations

import json
from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from overnight.errors import SpecError
from overnight.jsonpath import MISSING, JsonPath, Segment, get_value, parse_plain, to_segment

NAMES = st.sampled_from(["a", "b", "a b", "ü", "x-y", "0", "it's", 'say "x"', "back\\slash"])
values = st.recursive(
    st.none() | st.booleans() | st.integers(-9, 9) | st.text(max_size=3),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(NAMES, inner, max_size=3),
    max_leaves=8,
)
ways = st.lists(NAMES | st.integers(-3, 3), min_size=1, max_size=4).map(tuple)


def write(way: tuple[Segment, ...]) -> str:
    """Write plain segments as a path in brackets."""
    return "$" + "".join(
        f"[{segment}]" if isinstance(segment, int) else f"['{segment.translate(ESCAPES)}']" for segment in way
    )


ESCAPES = str.maketrans({"'": r"\'", "\\": r"\\"})


@given(ways)
def test_a_plain_path_is_read_as_it_was_written(way: tuple[Segment, ...]) -> None:
    assert parse_plain(write(way)) == way
    assert JsonPath.parse(write(way)).segments == way


@given(st.dictionaries(NAMES, values, max_size=4), ways)
def test_a_line_and_its_document_give_the_same_value(document: dict[str, Any], way: tuple[Segment, ...]) -> None:
    found = JsonPath.parse(write(way)).find(json.dumps(document, ensure_ascii=False).encode())
    value = get_value(document, way)
    if found is None:
        assert value is MISSING
    else:
        assert json.loads(bytes(found)) == value


@pytest.mark.parametrize(
    ("text", "segments"),
    [
        ("$", ()),
        ("text", ("text",)),
        ("$.text", ("text",)),
        ("meta.titles[0]", ("meta", "titles", 0)),
        ("['a b'][-1]", ("a b", -1)),
    ],
)
def test_the_dollar_may_be_left_out_of_a_plain_path(text: str, segments: tuple[Segment, ...]) -> None:
    assert parse_plain(text) == segments


@pytest.mark.parametrize("text", ["$.a[*]", "$..a", "$.a[1:]", "a[?(@.b)]", "$.a.*"])
def test_a_path_that_could_match_many_values_is_no_plain_one(text: str) -> None:
    with pytest.raises(SpecError, match="could match many values"):
        parse_plain(text)


@pytest.mark.parametrize("text", ["", "$.", "$.a[", "$.a['b]", "a b", "$.a..", "[", "$$"])
def test_what_is_no_path_is_refused(text: str) -> None:
    with pytest.raises(SpecError):
        parse_plain(text)


@given(st.text(max_size=12))
def test_any_text_is_a_path_or_a_refusal(text: str) -> None:
    for parse in (parse_plain, JsonPath.parse):
        try:
            parse(text)
        except SpecError:
            continue


KINDS = st.sampled_from(["message", "ü", "", 1, None])
elements = values | st.fixed_dictionaries({"type": KINDS}, optional={"a": values, "b": values})
selectable = st.dictionaries(
    st.sampled_from("ab"), values | st.lists(elements, max_size=4) | st.dictionaries(st.sampled_from("ab"), elements)
)
selecting = st.lists(
    st.sampled_from([".a", ".b", "[?(@.type=='message')]", '[?(@.type == "ü")]', "[?(@.type=='')]"]),
    min_size=1,
    max_size=4,
).filter(lambda parts: any("?" in part for part in parts))


@given(selectable | st.builds(lambda body: {"response": {"body": body}}, selectable), selecting)
def test_what_a_text_selects_is_what_jsonpath_ng_finds(document: dict[str, Any], parts: list[str]) -> None:
    path = JsonPath.parse("".join(["$", ".response.body" if "response" in document else "", *parts]))
    line = json.dumps(document, ensure_ascii=False).encode()
    assert path.selecting is not None
    found, expected = path.find(line), replace(path, selecting=None).find(line)
    assert json.loads(bytes(found or b"null")) == json.loads(bytes(expected or b"null"))


def test_a_body_that_is_text_is_selected_in_too() -> None:
    path = JsonPath.parse("$.response.body.output[?(@.type=='message')].id")
    body = {"output": [{"type": "reasoning"}, {"type": "message", "id": 7}]}
    for given_body in (body, json.dumps(body)):
        found = path.find(json.dumps({"response": {"body": given_body}}).encode())
        assert found is not None
        assert bytes(found) == b"[7]"


@pytest.mark.parametrize("name", ["plain", "a b", "it's", "a.b", "back\\slash", "ü", "1"])
def test_a_segment_goes_to_a_member_of_any_name(name: str) -> None:
    path = JsonPath.parse(f"$.part{to_segment(name)}")
    found = path.find_first(json.dumps({"part": {name: 5}}).encode())
    assert found is not None
    assert bytes(found) == b"5"
