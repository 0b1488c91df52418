from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from airflow.sdk.exceptions import AirflowFailException

from overnight.chunking import build_stem
from overnight.hooks.opensearch import OpenSearchHook
from overnight.ingest import MirrorReport, OpenSearchTarget
from overnight.operators.index import OpenSearchCreateIndexOperator
from overnight.operators.load import OpenSearchLoadOperator
from overnight.operators.mirror import OpenSearchMirrorOperator
from unit.ingest.conftest import opensearch
from unit.ingest.fake_opensearch import FakeOpenSearch

__all__ = ["opensearch"]


class Index:
    """An index with documents, and the folder of the source that it mirrors."""

    def __init__(self, fake: FakeOpenSearch, folder: Path) -> None:
        self.fake, self.folder = fake, folder
        self.pushed: dict[str, Any] = {}

    def put(self, *ids: str) -> None:
        for key in ids:
            self.fake.documents[key] = {}
            self.fake.sequence[key] = max(self.fake.sequence.values(), default=-1) + 1

    def write(self, *lines: Any, name: str = "a.jsonl") -> str:
        path = self.folder / name
        texts = [line if isinstance(line, str) else json.dumps(line) for line in lines]
        path.write_text("".join(f"{text}\n" for text in texts))
        return str(path)

    def mirror(self, **arguments: Any) -> dict[str, Any]:
        given = {"documents": f"{self.folder}/*.jsonl", "deletes_uri": f"{self.folder}/deletes", **arguments}
        operator = OpenSearchMirrorOperator(task_id="mirror", index_name="docs", **given)
        return operator.execute({"ti": self})

    def xcom_push(self, *, key: str, value: Any) -> None:
        self.pushed[key] = value

    @property
    def ids(self) -> set[str]:
        return set(self.fake.documents)


