"""Paths that go into strings, held against a plain implementation over parsed values."""

from __future__ import annotations

import json
import re
from typing import Any

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from overnight.errors import SpecError
from overnight.ingest.map.text_decoder import InvalidOutputError, make_decoder
from overnight.jsonpath import MISSING, JsonPath, get_value

CONTENT = "$.response.body.choices[0].message.content"


def decode(line: bytes | str, *paths: str) -> list[bytes | None]:
    decoder = make_decoder([JsonPath.parse(path) for path in paths])
    values = decoder.decode(line.encode() if isinstance(line, str) else line)
    return [bytes(value) if value is not None else None for value in values]


def answer(content: Any, **others: Any) -> str:
    """Return the result line of a chat whose message has this content."""
    message = {"role": "assistant", "content": content}
    return json.dumps({"custom_id": "d1", "response": {"body": {"choices": [{"message": message}]}}, **others})


def test_values_are_spliced_as_the_model_wrote_them() -> None:
    content = '{"label" : "B\\u00fccher",\n "score": 1.50, "big":9007199254740993, "tags":[ "a", 1e-7 ]}'
    paths = [f"{CONTENT}.json(){rest}" for rest in (".label", ".score", ".big", ".tags", ".tags[-1]", ".none")]
    assert decode(answer(content), "$.custom_id", *paths) == [
        b'"d1"', b'"B\\u00fccher"', b"1.50", b"9007199254740993", b'[ "a", 1e-7 ]', b"1e-7", None,
    ]  # fmt: skip


def test_the_whole_json_is_a_value_and_the_text_is_one_too() -> None:
    content = '{"a":\r\n[1,\n2]}'
    whole, text = decode(answer(content), f"{CONTENT}.json()", CONTENT)
    assert whole == b'{"a":  [1, 2]}'
    assert json.loads(text or b"") == content


@pytest.mark.parametrize(
    "content",
    [
        '```json\n{"label": "x"}\n```',
        '```\n{"label": "x"}\n```',
        '```JSON\r\n{"label": "x"}\r\n```\r\n',
        'Here it is:\n\n```json\n{\n  "label": "x"\n}\n```\nAnything else?',
        '```json {"label": "x"} ```',
        '```python\nprint(1)\n```\nand\n```json\n{"label": "x"}\n```',
        '  ```json\n  {"label": "x"}\n  ```',
        '```json\n{"label": "x"}',
        ' \n {"label": "x"} \n',
    ],
)
def test_a_code_fence_and_the_words_around_it_are_left_out(content: str) -> None:
    assert decode(answer(content), f"{CONTENT}.json().label") == [b'"x"']


def test_fences_inside_of_the_json_end_nothing() -> None:
    inner = {"code": "```json\n{}\n```", "label": "x"}
    for content in (json.dumps(inner), f"```json\n{json.dumps(inner)}\n```"):
        assert decode(answer(content), f"{CONTENT}.json().label") == [b'"x"']


def test_an_object_in_place_of_its_text_is_read_the_same() -> None:
    assert decode(answer({"label": 1.50}), f"{CONTENT}.json().label") == [b"1.5"]


@pytest.mark.parametrize("content", [None, []])
def test_no_text_is_no_value(content: Any) -> None:
    assert decode(answer(content), f"{CONTENT}.json().label") == [None]
    assert decode('{"response": {}}', f"{CONTENT}.json().label", f"{CONTENT}.json()") == [None, None]


@pytest.mark.parametrize("content", ['[1.0, "b"]', "1", '"text"', "null", "true"])
def test_json_that_is_no_object(content: str) -> None:
    whole, first, member = decode(
        answer(content), *(f"{CONTENT}.json(){rest}" for rest in ("", "[0]", ".label"))
    )  # fmt: skip
    assert (whole, first, member) == (content.encode(), b"1.0" if content.startswith("[") else None, None)


@pytest.mark.parametrize(
    ("content", "fault"),
    [
        ("I cannot answer that.", "no JSON.*'I cannot answer that.'"),
        ('{"label": "x', "truncated"),
        ('```json\n{"label": \n```', "no JSON"),
        ('{"label": NaN}', "malformed"),
        ('{"label": "a\nb"}', "malformed"),
        ("{'label': 'x'}", "malformed"),
        ("", "no JSON"),
        ("[" * 100_000, "nested too deeply"),
    ],
)
def test_a_text_that_is_no_json_is_named_beside_the_values_of_the_others(content: str, fault: str) -> None:
    with pytest.raises(InvalidOutputError, match=fault) as caught:
        decode(answer(content), f"{CONTENT}.json().label", "$.custom_id", f"{CONTENT}.json()")
    assert str(caught.value).startswith(f"what is at {CONTENT} is no JSON")
    assert len(str(caught.value)) < 500
    assert [bytes(value) if value is not None else None for value in caught.value.values] == [None, b'"d1"', None]


