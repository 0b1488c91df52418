"""What people give ``overnight load`` by mistake: each ends in one sentence that names it, never in a traceback."""

from __future__ import annotations

import bz2
import errno
import gzip
import io
import json
import os
import socket
import tarfile
from pathlib import Path
from typing import Any

import fsspec
import pytest
from typer.testing import CliRunner, Result

from overnight.cli.app import app
from unit.ingest.fake_opensearch import FakeOpenSearch

MAX_OUTPUT = 8_000
"""Characters of what is printed for one mistake, report and all."""
LINES = b'{"id":"a","t":1}\n{"id":"b","t":2}\n'
FIELDS = {"_id": "$.id", "t": "$.t"}


def run(fake: FakeOpenSearch, folder: Path, request: Any, *arguments: str, url: str | None = None) -> Result:
    path = folder / "request.json"
    path.write_bytes(request if isinstance(request, bytes) else json.dumps(request).encode())
    retries = ("-o", "retry_seconds=0")
    result = CliRunner().invoke(app, ["load", str(path), "--url", url or fake.url, *retries, *arguments])
    assert result.exception is None or isinstance(result.exception, SystemExit), result.exception
    assert "Traceback" not in result.output
    assert "should not" not in result.stderr, result.stderr
    assert len(result.output) < MAX_OUTPUT
    return result


def ask(*sources: Any, **fields: Any) -> dict[str, Any]:
    return {"index_name": "docs", "field_map": FIELDS, "data_source": {"source": list(sources)}, **fields}


def tar() -> bytes:
    content = io.BytesIO()
    with tarfile.open(fileobj=content, mode="w") as archive:
        member = tarfile.TarInfo("a.jsonl")
        member.size = len(LINES)
        archive.addfile(member, io.BytesIO(LINES))
    return content.getvalue()


DEEP = b'{"id":"a","t":' + b"[" * 100_000 + b"]" * 100_000 + b"}\n"
REFUSED_FILES: dict[str, tuple[bytes, str]] = {
    "empty": (b"", "no line"),
    "blank lines": (b"\n \n\t\n", "no line"),
    "UTF-16": (LINES.decode().encode("utf-16"), "UTF-16"),
    "UTF-16 without a mark": (LINES.decode().encode("utf-16-le"), "UTF-16"),
    "array": (b'[{"id":"a"}]', "JSON array"),
    "array on lines": (b'[\n  {"id":"a"}\n]\n', "JSON array"),
    "HTML": (b"<!doctype html><html>", "HTML"),
    "PDF": (b"%PDF-1.4\n", "PDF"),
    "zip": (b"PK\x03\x04rest", "ZIP"),
    "tar": (tar(), "tar archive"),
    "tar.gz": (gzip.compress(tar()), "tar archive"),
    "gzip twice": (gzip.compress(gzip.compress(LINES)), "uncompress it once"),
    "gzip in bzip2": (bz2.compress(gzip.compress(LINES)), "uncompress it once"),
    "LZ4": (b"\x04\x22\x4d\x18rest", "LZ4"),
    "Parquet, broken": (b"PAR1xxxxPAR1", "cannot be read"),
}
DAMAGED_FILES: dict[str, tuple[bytes, str]] = {
    "gzip and garbage": (gzip.compress(LINES) + b"garbage", "cut, or damaged by bytes behind its end"),
    "gzip, cut": (gzip.compress(LINES)[:-3], "cut"),
    "gzip, header alone": (gzip.compress(LINES)[:10], "cut"),
    "gzip, another checksum": (gzip.compress(LINES)[:-8] + b"\x01" * 8, "damaged"),
}
REJECTED_LINES: dict[str, bytes] = {
    "NUL bytes": b"\x00" * 1_000,
    "Latin-1": '{"id":"é","t":1}'.encode("latin-1"),
    "CR alone": LINES.replace(b"\n", b"\r"),
    "NaN": b'{"id":"a","t":NaN}',
    "Infinity": b'{"id":"a","t":-Infinity}',
    "lone surrogate": b'{"id":"a","t":"\\ud800"}',
    "raw surrogate": b'{"id":"a","t":"\xed\xa0\x80"}',
    "deep": DEEP,
    "deep beside": b'{"x":' + DEEP[14:-2] + b',"id":"a","t":1}',
    "scalar": b"5",
    "null": b"null",
    "array of numbers": b"[1, 2]",
    "pretty-printed": json.dumps({"id": "a", "t": 1}, indent=2).encode(),
    "no id": b'{"t":1}',
    "empty id": b'{"id":"","t":1}',
    "id of 513 bytes": b'{"id":"' + b"x" * 513 + b'","t":1}',
    "id of 10 MB": b'{"id":"' + b"x" * 10_000_000 + b'","t":1}',
    "id true": b'{"id":true,"t":1}',
    "id null": b'{"id":null,"t":1}',
    "id object": b'{"id":{},"t":1}',
    "40 MB": b'{"id":"a","t":"' + b"x" * 40_000_000 + b'"}',
}
READ_FILES: dict[str, bytes] = {
    "no line break at the end": LINES[:-1],
    "byte order mark": b"\xef\xbb\xbf" + LINES,
    "CR LF": LINES.replace(b"\n", b"\r\n"),
    "gzip under another name": gzip.compress(LINES),
    "gzip of several members": gzip.compress(LINES[:17]) + gzip.compress(LINES[17:]),
    "gzip and zeros": gzip.compress(LINES) + b"\x00" * 512,
    "a name twice": b'{"id":"x","id":"a","t":1,"t":2}\n{"id":"b","t":1}\n',
}


