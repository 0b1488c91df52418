from __future__ import annotations

import json
from pathlib import Path
from types import SimpleNamespace
from typing import Annotated, Any

import pytest
from airflow.sdk import DAG, task
from pydantic import BaseModel

from overnight.errors import SpecError
from overnight.operators.openai_decorator import (
    OpenAIBatchFunctionInputOperator,
    find_answer_type,
    openai_batch_input,
)


class Review(BaseModel):
    label: str


def ask(document: dict[str, Any], words: str = "Classify") -> Annotated[str, Review]:
    return f"{words}: {document['text']}"


def run(tmp_path: Path, decorated: Any, *arguments: Any, **named: Any) -> list[dict[str, Any]]:
    with DAG("d", schedule=None):
        operator: Any = decorated(*arguments, **named).operator
    assert isinstance(operator, OpenAIBatchFunctionInputOperator)
    pushed: dict[str, Any] = {}
    ti = SimpleNamespace(xcom_push=lambda *, key, value: pushed.update({key: value}))
    parts: list[dict[str, Any]] = operator.execute({"ti": ti, "ds": "2026-11-27"})
    assert pushed["rejected"] == {"count": 0, "uri": None}
    return parts


@pytest.fixture
def documents(tmp_path: Path) -> str:
    file = tmp_path / "documents.jsonl"
    file.write_text("".join(json.dumps({"id": f"d{n}", "text": f"text {n}"}) + "\n" for n in range(3)))
    return str(file)


def bodies(part: dict[str, Any]) -> list[dict[str, Any]]:
    return [json.loads(line)["body"] for line in Path(part["uri"]).read_text().splitlines()]


def test_airflow_knows_the_decorator(tmp_path: Path, documents: str) -> None:
    decorated = task.openai_batch_input(target=str(tmp_path / "in"), model="m", aws_conn_id=None)(ask)
    (part,) = run(tmp_path, decorated, documents)
    assert part["requests"] == 3
    first, *_ = bodies(part)
    assert first["messages"] == [{"role": "user", "content": "Classify: text 0"}]
    assert first["response_format"]["json_schema"]["name"] == "Review"


def test_the_other_arguments_are_passed_on_and_so_is_the_context(tmp_path: Path, documents: str) -> None:
    def describe(document: dict[str, Any], words: str, ds: str | None = None) -> str:
        return f"{words} {ds} {document['id']}"

    decorated = openai_batch_input(describe, target=str(tmp_path / "in"), model="m", aws_conn_id=None)
    for arguments, named in ((([documents],), {"words": "Say"}), ((), {"document": documents, "words": "Say"})):
        (part,) = run(tmp_path, decorated, *arguments, **named)
        assert bodies(part)[1]["messages"][0]["content"] == "Say 2026-11-27 d1"


def test_a_function_that_returns_bodies_gives_a_list_of_parts_all_the_same(tmp_path: Path, documents: str) -> None:
    def build(document: dict[str, Any]) -> dict[str, Any]:
        return {"model": "m", "input": document["text"]}

    decorated = openai_batch_input(build, target=str(tmp_path / "in"), endpoint="/v1/embeddings", aws_conn_id=None)
    (part,) = run(tmp_path, decorated, documents)
    assert [body["input"] for body in bodies(part)] == ["text 0", "text 1", "text 2"]


def test_an_output_type_counts_before_the_annotation(tmp_path: Path, documents: str) -> None:
    schema = {"type": "object", "title": "own", "properties": {"a": {"type": "string"}}}
    decorated = openai_batch_input(
        ask, target=str(tmp_path / "in"), model="m", output_type=schema, endpoint="/v1/responses", aws_conn_id=None
    )
    (part,) = run(tmp_path, decorated, documents)
    assert bodies(part)[0]["text"]["format"]["name"] == "own"


def test_only_a_type_beside_the_text_is_the_type_of_the_answers() -> None:
    def model(document: dict[str, Any]) -> Review: ...

    def text(document: dict[str, Any]) -> str: ...

    def other(document: dict[str, Any]) -> Annotated[str, "words"]: ...

    assert find_answer_type(ask) is Review
    assert find_answer_type(text) is find_answer_type(other) is None
    with pytest.raises(SpecError, match=r"Annotated\[str, Review\]"):
        find_answer_type(model)


def test_the_documents_and_the_template_come_from_call_and_function(tmp_path: Path) -> None:
    for wrong in ("documents", "template", "cache_uri"):
        with pytest.raises(ValueError, match=wrong), DAG("d", schedule=None):
            openai_batch_input(ask, target="t", **{wrong: "x"})("uri")


def test_the_task_has_a_copy_for_each_element_it_is_mapped_over(tmp_path: Path) -> None:
    with DAG("d", schedule=None):
        mapped = openai_batch_input(ask, target="t", model="m").partial(words="x").expand(document=["a/", "b/"])
    assert mapped.operator.task_id == "ask"
