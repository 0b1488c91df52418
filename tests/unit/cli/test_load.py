"""What ``overnight load`` says and exits with; it never shows a traceback unless it is asked to."""

from __future__ import annotations

import json
import socket
from pathlib import Path
from typing import Any

import pytest
import typer
from typer.testing import CliRunner, Result

from overnight.cli.load import load
from overnight.cli.load_errors import explain
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


def test_unchanged_documents_are_not_written_where_that_is_asked_for(
    opensearch: FakeOpenSearch, request_file: Path
) -> None:
    counts = []
    for arguments in (["--skip-unchanged"], ["-o", "skip_unchanged=true"], ["--skip-unchanged"], []):
        found = run(opensearch, request_file, "-o", "write=index", *arguments)
        assert found.exit_code == 0, found.output
        assert ("5 unchanged" in found.stderr) == (len(counts) in (1, 2))
        report = json.loads(found.stdout)
        counts.append((report["submitted"], report["indexed"], report["unchanged"]))
    assert counts == [(5, 5, 0), (5, 0, 5), (5, 0, 5), (5, 5, 0)]


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

    monkeypatch.setattr("overnight.ingest.loading.load", fail)
    found = run(opensearch, request_file)
    assert found.exit_code == 1
    assert "KeyError: 'hits'" in found.stderr
    assert "Traceback" not in found.stderr
    assert isinstance(run(opensearch, request_file, "--debug").exception, KeyError)


def test_an_address_where_nothing_answers_is_named_at_once(request_file: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        url = f"http://127.0.0.1:{server.getsockname()[1]}"
    for address in (url, "http://no-such-host.invalid:9200"):
        found = CliRunner().invoke(app, [str(request_file), "--url", address])
        assert found.exit_code == 2
        assert f"Refused: Nothing answers at {address} (--url, or OPENSEARCH_URL)" in found.stderr
        assert "again" not in found.stderr


@pytest.mark.parametrize("body", [b"<html>", {"status": "ok"}, [], b""])
def test_a_server_that_is_no_opensearch_is_said_to_be_none(
    body: Any, opensearch: FakeOpenSearch, request_file: Path
) -> None:
    opensearch.on_request = lambda _method, _path: Answer(200, body)
    found = run(opensearch, request_file)
    assert found.exit_code == 2
    assert f"What answers at {opensearch.url} (--url, or OPENSEARCH_URL) is no OpenSearch" in found.stderr
    assert len(opensearch.requests) == 1


@pytest.mark.parametrize("answer", [Answer(404, b"<html>"), Answer(404, {"detail": "Not Found"})])
def test_an_index_that_something_else_does_not_know_is_no_missing_index(
    answer: Answer, opensearch: FakeOpenSearch, request_file: Path
) -> None:
    opensearch.on_request = lambda _method, _path: answer
    found = run(opensearch, request_file)
    assert found.exit_code == 2
    assert "is no OpenSearch" in found.stderr
    assert "There is no index" not in found.stderr


@pytest.mark.parametrize("status", [401, 403, 429, 503])
def test_an_opensearch_that_does_not_say_what_it_is_is_loaded(
    status: int, opensearch: FakeOpenSearch, request_file: Path
) -> None:
    opensearch.on_request = lambda _method, path: Answer(status, {"error": "no"}) if path == "/" else None
    assert run(opensearch, request_file).exit_code == 0


@pytest.mark.parametrize(
    ("arguments", "said"), [((), "goes on where it stopped ("), (("--checkpoint", "none"), "starts at the first line")]
)
def test_ctrl_c_says_what_becomes_of_the_load(
    arguments: tuple[str, ...],
    said: str,
    opensearch: FakeOpenSearch,
    request_file: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def stop(*_: Any, **__: Any) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr("overnight.ingest.loading.load", stop)
    found = run(opensearch, request_file, *arguments)
    assert found.exit_code == 130
    assert f"Stopped. The same load, started again, {said}" in found.stderr


def test_a_missing_file_is_refused_by_name(opensearch: FakeOpenSearch, request_file: Path) -> None:
    wanted = json.loads(request_file.read_text())
    request_file.write_text(json.dumps({**wanted, "data_source": {"source": ["/no/such/file.jsonl"]}}))
    found = run(opensearch, request_file)
    assert (found.exit_code, found.stdout) == (2, "")
    assert "Refused: source[0]: there is no file /no/such/file.jsonl" in found.stderr


def test_an_unknown_option_is_answered_with_the_known_ones(opensearch: FakeOpenSearch, request_file: Path) -> None:
    found = run(opensearch, request_file, "-o", "bulk_byte=1000")
    assert found.exit_code == 2
    assert "bulk_byte: there is no such name, did you mean 'bulk_bytes'? Known are bulk_bytes, max_in_flight" in (
        found.stderr
    )
    wanted = json.loads(request_file.read_text())
    request_file.write_text(json.dumps({**wanted, "data_source": {**wanted["data_source"], "sources": []}}))
    found = run(opensearch, request_file)
    assert "data_source.sources: there is no such name, did you mean 'source'? Known are type, source" in found.stderr
    request_file.write_text(json.dumps({**wanted, "index": "x"}))
    assert "did you mean 'index_name'? Known are index_name, field_map" in run(opensearch, request_file).stderr