@pytest.mark.parametrize("name", REFUSED_FILES)
def test_a_file_that_is_no_json_lines_is_refused(name: str, opensearch: FakeOpenSearch, tmp_path: Path) -> None:
    content, said = REFUSED_FILES[name]
    source = tmp_path / "source"
    source.write_bytes(content)
    found = run(opensearch, tmp_path, ask(str(source)))
    assert (found.exit_code, found.stdout) == (2, "")
    assert said in found.stderr
    assert str(source) in found.stderr
    assert not opensearch.documents


@pytest.mark.parametrize("name", DAMAGED_FILES)
def test_a_damaged_file_is_named(name: str, opensearch: FakeOpenSearch, tmp_path: Path) -> None:
    content, said = DAMAGED_FILES[name]
    source = tmp_path / "source.gz"
    source.write_bytes(content)
    found = run(opensearch, tmp_path, ask(str(source)))
    assert found.exit_code == 1
    assert f"{source}: the gzip stream is {said}" in found.stderr


@pytest.mark.parametrize("name", REJECTED_LINES)
def test_a_line_that_is_no_document_is_rejected(name: str, opensearch: FakeOpenSearch, tmp_path: Path) -> None:
    source = tmp_path / "source"
    source.write_bytes(REJECTED_LINES[name] + b"\n" + LINES.replace(b'"a"', b'"z"'))
    found = run(opensearch, tmp_path, ask(str(source)))
    assert found.exit_code == 1
    report = json.loads(found.stdout)
    assert report["rejected"] >= 1
    assert report["indexed"] + report["rejected"] == report["submitted"]
    assert set(opensearch.documents) == {"z", "b"}


@pytest.mark.parametrize("name", READ_FILES)
def test_an_odd_file_is_read(name: str, opensearch: FakeOpenSearch, tmp_path: Path) -> None:
    source = tmp_path / "source"
    source.write_bytes(READ_FILES[name])
    assert run(opensearch, tmp_path, ask(str(source))).exit_code == 0
    assert set(opensearch.documents) == {"a", "b"}


@pytest.mark.parametrize(
    ("uri", "said"),
    [
        ("", "empty"),
        (" ", "empty"),
        ("file://", "names no file"),
        ("memory://", "names no file"),
        ("{folder}", "there is no file"),
        ("{folder}/none", "there is no file"),
        ("{folder}/*.none", "no file matches"),
        ("{folder}/[", "no file matches"),
        ("~nobody/x", "there is no file"),
        ("{folder}/source#bytes=5-2", "is empty"),
        ("{folder}/source#bytes=99999999999999999999-", "behind the end"),
        ("{folder}/source#bytes=0-99999999999999999999", "behind the end"),
        ("{folder}/\x00", "embedded null"),
        ("unknown://x", "nothing here reads unknown://"),
        ("sftp://x/y", "not installed"),
        ("http://", "whole URL"),
        ("http:///x", "whole URL"),
        ("http://[::1/x", "no web address"),
        ("http://[::1/x?sig=topsecret", "no web address"),
        ("http://xn--/x", "whole URL"),
        ("http://a..b/x", "whole URL"),
        ("http://127.0.0.1:port/x", "whole URL"),
        ("http://127.0.0.1:99999/x", "whole URL"),
    ],
)
def test_an_address_of_a_source_that_is_none_is_refused(
    uri: str, said: str, opensearch: FakeOpenSearch, tmp_path: Path
) -> None:
    (tmp_path / "empty").mkdir()
    (tmp_path / "source").write_bytes(LINES)
    found = run(opensearch, tmp_path, ask(uri.format(folder=tmp_path if "source" in uri else tmp_path / "empty")))
    assert (found.exit_code, found.stdout) == (2, "")
    assert said in found.stderr
    assert "topsecret" not in found.output


