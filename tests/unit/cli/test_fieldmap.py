"""What ``overnight fieldmap`` says of a request, and exits with; it asks no server."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner, Result

from overnight.cli.app import app
from overnight.ingest import OpenSearchTarget, load
from unit.ingest.fake_opensearch import FakeOpenSearch

LINES = [
    {"id": "a", "t": "the first", "v": [0.25, 1e-7], "tags": [{"n": "x"}, {"n": "y"}], "answer": '{"label": "good"}'},
    {"id": "b", "t": "the second", "v": [0.5, 2], "tags": [], "answer": '{"label": "bad"}'},
    {"id": "c", "v": [1, 2], "tags": [], "answer": '{"label": "bad"}'},
]
FIELDS = {
    "_id": "$.id",
    "_routing": "$.tags[0].n",
    "text": "$.t",
    "names": "$.tags[*].n",
    "label": "$.answer.json().label",
}


def write(folder: Path, fields: dict[str, Any] = FIELDS, **sources: list[Any]) -> Path:
    sources = sources or {"docs": LINES}
    for name, lines in sources.items():
        (folder / f"{name}.jsonl").write_text("".join(f"{json.dumps(line)}\n" for line in lines))
    path = folder / "request.json"
    uris = [str(folder / f"{name}.jsonl") for name in sources]
    path.write_text(json.dumps({"index_name": "docs", "field_map": fields, "data_source": {"source": uris}}))
    return path


def run(*arguments: Any) -> Result:
    result = CliRunner().invoke(app, ["fieldmap", *map(str, arguments)])
    assert result.exception is None or isinstance(result.exception, SystemExit), result.exception
    assert "Traceback" not in result.output
    return result


def test_each_path_is_explained_by_its_lane_its_hits_and_an_example(tmp_path: Path) -> None:
    found = run("explain", write(tmp_path), "--json", "-o", "missing_path=omit")
    assert found.exit_code == 0, found.output
    (source,) = json.loads(found.stdout)
    said = {one["field"]: (one["lane"], one["found"], one["example"]) for one in source["fields"]}
    assert said == {
        "text": ("fast", 2, '"the first"'),
        "names": ("general", 3, '["x","y"]'),
        "label": ("text", 3, '"good"'),
        "_routing": ("fast", 1, '"x"'),
        "_id": ("fast", 3, '"a"'),
    }
    assert (source["lines"], source["by_block"], source["rejected"]) == (3, False, {})


def test_lines_that_are_rejected_are_counted_by_code(tmp_path: Path) -> None:
    (source,) = json.loads(run("explain", write(tmp_path, {"_id": "$.id", "text": "$.t"}), "--json").stdout)
    assert (source["by_block"], source["rejected"]) == (True, {"missing_value": 1})


def test_a_path_that_finds_nothing_ends_with_1_and_is_named(tmp_path: Path) -> None:
    found = run("explain", write(tmp_path, {"_id": "$.id", "text": "$.txt", "v": "$.v"}))
    assert found.exit_code == 1
    assert found.stderr == "$.txt found nothing for 'text' in 3 lines of source[0].\n"
    assert "3 of them give no document: missing_value" in found.stdout


def test_no_more_lines_are_read_than_asked_for(tmp_path: Path) -> None:
    path = write(tmp_path, {"_id": "$.id", "text": "$.t"})
    with (tmp_path / "docs.jsonl").open("a") as file:
        file.write("no JSON\n")
    assert run("explain", path, "--lines", 2).exit_code == 0
    assert "invalid_line" in run("explain", path).stdout


def test_a_line_has_at_most_80_characters(tmp_path: Path) -> None:
    long = {"id": "a", "some": {"very": {"deeply": {"nested": {"member": ["x" * 500]}}}}}
    path = write(tmp_path, {"_id": "$.id", "a_field_with_a_long_name": "$.some.very.deeply.nested.member"}, docs=[long])
    lines = run("explain", path).stdout.splitlines()[1:]
    assert max(map(len, lines)) <= 80
    assert any("…" in line for line in lines)


def test_what_is_tried_is_what_the_load_writes(opensearch: FakeOpenSearch, tmp_path: Path) -> None:
    fields = {"_id": "$.id", "text": "$.t", "v": "$.v", "names": "$.tags[*].n"}
    path = write(tmp_path, fields)
    tried = run("try", path)
    assert tried.exit_code == 1
    assert f"{tmp_path / 'docs.jsonl'}, line 3: missing_value: the line has no value at $.t" in tried.stderr

    with OpenSearchTarget(opensearch.url) as target:
        load(path.read_text(), target=target)
    documents = [json.loads(line) for line in tried.stdout.splitlines()]
    assert {one.pop("_id"): one for one in documents} == opensearch.documents


def test_a_join_is_tried_with_the_rows_of_the_other_source(tmp_path: Path) -> None:
    fields = {"_id": ["source[0].$.id", "source[1].$.key"], "text": "source[0].$.t", "vector": "source[1].$.e"}
    vectors = [{"key": "b", "e": [2]}, {"key": "a", "e": [1]}, {"key": "z", "e": [3]}]
    found = run("try", write(tmp_path, fields, docs=[*LINES[:2], {"id": "q", "t": "x"}], vectors=vectors))
    assert found.exit_code == 1
    documents = [json.loads(line) for line in found.stdout.splitlines()]
    assert documents == [
        {"_id": "a", "text": "the first", "vector": [1]},
        {"_id": "b", "text": "the second", "vector": [2]},
    ]
    assert "line 3: no_partner: no row with this id in the first 100,000 lines of source[1]" in found.stderr


def test_json_has_place_document_and_reason_of_each_line(tmp_path: Path) -> None:
    path = write(tmp_path, {"_id": "$.id", "text": "$.t"}, docs=[*LINES[:1], *LINES[:1], *LINES[2:]])
    found = json.loads(run("try", path, "--json").stdout)
    assert found[0] == {
        "source": 0,
        "uri": str(tmp_path / "docs.jsonl"),
        "line": 1,
        "id": "a",
        "document": {"text": "the first"},
    }
    assert [one.get("code") for one in found] == [None, "duplicate_id", "missing_value"]


@pytest.mark.parametrize("command", ["explain", "try"])
@pytest.mark.parametrize(
    ("fields", "said"),
    [
        ({"_id": "$.id"}, "map no field"),
        ({"text": "$.["}, "is no JSONPath"),
        ({"text": "source[1].$.t"}, "source[1]"),
    ],
)
def test_a_map_that_does_not_fit_is_refused(command: str, fields: dict[str, Any], said: str, tmp_path: Path) -> None:
    found = run(command, write(tmp_path, fields))
    assert (found.exit_code, found.stdout) == (2, "")
    assert found.stderr.startswith("Refused: ")
    assert said in found.stderr


@pytest.mark.parametrize("command", ["explain", "try"])
def test_a_file_that_is_not_there_is_refused_by_name(command: str, tmp_path: Path) -> None:
    path = write(tmp_path)
    (tmp_path / "docs.jsonl").unlink()
    found = run(command, path)
    assert (found.exit_code, found.stdout) == (2, "")
    assert "there is no file" in found.stderr


def test_a_source_without_a_line_is_no_success(tmp_path: Path) -> None:
    path = write(tmp_path, docs=[])
    assert run("explain", path).exit_code == 1
    tried = run("try", path)
    assert (tried.exit_code, tried.stderr) == (1, "There is no line.\n")
