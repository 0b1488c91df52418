from __future__ import annotations

import json

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from overnight.sandbox.openai.inputs import MAX_ERRORS, check, offsets
from overnight.sandbox.openai.settings import Settings


@pytest.fixture
def look(tmp_path):
    def make(content, endpoint="/v1/embeddings", *, by_deployment=False, **limits):
        path = tmp_path / "input.jsonl"
        path.write_bytes(content if isinstance(content, bytes) else "\n".join(map(json.dumps, content)).encode())
        chosen = Settings(data_dir=tmp_path, limits=limits)
        return check(path, endpoint, chosen, by_deployment=by_deployment)

    return make


def line(name="a", **change):
    body = {"model": "text-embedding-3-small", "input": "x"}
    return {"custom_id": name, "method": "POST", "url": "/v1/embeddings", "body": body, **change}


def found(checked):
    return [(error.line, error.code, error.param) for error in checked.errors]


def test_a_good_file_says_what_it_holds(look):
    checked = look([line("a"), line("b")])
    assert checked.errors == []
    assert (checked.total, checked.model, checked.tokens) == (2, "text-embedding-3-small", 2)


@pytest.mark.parametrize(
    ("bad", "error"),
    [
        ({"custom_id": None}, (1, "missing_required_parameter", "custom_id")),
        ({"custom_id": 7}, (1, "invalid_type", "custom_id")),
        ({"method": None}, (1, "missing_required_parameter", "method")),
        ({"method": "GET"}, (1, "invalid_method", "method")),
        ({"url": "/v1/completions"}, (1, "invalid_url", "url")),
        ({"url": "/embeddings"}, (1, "invalid_url", "url")),
        ({"body": None}, (1, "missing_required_parameter", "body")),
        ({"body": []}, (1, "invalid_type", "body")),
        ({"body": {"input": "x"}}, (1, "missing_required_parameter", "body.model")),
        ({"body": {"model": "embed-0"}}, (1, "model_not_found", "body.model")),
    ],
)
def test_what_is_wrong_with_a_line_is_said_with_its_number(look, bad, error):
    assert found(look([line(**bad)])) == [error]


@pytest.mark.parametrize("raw", [b"{", b"\xff\xfe", b'{"a": "\xed\xa0\x80"}', b"\xef\xbb\xbf{}", b"NaN"])
def test_a_line_that_is_no_json_is_said_to_be_none(look, raw):
    good = json.dumps(line()).encode()
    assert found(look(good + b"\n\n" + raw + b"\n")) == [(3, "invalid_json_line", None)]


def test_a_line_that_is_no_object_is_refused(look):
    assert found(look([[], "x", None, 1])) == [(n, "invalid_request", None) for n in (1, 2, 3, 4)]


def test_blank_lines_are_no_requests(look):
    one = json.dumps(line()).encode()
    assert look(b"\r\n" + one + b"\r\n  \n").total == 1
    assert found(look(b"\n \n")) == [(None, "empty_file", None)]


def test_inputs_are_counted_across_the_requests(look):
    three = line("a", body={"model": "text-embedding-3-small", "input": ["x", "y", "z"]})
    tokens = line("b", body={"model": "text-embedding-3-small", "input": [1, 2, 3, 4]})
    assert look([three, tokens], embedding_inputs_per_batch=4).errors == []
    assert found(look([three, tokens], embedding_inputs_per_batch=3)) == [(None, "too_many_embedding_inputs", None)]


def test_the_list_of_errors_ends_somewhere(look):
    assert len(look([line(method="GET")] * (MAX_ERRORS * 2)).errors) == MAX_ERRORS


def test_deployments_have_any_name_and_short_urls(look):
    lines = [line(url=url, custom_id=url, body={"model": "mine", "input": "x"}) for url in ("/embeddings",)]
    assert look(lines, "/embeddings", by_deployment=True).errors == []
    assert look(lines, "/v1/embeddings", by_deployment=True).errors == []


@settings(max_examples=50)
@given(st.lists(st.sampled_from(["", " ", "{}", '{"a": "\u2028é"}', "\x0b"]), max_size=8), st.booleans())
def test_offsets_are_where_the_lines_start(tmp_path_factory, parts, ends):
    path = tmp_path_factory.mktemp("input") / "f"
    content = ("\n".join(parts) + ("\n" if ends else "")).encode()
    path.write_bytes(content)
    with path.open("rb") as file:
        read = []
        for at in offsets(path):
            file.seek(at)
            read.append(file.readline().strip())
    assert read == [part.encode() for part in parts if part.strip()]
