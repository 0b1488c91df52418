from __future__ import annotations

import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any, ClassVar

import pytest
from fsspec.implementations.memory import MemoryFileSystem

from overnight.errors import CredentialsError, NotFoundError, SpecError, UnavailableError
from overnight.ingest import IngestRequest, LoadOptions, OpenSearchTarget, load, read_dead_letters
from overnight.ingest.read.openers import http_opener, look_at_http, openai_opener
from overnight.storage import Storage, redact
from unit.ingest.fake_opensearch import FakeOpenSearch

SIGNATURE = "X-Amz-Signature=5ecre7"


class FileServer:
    """Serves one content under one address, to those who may, and hangs up in the middle as often as it is told."""

    def __init__(self) -> None:
        self.content = b""
        self.etag = '"1"'
        self.cuts = 0
        self.refuses_head = False
        self.needs: dict[str, str] = {}
        self.path = "/a.jsonl"
        self.starts: list[int] = []
        fake = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def do_HEAD(self) -> None:
                if fake.refuses_head:
                    self.send_error(403)
                    return
                self.reply(is_head=True)

            def do_GET(self) -> None:
                self.reply(is_head=False)

            def reply(self, *, is_head: bool) -> None:
                allowed = all(self.headers.get(name) == value for name, value in fake.needs.items())
                status, body = (200, fake.content) if allowed else (403, b"no")
                if self.path != fake.path:
                    status, body = 404, b"nothing here"
                start = 0
                if status == 200 and "Range" in self.headers:
                    start, status = int(self.headers["Range"].removeprefix("bytes=").partition("-")[0]), 206
                self.send_response(status)
                if status == 206:
                    self.send_header("Content-Range", f"bytes {start}-{len(body) - 1}/{len(body)}")
                self.send_header("Content-Length", str(len(body) - start))
                if fake.etag:
                    self.send_header("ETag", fake.etag)
                self.end_headers()
                if is_head:
                    return
                fake.starts.append(start)
                if fake.cuts and status in (200, 206):
                    fake.cuts -= 1
                    self.wfile.write(body[start : start + 10])
                    self.close_connection = True
                    return
                self.wfile.write(body[start:])

            def log_message(self, *_: Any) -> None:
                pass

        self.server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.server.daemon_threads = True
        self.url = f"http://127.0.0.1:{self.server.server_address[1]}"