@pytest.mark.parametrize(("uri", "extra"), [("gs://b/a.jsonl", "gs"), ("az://c/a.jsonl", "azure")])
def test_a_store_whose_package_is_not_there_is_refused_with_the_extra(
    uri: str, extra: str, opensearch: FakeOpenSearch, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(protocol: str) -> type:
        raise ImportError(f"Install something to access {protocol}")

    monkeypatch.setattr(fsspec, "get_filesystem_class", refuse)
    found = run(opensearch, tmp_path, ask(uri))
    assert (found.exit_code, found.stdout) == (2, "")
    assert f"pip install 'airflow-provider-overnight[{extra}]'" in found.stderr
    assert "again" not in found.stderr


def test_a_working_directory_that_is_gone_is_no_traceback(
    opensearch: FakeOpenSearch, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    gone = tmp_path / "gone"
    gone.mkdir()
    monkeypatch.chdir(gone)
    gone.rmdir()
    found = run(opensearch, tmp_path, ask("source.jsonl"))
    assert found.exit_code == 2
    assert "source.jsonl" in found.stderr


@pytest.mark.parametrize(
    "url", ["http://[::1", "http://xn--", "http://a..b", "http://\n", "localhost", "http://h:99999"]
)
def test_an_address_of_opensearch_that_is_none_is_refused(url: str, opensearch: FakeOpenSearch, tmp_path: Path) -> None:
    found = run(opensearch, tmp_path, ask("source.jsonl"), url=url)
    assert (found.exit_code, found.stdout) == (2, "")
    assert "whole URL" in found.stderr


def test_a_proxy_that_refuses_is_named_and_not_the_server(
    opensearch: FakeOpenSearch, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HTTPS_PROXY", "http://user:secret@127.0.0.1:9")
    found = run(opensearch, tmp_path, ask("source.jsonl"), url="https://search.example:9200")
    assert (found.exit_code, found.stdout) == (2, "")
    assert "the proxy http://127.0.0.1:9 cannot be reached" in found.stderr
    assert "Nothing answers" not in found.stderr
    assert "secret" not in found.stderr


def test_a_source_whose_host_has_no_address_is_refused_at_once(
    opensearch: FakeOpenSearch, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    look_up, looked = socket.getaddrinfo, []

    def has_none(host: Any, *arguments: Any, **options: Any) -> Any:
        if host != b"files.example" and host != "files.example":
            return look_up(host, *arguments, **options)
        looked.append(host)
        raise socket.gaierror(socket.EAI_NONAME, "Name or service not known")

    monkeypatch.setattr(socket, "getaddrinfo", has_none)
    found = run(opensearch, tmp_path, ask("https://files.example/a.jsonl?sig=topsecret"))
    assert (found.exit_code, found.stdout, len(looked)) == (2, "", 1)
    assert "https://files.example/a.jsonl cannot be read: the name 'files.example' has no address." in found.stderr
    assert "topsecret" not in found.stderr


@pytest.mark.parametrize(
    "fields", [{"t": "$.t" * 3_000}, {"t": "t" * 10_000}, {"t": "$[?(@.a ==" + "x" * 10_000}, {"t": "$..t" * 3_000}]
)
def test_a_long_path_that_is_none_is_quoted_in_part(
    fields: dict[str, str], opensearch: FakeOpenSearch, tmp_path: Path
) -> None:
    (tmp_path / "source").write_bytes(LINES)
    found = run(opensearch, tmp_path, ask(str(tmp_path / "source"), field_map={"_id": "$.id", **fields}))
    assert found.exit_code in (1, 2)


def test_a_stdout_that_is_full_is_named(
    opensearch: FakeOpenSearch, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(text: str) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    (tmp_path / "source").write_bytes(LINES)
    monkeypatch.setattr("overnight.cli.load.typer.echo", fail)
    found = run(opensearch, tmp_path, ask(str(tmp_path / "source")))
    assert found.exit_code == 1
    assert "could not be written to stdout: No space left on device" in found.stderr


def test_what_a_bulk_request_is_answered_is_reported_in_part(opensearch: FakeOpenSearch, tmp_path: Path) -> None:
    (tmp_path / "source").write_bytes(LINES)
    error = {"type": "y" * 1_000_000, "reason": "x" * 1_000_000}
    opensearch.on_item = lambda _key, _document: {"status": 400, "error": error}
    assert run(opensearch, tmp_path, ask(str(tmp_path / "source"))).exit_code == 1