@pytest.fixture
def index(opensearch: FakeOpenSearch, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Index:
    monkeypatch.setattr(OpenSearchHook, "target", lambda _hook: OpenSearchTarget(opensearch.url, verify=False))
    return Index(opensearch, tmp_path)


def rows(*ids: str) -> list[dict[str, str]]:
    return [{"id": key} for key in ids]


def test_it_deletes_what_no_file_of_the_source_has(index: Index) -> None:
    index.put(*"abcdefgh")
    index.write(*rows("a", "b", "c"))
    index.write(*rows("d", "e", "f", "z"), name="b.jsonl")
    found = index.mirror(max_deletes=2)
    assert index.ids == {"a", "b", "c", "d", "e", "f"}
    assert (found["sync"], found["deleted"], found["extra"], found["in_source"], found["not_indexed"]) == (
        "mirror", 2, 2, 7, 1,
    )  # fmt: skip
    assert found["sample"] == ["g", "h"]


def test_upsert_does_nothing_at_all(index: Index) -> None:
    index.put("a", "b")
    assert index.mirror(sync="upsert", documents="/nowhere/") == {"sync": "upsert"}
    assert index.fake.requests == []


def test_preview_deletes_nothing(index: Index) -> None:
    index.put("a", "b")
    index.write(*rows("a"))
    found = index.mirror(sync="preview")
    assert (found["extra"], found["deleted"]) == (1, 0)
    assert "max_deletes=10 %" in found["refusal"]
    assert index.ids == {"a", "b"}


@pytest.mark.parametrize("files", [0, 1])
def test_a_source_that_is_suddenly_empty_is_refused_although_it_may_be_empty(index: Index, files: int) -> None:
    index.put(*"abc")
    if files:
        index.write()
    with pytest.raises(AirflowFailException, match="3 of the 3 documents .* The source has no document at all"):
        index.mirror(allow_empty="True")
    assert index.ids == set("abc")
    found = MirrorReport.model_validate(index.pushed["report"])
    assert (found.extra, found.deleted, found.sample) == (3, 0, ("a", "b", "c"))
    listed = [json.loads(line) for line in (index.folder / "deletes").read_text().splitlines()]
    assert listed == rows("a", "b", "c")
    assert index.mirror(allow_empty=True, max_deletes="100%")["deleted"] == 3


def test_a_source_without_files_is_refused(index: Index) -> None:
    index.put("a")
    with pytest.raises(AirflowFailException, match="No file matches"):
        index.mirror(max_deletes="100%")


def test_a_list_of_an_earlier_try_does_not_stay(index: Index) -> None:
    index.put("a")
    index.write(*rows("a"))
    (index.folder / "deletes").touch()
    assert index.mirror()["uri"] is None
    assert not (index.folder / "deletes").exists()


def test_what_was_written_after_the_run_began_is_left(index: Index) -> None:
    index.put("a", "b")
    create = OpenSearchCreateIndexOperator(task_id="create_index", index_name="docs", create=False, sync="mirror")
    baseline = json.loads(json.dumps(create.execute({})))
    index.put("c")
    index.write(*rows("a"))
    found = index.mirror(baseline=baseline, max_deletes=1)
    assert (found["deleted"], found["newer"]) == (1, 1)
    assert index.ids == {"a", "c"}


def test_a_baseline_that_is_none_is_refused(index: Index) -> None:
    with pytest.raises(AirflowFailException, match="baseline is not the XCom"):
        index.mirror(baseline={"index": "docs"})


def results(index: Index, *lines: Any) -> dict[str, Any]:
    uri = index.write(*lines, name="errors")
    ref = {"service": "llamacloud", "id": "b", "conn_id": "c"}
    return {"ref": ref, "results": {"ref": ref, "files": [{"kind": "error", "uri": uri}]}}


def test_the_chunks_of_a_file_that_failed_are_left(index: Index) -> None:
    failed, gone = build_stem("s3://bucket/failed.pdf"), build_stem("s3://bucket/gone.pdf")
    index.put(f"{failed}-0", f"{failed}-1", f"{gone}-0", f"{gone}-1", "good-0", "good-1", f"{failed}-x")
    index.write(*rows("good-0"))
    files = results(index, {"source_uri": "s3://bucket/failed.pdf", "state": "failed"})
    found = index.mirror(files=files, max_deletes=4)
    assert index.ids == {f"{failed}-0", f"{failed}-1", "good-0"}
    assert (found["kept"], found["deleted"]) == (2, 4)


def test_a_failed_file_that_nobody_can_name_may_be_any_documents(index: Index) -> None:
    index.put("a-0", "b-0")
    index.write(*rows("a-0"))
    with pytest.raises(AirflowFailException, match="1 of its lines have no id that can be read"):
        index.mirror(files=results(index, {"source_uri": None}), max_deletes="100%")
    assert index.ids == {"a-0", "b-0"}


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        ({"sync": "delete"}, "sync: Input should be 'upsert', 'mirror' or 'preview'"),
        ({"max_deletes": "many"}, "max_deletes='many' is neither a count"),
        ({"sync_filter": "source:wiki"}, "sync_filter"),
        ({"id_path": "$.["}, "JSONPath"),
    ],
)
def test_bad_arguments_are_refused(index: Index, arguments: dict[str, Any], says: str) -> None:
    index.put("a")
    index.write(*rows())
    with pytest.raises(AirflowFailException) as caught:
        index.mirror(**arguments)
    assert says in str(caught.value)
    assert index.ids == {"a"}


def test_a_load_that_is_refused_its_deletes_leaves_its_report(index: Index) -> None:
    index.put(*"abc")
    source = index.write({"id": "a", "text": "x"})
    request = {
        "index_name": "docs",
        "field_map": {"_id": "$.id", "text": "$.text"},
        "data_source": {"source": [source]},
    }
    load = OpenSearchLoadOperator(task_id="load", request=request, options={"sync": "mirror", "write": "index"})
    with pytest.raises(AirflowFailException, match="max_deletes=10 %"):
        load.execute({"ti": index})  # type: ignore[typeddict-item]
    assert index.pushed["report"]["indexed"] == 1
    assert index.pushed["report"]["deleted"] == 0
    assert index.ids == set("abc")


@pytest.mark.parametrize(
    ("field_map", "end", "says"),
    [({"text": "$.text"}, "", "no '_id'"), ({"_id": "$.id", "text": "$.text"}, "#bytes=0-5", "a shard of one")],
)
def test_a_load_that_could_delete_too_much_is_refused(
    index: Index, field_map: dict[str, str], end: str, says: str
) -> None:
    source = index.write({"id": "a", "text": "x"})
    request = {"index_name": "docs", "field_map": field_map, "data_source": {"source": [f"{source}{end}"]}}
    load = OpenSearchLoadOperator(task_id="load", request=request, options={"sync": "mirror", "write": "index"})
    with pytest.raises(AirflowFailException, match=says):
        load.execute({"ti": index})  # type: ignore[typeddict-item]
    assert index.ids == set()
