"""A mirrored index against a real OpenSearch: what the source no longer has is deleted, and nothing else."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from overnight.errors import SpecError
from overnight.ingest import DeletesRefusedError, LoadOptions, LoadReport, OpenSearchTarget, load
from overnight.ingest.write import stored
from overnight.ingest.write.index import create_index, inspect_index

BODY = {
    "settings": {"number_of_shards": 3, "number_of_replicas": 0},
    "mappings": {"properties": {"text": {"type": "text"}, "corpus": {"type": "keyword"}}},
}
FIELD_MAP = {"_id": "$.id", "text": "$.text", "corpus": "$.corpus"}


class Corpus:
    """A file of documents, and the index that mirrors it."""

    def __init__(self, target: OpenSearchTarget, index: str, folder: Path) -> None:
        self.target, self.index, self.folder = target, index, folder
        self.field_map: dict[str, Any] = FIELD_MAP
        self.lines: list[str] = []

    def write(self, ids: range | list[str], corpus: str = "a", **more: Any) -> None:
        rows = [{"id": str(key), "text": f"text {key}", "corpus": corpus, **more} for key in ids]
        self.lines = [json.dumps(row) for row in rows]

    def load(self, *, name: str | None = None, file: str = "docs.jsonl", **options: Any) -> LoadReport:
        (self.folder / file).write_text("".join(f"{line}\n" for line in self.lines))
        request = {
            "index_name": name or self.index,
            "field_map": self.field_map,
            "data_source": {"source": [str(self.folder / file)]},
        }
        given = LoadOptions.of({"create_index": BODY, "allow_empty": True, "allowed_failures": "100%", **options})
        return load(request, target=self.target, options=given)

    def mirror(self, **options: Any) -> LoadReport:
        deletes = str(self.folder / "deletes.jsonl")
        return self.load(**{"sync": "mirror", "deletes_uri": deletes, "write": "index", **options})

    def ids(self, name: str | None = None) -> set[str]:
        self.target.post(f"{name or self.index}/_refresh")
        answer = self.target.post(f"{name or self.index}/_search", {"size": 10_000, "_source": False})
        return {hit["_id"] for hit in answer["hits"]["hits"]}

    def listed(self) -> list[str]:
        return [json.loads(line)["id"] for line in (self.folder / "deletes.jsonl").read_text().splitlines()]


@pytest.fixture
def corpus(target: OpenSearchTarget, index_name: str, tmp_path: Path) -> Corpus:
    return Corpus(target, index_name, tmp_path)


def texts(numbers: range) -> set[str]:
    return set(map(str, numbers))


def test_what_the_source_no_longer_has_is_deleted(corpus: Corpus) -> None:
    corpus.write(range(500))
    first = corpus.mirror()
    assert (first.indexed, first.deleted) == (500, 0)
    corpus.write(range(20, 510))
    report = corpus.mirror()
    assert (report.submitted, report.indexed, report.deleted) == (490, 490, 20)
    assert report.mirror is not None
    assert (report.mirror.in_source, report.mirror.in_index, report.mirror.not_indexed) == (490, 510, 0)
    assert corpus.ids() == texts(range(20, 510))
    assert set(corpus.listed()) == texts(range(20))
    assert "deleted: 20 of 510" in "\n".join(report.describe())


def test_without_the_option_nothing_is_ever_deleted(corpus: Corpus) -> None:
    corpus.write(range(50))
    corpus.load()
    corpus.write(range(10))
    report = corpus.load(write="index")
    assert (report.deleted, report.mirror) == (0, None)
    assert corpus.ids() == texts(range(50))


def test_a_preview_names_what_would_be_deleted(corpus: Corpus) -> None:
    corpus.write(range(50))
    corpus.load()
    corpus.write(range(10))
    report = corpus.mirror(sync="preview")
    assert report.mirror is not None
    assert (report.deleted, report.mirror.extra) == (0, 40)
    assert "max_deletes=10 %" in str(report.mirror.refusal)
    assert set(corpus.listed()) == texts(range(10, 50))
    assert corpus.ids() == texts(range(50))


@pytest.mark.parametrize("left", [range(0), range(44)])
def test_more_than_max_deletes_is_refused_with_a_list_before_any_delete(corpus: Corpus, left: range) -> None:
    corpus.write(range(50))
    corpus.load()
    corpus.write(left)
    with pytest.raises(DeletesRefusedError, match=r"max_deletes=10 % lets be deleted. Nothing was deleted") as caught:
        corpus.mirror()
    assert caught.value.mirror.extra == 50 - len(left)
    assert len(caught.value.mirror.sample) == min(20, 50 - len(left))
    assert caught.value.report is not None
    assert LoadReport.model_validate(caught.value.report).indexed == len(left)
    assert set(corpus.listed()) == texts(range(50)) - texts(left)
    assert corpus.ids() == texts(range(50))
    # Somebody says that it is right.
    assert corpus.mirror(max_deletes="100%").deleted == 50 - len(left)
    assert corpus.ids() == texts(left)


def test_a_retry_after_a_refusal_writes_nothing_again(corpus: Corpus, tmp_path: Path) -> None:
    corpus.write(range(50))
    corpus.load()
    corpus.write(range(20))
    checkpoint = {"checkpoint_uri": str(tmp_path / "checkpoint.json")}
    with pytest.raises(DeletesRefusedError):
        corpus.mirror(**checkpoint)
    before = stored.read_baseline(corpus.target, inspect_index(corpus.target, corpus.index))
    request = {
        "index_name": corpus.index,
        "field_map": FIELD_MAP,
        "data_source": {"source": [str(tmp_path / "docs.jsonl")]},
    }
    options = {"sync": "mirror", "deletes_uri": str(tmp_path / "deletes.jsonl"), "write": "index", "max_deletes": 30}
    report = load(request, target=corpus.target, options=LoadOptions.of({**options, **checkpoint}))
    assert (report.indexed, report.deleted, report.resumed) == (20, 30, True)
    after = stored.read_baseline(corpus.target, inspect_index(corpus.target, corpus.index))
    assert sum(after.sequence.values()) == sum(before.sequence.values()) + 30


def test_rejected_documents_are_still_in_the_source(corpus: Corpus) -> None:
    corpus.write(range(50))
    corpus.load()
    corpus.write(range(48))
    corpus.lines[7] = json.dumps({"id": "7", "text": "no corpus"})
    corpus.lines[8] = json.dumps({"id": "8", "text": {"an": "object"}, "corpus": "a"})
    report = corpus.mirror()
    assert (report.rejected, report.deleted) == (2, 2)
    assert corpus.ids() == texts(range(48))


def test_a_line_without_a_readable_id_may_be_any_document(corpus: Corpus) -> None:
    corpus.write(range(50))
    corpus.load()
    corpus.write(range(49))
    corpus.lines[7] = "{"
    with pytest.raises(DeletesRefusedError, match="1 of its lines have no id that can be read"):
        corpus.mirror()
    assert corpus.ids() == texts(range(50))
    corpus.write(range(50))
    corpus.lines.append("{")
    assert corpus.mirror().deleted == 0  # nothing was to be deleted


def test_chunks_of_a_document_that_shrank_are_deleted(corpus: Corpus) -> None:
    corpus.write([f"doc-{n}" for n in range(5)] + [f"other-{n}" for n in range(60)])
    corpus.load()
    corpus.write([f"doc-{n}" for n in range(3)] + [f"other-{n}" for n in range(60)])
    assert corpus.mirror().deleted == 2
    assert {key for key in corpus.ids() if key.startswith("doc")} == {"doc-0", "doc-1", "doc-2"}


def test_two_corpora_share_an_index(corpus: Corpus) -> None:
    corpus.write(range(50))
    corpus.load()
    corpus.write(range(100, 150), corpus="b")
    corpus.load(write="index")
    corpus.write(range(100, 148), corpus="b")
    report = corpus.mirror(sync_filter={"term": {"corpus": "b"}})
    assert report.mirror is not None
    assert (report.deleted, report.mirror.in_index) == (2, 50)
    assert corpus.ids() == texts(range(50)) | texts(range(100, 148))


def test_an_alias_limits_what_is_deleted(corpus: Corpus) -> None:
    corpus.write(range(50))
    corpus.load()
    alias = f"{corpus.index}-b"
    actions = [{"add": {"index": corpus.index, "alias": alias, "filter": {"term": {"corpus": "b"}}, "routing": "r"}}]
    corpus.target.post("_aliases", {"actions": actions})
    corpus.write(range(100, 150), corpus="b")
    corpus.load(name=alias, write="index")
    corpus.write(range(100, 149), corpus="b")
    report = corpus.mirror(name=alias)
    assert report.mirror is not None
    assert (report.deleted, report.mirror.index, report.mirror.in_index) == (1, corpus.index, 50)
    assert corpus.ids() == texts(range(50)) | texts(range(100, 149))


def test_documents_with_routing_values_are_deleted(corpus: Corpus) -> None:
    corpus.field_map = {**FIELD_MAP, "_routing": "$.corpus"}
    corpus.write(range(50))
    corpus.load()
    corpus.write(range(47))
    assert corpus.mirror().deleted == 3
    assert corpus.ids() == texts(range(47))


def test_partial_updates_are_mirrored_too(corpus: Corpus) -> None:
    corpus.write(range(50))
    corpus.load()
    corpus.write(range(47))
    assert corpus.mirror(write="update").deleted == 3
    assert corpus.ids() == texts(range(47))


def test_what_a_newer_run_has_written_is_left(corpus: Corpus, monkeypatch: pytest.MonkeyPatch) -> None:
    corpus.write(range(50))
    corpus.load()
    scan = stored.scan

    def while_another_run_writes(*args: Any) -> Any:
        found = scan(*args)
        yield next(found)
        corpus.write(["new", "49"])  # a new document, and one that is about to be deleted
        corpus.load(write="index", file="other.jsonl")
        yield from found
        corpus.target.post(f"{corpus.index}/_refresh")

    corpus.write(range(48))
    monkeypatch.setattr("overnight.ingest.mirror.scan", while_another_run_writes)
    report = corpus.mirror()
    assert report.mirror is not None
    assert corpus.ids() == texts(range(48)) | {"new", "49"}
    assert report.deleted == 1  # 48
    assert report.mirror.changed + report.mirror.newer == 1  # 49, by where the scan was
    # A run that begins later deletes it.
    monkeypatch.setattr("overnight.ingest.mirror.scan", scan)
    corpus.write(range(48))
    assert corpus.mirror().deleted == 2


def test_what_was_written_after_the_run_began_is_left(corpus: Corpus, target: OpenSearchTarget) -> None:
    corpus.write(range(50))
    corpus.load()
    index = inspect_index(target, corpus.index)
    baseline = stored.read_baseline(target, index)
    corpus.write(["50"])
    corpus.load(write="index", file="other.jsonl")
    target.post(f"{corpus.index}/_refresh")
    newer = {document.id for document in stored.scan(target, index) if baseline.is_newer(index, document)}
    assert newer == {"50"}
    assert all(baseline.is_newer(replace(index, uuid="made anew"), document) for document in stored.scan(target, index))


def test_a_document_that_changed_since_it_was_seen_is_left(corpus: Corpus, target: OpenSearchTarget) -> None:
    corpus.write(range(4))
    corpus.load()
    index = inspect_index(target, corpus.index)
    seen = sorted(stored.scan(target, index))
    corpus.write(["1"])
    corpus.load(write="index")
    target.delete(f"{corpus.index}/_doc/2")
    outcome = stored.delete_documents(target, index, iter(seen))
    assert (outcome.deleted, outcome.changed) == (3, 1)
    assert corpus.ids() == {"1"}


def test_many_pages_and_shards_are_read(
    corpus: Corpus, target: OpenSearchTarget, monkeypatch: pytest.MonkeyPatch
) -> None:
    corpus.write(range(200))
    corpus.load()
    monkeypatch.setattr(stored, "PAGE", 7)
    found = list(stored.scan(target, inspect_index(target, corpus.index)))
    assert len(found) == 200
    assert {document.id for document in found} == texts(range(200))
    assert {document.shard for document in found} == {0, 1, 2}


def test_a_data_stream_is_refused_before_anything_is_written(corpus: Corpus) -> None:
    body = {"data_stream": {}, "mappings": {"properties": {"@timestamp": {"type": "date"}}}}
    corpus.field_map = {**FIELD_MAP, "@timestamp": "$.at"}
    corpus.write(range(3), at="2026-01-01")
    try:
        with pytest.raises(SpecError, match="is a data stream"):
            corpus.mirror(create_index=body)
        assert corpus.ids() == set()
    finally:
        corpus.target.delete(f"_data_stream/{corpus.index}")
        corpus.target.delete(f"_index_template/{corpus.index}")


def test_an_index_that_was_made_beforehand_is_mirrored(corpus: Corpus, target: OpenSearchTarget) -> None:
    create_index(target, corpus.index, BODY)
    corpus.write(range(3))
    report = corpus.mirror()
    assert (report.indexed, report.deleted) == (3, 0)
