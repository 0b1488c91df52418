from __future__ import annotations

import csv
import gzip
import io
from functools import partial
from typing import Any

import orjson
import pytest
from hypothesis import given
from hypothesis import strategies as st

from overnight.sandbox.sagemaker.container import ContainerError, invoke
from overnight.sandbox.sagemaker.transform import Recipe, RecordError, select, transform
from overnight.sandbox.vectors import embed
from overnight.services.sagemaker.filter import parse_filter

SIZE = 4
JSON_LINES = "application/jsonlines"
LINES = {"SplitType": "Line"}
OUT = {"AssembleWith": "Line"}


def recipe(content_type: str, *, source: Any = LINES, target: Any = OUT, **request: Any) -> Recipe:
    return Recipe.of(
        {
            "TransformInput": {"ContentType": content_type, **source},
            "TransformOutput": {"Accept": content_type, **target},
            **request,
        }
    )


def run(data: bytes, how: Recipe) -> bytes:
    return transform(data, how, partial(invoke, content_type=how.content_type, accept=how.accept, dimensions=SIZE))


def lines(body: bytes) -> list[Any]:
    return [orjson.loads(line) for line in body.splitlines()]


def test_the_blueprints_job_adds_an_output_to_every_line() -> None:
    how = recipe(
        "application/json",
        BatchStrategy="SingleRecord",
        DataProcessing={"InputFilter": "$.content", "JoinSource": "Input", "OutputFilter": "$"},
    )
    data = b'{"content": ["this is chapter 1", "harry potter"], "id": 1}\n{"content": ["this is chapter 2"], "id": 2}'
    first, second = lines(run(data, how))
    assert list(first) == ["content", "id", "SageMakerOutput"]
    assert first["SageMakerOutput"] == [embed("this is chapter 1", SIZE), embed("harry potter", SIZE)]
    assert (second["id"], len(second["SageMakerOutput"])) == (2, 1)


def test_what_is_no_object_is_joined_under_a_name_of_its_own() -> None:
    how = recipe(JSON_LINES, DataProcessing={"JoinSource": "Input"})
    assert lines(run(b'"sea"\n', how)) == [{"SageMakerInput": "sea", "SageMakerOutput": embed("sea", SIZE)}]


def test_the_output_filter_chooses_from_the_joined_record() -> None:
    how = recipe(JSON_LINES, DataProcessing={"JoinSource": "Input", "OutputFilter": "$['id','SageMakerOutput']"})
    assert lines(run(b'{"id": 3, "text": "sea", "more": 1}', how)) == [{"id": 3, "SageMakerOutput": embed("sea", SIZE)}]


def test_rows_of_csv_are_joined_at_their_end_and_filtered_by_column() -> None:
    processing = {"InputFilter": "$[1:]", "JoinSource": "Input", "OutputFilter": "$[0,-1]"}
    how = recipe("text/csv", DataProcessing=processing)
    out = list(csv.reader(io.StringIO(run(b'7,"sea, rain"\n8,wind\n', how).decode())))
    assert [row[0] for row in out] == ["7", "8"]
    assert [float(row[1]) for row in out] == [embed("sea, rain", SIZE)[-1], embed("wind", SIZE)[-1]]


def test_one_column_is_still_a_row() -> None:
    how = recipe("text/csv", DataProcessing={"InputFilter": "$[1]", "JoinSource": "Input", "OutputFilter": "$[0]"})
    assert run(b"7,sea\n8,rain\n", how) == b"7\n8\n"


def test_an_object_without_split_is_one_record() -> None:
    how = recipe("application/json", source={}, target={}, DataProcessing={"JoinSource": "Input"})
    body = run(b'{"id": 1,\n "text": "sea"}', how)
    assert orjson.loads(body) == {"id": 1, "text": "sea", "SageMakerOutput": embed("sea", SIZE)}
    assert not body.endswith(b"\n")


def test_without_assembly_by_line_records_are_glued() -> None:
    how = recipe("application/json", target={}, BatchStrategy="SingleRecord")
    assert b"\n" not in run(b'"sea"\n"rain"\n', how)


def test_several_documents_in_a_payload_are_not_json() -> None:
    with pytest.raises(RecordError, match="Bad HTTP status received from algorithm: 400"):
        run(b'"sea"\n"rain"\n', recipe("application/json", BatchStrategy="MultiRecord"))


def test_gzip_is_unpacked_and_a_broken_one_fails() -> None:
    how = recipe(JSON_LINES, source={**LINES, "CompressionType": "Gzip"})
    body = gzip.compress(b'"sea"\n')
    assert lines(run(body, how)) == [embed("sea", SIZE)]
    for broken in (b'"sea"\n', body[:-6]):
        with pytest.raises(RecordError, match="not a gzip file"):
            run(broken, how)


