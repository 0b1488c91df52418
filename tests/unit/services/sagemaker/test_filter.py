from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from overnight.errors import SpecError
from overnight.services.sagemaker.filter import Names, Places, Span, Wildcard, parse_filter


@pytest.mark.parametrize(
    ("text", "steps"),
    [
        ("$", ()),
        ("$.features", (Names(("features",)),)),
        ("$.a.b-c", (Names(("a",)), Names(("b-c",)))),
        ("$['id','SageMakerOutput']", (Names(("id", "SageMakerOutput")),)),
        ('$["id", "a b"]', (Names(("id", "a b")),)),
        ("$.a.['x']", (Names(("a",)), Names(("x",)))),
        ("$[0]", (Places((0,)),)),
        ("$[-1]", (Places((-1,)),)),
        ("$[1:]", (Places((Span(1, None),)),)),
        ("$[:2]", (Places((Span(None, 2),)),)),
        ("$[1:-1]", (Places((Span(1, -1),)),)),
        ("$[0,5:]", (Places((0, Span(5, None))),)),
        ("$.*", (Wildcard(),)),
        ("$.a[*]", (Names(("a",)), Wildcard())),
    ],
)
def test_the_filters_of_the_documentation_are_read(text: str, steps: object) -> None:
    assert parse_filter(text) == steps


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "begin with"),
        ("content", "begin with"),
        ("$..content", "does not search"),
        ("$[?(@.a > 1)]", "neither expressions nor functions"),
        ("$[(@.length-1)]", "neither expressions nor functions"),
        ("$['a.b']", "is none of"),
        ("$[a]", "is none of"),
        ("$[]", "is none of"),
        ("$[1,]", "is none of"),
        ("$[1-2]", "is none of"),
        ("$['a',0]", "is none of"),
        ("$[0", "not closed"),
        ("$content", "is none of"),
        ("$.", "is none of"),
        ("$." + "a" * 62, "64 characters"),
    ],
)
def test_what_sagemaker_does_not_take_is_refused_with_the_reason(text: str, message: str) -> None:
    with pytest.raises(SpecError, match=message):
        parse_filter(text)


@given(st.text(alphabet="$.[]'*,:-0123ab\"?@( ", max_size=70))
def test_any_text_is_read_or_refused(text: str) -> None:
    try:
        steps = parse_filter(text)
    except SpecError:
        return
    assert text.startswith("$")
    assert bool(steps) is (text != "$")
