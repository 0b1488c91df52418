from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from airflow.sdk.exceptions import AirflowFailException, AirflowSkipException

from overnight.operators.chunks import ChunkDocumentsOperator
from overnight.operators.llamacloud import LlamaCloudBatchOperator

NOBODY = {"conn_type": "overnight_llamacloud", "host": "http://127.0.0.1:9", "password": "k"}


@pytest.fixture(autouse=True)
def connection(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AIRFLOW_CONN_LLAMACLOUD_DEFAULT", json.dumps(NOBODY))


def parse(sources: Any, **arguments: Any) -> LlamaCloudBatchOperator:
    return LlamaCloudBatchOperator(
        task_id="parse", configuration_id="c", sources=sources, aws_conn_id=None, durable=False, **arguments
    )


def test_a_day_without_files_is_refused_or_skipped(task_run: Any, tmp_path: Path) -> None:
    sources = [f"{tmp_path}/none/", f"{tmp_path}/none/*.pdf"]
    with pytest.raises(AirflowFailException, match=r"No file matches '.*/none/'"):
        parse(sources).execute(task_run.context)
    with pytest.raises(AirflowSkipException, match=r"There are no files in .*/none/, .*/none/\*\.pdf\."):
        parse(sources, allow_empty="true").execute(task_run.context)
    with pytest.raises(AirflowFailException, match=r"allow_empty='perhaps' is neither true nor false\."):
        parse(sources, allow_empty="perhaps").execute(task_run.context)


def test_of_several_sources_some_may_have_no_files(task_run: Any, tmp_path: Path) -> None:
    (tmp_path / "a.md").write_text("text")
    sources = [f"{tmp_path}/none/", f"{tmp_path}/*.md"]
    assert parse(sources, allow_empty=True).build_spec(task_run.context).files_count == 1


@pytest.mark.parametrize("documents", [None, "none/"])
def test_no_files_give_an_empty_file_of_chunks_where_that_is_allowed(documents: str | None, tmp_path: Path) -> None:
    where = f"{tmp_path}/{documents}" if documents else None
    target = tmp_path / "chunks.jsonl"

    def cut(*, allow_empty: bool) -> dict[str, Any]:
        operator = ChunkDocumentsOperator(
            task_id="chunk", documents=where, target=str(target), allow_empty=allow_empty, aws_conn_id=None
        )
        return operator.execute({})  # type: ignore[typeddict-item]

    with pytest.raises(AirflowFailException, match="No file matches"):
        cut(allow_empty=False)
    assert cut(allow_empty=True)["chunks"] == 0
    assert target.read_bytes() == b""
