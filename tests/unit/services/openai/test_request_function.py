from __future__ import annotations

import itertools
import json
from pathlib import Path
from typing import Any

import pytest
from pydantic import BaseModel, ValidationError

from overnight.errors import SpecError
from overnight.output_schema import OutputSchema
from overnight.rejection import RejectedError
from overnight.services.openai.input import InputError, build
from overnight.services.openai.request_function import COMPARED, RequestFunction

DOCUMENT = {"id": 7, "text": "It broke."}


class Review(BaseModel):
    label: str


def render(function: Any, **options: Any) -> dict[str, Any]:
    _, request = RequestFunction(function, **{"model": "m", **options}).render(dict(DOCUMENT))
    return request


def test_a_prompt_becomes_a_chat() -> None:
    request = render(lambda document: f"Classify: {document['text']}", options={"temperature": 0, "model": "other"})
    assert request == {
        "custom_id": "7",
        "method": "POST",
        "url": "/v1/chat/completions",
        "body": {"temperature": 0, "model": "m", "messages": [{"role": "user", "content": "Classify: It broke."}]},
    }


@pytest.mark.parametrize(
    ("endpoint", "name"),
    [
        ("/v1/responses", "input"),
        ("/v1/embeddings", "input"),
        ("/v1/moderations", "input"),
        ("/v1/completions", "prompt"),
        ("/v1/images/generations", "prompt"),
        ("/v1/videos", "prompt"),
    ],
)
def test_a_prompt_stands_where_its_endpoint_has_it(endpoint: str, name: str) -> None:
    assert render(lambda document: document["text"], endpoint=endpoint)["body"] == {"model": "m", name: "It broke."}


def test_a_body_is_taken_as_it_is_with_what_all_have() -> None:
    body = render(lambda document: {"messages": [], "seed": 1}, options={"seed": 2, "top_p": 1}, model=None)["body"]
    assert body == {"messages": [], "seed": 1, "top_p": 1}


def test_a_schema_becomes_the_directive() -> None:
    schema = OutputSchema.parse(Review)
    shape = render(lambda document: "x", schema=schema)["body"]["response_format"]["json_schema"]
    assert (shape["name"], shape["strict"]) == ("Review", True)
    with pytest.raises(SpecError, match="take no schema"):
        RequestFunction(lambda document: "x", endpoint="/v1/embeddings", schema=schema)


@pytest.mark.parametrize(
    ("function", "code", "words"),
    [
        (lambda document: document["nothing"], "function_failed", "KeyError: 'nothing'"),
        (lambda document: 1 / 0, "function_failed", "ZeroDivisionError"),
        (lambda document: " ", "empty", "empty prompt"),
        (lambda document: None, "no_request", "NoneType"),
        (lambda document: ["x"], "no_request", "list"),
    ],
)
def test_a_document_without_a_request_is_rejected(function: Any, code: str, words: str) -> None:
    with pytest.raises(RejectedError) as caught:
        render(function)
    assert caught.value.rejection.code == code
    assert words in caught.value.rejection.reason


def test_an_endpoint_of_another_servers_own_needs_whole_bodies() -> None:
    assert render(lambda document: {"query": "x"}, endpoint="/v1/rerank")["body"]["query"] == "x"
    with pytest.raises(SpecError, match="whole bodies"):
        render(lambda document: "x", endpoint="/v1/rerank")


def test_what_is_no_address_or_path_is_refused() -> None:
    for wrong in ({"endpoint": "v1"}, {"id_path": "$.a[*]"}):
        with pytest.raises(ValidationError):
            RequestFunction(lambda document: "x", **wrong)  # type: ignore[arg-type]


def test_a_function_that_changes_its_mind_is_refused_before_anything_is_sent(tmp_path: Path) -> None:
    numbers = itertools.count()
    maker = RequestFunction(lambda document: f"{next(numbers)}", model="m")
    with pytest.raises(SpecError, match=r"document '7'.*pay for all of them anew"):
        build([DOCUMENT], maker, str(tmp_path))
    assert list(tmp_path.iterdir()) == []


def test_a_function_that_changes_its_document_makes_the_same_request_each_time() -> None:
    def pop(document: dict[str, Any]) -> str:
        return str(document.pop("text"))

    assert render(pop)["body"]["messages"][0]["content"] == "It broke."


def test_only_the_first_documents_are_asked_for_twice() -> None:
    calls = itertools.count()

    def count(document: dict[str, Any]) -> str:
        next(calls)
        return "x"

    maker = RequestFunction(count, model="m")
    for number in range(COMPARED + 5):
        maker.render({"id": number})
    assert next(calls) == 2 * COMPARED + 5


def test_documents_are_written_as_requests_in_the_same_parts(tmp_path: Path) -> None:
    maker = RequestFunction(lambda document: document["text"], model="m", id_path="$.sku")
    documents = [{"sku": f"s{number}", "text": "t"} for number in range(3)] + [{"sku": "bad"}]
    with pytest.raises(InputError, match=r"line 4: .*KeyError"):
        build(documents, maker, str(tmp_path / "a"))
    built = build(documents, maker, str(tmp_path / "b"), on_bad="reject")
    (part,) = built.parts
    assert (part.requests, built.rejected) == (3, 1)
    lines = [json.loads(line) for line in Path(part.uri).read_text().splitlines()]
    assert [line["custom_id"] for line in lines] == ["s0", "s1", "s2"]
    assert build(documents, maker, str(tmp_path / "c"), on_bad="reject").parts[0].sha256 == part.sha256
