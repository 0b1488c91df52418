"""What is done with each document, decided on what is really in the index."""

from __future__ import annotations

import json
import logging
from pathlib import Path
from typing import Any

import pytest

from overnight.errors import SpecError
from overnight.ingest import LoadOptions, OpenSearchTarget, load
from overnight.ingest.write.index import inspect_index
from overnight.ingest.write.write_mode import choose_operation, covers, find_update_hazards
from unit.ingest.fake_opensearch import Answer, FakeOpenSearch
from unit.ingest.test_load import request, write

TEXT = {"type": "text"}
BASE: dict[str, Any] = {"text": TEXT, "kept": TEXT}


def choose(target: OpenSearchTarget, mode: Any = "auto", fields: Any = ("text",), **changes: Any) -> str:
    given: dict[str, Any] = {
        "has_ids": True,
        "has_routing": False,
        "is_complete": True,
        "is_empty": lambda: False,
        "made_fields": set,
        **changes,
    }
    return choose_operation(mode, inspect_index(target, "docs"), list(fields), **given)


def shape(opensearch: FakeOpenSearch, mappings: dict[str, Any] | None = None, **settings: Any) -> None:
    opensearch.create("docs")
    opensearch.indices["docs"]["mappings"] = {"properties": BASE, **(mappings or {})}
    opensearch.indices["docs"]["settings"]["index"] |= settings


@pytest.mark.parametrize(
    ("changes", "expected"),
    [
        ({}, "update"),
        ({"is_empty": lambda: True}, "index"),
        ({"is_empty": lambda: None}, "update"),
        ({"has_ids": False}, "index"),
        ({"fields": ("text", "kept")}, "index"),
        ({"fields": ("text", "kept"), "is_complete": False}, "update"),
        ({"mode": "index"}, "index"),
        ({"mode": "update", "is_empty": lambda: True}, "update"),
    ],
)
def test_auto_updates_where_a_whole_document_would_lose_something(
    changes: dict[str, Any], expected: str, opensearch: FakeOpenSearch, target: OpenSearchTarget
) -> None:
    shape(opensearch)
    assert choose(target, **changes) == expected


HAZARDS: list[tuple[dict[str, Any], dict[str, Any], str]] = [
    ({}, {"default_pipeline": "p"}, "pipeline 'p'"),
    ({}, {"final_pipeline": "f"}, "pipeline 'f'"),
    ({"_source": {"enabled": False}}, {}, "no _source"),
    ({"_source": {"excludes": ["v", "w*"]}}, {}, r"leaves fields out \(v, w\*\)"),
    ({"_source": {"includes": ["text"]}}, {}, r"leaves fields out \(text\)"),
]


@pytest.mark.parametrize("mode", ["auto", "update"])
@pytest.mark.parametrize(("mappings", "settings", "why"), HAZARDS)
def test_an_update_that_destroys_something_is_refused(
    mappings: dict[str, Any],
    settings: dict[str, Any],
    why: str,
    mode: str,
    opensearch: FakeOpenSearch,
    target: OpenSearchTarget,
) -> None:
    shape(opensearch, mappings, **settings)
    with pytest.raises(SpecError, match=rf"{why}.*Nothing was written.*write='index'"):
        choose(target, mode)
    assert choose(target, "index") == "index"
    if mode == "auto":
        assert choose(target, fields=("text", "kept")) == "index"
        assert choose(target, is_empty=lambda: True) == "index"


def test_a_dotted_name_beside_an_object_is_refused(opensearch: FakeOpenSearch, target: OpenSearchTarget) -> None:
    shape(opensearch, {"properties": {**BASE, "meta": {"properties": {"title": TEXT}}}})
    with pytest.raises(SpecError, match=r"'meta\.title' would stand beside an object"):
        choose(target, fields=("meta.title",))
    assert find_update_hazards(inspect_index(target, "docs"), ["other.title", "text"]) == []


@pytest.mark.parametrize(
    ("mode", "fields", "warned"),
    [("auto", ("meta",), True), ("update", ("meta",), True), ("auto", ("text",), False), ("index", ("meta",), False)],
)
def test_an_update_of_an_object_says_that_old_keys_stay(
    mode: str,
    fields: tuple[str, ...],
    warned: bool,
    opensearch: FakeOpenSearch,
    target: OpenSearchTarget,
    caplog: pytest.LogCaptureFixture,
) -> None:
    shape(opensearch, {"properties": {**BASE, "meta": {"properties": {"title": TEXT}}}})
    choose(target, mode, fields)
    assert ("keys that documents no longer have in meta stay in the index" in caplog.text) is warned


def test_what_the_pipeline_makes_itself_is_not_lost(opensearch: FakeOpenSearch, target: OpenSearchTarget) -> None:
    shape(opensearch, {"properties": {**BASE, "full": TEXT}}, default_pipeline="p")
    assert choose(target, fields=("text", "kept"), made_fields=lambda: {"text", "kept", "full"}) == "index"
    with pytest.raises(SpecError, match="pipeline"):
        choose(target, fields=("text",), made_fields=lambda: {"text", "full"})


def test_none_is_not_a_pipeline(opensearch: FakeOpenSearch, target: OpenSearchTarget) -> None:
    shape(opensearch, default_pipeline="_none")
    assert choose(target) == "update"


