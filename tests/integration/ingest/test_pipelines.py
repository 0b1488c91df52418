"""Loads through real ingest pipelines and into special indices. The index is what is checked."""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest

from overnight.errors import NotFoundError, SpecError
from overnight.ingest import LoadOptions, OpenSearchTarget, load, read_dead_letters
from overnight.ingest.write.bulk import IndexRefusedError
from overnight.ingest.write.index import create_index, swap_alias


def _load(target: OpenSearchTarget, index: str, path: Path, rows: list[dict[str, Any]], **options: Any) -> Any:
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    fields = {name: f"$.{name}" for name in dict.fromkeys(name for row in rows for name in row)}
    request = {"index_name": index, "field_map": fields, "data_source": {"source": [str(path)]}}
    return load(request, target=target, options=LoadOptions(**options))


def test_the_right_documents_are_named_whatever_order_the_pipeline_answers_in(
    target: OpenSearchTarget, index_name: str, tmp_path: Path
) -> None:
    pipeline = [{"drop": {"if": "ctx.n % 3 == 1"}}, {"fail": {"if": "ctx.n % 5 == 2", "message": "no"}}]
    target.put(f"_ingest/pipeline/{index_name}", {"processors": pipeline})
    create_index(target, index_name, {"settings": {"number_of_replicas": 0, "default_pipeline": index_name}})
    rows = [{"_id": f"d{n}", "n": n} for n in range(200)]
    dead_letters = str(tmp_path / "dead.jsonl")
    with pytest.raises(SpecError, match="pipeline"):
        _load(target, index_name, tmp_path / "a.jsonl", rows, write="update")
    report = _load(target, index_name, tmp_path / "a.jsonl", rows, dead_letter_uri=dead_letters)
    dropped = {f"d{n}" for n in range(200) if n % 3 == 1}
    failed = {f"d{n}" for n in range(200) if n % 5 == 2} - dropped
    assert _ids_of(target, index_name) == {row["_id"] for row in rows} - dropped - failed
    records = list(read_dead_letters(dead_letters))
    assert {record.id for record in records if record.outcome == "dropped"} == dropped
    assert {record.id for record in records if record.outcome == "rejected"} == failed
    assert (report.indexed, report.dropped, report.rejected) == (200 - len(dropped | failed), len(dropped), len(failed))


def test_a_pipeline_that_makes_fields_of_the_whole_document_is_not_run_on_a_part_of_it(
    target: OpenSearchTarget, index_name: str, tmp_path: Path
) -> None:
    processor = {"script": {"source": "ctx.full = ctx.first + ' ' + ctx.last"}}
    target.put(f"_ingest/pipeline/{index_name}", {"processors": [processor]})
    create_index(target, index_name, {"settings": {"number_of_replicas": 0, "default_pipeline": index_name}})
    rows = [{"_id": "ada", "first": "Ada", "last": "Low"}]
    whole = {"ada": {"first": "Ada", "last": "Low", "full": "Ada Low"}}
    for _ in range(2):  # the same load again is harmless: the pipeline makes again what it has made
        assert _load(target, index_name, tmp_path / "a.jsonl", rows).indexed == 1
        assert _documents(target, index_name) == whole
    with pytest.raises(SpecError, match=r"pipeline.*Nothing was written"):
        _load(target, index_name, tmp_path / "a.jsonl", [{"_id": "ada", "last": "King"}])
    assert _documents(target, index_name) == whole


def test_texts_that_no_search_sees_yet_outlive_their_vectors(
    target: OpenSearchTarget, index_name: str, tmp_path: Path
) -> None:
    create_index(target, index_name, {"settings": {"number_of_replicas": 0, "refresh_interval": "-1"}})
    _load(target, index_name, tmp_path / "a.jsonl", [{"_id": "a", "text": "kept"}], refresh=False)
    _load(target, index_name, tmp_path / "a.jsonl", [{"_id": "a", "size": 3}], refresh=False)
    assert _documents(target, index_name) == {"a": {"text": "kept", "size": 3}}


