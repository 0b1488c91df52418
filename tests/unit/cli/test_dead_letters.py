"""What ``overnight dead-letters`` says of the records of a load, and what it loads again."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner, Result

from overnight.cli.app import app
from overnight.ingest import LoadOptions, LoadReport, OpenSearchTarget, load, read_dead_letters
from unit.ingest.fake_opensearch import FakeOpenSearch

REFUSED = {"status": 400, "error": {"type": "mapper_parsing_exception", "reason": "failed to parse [n]"}}
LINES = (
    '{"id":"a","n":1,"t":{"v":1.0}}\n'
    "no [JSON]\n"
    '{"id":"b","n":12345678901234567890123,"t":{"v":1e-7},"r":"x"}\n'
    '{"id":"c"}\n'
    '{"id":"d","n":"three","r":"x"}\n'
)
FIELDS = {"_id": "$.id", "n": "$.n", "it's.t": "$.t", "_routing": "$.r"}


def run(*arguments: Any) -> Result:
    result = CliRunner().invoke(app, ["dead-letters", *map(str, arguments)])
    assert result.exception is None or isinstance(result.exception, SystemExit), result.exception
    assert "Traceback" not in result.output
    return result


def load_lines(opensearch: FakeOpenSearch, folder: Path, lines: str = LINES) -> LoadReport:
    (folder / "docs.jsonl").write_text(lines)
    request = {"index_name": "docs", "field_map": FIELDS, "data_source": {"source": [str(folder / "docs.jsonl")]}}
    options = LoadOptions(dead_letter_uri=str(folder / "dead.jsonl"), missing_path="omit")
    with OpenSearchTarget(opensearch.url) as target:
        return load(request, target=target, options=options)


@pytest.fixture
def letters(opensearch: FakeOpenSearch, tmp_path: Path) -> Path:
    """The records of a load: two documents that OpenSearch refused, and two lines that are none."""
    opensearch.on_item = lambda key, _: REFUSED if key in ("b", "d") else None
    report = load_lines(opensearch, tmp_path)
    assert report.reasons == {"mapper_parsing_exception": 2, "invalid_line": 1, "missing_value": 1}
    opensearch.on_item = lambda _key, _document: None
    (tmp_path / "report.json").write_text(report.model_dump_json())
    return tmp_path / "dead.jsonl"


def test_records_are_grouped_by_reason_with_the_remedy(letters: Path) -> None:
    found = json.loads(run("show", letters, "--json").stdout)
    assert [(one["code"], one["count"], one["can_be_loaded"]) for one in found] == [
        ("mapper_parsing_exception", 2, True),
        ("invalid_line", 1, False),
        ("missing_value", 1, False),
    ]
    assert found[0]["places"][1] == f"{letters.parent / 'docs.jsonl'}, line 5, id d"
    assert "The line itself is at fault" in found[1]["remedy"]


def test_what_is_shown_fits_into_80_characters(letters: Path) -> None:
    shown = run("show", letters)
    assert shown.exit_code == 0
    lines = shown.stdout.splitlines()
    assert lines[0] == "2 rejected: mapper_parsing_exception"
    assert max(map(len, lines)) <= 80


def test_the_documents_are_loaded_again_as_they_were_sent(opensearch: FakeOpenSearch, letters: Path) -> None:
    kept = dict(opensearch.documents)
    found = run("retry", letters.parent / "report.json", "--url", opensearch.url)
    assert found.exit_code == 1, found.output  # two lines are left
    assert opensearch.documents == {
        **kept,
        "b": {"n": 12345678901234567890123, "it's.t": {"v": 1e-7}},
        "d": {"n": "three"},
    }
    assert opensearch.bulks[-1] == ["b", "d"]
    assert found.stdout.startswith("indexed: 2\nrefused again: 0\nnot loaded: 2\n")
    left = list(read_dead_letters(f"{letters}.left.jsonl"))
    assert [(one.code, one.line) for one in left] == [("invalid_line", 2), ("missing_value", 4)]


def test_what_is_refused_again_keeps_its_place_and_can_be_loaded_later(
    opensearch: FakeOpenSearch, letters: Path
) -> None:
    other = {"status": 400, "error": {"type": "strict_dynamic_mapping_exception", "reason": "not allowed"}}
    opensearch.on_item = lambda key, _: other if key == "d" else None
    found = run("retry", letters, "--index", "docs", "--url", opensearch.url, "--json", "--left", f"{letters}.2")
    assert found.exit_code == 1
    done = json.loads(found.stdout)
    assert (done["report"]["indexed"], done["report"]["rejected"]) == (1, 1)
    assert done["report"]["dead_letter_uri"] == done["left_uri"] == f"{letters}.2"
    left = {one.id: one for one in read_dead_letters(f"{letters}.2")}
    assert (left["d"].code, left["d"].line, left["d"].is_document) == ("strict_dynamic_mapping_exception", 5, True)
    opensearch.on_item = lambda _key, _document: None
    run("retry", f"{letters}.2", "--index", "docs", "--url", opensearch.url)
    assert opensearch.documents["d"] == {"n": "three"}


def test_all_loaded_is_a_success_and_leaves_no_file(opensearch: FakeOpenSearch, tmp_path: Path) -> None:
    opensearch.on_item = lambda _key, _document: REFUSED
    load_lines(opensearch, tmp_path, '{"id":"a","n":1,"t":1,"r":"x"}\n')
    opensearch.on_item = lambda _key, _document: None
    found = run("retry", tmp_path / "dead.jsonl", "--index", "docs", "--url", opensearch.url)
    assert found.exit_code == 0, found.output
    assert opensearch.documents == {"a": {"n": 1, "it's.t": 1}}
    assert not (tmp_path / "dead.jsonl.left.jsonl").exists()


def test_of_records_with_the_same_id_the_last_is_loaded(opensearch: FakeOpenSearch, letters: Path) -> None:
    newer = next(one for one in read_dead_letters(str(letters)) if one.id == "b")
    second = letters.with_name("second.jsonl")
    second.write_text(json.dumps({**_fields(newer), "text": '{"n":2}'}) + "\n")
    arguments = (letters, second, "--index", "docs", "--url", opensearch.url)
    opensearch.on_item = lambda key, _: REFUSED if key == "b" else None
    run("retry", *arguments)
    assert [one.text for one in read_dead_letters(f"{letters}.left.jsonl") if one.id == "b"] == ['{"n":2}']
    opensearch.on_item = lambda _key, _document: None
    run("retry", *arguments)
    assert opensearch.documents["b"] == {"n": 2}


def test_a_document_that_was_too_long_to_keep_is_named(opensearch: FakeOpenSearch, tmp_path: Path) -> None:
    opensearch.on_item = lambda _key, _document: REFUSED
    load_lines(opensearch, tmp_path, json.dumps({"id": "a", "n": "x" * 70_000}) + "\n")
    before = len(opensearch.bulks)
    found = run("retry", tmp_path / "dead.jsonl", "--index", "docs", "--url", opensearch.url, "--json")
    assert found.exit_code == 1
    (left,) = json.loads(found.stdout)["not_loaded"]
    assert left["places"] == [f"{tmp_path / 'docs.jsonl'}, line 1, id a"]
    assert "longer than 64 KiB" in left["remedy"]
    assert len(opensearch.bulks) == before


def test_errors_of_the_service_and_missing_rows_say_what_to_do(tmp_path: Path) -> None:
    place = {"uri": "s3://b/k", "source": 0, "line": 1, "offset": 0, "reason": "no"}
    records = [
        {"outcome": "rejected", "code": "rate_limit_exceeded", **place},
        {"outcome": "missing", "code": "no_partner", **place},
        {"outcome": "dropped", "code": "dropped_by_pipeline", "is_document": True, "id": "a", "text": "{}", **place},
        {"outcome": "rejected", "code": "document_exists", "is_document": True, "id": "a", "text": "{}", **place},
    ]
    path = tmp_path / "dead.jsonl"
    path.write_text("".join(f"{json.dumps(record)}\n" for record in records))
    said = {one["code"]: one["remedy"] for one in json.loads(run("show", path, "--json").stdout)}
    assert "AI service" in said["rate_limit_exceeded"]
    assert "lacks its row" in said["no_partner"]
    assert "pipeline" in said["dropped_by_pipeline"]
    assert "takes no other" in said["document_exists"]


def test_an_index_that_nobody_names_is_asked_for(opensearch: FakeOpenSearch, letters: Path) -> None:
    found = run("retry", letters, "--url", opensearch.url)
    assert (found.exit_code, found.stdout) == (2, "")
    assert "Give --index" in found.stderr


@pytest.mark.parametrize("command", ["show", "retry"])
def test_a_file_that_is_none_is_refused_by_name(command: str, opensearch: FakeOpenSearch, tmp_path: Path) -> None:
    path = tmp_path / "other.jsonl"
    path.write_text('{"id": 1}\n')
    options = ("--index", "docs", "--url", opensearch.url) if command == "retry" else ()
    found = run(command, path, *options)
    assert (found.exit_code, found.stdout) == (2, "")
    assert f"{path} is no dead-letter file" in found.stderr
    found = run(command, tmp_path / "no-such-file.jsonl", *options)
    assert found.exit_code == 2
    assert "no-such-file.jsonl" in found.stderr


def test_the_file_that_is_read_is_not_written_over(opensearch: FakeOpenSearch, letters: Path) -> None:
    before = letters.read_bytes()
    found = run("retry", letters, "--index", "docs", "--url", opensearch.url, "--left", letters)
    assert found.exit_code == 2
    assert letters.read_bytes() == before


def test_ctrl_c_leaves_the_records_as_they_are(
    opensearch: FakeOpenSearch, letters: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def stop(*_: Any, **__: Any) -> None:
        raise KeyboardInterrupt

    before = letters.read_bytes()
    monkeypatch.setattr("overnight.ingest.dead_letter_retry.load", stop)
    found = run("retry", letters, "--index", "docs", "--url", opensearch.url)
    assert found.exit_code == 130
    assert "begins anew" in found.stderr
    assert letters.read_bytes() == before


def test_a_report_without_failures_has_no_records(tmp_path: Path) -> None:
    path = tmp_path / "report.json"
    path.write_text(json.dumps({"index": "docs", "submitted": 1, "indexed": 1, "dead_letter_uris": []}))
    for command in (("show", path), ("retry", path, "--url", "http://127.0.0.1:1")):
        found = run(*command)
        assert (found.exit_code, found.stdout) == (0, "")
        assert "no records" in found.stderr


def _fields(letter: Any) -> dict[str, Any]:
    return {name: getattr(letter, name) for name in letter.__struct_fields__}
