from __future__ import annotations

from pathlib import Path
from typing import Any
from unittest.mock import Mock

import pytest
from airflow.sdk.exceptions import AirflowFailException

from overnight.ingest.report.dead_letters import read_dead_letters
from overnight.operators.openai import OpenAIBatchInputOperator
from overnight.services.openai.input import RequestTemplate


def prepare(folder: Path, **arguments: Any) -> tuple[list[dict[str, Any]], Any]:
    ti = Mock()
    given = {"documents": f"{folder}/in/", "target": f"{folder}/out", "aws_conn_id": None, **arguments}
    operator = OpenAIBatchInputOperator(task_id="t", template=RequestTemplate.embeddings("m"), **given)
    parts = operator.execute({"ti": ti})  # type: ignore[typeddict-item]
    return parts, ti.xcom_push.call_args.kwargs["value"]


def write(folder: Path, **files: str) -> None:
    (folder / "in").mkdir()
    for name, content in files.items():
        (folder / "in" / f"{name}.jsonl").write_text(content)


def test_no_file_is_refused_with_the_way_to_allow_it(tmp_path: Path) -> None:
    (tmp_path / "in").mkdir()
    with pytest.raises(AirflowFailException, match=r"No file matches .* set allow_empty"):
        prepare(tmp_path)
    with pytest.raises(AirflowFailException, match="No file matches"):
        prepare(tmp_path, allow_empty="False")


@pytest.mark.parametrize("allowed", [True, "True"])
def test_a_day_without_documents_can_be_allowed(tmp_path: Path, allowed: Any) -> None:
    (tmp_path / "in").mkdir()
    assert prepare(tmp_path, allow_empty=allowed) == ([], {"count": 0, "uri": None})


def test_files_without_a_document_are_a_day_without_documents(tmp_path: Path) -> None:
    write(tmp_path, a="", b="\n\n")
    with pytest.raises(AirflowFailException, match=r"There is no document in .*a\.jsonl, .*b\.jsonl\. .* allow_empty"):
        prepare(tmp_path)
    assert prepare(tmp_path, allow_empty=True) == ([], {"count": 0, "uri": None})


@pytest.mark.parametrize("allowed", [0, "0", "40%"])
def test_rejected_documents_count_against_the_allowance(tmp_path: Path, allowed: Any) -> None:
    write(tmp_path, a='{"id": 1, "text": "x"}\n{"id": 2}\n')
    with pytest.raises(AirflowFailException, match=r"1 of 2 documents were rejected.*nothing was submitted"):
        prepare(tmp_path, on_bad_document="reject", allowed_failures=allowed)


@pytest.mark.parametrize("allowed", ["99%", "100%", None])
def test_a_run_of_which_every_document_is_rejected_is_no_success(tmp_path: Path, allowed: str | None) -> None:
    write(tmp_path, a='{"id": 1}\n{"id": 2}\n')
    with pytest.raises(AirflowFailException, match="2 of 2 documents were rejected"):
        prepare(tmp_path, on_bad_document="reject", allowed_failures=allowed)


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (b'[{"id": 1, "text": "x"}]', "a JSON array; write its objects one per line"),
        ('{"id": 1, "text": "x"}\n'.encode("utf-16"), "UTF-16 text; write it as UTF-8"),
        (b"<!DOCTYPE html><html><body>Bad Gateway</body></html>", "an HTML or XML page"),
        (b"%PDF-1.7\n", "a PDF document; parse it first"),
    ],
)
@pytest.mark.parametrize("on_bad", ["fail", "reject"])
def test_a_file_of_another_kind_is_named_and_not_counted_as_documents(
    tmp_path: Path, content: bytes, words: str, on_bad: str
) -> None:
    (tmp_path / "in").mkdir()
    (tmp_path / "in" / "a.jsonl").write_bytes(content)
    with pytest.raises(AirflowFailException, match=f"a.jsonl is no JSON Lines but {words}"):
        prepare(tmp_path, on_bad_document=on_bad)


def test_blank_lines_and_rejected_documents_of_several_files(tmp_path: Path) -> None:
    write(tmp_path, a='\n{"id": 1, "text": "x"}\n\n', b='{"id": 2, "text": "x"}\n{"id": 1, "text": "again"}\n\n')
    parts, rejected = prepare(tmp_path, on_bad_document="reject")
    assert [part["requests"] for part in parts] == [2]
    (record,) = read_dead_letters(rejected["uri"])
    assert (Path(record.uri).name, record.line, record.code) == ("b.jsonl", 2, "duplicate")
    assert record.reason.endswith("a.jsonl already")


def test_the_parts_are_priced_before_anything_is_paid(tmp_path: Path) -> None:
    write(tmp_path, a='{"id": 1, "text": "%s"}\n{"id": 2, "text": "%s"}\n' % ("x" * 400, "y" * 400))  # noqa: UP031
    ti = Mock()
    operator = OpenAIBatchInputOperator(
        task_id="t",
        documents=f"{tmp_path}/in/",
        target=f"{tmp_path}/out",
        aws_conn_id=None,
        limits={"requests": 1},
        template=RequestTemplate.embeddings("mine"),
        prices={"models": {"mine": {"input": 10_000}}},
        max_tokens="200",
        max_cost="1 USD",
    )
    assert len(operator.execute({"ti": ti})) == 2  # type: ignore[typeddict-item]
    (estimate,) = (call.kwargs["value"] for call in ti.xcom_push.call_args_list if call.kwargs["key"] == "estimate")
    assert (estimate["requests"], estimate["parts"], estimate["input"], estimate["output"]) == (2, 2, 200, 0)
    assert float(estimate["cost"]) == 1.0
    operator.max_cost = "0.99 USD"
    with pytest.raises(AirflowFailException, match=r"cost about 1\.00 USD, more than max_cost=0\.99 USD"):
        operator.execute({"ti": ti})  # type: ignore[typeddict-item]
    operator.max_cost, operator.max_tokens = None, "199"
    with pytest.raises(AirflowFailException, match="200 tokens .*more than max_tokens=199"):
        operator.execute({"ti": ti})  # type: ignore[typeddict-item]


def test_a_model_that_each_document_names_has_no_price(tmp_path: Path) -> None:
    write(tmp_path, a='{"id": 1, "text": "x", "model": "m"}\n')
    template = RequestTemplate(endpoint="/v1/embeddings", body={"model": "${model}", "input": "${text}"})
    operator = OpenAIBatchInputOperator(
        task_id="t", documents=f"{tmp_path}/in/", target=f"{tmp_path}/out", aws_conn_id=None, template=template,
        max_cost=1,
    )  # fmt: skip
    with pytest.raises(AirflowFailException, match="max_cost cannot be held: no price of a model that the documents"):
        operator.execute({"ti": Mock()})  # type: ignore[typeddict-item]
