"""Against a real server that a test can make misbehave, with real bytes."""

from __future__ import annotations

import hashlib
import io
import random
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest
from rich.console import Console

from overnight.sandbox.download import Pin, fetch
from overnight.sandbox.errors import ChecksumError, DownloadError
from overnight.sandbox.maven import Repository

BODY = random.Random(6).randbytes(900_000)


@dataclass
class Depot:
    """
    A repository of files.

    :param cuts: After how many bytes the next answers break off.
    :param failures: Statuses of the next answers.
    """

    url: str = ""
    files: dict[str, bytes] = field(default_factory=dict)
    ranges: bool = True
    cuts: list[int] = field(default_factory=list)
    failures: list[int] = field(default_factory=list)
    requests: list[tuple[str, str | None]] = field(default_factory=list)
    authorization: list[str | None] = field(default_factory=list)

    def put(self, path: str, body: bytes = BODY) -> Pin:
        self.files["/" + path] = body
        return Pin(path, len(body), hashlib.sha256(body).hexdigest())

    @property
    def repository(self) -> Repository:
        return Repository(self.url)


@pytest.fixture
def depot(monkeypatch: pytest.MonkeyPatch) -> Iterator[Depot]:
    depot = Depot()
    # What waits between attempts waits for nothing here.
    monkeypatch.setattr("time.sleep", lambda seconds: None)

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            asked = self.headers.get("Range")
            depot.requests.append((self.path, asked))
            depot.authorization.append(self.headers.get("Authorization"))
            body = depot.files.get(self.path)
            status = depot.failures.pop(0) if depot.failures else 200
            if body is None or status != 200:
                self.send_response(404 if body is None else status)
                self.send_header("Content-Length", "0")
                self.end_headers()
                return
            start = int(asked.removeprefix("bytes=").removesuffix("-")) if asked and depot.ranges else 0
            if start and start >= len(body):
                self.send_response(416)
                self.send_header("Content-Length", "0")
                self.end_headers()
                return
            self.send_response(206 if start else 200)
            if start:
                self.send_header("Content-Range", f"bytes {start}-{len(body) - 1}/{len(body)}")
            self.send_header("Content-Length", str(len(body) - start))
            self.end_headers()
            rest = body[start:]
            if depot.cuts:
                rest = rest[: depot.cuts.pop(0)]
                self.close_connection = True
            self.wfile.write(rest)

        def log_message(self, *args: object) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    depot.url = f"http://127.0.0.1:{server.server_address[1]}"
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    yield depot
    server.shutdown()
    thread.join()
    server.server_close()


def names(folder: Path) -> set[str]:
    return {str(path.relative_to(folder)) for path in folder.rglob("*") if path.is_file()} - {".lock"}


def test_files_are_downloaded_once(depot: Depot, tmp_path: Path) -> None:
    pins = [depot.put(f"a/{number}.jar", BODY[number:]) for number in range(20)]
    assert fetch(pins, tmp_path, depot.repository) == sum(pin.size for pin in pins)
    assert all((tmp_path / pin.path).read_bytes() == depot.files[f"/{pin.path}"] for pin in pins)
    assert names(tmp_path) == {pin.path for pin in pins}
    assert fetch(pins, tmp_path, depot.repository) == 0
    assert len(depot.requests) == 20


def test_a_broken_connection_is_taken_up_where_it_broke(depot: Depot, tmp_path: Path) -> None:
    pin = depot.put("a.jar")
    depot.cuts = [300_000, 200_000]
    assert fetch([pin], tmp_path, depot.repository) == len(BODY)
    assert (tmp_path / "a.jar").read_bytes() == BODY
    starts = [int(asked[6:-1]) for _, asked in depot.requests if asked]
    assert len(starts) == 2
    assert 0 < starts[0] <= 300_000
    assert starts[0] < starts[1] <= 500_000


def test_what_an_interrupted_run_left_is_used_by_the_next(depot: Depot, tmp_path: Path) -> None:
    pin = depot.put("a.jar")
    depot.cuts = [100_000] * 5
    with pytest.raises(DownloadError, match="5 attempts"):
        fetch([pin], tmp_path, depot.repository)
    assert not (tmp_path / "a.jar").exists()
    depot.requests.clear()
    assert fetch([pin], tmp_path, depot.repository) < len(BODY)
    assert (tmp_path / "a.jar").read_bytes() == BODY
    assert [asked is not None for _, asked in depot.requests] == [True]