def test_a_record_over_the_payload_fails_its_file() -> None:
    data = orjson.dumps("x" * (1 << 20)) + b"\n"
    with pytest.raises(RecordError, match="more than the maximum payload of 1 MB"):
        run(data, recipe(JSON_LINES, MaxPayloadInMB=1))
    assert run(data, recipe(JSON_LINES, MaxPayloadInMB=0))


def test_payloads_hold_as_many_records_as_fit_or_one() -> None:
    seen: list[int] = []

    def count(payload: bytes) -> bytes:
        seen.append(payload.count(b"\n") + 1)
        return payload

    data = b"".join(orjson.dumps("x" * 300_000) + b"\n" for _ in range(7))
    transform(data, recipe(JSON_LINES, MaxPayloadInMB=1), count)
    assert seen == [3, 3, 1]
    seen.clear()
    transform(data, recipe(JSON_LINES, MaxPayloadInMB=1, BatchStrategy="SingleRecord"), count)
    assert seen == [1] * 7


@pytest.mark.parametrize("bad", [b'{"id": 1}', b'{"text": 3}', b"null", b"{", b'{"text": ["a", 1]}', b'{"text": []}'])
def test_a_bad_record_among_good_ones_fails_the_whole_file(bad: bytes) -> None:
    with pytest.raises(RecordError) as error:
        run(b'"sea"\n' + bad + b'\n"rain"\n', recipe(JSON_LINES))
    assert error.value.fault == "ClientError"


def test_a_field_that_a_filter_does_not_find_fails_the_file() -> None:
    how = recipe(JSON_LINES, DataProcessing={"InputFilter": "$.content"})
    with pytest.raises(RecordError, match="no content"):
        run(b'{"text": "sea"}\n', how)


def test_a_container_that_breaks_is_the_algorithms_fault() -> None:
    def broken(_: bytes) -> bytes:
        raise ContainerError(503, "busy")

    with pytest.raises(RecordError) as error:
        transform(b'"sea"\n', recipe(JSON_LINES), broken)
    assert error.value.fault == "AlgorithmError"


def test_answers_that_do_not_match_the_records_are_the_algorithms_fault() -> None:
    how = recipe(JSON_LINES, DataProcessing={"JoinSource": "Input"})
    with pytest.raises(RecordError, match="answered 1 records to 2"):
        transform(b'"sea"\n"rain"\n', how, lambda _: b"1")


_RECORDS = st.lists(
    st.text(max_size=40).filter(str.strip) | st.lists(st.text(max_size=10), min_size=1, max_size=3), max_size=12
)


@given(records=_RECORDS, joined=st.booleans())
def test_the_batching_never_shows_in_the_output(records: list[Any], joined: bool) -> None:
    data = b"".join(orjson.dumps({"text": record}) + b"\n" for record in records)
    processing = {"DataProcessing": {"JoinSource": "Input"}} if joined else {}
    single = run(data, recipe(JSON_LINES, BatchStrategy="SingleRecord", **processing))
    assert run(data, recipe(JSON_LINES, BatchStrategy="MultiRecord", **processing)) == single
    assert len(lines(single)) == len(records)
    if joined:
        assert [line["text"] for line in lines(single)] == records


@pytest.mark.parametrize(
    ("text", "found"),
    [
        ("$", {"a": [1, 2, 3, 4], "b": {"c": 5}}),
        ("$.a", [1, 2, 3, 4]),
        ("$.a[0]", 1),
        ("$.a[-1]", 4),
        ("$.a[1:]", [2, 3, 4]),
        ("$.a[:2]", [1, 2]),
        ("$.a[0,2:]", [1, 3, 4]),
        ("$['a','b']", {"a": [1, 2, 3, 4], "b": {"c": 5}}),
        ("$.b.c", 5),
        ("$.b.*", [5]),
        ("$.a[*]", [1, 2, 3, 4]),
    ],
)
def test_filters_select_what_sagemaker_documents(text: str, found: Any) -> None:
    assert select(parse_filter(text), {"a": [1, 2, 3, 4], "b": {"c": 5}}) == found


@pytest.mark.parametrize("text", ["$.x", "$.a[9]", "$.b[0]", "$.a.x", "$.b.c[0]", "$.b.c.*", "$.b[1:]", "$['a','x']"])
def test_a_filter_that_finds_nothing_is_an_error(text: str) -> None:
    with pytest.raises(RecordError):
        select(parse_filter(text), {"a": [1, 2, 3, 4], "b": {"c": 5}})