@pytest.mark.parametrize(
    "mappings",
    [
        {"_source": {"excludes": ["v"]}},
        {"_source": {"enabled": False}},
        {"properties": {"meta": {"properties": {"title": {"type": "text"}}}}},
    ],
)
def test_an_update_that_would_lose_something_is_refused(
    mappings: dict[str, Any], target: OpenSearchTarget, index_name: str, tmp_path: Path
) -> None:
    create_index(target, index_name, {"settings": {"number_of_replicas": 0}, "mappings": mappings})
    _load(target, index_name, tmp_path / "a.jsonl", [{"_id": "a", "text": "kept"}])
    with pytest.raises(SpecError, match="Nothing was written"):
        _load(target, index_name, tmp_path / "a.jsonl", [{"_id": "a", "meta.title": "new"}])


@pytest.fixture
def stream_name(target: OpenSearchTarget, index_name: str) -> Iterator[str]:
    """A name for a data stream; it and the template of its name are deleted behind the test."""
    yield index_name
    for path in (f"_data_stream/{index_name}", f"_index_template/{index_name}"):
        with suppress(NotFoundError):
            target.delete(path)


@pytest.mark.parametrize("timestamp", ["@timestamp", "event.time"])
def test_a_data_stream_is_made_by_the_load_and_loaded_again(
    timestamp: str, target: OpenSearchTarget, stream_name: str, tmp_path: Path
) -> None:
    body = {
        "data_stream": {"timestamp_field": {"name": timestamp}},
        "settings": {"number_of_replicas": 0},
        "mappings": {"properties": {"n": {"type": "integer"}}},
    }
    time = {"@timestamp": "2026-11-26T00:00:00Z"} if timestamp == "@timestamp" else {"event": {"time": "2026-11-26"}}
    rows: list[dict[str, Any]] = [{"_id": f"d{n}", **time, "n": n} for n in range(50)]
    with pytest.raises(SpecError, match="'data_stream': {}"):
        _load(target, stream_name, tmp_path / "a.jsonl", rows)
    report = _load(target, stream_name, tmp_path / "a.jsonl", rows, create_index=body)
    assert (report.indexed, report.notes, len(_ids_of(target, stream_name))) == (50, (), 50)
    (stream,) = target.get(f"_data_stream/{stream_name}")["data_streams"]
    assert (stream["timestamp_field"], stream["template"]) == ({"name": timestamp}, stream_name)
    create_index(target, stream_name, body)
    again = _load(target, stream_name, tmp_path / "a.jsonl", rows, create_index=body)
    assert (again.indexed, again.reasons) == (0, {"document_exists": 50})
    with pytest.raises(SpecError, match=f"no '{timestamp}'"):
        _load(target, stream_name, tmp_path / "a.jsonl", [{"_id": "x", "n": 1}])
    with pytest.raises(SpecError, match="takes no routing"):
        _load(target, stream_name, tmp_path / "a.jsonl", [{"_id": "x", **time, "_routing": "a"}])
    # Some documents without a date are refused one by one.
    mixed = _load(target, stream_name, tmp_path / "a.jsonl", [{"_id": "y", "n": 1}, *rows], missing_path="omit")
    assert mixed.reasons == {"document_exists": 50, "mapper_parsing_exception": 1}


def test_parents_and_children_are_loaded_by_their_routing(
    target: OpenSearchTarget, index_name: str, tmp_path: Path
) -> None:
    body = {
        "settings": {"number_of_replicas": 0, "number_of_shards": 5},
        "mappings": {
            "_routing": {"required": True},
            "properties": {"parent": {"type": "keyword"}, "n": {"type": "integer"}},
        },
        "aliases": {f"{index_name}-a": {"index_routing": "p0"}},
    }
    create_index(target, index_name, body)
    parents = [{"_id": f"p{n}", "parent": "", "_routing": f"p{n}", "n": n} for n in range(20)]
    children = [{"_id": f"c{n}", "parent": f"p{n % 20}", "_routing": f"p{n % 20}", "n": n} for n in range(100)]
    bad = [{"_id": "lost", "parent": "", "_routing": None, "n": 1}]
    rows = [*parents, *children, *bad]
    dead_letters = str(tmp_path / "dead.jsonl")
    for write in ("index", "update"):  # a second time with the other action: each document is found by its routing
        report = _load(target, index_name, tmp_path / "a.jsonl", rows, write=write, dead_letter_uri=dead_letters)
        assert (report.indexed, report.reasons, report.notes) == (120, {"routing_missing_exception": 1}, ())
        (letter,) = read_dead_letters(dead_letters)
        assert (letter.id, letter.routing) == ("lost", None)
        assert _ids_of(target, index_name) == {row["_id"] for row in (*parents, *children)}
    target.post(f"{index_name}/_refresh")
    hits = target.post(f"{index_name}/_search", {"size": 1_000, "query": {"match_all": {}}})["hits"]["hits"]
    assert {hit["_id"]: hit["_routing"] for hit in hits} == {row["_id"]: row["_routing"] for row in rows[:-1]}
    query = {"size": 100, "query": {"term": {"parent": "p3"}}}
    # One shard holds all that has one routing value.
    hits = target.post(f"{index_name}/_search", query, routing="p3")["hits"]["hits"]
    assert {hit["_id"] for hit in hits} == {f"c{n}" for n in range(100) if n % 20 == 3}
    with pytest.raises(SpecError, match="requires a routing value"):
        _load(target, index_name, tmp_path / "a.jsonl", [{"_id": "x", "n": 1}])
    # An alias with a routing of its own refuses every other, and takes the same.
    with pytest.raises(SpecError, match="gives each document the routing 'p0'"):
        _load(target, f"{index_name}-a", tmp_path / "a.jsonl", children[1:3], write="index")
    assert _load(target, f"{index_name}-a", tmp_path / "a.jsonl", [children[0]], write="index").indexed == 1


