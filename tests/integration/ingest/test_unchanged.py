"""``skip_unchanged`` against a real OpenSearch: what is written is seen from the index's own sequence numbers."""

from __future__ import annotations

import itertools
import json
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any, NamedTuple

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from overnight.errors import SpecError
from overnight.ingest import LoadOptions, LoadReport, OpenSearchTarget, cut, load, replace_index
from overnight.ingest.write.index import create_index
from overnight.ingest.write.unchanged import FIELD, MAPPING

VECTOR = {"type": "knn_vector", "dimension": 4, "method": {"name": "hnsw", "engine": "lucene"}}
PROPERTIES = {"text": {"type": "text"}, "vector": VECTOR}
SETTINGS = {"index.knn": True, "number_of_shards": 3, "number_of_replicas": 0}
BODY: dict[str, Any] = {"settings": SETTINGS, "mappings": {"properties": PROPERTIES}}
FIELDS = {"_id": "$.id", "text": "$.text", "vector": "$.vector"}


class Write(NamedTuple):
    """The last write of a document."""

    version: int
    sequence: int


class Corpus:
    """A file of documents that is loaded each night."""

    def __init__(self, target: OpenSearchTarget, index: str, folder: Path) -> None:
        self.target, self.index, self.file = target, index, folder / "docs.jsonl"
        self.rows: dict[str, dict[str, Any]] = {}
        self.fields: dict[str, Any] = FIELDS

    def fill(self, count: int) -> None:
        # OpenSearch 3 keeps a vector as float32 only and gives it back so; these survive that.
        self.rows = {f"d{n}": {"text": f"text {n}", "vector": [1, n / 64, 0.5, 0.25]} for n in range(count)}

    def change(self, *keys: str) -> None:
        for key in keys:
            self.rows[key] = {**self.rows.get(key, {"vector": [1, 1, 1, 1]}), "text": f"changed {key}"}

    def write(self) -> None:
        self.file.write_text("".join(f"{json.dumps({'id': key, **row})}\n" for key, row in self.rows.items()))

    def request(self, **changes: Any) -> dict[str, Any]:
        source = {"source": [str(self.file)]}
        return {"index_name": self.index, "field_map": self.fields, "data_source": source, **changes}

    def load(self, *, name: str | None = None, **options: Any) -> LoadReport:
        self.write()
        wanted = self.request(index_name=name or self.index)
        given = {"skip_unchanged": True, "create_index": BODY, "write": "index", "bulk_bytes": 10_000, **options}
        return load(wanted, target=self.target, options=LoadOptions.of(given))

    def find(self, name: str | None = None) -> dict[str, Any]:
        self.target.post(f"{name or self.index}/_refresh")
        body = {"size": 10_000, "version": True, "seq_no_primary_term": True}
        hits = self.target.post(f"{name or self.index}/_search", body)["hits"]["hits"]
        return {hit["_id"]: hit for hit in hits}

    def writes(self) -> dict[str, Write]:
        return {key: Write(hit["_version"], hit["_seq_no"]) for key, hit in self.find().items()}

    def documents(self, name: str | None = None) -> dict[str, Any]:
        found = {key: dict(hit["_source"]) for key, hit in self.find(name).items()}
        for document in found.values():
            document.pop(FIELD, None)
        return found


@pytest.fixture
def corpus(target: OpenSearchTarget, index_name: str, tmp_path: Path) -> Corpus:
    corpus = Corpus(target, index_name, tmp_path)
    corpus.fill(500)
    return corpus


def count(report: LoadReport) -> tuple[int, int, int]:
    return report.submitted, report.indexed, report.unchanged


def changed(before: dict[str, Write], after: dict[str, Write]) -> set[str]:
    return {key for key, write in after.items() if before.get(key) != write}


@pytest.mark.parametrize("write", ["index", "update", "auto"])
def test_a_second_load_of_the_same_writes_nothing(write: str, corpus: Corpus) -> None:
    assert count(corpus.load(write=write)) == (500, 500, 0)
    before = corpus.writes()
    report = corpus.load(write=write)
    assert count(report) == (500, 0, 500)
    assert corpus.writes() == before
    assert report.notes == ()
    assert corpus.documents() == corpus.rows