@pytest.mark.parametrize(
    ("properties", "fields", "expected"),
    [
        ({"a": TEXT}, ["a"], True),
        ({"a": TEXT, "b": TEXT}, ["a"], False),
        ({"m": {"properties": {"t": TEXT}}}, ["m"], True),
        ({"m": {"properties": {"t": TEXT}}}, ["m.t"], True),
        ({"m": {"properties": {"t": TEXT, "u": TEXT}}}, ["m.t"], False),
        ({"m": {"type": "nested"}}, [], False),
        ({}, ["a"], False),
    ],
)
def test_a_load_covers_an_index_when_it_has_every_field(
    properties: dict[str, Any], fields: list[str], expected: bool, opensearch: FakeOpenSearch, target: OpenSearchTarget
) -> None:
    opensearch.create("docs", properties)
    index = inspect_index(target, "docs")
    assert covers(index, fields) is expected
    opensearch.indices["docs"]["mappings"]["dynamic"] = "false"
    assert covers(inspect_index(target, "docs"), fields) is False


def test_documents_that_no_search_sees_yet_are_not_overwritten(
    caplog: pytest.LogCaptureFixture, opensearch: FakeOpenSearch, target: OpenSearchTarget, tmp_path: Path
) -> None:
    # refresh_interval: -1: a count is 0 until somebody refreshes.
    opensearch.documents = {"a": {"kept": "yes"}}
    refreshed: list[bool] = []

    def on_request(_method: str, path: str) -> Answer | None:
        if path.endswith("/_refresh"):
            refreshed.append(True)
        return (
            Answer(200, {"count": len(opensearch.documents) if refreshed else 0}) if path.endswith("/_count") else None
        )

    opensearch.on_request = on_request
    path = write(tmp_path / "a.jsonl", [{"id": "a", "t": "new"}])
    with caplog.at_level(logging.INFO):
        load(request(path), target=target)
    assert opensearch.documents == {"a": {"kept": "yes", "text": "new"}}
    assert "merged into the one of its id in docs: the index has documents" in caplog.text


@pytest.mark.parametrize(
    ("stats", "expected"),
    [
        ({"docs": {"count": 0}, "translog": {"operations": 0}}, {"text": "new"}),
        ({"docs": {"count": 0}, "translog": {"operations": 2}}, {"kept": "yes", "text": "new"}),
        ({"docs": {"count": 3}, "translog": {"operations": 0}}, {"kept": "yes", "text": "new"}),
        (None, {"kept": "yes", "text": "new"}),
    ],
)
def test_without_the_right_to_refresh_the_statistics_decide(
    stats: dict[str, Any] | None,
    expected: dict[str, Any],
    opensearch: FakeOpenSearch,
    target: OpenSearchTarget,
    tmp_path: Path,
) -> None:
    forbidden = Answer(403, {"error": {"type": "security_exception", "reason": "no permissions"}})
    opensearch.documents = {"a": {"kept": "yes"}}

    def on_request(_method: str, path: str) -> Answer | None:
        if path.endswith(("/_refresh", "/_count")):
            return forbidden
        if "/_stats/" in path:
            return Answer(200, {"_all": {"primaries": stats}}) if stats is not None else forbidden
        return None

    opensearch.on_request = on_request
    path = write(tmp_path / "a.jsonl", [{"id": "a", "t": "new"}])
    report = load(request(path), target=target, options=LoadOptions(verify=False))
    assert opensearch.documents == {"a": expected}
    assert report.indexed == 1
    assert len(report.notes) == 1
    assert "not refreshed" in report.notes[0]


def test_a_data_stream_gets_its_documents_created(
    opensearch: FakeOpenSearch, target: OpenSearchTarget, tmp_path: Path
) -> None:
    backing = {**opensearch.indices.pop("docs"), "data_stream": "docs"}
    opensearch.on_request = lambda method, path: (
        Answer(200, {".ds-docs-000001": backing, ".ds-docs-000002": backing})
        if (method, path) == ("GET", "/docs")
        else None
    )
    opensearch.indices["docs"] = {}
    opensearch.indices[".ds-docs-000002"] = {}
    bodies: list[bytes] = []
    original = opensearch._bulk

    def bulk(body: bytes) -> Answer:
        bodies.append(body)
        return original(body)

    opensearch._bulk = bulk  # type: ignore[method-assign]
    path = write(tmp_path / "a.jsonl", [{"id": "a", "t": "2024-01-01"}])
    with pytest.raises(SpecError, match="'@timestamp'"):
        load(request(path), target=target)
    assert bodies == []
    with pytest.raises(SpecError, match="data stream"):
        load(request(path), target=target, options=LoadOptions(write="update"))
    report = load(request(path, field_map={"_id": "$.id", "@timestamp": "$.t"}), target=target)
    assert report.indexed == 1
    assert json.loads(bodies[0].split(b"\n")[0]) == {"create": {"_id": "a"}}


def test_required_routing_is_met_by_an_alias_or_refused(opensearch: FakeOpenSearch, target: OpenSearchTarget) -> None:
    shape(opensearch, {"_routing": {"required": True}})
    with pytest.raises(SpecError, match=r"routing value.*alias with an index_routing"):
        choose(target)
    opensearch.indices["docs"]["aliases"] = {"routed": {"index_routing": "7"}}
    opensearch.indices["routed"] = {}
    found = Answer(200, {"docs": opensearch.indices["docs"]})
    opensearch.on_request = lambda _method, path: found if path == "/routed" else None
    index = inspect_index(target, "routed")
    assert (index.name, index.routing, index.is_alias) == ("docs", "7", True)
    operation = choose_operation(
        "index",
        index,
        ["text"],
        has_ids=True,
        has_routing=False,
        is_complete=True,
        is_empty=lambda: False,
        made_fields=set,
    )
    assert operation == "index"
