"""What was used for answers, counted while they pass."""

from __future__ import annotations

from itertools import islice

import orjson
import pytest

from overnight.costs.usage_cost import AnswerUsage
from overnight.services.openai.answer_usage import UsageMeter


def line(model: object = "m", status: int = 200, **usage: object) -> bytes:
    body = {"model": model, "data": [{"embedding": [0.1]}], "usage": usage}
    return orjson.dumps({"custom_id": "a", "response": {"status_code": status, "body": body}}) + b"\n"


CHAT = line("chat", prompt_tokens=5, completion_tokens=7, total_tokens=12)
RESPONSE = line("chat", input_tokens=10, output_tokens=1)
VECTOR = line("m", prompt_tokens=3)
ODD = [
    b"", b"no json", b"[]", b'{"response":null}', b'{"response":{"status_code":200,"body":"text"}}',
    b'{"response":{"status_code":400,"body":{"error":{}}}}', b"\xff\xfe",
]  # fmt: skip


def test_usage_is_counted_by_model_and_every_line_passes_as_it_is() -> None:
    meter, lines = UsageMeter(), [CHAT, *ODD, RESPONSE, VECTOR, VECTOR]
    assert list(meter.measure("a", lines)) == lines
    assert sorted(meter.read(), key=lambda one: str(one.model)) == [
        AnswerUsage(model="chat", answers=2, input=15, output=8),
        AnswerUsage(model="m", answers=2, input=6),
    ]


def test_a_source_that_is_read_again_counts_once_and_one_that_is_left_does_not_count() -> None:
    meter = UsageMeter()
    for _ in range(2):
        list(meter.measure("a", [VECTOR]))
    list(meter.measure("b", [VECTOR]))
    list(islice(meter.measure("c", [VECTOR, VECTOR]), 1))
    assert meter.read() == [AnswerUsage(model="m", answers=2, input=6)]


def test_an_answer_that_says_nothing_of_its_usage_is_counted() -> None:
    meter = UsageMeter()
    list(meter.measure("a", [line(7), line("m", prompt_tokens="3")]))
    assert meter.read() == [
        AnswerUsage(model=None, answers=1, unstated=1),
        AnswerUsage(model="m", answers=1, unstated=1),
    ]


@pytest.mark.parametrize("usage", [{}, {"prompt_tokens": 0, "total_tokens": 0}, {"total_tokens": 7}])
def test_of_answers_that_do_not_say_what_was_used_beside_others_that_do_the_number_is_known(
    usage: dict[str, int],
) -> None:
    meter = UsageMeter()
    list(meter.measure("a", [VECTOR, line("m", **usage), line("m", **usage)]))
    assert meter.read() == [AnswerUsage(model="m", answers=3, input=3, unstated=2)]


BODY = orjson.loads(VECTOR)["response"]["body"]


@pytest.mark.parametrize(
    "response",
    [
        {"body": BODY},
        {"status_code": None, "body": BODY},
        {"status_code": "200", "body": BODY},
        {"status_code": 201, "body": BODY},
        {"status_code": 200, "body": orjson.dumps(BODY).decode()},
    ],
)
def test_an_answer_in_the_shape_of_another_server_is_counted_as_any_other(response: dict[str, object]) -> None:
    meter = UsageMeter()
    list(meter.measure("a", [orjson.dumps({"custom_id": "a", "response": response})]))
    assert meter.read() == [AnswerUsage(model="m", answers=1, input=3)]