@pytest.mark.parametrize("write", ["index", "update"])
def test_of_a_corpus_of_which_two_percent_changed_these_are_written(write: str, corpus: Corpus) -> None:
    corpus.load(write=write)
    before = corpus.writes()
    keys = {f"d{n}" for n in range(0, 500, 50)}
    corpus.change(*keys, "new")
    assert count(corpus.load(write=write)) == (501, 11, 490)
    assert changed(before, corpus.writes()) == {*keys, "new"}
    assert corpus.documents() == corpus.rows
    assert count(corpus.load(write=write)) == (501, 0, 501)


def test_what_somebody_else_did_to_a_document_is_made_good(corpus: Corpus) -> None:
    corpus.load()
    place = corpus.index
    corpus.target.delete(f"{place}/_doc/d1")
    corpus.target.put(f"{place}/_doc/d2", {"text": "replaced"})
    corpus.target.post(f"{place}/_update/d3", {"doc": {"text": "updated, and the digest is kept"}})
    source = corpus.find()["d4"]["_source"]
    corpus.target.put(f"{place}/_doc/d4", {**source, "text": "replaced, and the digest is kept"})
    assert count(corpus.load()) == (500, 4, 496)
    assert corpus.documents() == corpus.rows


def test_an_index_that_was_never_refreshed_is_looked_at_as_it_is(corpus: Corpus) -> None:
    body = {**BODY, "settings": {**SETTINGS, "refresh_interval": "-1"}}
    corpus.load(create_index=body, refresh=False)
    corpus.target.delete(f"{corpus.index}/_doc/d1")
    assert count(corpus.load(refresh=False)) == (500, 1, 499)
    assert corpus.documents() == corpus.rows


def test_a_load_that_was_killed_goes_on_and_writes_only_what_is_left(
    corpus: Corpus, opensearch_url: str, tmp_path: Path
) -> None:
    corpus.fill(3_000)
    corpus.load()
    corpus.change(*(f"d{n}" for n in range(0, 3_000, 2)))
    corpus.write()
    (tmp_path / "request.json").write_text(json.dumps(corpus.request()))
    command = [sys.executable, "-c", _COMMAND, str(tmp_path / "request.json"), "--url", opensearch_url]
    command += ["--skip-unchanged", "-o", "write=index", "-o", "bulk_bytes=2000", "-o", "checkpoint_seconds=0"]
    checkpoint = tmp_path / "request.json.checkpoint.json"
    before = corpus.writes()
    for done in (300, 900):
        process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        while process.poll() is None and _done(checkpoint) < done:
            time.sleep(0.005)
        process.send_signal(signal.SIGKILL)
        process.wait()
        assert process.returncode == -signal.SIGKILL
    killed = corpus.writes()
    last = subprocess.run(command, capture_output=True, check=False)
    assert last.returncode == 0, last.stderr.decode()
    report = LoadReport.model_validate_json(last.stdout)
    assert report.resumed
    assert report.submitted == report.indexed + report.unchanged == 3_000
    after = corpus.writes()
    assert corpus.documents() == corpus.rows
    assert changed(before, after) == {f"d{n}" for n in range(0, 3_000, 2)}
    # What was written before a kill is not written again; an answer that the kill cut off may be.
    assert changed(before, killed) & changed(killed, after) == set()
    assert count(corpus.load()) == (3_000, 0, 3_000)


_COMMAND = """
import typer
from overnight.cli.load import load
app = typer.Typer()
app.command()(load)
app()
"""


def _done(checkpoint: Path) -> int:
    if not checkpoint.exists():
        return 0
    tally = json.loads(checkpoint.read_bytes())["tally"]
    return int(tally["indexed"] + tally["unchanged"])