def test_an_alias_keeps_its_filter_and_routing_when_it_is_swapped(target: OpenSearchTarget, index_name: str) -> None:
    for number in (1, 2):
        create_index(target, f"{index_name}-{number}", {"settings": {"number_of_replicas": 0}})
    alias = {"filter": {"term": {"n": 1}}, "index_routing": "a", "search_routing": "a,b", "is_write_index": True}
    target.put(f"{index_name}-1/_alias/{index_name}", alias)
    assert swap_alias(target, index_name, f"{index_name}-2") == [f"{index_name}-1"]
    assert target.get(f"_alias/{index_name}") == {f"{index_name}-2": {"aliases": {index_name: alias}}}


def test_an_index_that_takes_no_documents_says_why_once(
    target: OpenSearchTarget, index_name: str, tmp_path: Path
) -> None:
    create_index(target, index_name, {"settings": {"number_of_replicas": 0}})
    rows = [{"_id": f"d{n}", "n": n} for n in range(5)]
    dead_letters = tmp_path / "dead.jsonl"
    for setting, value, remedy in (
        ("index.blocks.write", True, "blocks.write"),
        ("index.default_pipeline", "nowhere", "Create the ingest pipeline"),
    ):
        target.put(f"{index_name}/_settings", {setting: value})
        with pytest.raises(IndexRefusedError, match=remedy):
            _load(target, index_name, tmp_path / "a.jsonl", rows, dead_letter_uri=str(dead_letters))
        target.put(f"{index_name}/_settings", {setting: None})
    target.post(f"{index_name}/_close")
    with pytest.raises(IndexRefusedError, match="is closed"):
        _load(target, index_name, tmp_path / "a.jsonl", rows, dead_letter_uri=str(dead_letters))
    target.post(f"{index_name}/_open")
    assert not dead_letters.exists()
    assert _load(target, index_name, tmp_path / "a.jsonl", rows).indexed == 5


def test_the_routing_of_an_alias_is_used_and_verified(
    target: OpenSearchTarget, index_name: str, tmp_path: Path
) -> None:
    body = {
        "settings": {"number_of_replicas": 0, "number_of_shards": 5},
        "mappings": {"_routing": {"required": True}},
        "aliases": {f"{index_name}-routed": {"index_routing": "a"}},
    }
    create_index(target, index_name, body)
    rows = [{"_id": f"d{n}", "n": n} for n in range(50)]
    with pytest.raises(SpecError, match="alias with an index_routing"):
        _load(target, index_name, tmp_path / "a.jsonl", rows)
    report = _load(target, f"{index_name}-routed", tmp_path / "a.jsonl", rows)
    assert (report.indexed, report.notes, len(_ids_of(target, index_name))) == (50, (), 50)


def _documents(target: OpenSearchTarget, index: str) -> dict[str, Any]:
    target.post(f"{index}/_refresh")
    return {hit["_id"]: hit["_source"] for hit in target.post(f"{index}/_search", {"size": 1_000})["hits"]["hits"]}


def _ids_of(target: OpenSearchTarget, index: str) -> set[str]:
    target.post(f"{index}/_refresh")
    return {hit["_id"] for hit in target.post(f"{index}/_search", {"size": 1_000})["hits"]["hits"]}
