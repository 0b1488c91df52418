"""``_routing`` of a field map: on each action, in the verification, in dead letters; refused where it cannot be."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from overnight.errors import SpecError
from overnight.ingest import LoadOptions, OpenSearchTarget, load, read_dead_letters
from unit.ingest.fake_opensearch import Answer, FakeOpenSearch
from unit.ingest.test_load import request, write

FIELDS = {"_id": "$.id", "text": "$.t", "_routing": "$.parent"}
LINES = [{"id": "p", "t": 1, "parent": None}, {"id": "c", "t": 2, "parent": "p"}, {"id": "d", "t": 3, "parent": 7}]


@pytest.fixture
def bodies(opensearch: FakeOpenSearch) -> list[tuple[str, Any]]:
    """What was sent: the path's end, and the lines of the body."""
    found: list[tuple[str, Any]] = []
    answer = opensearch.answer

    def keep(method: str, path: str, body: bytes) -> Answer:
        if body:
            found.append((path.rpartition("/")[2], [json.loads(line) for line in body.splitlines()]))
        return answer(method, path, body)

    opensearch.answer = keep  # type: ignore[method-assign]
    return found


@pytest.mark.parametrize("operation", ["index", "update"])
def test_each_action_and_each_lookup_has_the_routing_of_its_document(
    operation: Any,
    bodies: list[tuple[str, Any]],
    target: OpenSearchTarget,
    tmp_path: Path,
) -> None:
    path = write(tmp_path / "a.jsonl", LINES)
    report = load(request(path, field_map=FIELDS), target=target, options=LoadOptions(write=operation))
    assert report.indexed == 3
    lines = next(lines for action, lines in bodies if action == "_bulk")
    assert [line[operation].get("routing") for line in lines[::2]] == [None, "p", "7"]
    documents = [line["doc"] if operation == "update" else line for line in lines[1::2]]
    assert documents == [{"text": 1}, {"text": 2}, {"text": 3}]
    (lookup,) = next(lines for action, lines in bodies if action == "_mget")
    assert lookup["docs"] == [{"_id": "p"}, {"_id": "c", "routing": "p"}, {"_id": "d", "routing": "7"}]


@pytest.mark.parametrize("operation", ["index", "update"])
def test_the_dead_letter_of_a_routed_document_has_its_routing_and_its_whole_text(
    operation: Any, opensearch: FakeOpenSearch, target: OpenSearchTarget, tmp_path: Path
) -> None:
    opensearch.on_item = lambda key, _: {"status": 400, "error": {"type": "x", "reason": "no"}} if key == "c" else None
    path = write(tmp_path / "a.jsonl", LINES)
    options = LoadOptions(write=operation, dead_letter_uri=str(tmp_path / "dead.jsonl"))
    load(request(path, field_map=FIELDS), target=target, options=options)
    (letter,) = read_dead_letters(str(tmp_path / "dead.jsonl"))
    assert (letter.id, letter.routing, letter.text) == ("c", "p", '{"text":2}')


def test_of_a_join_the_last_source_with_a_routing_value_counts(
    bodies: list[tuple[str, Any]], target: OpenSearchTarget, tmp_path: Path
) -> None:
    one = write(tmp_path / "a.jsonl", [{"id": "a", "t": 1, "r": "x"}, {"id": "b", "t": 2, "r": "x"}])
    two = write(tmp_path / "b.jsonl", [{"id": "a", "r": "y"}, {"id": "b", "r": None}])
    fields = {
        "_id": ["source[0].$.id", "source[1].$.id"],
        "text": "source[0].$.t",
        "_routing": ["source[0].$.r", "source[1].$.r"],
    }
    load(request(one, two, field_map=fields), target=target, options=LoadOptions(write="index"))
    lines = next(lines for action, lines in bodies if action == "_bulk")
    assert {line["index"]["_id"]: line["index"]["routing"] for line in lines[::2]} == {"a": "y", "b": "x"}


def test_a_required_routing_is_asked_for_and_then_taken(
    opensearch: FakeOpenSearch, target: OpenSearchTarget, tmp_path: Path
) -> None:
    opensearch.indices["docs"]["mappings"]["_routing"] = {"required": True}
    path = write(tmp_path / "a.jsonl", LINES[1:])
    with pytest.raises(SpecError, match=r"requires a routing value.*field_map\['_routing'\]"):
        load(request(path, field_map={"_id": "$.id", "text": "$.t"}), target=target)
    assert opensearch.bulks == []
    assert load(request(path, field_map=FIELDS), target=target).indexed == 2


@pytest.mark.parametrize(("parents", "is_refused"), [(["b", "c"], True), (["a", "b"], False), ([None, "b"], False)])
def test_an_alias_with_another_routing_refuses_once(
    parents: list[str | None], is_refused: bool, opensearch: FakeOpenSearch, target: OpenSearchTarget, tmp_path: Path
) -> None:
    body = {"docs-1": {**opensearch.indices["docs"], "aliases": {"docs": {"index_routing": "a"}}}}
    opensearch.on_request = lambda method, path: Answer(200, body) if (method, path) == ("GET", "/docs") else None
    opensearch.create("docs-1")
    path = write(tmp_path / "a.jsonl", [{"id": f"d{n}", "t": n, "parent": parent} for n, parent in enumerate(parents)])
    if is_refused:
        with pytest.raises(SpecError, match=r"gives each document the routing 'a'.*such as 'b'.*Nothing was written"):
            load(request(path, field_map=FIELDS), target=target)
        assert opensearch.bulks == []
    else:
        assert load(request(path, field_map=FIELDS), target=target).indexed == 2


def test_a_data_stream_takes_no_routing(opensearch: FakeOpenSearch, target: OpenSearchTarget, tmp_path: Path) -> None:
    opensearch.create("docs")
    body = {".ds-docs-000001": {**opensearch.indices["docs"], "data_stream": "docs"}}
    opensearch.on_request = lambda method, path: Answer(200, body) if (method, path) == ("GET", "/docs") else None
    path = write(tmp_path / "a.jsonl", LINES)
    with pytest.raises(SpecError, match="data stream, which takes no routing"):
        load(request(path, field_map=FIELDS), target=target)
    assert opensearch.bulks == []