@pytest.mark.parametrize("dynamic", ["strict", "false"])
def test_a_mapping_that_takes_no_new_fields_gets_this_one(dynamic: str, corpus: Corpus) -> None:
    body = {**BODY, "mappings": {"dynamic": dynamic, "properties": PROPERTIES}}
    assert count(corpus.load(create_index=body)) == (500, 500, 0)
    assert count(corpus.load()) == (500, 0, 500)
    answer: Any = corpus.target.get(f"{corpus.index}/_mapping")
    found = answer[corpus.index]["mappings"]["properties"]
    assert found[FIELD] == {"type": "keyword", "index": False}


def test_an_index_that_has_the_field_as_something_else_is_refused(corpus: Corpus) -> None:
    mappings = {"properties": {**PROPERTIES, FIELD: {"type": "text"}}}
    with pytest.raises(SpecError, match=rf"{FIELD}.*cannot have.*Nothing was written"):
        corpus.load(create_index={**BODY, "mappings": mappings})
    assert corpus.find() == {}


@pytest.mark.parametrize("source", [{"enabled": False}, {"excludes": ["vector"]}, {"excludes": ["*"]}], ids=str)
def test_what_an_index_keeps_of_its_documents_does_not_matter(source: dict[str, Any], corpus: Corpus) -> None:
    body = {**BODY, "mappings": {"_source": source, "properties": PROPERTIES}}
    corpus.load(create_index=body)
    assert count(corpus.load()) == (500, 0, 500)


def test_shards_that_are_loaded_by_themselves_skip_what_is_theirs(corpus: Corpus) -> None:
    corpus.fields = {"text": "$.text", "vector": "$.vector"}  # no _id: ids are made of the line's place
    corpus.write()
    create_index(corpus.target, corpus.index, BODY)
    shards = cut(str(corpus.file), 10_000)
    assert len(shards) > 2
    options = LoadOptions(skip_unchanged=True, write="index")

    def load_all() -> list[LoadReport]:
        wanted = [corpus.request(data_source={"source": [shard.uri]}) for shard in shards]
        return [load(one, target=corpus.target, options=options) for one in wanted]

    assert sum(report.indexed for report in load_all()) == 500
    before = corpus.writes()
    reports = load_all()
    assert sum(report.unchanged for report in reports) == 500
    assert corpus.writes() == before


def test_an_alias_with_routing_and_a_filter_is_looked_behind(corpus: Corpus) -> None:
    create_index(corpus.target, corpus.index, BODY)
    alias = f"{corpus.index}-alias"
    properties = {"index": corpus.index, "alias": alias, "routing": "a", "filter": {"term": {"text": "nothing"}}}
    corpus.target.post("_aliases", {"actions": [{"add": properties}]})
    assert count(corpus.load(name=alias, refresh=True)) == (500, 500, 0)
    before = corpus.writes()
    assert count(corpus.load(name=alias)) == (500, 0, 500)
    assert corpus.writes() == before


def test_routing_values_are_part_of_what_is_compared(corpus: Corpus) -> None:
    corpus.fields = {**FIELDS, "_routing": "$.parent"}
    for number, row in enumerate(corpus.rows.values()):
        row["parent"] = f"p{number % 7}" if number % 5 else None
    assert count(corpus.load()) == (500, 500, 0)
    assert count(corpus.load()) == (500, 0, 500)
    corpus.rows["d1"]["parent"] = "another"
    assert count(corpus.load()) == (500, 1, 499)


def test_a_pipeline_of_another_definition_gets_every_document(corpus: Corpus) -> None:
    def define(value: str) -> None:
        processors = [{"script": {"source": f"ctx.text = ctx.text + ' {value}'"}}]
        corpus.target.put(f"_ingest/pipeline/{corpus.index}", {"processors": processors})

    define("once")
    corpus.load(create_index={**BODY, "settings": {**SETTINGS, "default_pipeline": corpus.index}})
    assert count(corpus.load()) == (500, 0, 500)
    assert corpus.documents()["d7"]["text"] == "text 7 once"
    define("twice")
    assert count(corpus.load()) == (500, 500, 0)
    assert corpus.documents()["d7"]["text"] == "text 7 twice"
    corpus.target.delete(f"{corpus.index}")
    corpus.target.delete(f"_ingest/pipeline/{corpus.index}")