def test_of_several_matches_the_first_that_is_something_is_read() -> None:
    # The Responses API: what the model says stands behind what it thought.
    body = {
        "output": [
            {"type": "reasoning", "content": None},
            {"type": "message", "content": [{"type": "output_text", "text": '{"label":"x"}'}]},
        ]
    }
    line = json.dumps({"response": {"body": body}})
    paths = ["$.response.body.output[?(@.type=='message')].content[0].text", "$..text", "$.response.body.output[*].no"]
    assert decode(line, *(f"{path}.json().label" for path in paths)) == [b'"x"', b'"x"', None]


def test_wildcards_and_filters_inside_of_the_json() -> None:
    content = json.dumps({"items": [{"n": 1, "ok": True}, {"n": 2, "ok": False}]})
    paths = [f"{CONTENT}.json(){rest}" for rest in (".items[*].n", ".items[?(@.n > 1)].ok", "..n")]
    assert decode(answer(content), *paths) == [b"[1,2]", b"[false]", b"[1,2]"]


def test_a_string_inside_of_a_string() -> None:
    content = json.dumps({"arguments": json.dumps({"city": "Ulm"})})
    assert decode(answer(content), f"{CONTENT}.json().arguments.json().city") == [b'"Ulm"']
    with pytest.raises(InvalidOutputError, match=r"in the JSON at .*content, what is at \$\.arguments is no JSON"):
        decode(answer('{"arguments": "no"}'), f"{CONTENT}.json().arguments.json().city")


def test_a_member_with_that_name_is_quoted() -> None:
    line = '{"json()": 1, "a": {"b.json()": 2, "c": "{\\"d\\": 3}"}}'
    assert decode(line, "$['json()']", "$.a['b.json()']", '$["a"].c.json().d') == [b"1", b"2", b"3"]


@pytest.mark.parametrize("path", ["$.json()", "$.a.json().", "$.a.json()b", "$.a.json()[", "$.a..json()"])
def test_what_is_no_path_is_refused(path: str) -> None:
    with pytest.raises(SpecError, match="JSONPath|whole line"):
        JsonPath.parse(path)


@pytest.mark.parametrize(
    ("path", "name"),
    [("$.a.json().label", "label"), ("$.a.b.json()", "b"), ("$.a.json()['x y']", "x y"), ("$.a.json().l[*].n", "n")],
)
def test_a_field_without_a_name_has_that_of_its_value(path: str, name: str) -> None:
    assert JsonPath.parse(path).last_segment == name


NAMES = ("a", "b", "json()", "ü", "x y", "response", "0")
values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text(max_size=9),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.sampled_from(NAMES), inner, max_size=3),
    max_leaves=10,
)
segments = st.lists(st.sampled_from(NAMES) | st.integers(-2, 2), max_size=3).map(tuple)


def write(way: tuple[str | int, ...]) -> str:
    return "".join(f"[{segment}]" if isinstance(segment, int) else f"['{segment}']" for segment in way)


def _refuse(constant: str) -> Any:
    raise ValueError(f"{constant} is no JSON")


def read_plainly(content: Any) -> Any:
    """Parse an answer as one would without this package; ``MISSING`` where it holds nothing."""
    if content is None:
        return MISSING
    if not isinstance(content, str):
        return content
    texts = [content, *re.findall(r"```(?:json)?\n(.*?)\n```", content, re.DOTALL)]
    for text in texts:
        try:
            return json.loads(text, parse_constant=_refuse)
        except ValueError:
            continue
    raise ValueError(content)


@given(value=values, way=segments, fence=st.sampled_from(["%s", "```json\n%s\n```", "So:\n```\n%s\n```\nBye"]))
@example(value={"a": "\r\n\u2028"}, way=("a",), fence="```json\n%s\n```")
@example(value={"a": {"json()": [1]}}, way=("a", "json()", 0), fence="%s")
def test_what_is_found_is_what_parsing_finds(value: Any, way: tuple[str | int, ...], fence: str) -> None:
    for indent in (None, 1):
        content = fence % json.dumps(value, indent=indent, ensure_ascii=indent is None)
        expected = get_value(read_plainly(content), way)
        for line in (answer(content), answer(content, other={"a": content})):
            (found,) = decode(line, f"{CONTENT}.json(){write(way)}")
            assert (json.loads(found) if found is not None else MISSING) == expected
            assert found is None or b"\n" not in found


@given(content=st.text(max_size=40) | st.text(alphabet='`json\n{}":1, ', max_size=30))
@example(content="```\n1")
@example(content='{"a":1}')
@example(content="NaN")
def test_any_text_is_read_or_named(content: str) -> None:
    try:
        (found,) = decode(answer(content), f"{CONTENT}.json()")
    except InvalidOutputError:
        with pytest.raises(ValueError):
            read_plainly(content)
    else:
        assert found is not None
        json.loads(found)