@pytest.fixture
def files(monkeypatch: pytest.MonkeyPatch) -> Iterator[FileServer]:
    fake = FileServer()
    # What waits between attempts waits for nothing here.
    monkeypatch.setattr("time.sleep", lambda seconds: None)
    thread = threading.Thread(target=fake.server.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    try:
        yield fake
    finally:
        fake.server.shutdown()
        fake.server.server_close()
        thread.join()


def test_reading_goes_on_where_the_connection_broke(files: FileServer) -> None:
    files.content, files.cuts = bytes(range(256)), 3
    assert b"".join(http_opener()(f"{files.url}/a.jsonl", 0)) == files.content
    assert files.starts == [0, 10, 20, 30]
    assert b"".join(http_opener()(f"{files.url}/a.jsonl", 100)) == files.content[100:]


def test_an_openai_file_is_read_with_the_key(files: FileServer) -> None:
    files.path, files.needs = "/v1/files/file-1/content", {"Authorization": "Bearer sk-5ecre7"}
    files.content = b"{}\n"
    assert b"".join(openai_opener("sk-5ecre7", f"{files.url}/v1")("openai://file-1", 0)) == b"{}\n"
    with pytest.raises(CredentialsError):
        list(openai_opener("sk-wrong", f"{files.url}/v1")("openai://file-1", 0))
    with pytest.raises(NotFoundError) as caught:
        list(openai_opener("sk-5ecre7", f"{files.url}/v1")("openai://file-2", 0))
    assert "5ecre7" not in str(caught.value)


def test_user_and_password_of_an_address_are_used(files: FileServer) -> None:
    files.content, files.needs = b"{}\n", {"Authorization": "Basic bWU6c2VjcmV0"}
    uri = files.url.replace("//", "//me:secret@") + "/a.jsonl"
    assert b"".join(http_opener()(uri, 0)) == b"{}\n"
    assert look_at_http(uri) == (3, '3:"1"')
    assert redact(uri) == f"{files.url}/a.jsonl"


def test_a_presigned_address_is_read_and_never_redact(
    files: FileServer, opensearch: FakeOpenSearch, target: OpenSearchTarget, tmp_path: Path
) -> None:
    files.path = f"/a.jsonl?{SIGNATURE}"
    files.content = b'{"id":"a","t":1}\nbroken\n'
    letters = tmp_path / "letters.jsonl"
    wanted = {
        "index_name": "docs",
        "field_map": {"_id": "$.id", "text": "$.t"},
        "data_source": {"type": "http", "source": [files.url + files.path]},
    }
    states: list[str] = []
    options = LoadOptions(
        dead_letter_uri=str(letters),
        checkpoint_uri=str(tmp_path / "checkpoint.json"),
        checkpoint_seconds=0,
        progress_seconds=0,
    )
    report = load(
        wanted,
        target=target,
        options=options,
        on_progress=lambda _: states.append((tmp_path / "checkpoint.json").read_text()),
    )
    assert (report.indexed, report.rejected) == (1, 1)
    assert [letter.uri for letter in read_dead_letters(str(letters))] == [f"{files.url}/a.jsonl"]
    with pytest.raises(SpecError) as refused:
        IngestRequest.of({**wanted, "data_source": {"type": "s3", "source": [files.url + files.path]}})
    files.path = "/other"
    with pytest.raises(NotFoundError) as gone:
        load(wanted, target=target)
    shown_to_users = [report.model_dump_json(), letters.read_text(), str(refused.value), str(gone.value), *states]
    assert not [text for text in shown_to_users if "5ecre7" in text]


def test_a_server_that_refuses_head_is_asked_for_one_byte(files: FileServer) -> None:
    files.content, files.refuses_head = b"{}\n", True
    before = look_at_http(f"{files.url}/a.jsonl")
    assert before == (3, '3:"1"')
    files.etag = '"2"'
    assert look_at_http(f"{files.url}/a.jsonl") != before


class StopHereError(Exception):
    pass


@pytest.mark.parametrize("etag", ['"2"', ""])
def test_a_load_never_goes_on_in_a_file_that_changed_or_may_have_changed(
    etag: str, files: FileServer, opensearch: FakeOpenSearch, target: OpenSearchTarget, tmp_path: Path
) -> None:
    files.refuses_head, files.etag = True, '"1"' if etag else ""
    files.content = b"".join(b'{"id":"old%03d","t":1}\n' % n for n in range(200))
    wanted = {
        "index_name": "docs",
        "field_map": {"_id": "$.id", "text": "$.t"},
        "data_source": {"type": "http", "source": [f"{files.url}/a.jsonl"]},
    }
    options = LoadOptions(
        checkpoint_uri=str(tmp_path / "checkpoint.json"), checkpoint_seconds=0, progress_seconds=0, bulk_bytes=1_000
    )

    def stop(progress: Any) -> None:
        if progress.indexed:
            raise StopHereError

    with pytest.raises(StopHereError):
        load(wanted, target=target, options=options, on_progress=stop)
    assert (tmp_path / "checkpoint.json").exists()
    opensearch.documents.clear()
    files.etag = etag
    files.content = files.content.replace(b"old", b"new")  # of the same size
    report = load(wanted, target=target, options=options)
    assert not report.resumed
    assert set(opensearch.documents) == {f"new{n:03d}" for n in range(200)}


class Container(MemoryFileSystem):
    """A container of Azure, which says of a blob what adlfs does: as much of it as a test lets it."""

    protocol = "abfs"
    cachable = False
    store: ClassVar[dict[str, Any]] = {}
    says: ClassVar[dict[str, Any]] = {}

    @classmethod
    def _strip_protocol(cls, path: str) -> str:
        return "/" + path.partition("://")[2].lstrip("/") if "://" in path else path

    def info(self, path: str, **kwargs: Any) -> dict[str, Any]:
        found = super().info(path, **kwargs)
        return {name: found[name] for name in ("name", "size", "type")} | self.says


@pytest.mark.parametrize("word", ["etag", "last_modified", None])
def test_a_load_from_azure_never_goes_on_in_a_blob_that_changed_or_may_have_changed(
    word: str | None, opensearch: FakeOpenSearch, target: OpenSearchTarget, tmp_path: Path
) -> None:
    uri = "az://container/a.jsonl"
    storage = Storage({"abfs": Container})
    content = b"".join(b'{"id":"old%03d","t":1}\n' % n for n in range(100))
    Container.store.clear()
    with storage.open(uri, "wb") as file:
        file.write(content)
    Container.says = {word: "one"} if word else {}
    wanted = {"index_name": "docs", "field_map": {"_id": "$.id", "text": "$.t"}, "data_source": {"source": [uri]}}
    options = LoadOptions(
        checkpoint_uri=str(tmp_path / "checkpoint.json"), checkpoint_seconds=0, progress_seconds=0, bulk_bytes=1_000
    )

    def stop(progress: Any) -> None:
        if progress.indexed:
            raise StopHereError

    with pytest.raises(StopHereError):
        load(wanted, target=target, storage=storage, options=options, on_progress=stop)
    # The same blob, as far as that is known.
    assert load(wanted, target=target, storage=storage, options=options).resumed is (word is not None)
    with pytest.raises(StopHereError):
        load(wanted, target=target, storage=storage, options=options, on_progress=stop)
    opensearch.documents.clear()
    with storage.open(uri, "wb") as file:
        file.write(content.replace(b"old", b"new"))  # of the same size
    Container.says = {word: "two"} if word else {}
    assert not load(wanted, target=target, storage=storage, options=options).resumed
    assert set(opensearch.documents) == {f"new{n:03d}" for n in range(100)}


def test_what_a_server_does_not_say_is_not_known(files: FileServer) -> None:
    files.content, files.etag = b"{}\n", ""
    assert look_at_http(f"{files.url}/a.jsonl") == (3, "")
    assert look_at_http(f"{files.url}/none") == (None, "")
    files.server.shutdown()
    files.server.server_close()
    assert look_at_http(f"{files.url}/a.jsonl") == (None, "")


def test_a_web_page_in_place_of_a_services_file_is_the_services_fault(
    files: FileServer, opensearch: FakeOpenSearch, target: OpenSearchTarget
) -> None:
    # A page in place of a user's own file is the user's to mend; this one may be gone at the next try.
    files.path, files.content = "/v1/files/file-1/content", b"<!DOCTYPE html>\n<html>busy</html>\n"
    wanted = IngestRequest.of(
        {"index_name": "docs", "field_map": {"v": "$.response"}, "data_source": {"source": ["openai://file-1"]}}
    )
    with pytest.raises(UnavailableError, match=r"A web page came in place of openai://file-1: <!DOCTYPE html>"):
        load(wanted, target=target, openers={"openai": openai_opener(None, f"{files.url}/v1")})