def test_documents_that_a_pipeline_drops_are_sent_each_time(corpus: Corpus) -> None:
    processors = [{"drop": {"if": "ctx.text == 'text 7'"}}]
    corpus.target.put(f"_ingest/pipeline/{corpus.index}", {"processors": processors})
    for unchanged in (0, 499):
        body = {**BODY, "settings": {**SETTINGS, "default_pipeline": corpus.index}}
        report = corpus.load(create_index=body)
        assert (report.submitted, report.unchanged, report.dropped) == (500, unchanged, 1)
    corpus.target.delete(f"{corpus.index}")
    corpus.target.delete(f"_ingest/pipeline/{corpus.index}")


def test_a_copy_of_an_index_is_another_index(corpus: Corpus) -> None:
    corpus.load()
    copy = f"{corpus.index}-copy"
    create_index(corpus.target, copy, {**BODY, "mappings": {"properties": {**PROPERTIES, FIELD: MAPPING}}})
    script = {"source": "ctx._source.text = 'made by somebody'"}
    body = {"source": {"index": corpus.index}, "dest": {"index": copy}, "script": script}
    corpus.target.post("_reindex", body, refresh="true")
    # Its documents have the digests of the first, and their versions, too.
    assert count(corpus.load(name=copy)) == (500, 500, 0)
    assert corpus.documents(copy) == corpus.rows


def test_an_index_that_is_replaced_is_filled_as_a_whole(corpus: Corpus) -> None:
    corpus.write()
    options = LoadOptions(skip_unchanged=True, write="index", create_index=BODY)
    for suffix, expected in (("1", (500, 500, 0)), ("2", (500, 500, 0)), ("2", (500, 0, 500))):
        report = replace_index(
            corpus.request(index_name=f"{corpus.index}-live"), suffix, target=corpus.target, options=options
        )
        assert count(report) == expected
    assert corpus.documents(f"{corpus.index}-live") == corpus.rows


def test_a_mirror_deletes_what_is_gone_and_leaves_what_is_unchanged(corpus: Corpus) -> None:
    corpus.load(sync="mirror")
    before = corpus.writes()
    del corpus.rows["d9"]
    corpus.change("d3")
    report = corpus.load(sync="mirror")
    assert (*count(report), report.deleted) == (499, 1, 498, 1)
    assert changed(before, corpus.writes()) == {"d3"}
    assert corpus.documents() == corpus.rows


_NUMBERS = itertools.count()
KEYS = st.sampled_from([f"d{n}" for n in range(12)])
ROWS = st.dictionaries(KEYS, st.integers(0, 3), min_size=1)
OTHERS = st.lists(st.tuples(st.sampled_from(["delete", "replace", "update"]), KEYS), max_size=5)


@settings(max_examples=12, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(nights=st.lists(st.tuples(ROWS, OTHERS), min_size=2, max_size=4), write=st.sampled_from(["index", "update"]))
def test_the_index_is_that_of_a_fresh_load_whatever_others_do(
    nights: list[tuple[dict[str, int], list[tuple[str, str]]]], write: str, corpus: Corpus
) -> None:
    corpus.index = f"{corpus.index.partition('--')[0]}--{next(_NUMBERS)}"
    for rows, others in nights:
        corpus.rows = {key: {"text": f"text {value}", "vector": [1, value, 0, 0]} for key, value in rows.items()}
        report = corpus.load(write=write)
        assert report.submitted == report.indexed + report.unchanged == len(rows)
        found = corpus.documents()
        assert {key: found[key] for key in rows} == corpus.rows
        for what, key in others:
            if what == "delete" and key in found:
                corpus.target.delete(f"{corpus.index}/_doc/{key}")
                del found[key]
            elif what == "replace":
                corpus.target.put(f"{corpus.index}/_doc/{key}", {"text": "by somebody"})
                found[key] = {}
            elif what == "update" and key in found:
                corpus.target.post(f"{corpus.index}/_update/{key}", {"doc": {"text": "by somebody"}})