def test_a_server_without_ranges_is_read_from_the_start_again(depot: Depot, tmp_path: Path) -> None:
    pin = depot.put("a.jar")
    depot.ranges, depot.cuts = False, [300_000]
    fetch([pin], tmp_path, depot.repository)
    assert (tmp_path / "a.jar").read_bytes() == BODY


def test_a_kept_part_that_is_wrong_costs_one_more_download(depot: Depot, tmp_path: Path) -> None:
    pin = depot.put("a.jar")
    (tmp_path / f".a.jar.{pin.sha256[:12]}.part").write_bytes(b"x" * 500_000)
    fetch([pin], tmp_path, depot.repository)
    assert (tmp_path / "a.jar").read_bytes() == BODY
    assert [asked for _, asked in depot.requests] == ["bytes=500000-", None]


@pytest.mark.parametrize(
    "bad", [BODY[:-1], BODY[:-1] + b"?", b"", BODY + b"?"], ids=["cut", "flipped", "empty", "long"]
)
def test_a_cached_file_that_is_not_what_it_was_is_fetched_anew(depot: Depot, tmp_path: Path, bad: bytes) -> None:
    pin = depot.put("a.jar")
    (tmp_path / "a.jar").write_bytes(bad)
    assert fetch([pin], tmp_path, depot.repository) == len(BODY)
    assert (tmp_path / "a.jar").read_bytes() == BODY


@pytest.mark.parametrize("served", [BODY[:-1] + b"?", BODY + b"surplus"], ids=["flipped", "long"])
def test_other_bytes_than_the_pinned_are_refused_and_not_kept(depot: Depot, tmp_path: Path, served: bytes) -> None:
    pin = depot.put("a.jar")
    depot.files["/a.jar"] = served
    with pytest.raises(ChecksumError, match=rf"127\.0\.0\.1 serves a\.jar.*{pin.sha256}"):
        fetch([pin], tmp_path, depot.repository)
    assert names(tmp_path) == set()
    assert len(depot.requests) == 2


def test_a_file_that_is_shorter_there_is_never_taken_for_whole(depot: Depot, tmp_path: Path) -> None:
    pin = depot.put("a.jar")
    depot.files["/a.jar"] = BODY[:-10]
    with pytest.raises(DownloadError):
        fetch([pin], tmp_path, depot.repository)
    assert "a.jar" not in names(tmp_path)


def test_a_busy_server_is_asked_again(depot: Depot, tmp_path: Path) -> None:
    pin = depot.put("a.jar")
    depot.failures = [503, 429]
    fetch([pin], tmp_path, depot.repository)
    assert len(depot.requests) == 3


def test_a_missing_file_is_not_asked_for_again(depot: Depot, tmp_path: Path) -> None:
    there, gone = depot.put("a.jar"), depot.put("b.jar")
    del depot.files["/b.jar"]
    with pytest.raises(DownloadError, match=r"answered 404 for b\.jar"):
        fetch([gone, there], tmp_path, depot.repository)
    assert [path for path, _ in depot.requests].count("/b.jar") == 1


def test_a_mirrors_credentials_are_sent_and_never_told(depot: Depot, tmp_path: Path) -> None:
    depot.put("a.jar")
    repository = Repository(depot.url, ("me", "hush"))
    fetch([depot.put("a.jar")], tmp_path, repository)
    assert depot.authorization == ["Basic bWU6aHVzaA=="]
    with pytest.raises(DownloadError) as caught:
        fetch([Pin("b.jar", 1, "0" * 64)], tmp_path, repository)
    assert "hush" not in str(caught.value)


def test_two_who_want_the_same_file_download_it_once(depot: Depot, tmp_path: Path) -> None:
    pins = [depot.put(f"{number}.jar") for number in range(5)]
    with ThreadPoolExecutor(2) as pool:
        runs = [pool.submit(fetch, pins, tmp_path, depot.repository) for _ in range(2)]
        assert sorted(run.result() for run in runs) == [0, 5 * len(BODY)]
    assert len(depot.requests) == 5


def test_a_log_gets_a_plain_line_and_a_terminal_a_bar(depot: Depot, tmp_path: Path) -> None:
    pin = depot.put("a.jar")
    plain, terminal = io.StringIO(), io.StringIO()
    fetch([pin], tmp_path / "1", depot.repository, console=Console(file=plain), label="Jars")
    fetch([pin], tmp_path / "2", depot.repository, console=Console(file=terminal, force_terminal=True), label="Jars")
    assert plain.getvalue() == "Jars: 1 files, 900.0 kB\n"
    assert "\x1b[" in terminal.getvalue()
    assert "0.9" in terminal.getvalue() or "900" in terminal.getvalue()
