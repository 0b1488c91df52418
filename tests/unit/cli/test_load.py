"""What ``overnight load`` says and exits with; it never shows a traceback unless it is asked to."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import typer
from typer.testing import CliRunner, Result

from overnight.cli.load import explain, load
from overnight.errors import CredentialsError, UnavailableError
from overnight.ingest import SourceError
from overnight.ingest.write.bulk import IndexRefusedError
from unit.ingest.fake_opensearch import Answer, FakeOpenSearch

app = typer.Typer(pretty_exceptions_enable=False)
app.command()(load)


def run(fake: FakeOpenSearch, path: Path, *arguments: str) -> Result:
    return CliRunner().invoke(app, [str(path), "--url", fake.url, *arguments])


@pytest.fixture
def request_file(tmp_path: Path) -> Path:
    source = tmp_path / "a.jsonl"
    source.write_text("".join(f'{{"id":"d{n}","t":{n}}}\n' for n in range(5)))
    path = tmp_path / "request.json"
    fields = {"_id": "$.id", "text": "$.t"}
    path.write_text(json.dumps({"index_name": "docs", "field_map": fields, "data_source": {"source": [str(source)]}}))
    return path


def test_the_report_is_printed(opensearch: FakeOpenSearch, request_file: Path) -> None:
    found = run(opensearch, request_file)
    assert found.exit_code == 0
    assert json.loads(found.stdout)["indexed"] == 5


@pytest.mark.parametrize(
    ("content", "said"),
    [
        ('{"index_name": "docs"}'.encode("utf-16"), "is not UTF-8"),
        (b"not json", "no batch ingestion request"),
        (b"[]", "no batch ingestion request"),
        (b"[" * 100_000, "no batch ingestion request"),
        (b'{"index_name":"..","data_source":{"source":["a"]}}', "not the name of one index"),
        (b'{"index_name":"a:b","data_source":{"source":["a"]}}', "not the name of one index"),
    ],
)
def test_a_request_that_is_none_is_refused(
    content: bytes,
    said: str,
    opensearch: FakeOpenSearch,
    tmp_path: Path,
) -> None:
    path = tmp_path / "request.json"
    path.write_bytes(content)
    found = run(opensearch, path)
    assert found.exit_code == 2
    assert said in found.stderr
    assert found.stdout == ""
    assert opensearch.requests == []


@pytest.mark.parametrize("status", [400, 401, 403])
def test_a_refusal_before_anything_was_written_exits_with_2(
    status: int,
    opensearch: FakeOpenSearch,
    request_file: Path,
) -> None:
    error = {"error": {"type": "security_exception", "reason": "no permissions"}}
    opensearch.on_request = lambda _method, path: Answer(status, error) if path == "/docs" else None
    found = run(opensearch, request_file)
    assert found.exit_code == 2
    assert "no permissions" in found.stderr
    assert "Start the same load again" not in found.stderr


def test_a_closed_index_exits_with_2_and_does_not_ask_for_a_second_start(
    opensearch: FakeOpenSearch,
    request_file: Path,
) -> None:
    closed = {"status": 400, "error": {"type": "index_closed_exception", "reason": "closed"}}
    opensearch.on_item = lambda _key, _document: closed
    found = run(opensearch, request_file)
    assert (found.exit_code, found.stdout) == (2, "")
    assert "The index is closed: open it" in found.stderr
    assert "again" not in found.stderr


def test_a_contradiction_prints_the_report_and_fails(opensearch: FakeOpenSearch, request_file: Path) -> None:
    opensearch.on_item = lambda key, _document: {"status": 201} if key == "d0" else None
    found = run(opensearch, request_file)
    assert found.exit_code == 1
    assert json.loads(found.stdout)["indexed"] == 5
    assert "'d0'" in found.stderr


@pytest.mark.parametrize(
    ("error", "has_written", "status", "text"),
    [
        (UnavailableError("Away."), False, 1, "Away. Start the same load again to go on where it stopped."),
        (UnavailableError("Away."), True, 1, "Away. Start the same load again to go on where it stopped."),
        (CredentialsError("No."), False, 2, "Refused: No. Nothing was written."),
        (CredentialsError("No."), True, 1, "No."),
        (IndexRefusedError("Open it."), True, 1, "Open it. Then start the same load again to go on where it stopped."),
        (IndexRefusedError("Open it."), False, 2, "Refused: Open it. Nothing was written."),
        (SourceError("a.gz is cut."), True, 1, "a.gz is cut."),
        (PermissionError(13, "Permission denied", "/x"), False, 1, "/x: Permission denied."),
    ],
)
def test_a_second_start_is_asked_for_only_where_it_mends(
    error: Exception, has_written: bool, status: int, text: str
) -> None:
    assert explain(error, has_written=has_written) == (status, text)


def test_what_nobody_expects_is_one_line_unless_the_traceback_is_asked_for(
    opensearch: FakeOpenSearch,
    request_file: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def fail(*_: Any, **__: Any) -> None:
        raise KeyError("hits")

    monkeypatch.setattr("overnight.cli.load.run_load", fail)
    found = run(opensearch, request_file)
    assert found.exit_code == 1
    assert "KeyError: 'hits'" in found.stderr
    assert "Traceback" not in found.stderr
    assert isinstance(run(opensearch, request_file, "--debug").exception, KeyError)
