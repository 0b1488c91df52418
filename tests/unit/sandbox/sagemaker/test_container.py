from __future__ import annotations

import orjson
import pytest

from overnight.sandbox.sagemaker.container import ContainerError, get_dimensions, invoke, read_csv, write_csv
from overnight.sandbox.vectors import embed, similarity


@pytest.mark.parametrize("field", ["inputs", "text", "input", "content"])
def test_a_record_has_its_text_under_one_of_four_names(field: str) -> None:
    answer = invoke(orjson.dumps({field: "the sea", "id": 1}), "application/json", None, 8)
    assert orjson.loads(answer) == embed("the sea", 8)


def test_a_list_of_texts_is_answered_by_a_list_of_vectors() -> None:
    answer = orjson.loads(invoke(b'["the sea", "the sea", "tax law"]', "application/json", "application/json", 64))
    assert answer[0] == answer[1]
    assert similarity(answer[0], answer[1]) > similarity(answer[0], answer[2])


def test_lines_are_answered_by_lines() -> None:
    answer = invoke(b'"a"\n\n["b"]\n', "application/jsonlines", "application/jsonlines", 2)
    assert [orjson.loads(line) for line in answer.splitlines()] == [embed("a", 2), [embed("b", 2)]]


def test_a_row_is_answered_by_a_row() -> None:
    rows = read_csv(invoke(b'the,sea\n"a, b",c\n', "text/csv", "text/csv", 3))
    assert [[float(cell) for cell in row] for row in rows] == [embed("the sea", 3), embed("a, b c", 3)]


@pytest.mark.parametrize(
    ("payload", "content_type", "accept", "status"),
    [
        (b"x", "image/png", None, 415),
        (b'"x"', "application/json", "image/png", 406),
        (b'"x"', "application/json", "text/csv", 406),
        (b"x", "text/csv", "application/json", 406),
        (b"x", "application/json", None, 400),
        (b"", "application/jsonlines", None, 400),
        (b"\n", "application/jsonlines", None, 400),
        (b"\xff", "text/csv", None, 400),
        (b'"a"\n"b"', "application/json", None, 400),
    ],
)
def test_what_the_container_does_not_read_is_refused(
    payload: bytes, content_type: str, accept: str | None, status: int
) -> None:
    with pytest.raises(ContainerError) as error:
        invoke(payload, content_type, accept, 2)
    assert error.value.status == status


def test_csv_survives_commas_quotes_and_newlines() -> None:
    rows = [['a "quoted", one', "two\nlines"], ["3", ""]]
    assert read_csv(write_csv(rows)) == rows


def test_the_environment_says_how_long_vectors_are() -> None:
    assert get_dimensions({}) == 384
    assert get_dimensions({"EMBEDDING_DIMENSIONS": "8"}) == 8
    for wrong in ("", "0", "-1", "eight"):
        with pytest.raises(ContainerError):
            get_dimensions({"EMBEDDING_DIMENSIONS": wrong})
