from __future__ import annotations

import gzip
import io
import re
import threading
from collections.abc import Iterator
from dataclasses import replace
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import pytest
from fsspec.implementations.local import LocalFileSystem
from hypothesis import given
from hypothesis import strategies as st

from overnight.compression import recognise
from overnight.errors import SpecError
from overnight.file_formats import check_json_lines, recognise_table
from overnight.ingest import LoadOptions, OpenSearchTarget, Shard, SourceError, cut, load, read_dead_letters
from overnight.ingest.read.lines import START, Line, Position
from overnight.ingest.read.openers import web_openers
from overnight.ingest.read.sources import SourceReader
from overnight.storage import Storage
from unit.ingest.fake_opensearch import FakeOpenSearch


def is_lines(data: bytes) -> bool:
    try:
        list(check_json_lines(iter([data]), "a"))
        return recognise(data, "a") is None and recognise_table(data, "a") is None
    except SpecError:
        return False


content = st.lists(st.binary(max_size=6), max_size=12).map(b"\n".join).filter(is_lines)


def read_lines(uri: str, start: Position = START, storage: Storage | None = None) -> list[Line]:
    storage = storage or Storage()
    reader = SourceReader(storage, web_openers(storage))
    (file,) = reader.resolve(0, [uri]).files
    return list(reader.lines(file, start))


def check(data: bytes, path: str, shards: list[Shard], size: int) -> None:
    """Hold that the shards' lines are the file's, each once and in order, where they were."""
    whole = read_lines(path)
    parts = [read_lines(shard.uri) for shard in shards]
    found = [line for part in parts for line in part]
    assert [line[1:] for line in found] == [line[1:] for line in whole]
    assert b"".join(data[line.offset : line.end] for line in found) == data
    assert [line.number for part in parts for line in part] == [n for part in parts for n in range(1, len(part) + 1)]
    assert sum(shard.size for shard in shards) == len(data)
    assert all(shard.size >= size for shard in shards[:-1])
    # Not one line more than has to be.
    for shard, part in zip(shards, parts, strict=True):
        assert not part or shard.size - (part[-1].end - part[-1].offset) < size


@given(content, st.integers(1, 40))
def test_the_shards_lines_are_the_files_each_once_and_in_order(data: bytes, size: int) -> None:
    with TemporaryDirectory() as folder:
        path = Path(folder, "a.jsonl")
        path.write_bytes(data)
        shards = cut(str(path), size)
        check(data, str(path), shards, size)
        assert (len(shards) == 1) == (shards[0].uri == str(path))


@given(content, st.integers(1, 40), st.data())
def test_a_shard_goes_on_at_any_of_its_lines(data: bytes, size: int, draw: st.DataObject) -> None:
    with TemporaryDirectory() as folder:
        path = Path(folder, "a.jsonl")
        path.write_bytes(data)
        shard = draw.draw(st.sampled_from(cut(str(path), size)))
        every = read_lines(shard.uri)
        place = draw.draw(st.integers(0, len(every)))
        start = Position(every[place - 1].end, place) if place else Position()
        assert read_lines(shard.uri, start) == every[place:]


@given(content, st.integers(1, 40), st.integers(1, 20))
def test_a_shard_is_cut_again_into_shards_of_the_same_file(data: bytes, size: int, again: int) -> None:
    with TemporaryDirectory() as folder:
        path = Path(folder, "a.jsonl")
        path.write_bytes(data)
        shards = [smaller for shard in cut(str(path), size) for smaller in cut(shard.uri, again)]
        found = [line[1:] for shard in shards for line in read_lines(shard.uri)]
        assert found == [line[1:] for line in read_lines(str(path))]


@given(content.filter(bool), st.integers(0, 60), st.none() | st.integers(1, 60))
def test_a_range_that_is_not_between_lines_is_never_read_as_if_it_were(
    data: bytes, start: int, end: int | None
) -> None:
    with TemporaryDirectory() as folder:
        path = Path(folder, "a.jsonl")
        path.write_bytes(data)
        uri = f"{path}#bytes={start}-{end if end is not None else ''}"
        starts = {0, *(match.end() for match in re.finditer(b"\n", data))}
        if end is not None and end <= start:
            with pytest.raises(SpecError, match="empty"):
                read_lines(uri)
        elif start in starts and (end is None or end in starts | {len(data)}) and start <= len(data):
            assert [line.data for line in read_lines(uri)] == [
                line.data for line in read_lines(str(path)) if start <= line.offset and (end is None or line.end <= end)
            ]
        else:
            with pytest.raises(SourceError, match=r"#bytes=.*cut it again"):
                read_lines(uri)


class Watched(LocalFileSystem):  # type: ignore[misc]
    """A file system with another name, that notes what is read of it."""

    protocol = "watched"
    cachable = False

    def __init__(self) -> None:
        super().__init__()
        self.read: list[tuple[int, int]] = []

    @classmethod
    def _strip_protocol(cls, path: str) -> str:
        return str(path).removeprefix("watched://")

    def unstrip_protocol(self, name: str) -> str:
        return f"watched://{name}"

    def open(self, path: str, mode: str = "rb", **_: Any) -> Any:
        watched = self

        class File(io.FileIO):
            def read(self, size: int | None = -1) -> bytes:
                at = self.tell()
                found = super().read(-1 if size is None else size)
                watched.read.append((at, len(found)))
                return found

        return File(path, "rb")


def test_only_what_lies_around_the_cuts_is_read(tmp_path: Path) -> None:
    path = tmp_path / "a.jsonl"
    data = b"".join(b'{"n":%d,"text":"%b"}\n' % (n, b"x" * 990) for n in range(20_000))
    path.write_bytes(data)
    watched = Watched()
    shards = cut(f"watched://{path}", 4 << 20, Storage({"watched": lambda: watched}))
    assert len(shards) == 5
    assert sum(size for _, size in watched.read) < 5 * (64 << 10)
    local = [replace(shard, source=str(path)) for shard in shards]
    check(data, str(path), local, 4 << 20)


def test_a_line_longer_than_a_shard_is_a_shard(tmp_path: Path) -> None:
    path = tmp_path / "a.jsonl"
    path.write_bytes(b"a\n" + b"b" * 200_000 + b"\nc\nd")
    assert [shard.uri.partition("#")[2] for shard in cut(str(path), 3)] == ["bytes=0-200003", "bytes=200003-"]


def test_the_last_shard_reads_what_was_added_since(tmp_path: Path) -> None:
    path = tmp_path / "a.jsonl"
    path.write_bytes(b"a\nb\nc")
    first, last = cut(str(path), 4)
    with path.open("ab") as file:
        file.write(b"d\ne\n")
    assert [line.data for shard in (first, last) for line in read_lines(shard.uri)] == [b"a", b"b", b"cd", b"e"]


def test_a_file_that_changed_since_it_was_cut_fails_its_load(target: OpenSearchTarget, tmp_path: Path) -> None:
    path = tmp_path / "a.jsonl"
    path.write_bytes(b'{"t":1}\n' * 10)
    shards = cut(str(path), 16)
    path.write_bytes(b'{"t":12}\n' * 5)
    for shard in shards:
        with pytest.raises(SourceError, match="It has changed since it was cut; cut it again"):
            load(request(shard.uri), target=target)


def test_gzip_is_not_cut_and_stays_whole_when_it_is_small(tmp_path: Path) -> None:
    path = tmp_path / "a.jsonl.gz"
    path.write_bytes(gzip.compress(b'{"a":1}\n' * 9))
    with pytest.raises(SpecError, match="is gzip, which cannot be read from the middle. Load it whole"):
        cut(str(path), 5)
    with pytest.raises(SpecError, match="is gzip"):
        read_lines(f"{path}#bytes=0-5")
    assert [shard.uri for shard in cut(str(path), 1_000)] == [str(path)]


@pytest.mark.parametrize(
    ("uri", "text"),
    [("openai://file-1", "from their start"), ("/no-such-folder/a.jsonl", "no file"), ("/no-such-folder/", "no file")],
)
def test_what_cannot_be_cut_is_refused(uri: str, text: str) -> None:
    with pytest.raises(SpecError, match=text):
        cut(uri, 10)
    with pytest.raises(SpecError, match="shard_bytes"):
        cut(uri, 0)


def test_every_file_of_a_prefix_is_cut_and_a_range_is_of_one_file(tmp_path: Path) -> None:
    for name in ("a", "b", "c"):
        (tmp_path / name).write_bytes(b"1\n" * (1 if name == "b" else 3))
    found = [shard.uri.removeprefix(f"file://{tmp_path}") for shard in cut(f"{tmp_path}/", 4)]
    assert found == ["/a#bytes=0-4", "/a#bytes=4-", "/b", "/c#bytes=0-4", "/c#bytes=4-"]
    for several in (f"{tmp_path}/#bytes=0-2", f"{tmp_path}/*#bytes=0-2"):
        with pytest.raises(SpecError, match="a part of one file"):
            read_lines(several)


def request(*sources: str, **changes: Any) -> dict[str, Any]:
    return {"index_name": "docs", "field_map": {"text": "$.t"}, "data_source": {"source": [*sources]}, **changes}


@given(st.integers(1, 400))
def test_ids_made_from_the_line_do_not_depend_on_the_cutting(size: int) -> None:
    ids: list[set[str]] = []
    for pieces in (1 << 20, size):
        with TemporaryDirectory() as folder:
            path = Path(folder, "a.jsonl")
            path.write_bytes(b"\xef\xbb\xbf" + b"".join(b'{"t":%d}\n' % (n % 7) for n in range(40)))
            ids.append(set())
            for shard in cut(str(path), pieces):
                ids[-1] |= {key.partition("-")[2] for key in keys_of(shard.uri)}
                assert {key.partition("-")[0] for key in keys_of(shard.uri)} == {
                    keys_of(str(path))[0].partition("-")[0]
                }
    assert ids[0] == ids[1]
    assert len(ids[0]) == 40


def keys_of(uri: str) -> list[str]:
    from overnight.ingest.map.documents import Documents, SingleSource
    from overnight.ingest.map.field_map import compile_field_map
    from overnight.ingest.map.rows import RowReader, Splicer

    reader, maps = SourceReader(), compile_field_map({"text": "$.t"}, [], 1)
    items = SingleSource(reader.resolve(0, [uri]), reader, RowReader(maps[0]), Splicer(maps), None).items(None)
    return [key for item in items if isinstance(item, Documents) for key in item.places.ids]


def test_a_dead_letter_names_the_part_its_line_and_the_files_offset(
    opensearch: FakeOpenSearch, target: OpenSearchTarget, tmp_path: Path
) -> None:
    path, letters = tmp_path / "a.jsonl", str(tmp_path / "letters.jsonl")
    path.write_bytes(b'{"t":1}\n' * 4 + b"broken\n" + b'{"t":2}\n')
    part = f"{path}#bytes=16-"
    report = load(request(part), target=target, options=LoadOptions(dead_letter_uri=letters))
    assert (report.submitted, report.indexed, report.bytes) == (4, 3, 31)
    assert report.sources[0].uri == part
    (letter,) = read_dead_letters(letters)
    assert (letter.uri, letter.line, letter.offset) == (part, 3, 32)


def test_a_part_can_be_joined(opensearch: FakeOpenSearch, target: OpenSearchTarget, tmp_path: Path) -> None:
    (tmp_path / "a.jsonl").write_bytes(b"".join(b'{"id":"d%d","t":%d}\n' % (n, n) for n in range(10)))
    (tmp_path / "b.jsonl.gz").write_bytes(gzip.compress(b"".join(b'{"k":"d%d","v":1}\n' % n for n in (7, 8))))
    field_map = {"_id": ["source[0].$.id", "source[1].$.k"], "t": "source[0].$.t", "v": "source[1].$.v"}
    _, last = cut(str(tmp_path / "a.jsonl"), 130)
    assert len(read_lines(last.uri)) == 2
    report = load(request(last.uri, str(tmp_path / "b.jsonl.gz"), field_map=field_map), target=target)
    assert opensearch.documents == {"d8": {"t": 8, "v": 1}}
    assert (report.indexed, report.missing) == (1, 2)


@pytest.fixture
def web() -> Iterator[dict[str, Any]]:
    """A web server with one file; ``ranges`` says whether it gives parts."""
    state: dict[str, Any] = {"data": b"", "ranges": True, "asked": []}

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            data, wanted = state["data"], re.match(r"bytes=(\d+)-(\d*)", self.headers.get("Range", ""))
            state["asked"].append(self.headers.get("Range"))
            status, body = 200, data
            if wanted and state["ranges"]:
                body = data[int(wanted[1]) : int(wanted[2]) + 1 if wanted[2] else None]
                status = 206 if int(wanted[1]) < len(data) else 416
            self.send_response(status)
            if status == 206 and wanted:
                self.send_header("Content-Range", f"bytes {wanted[1]}-{int(wanted[1]) + len(body) - 1}/{len(data)}")
            if status == 416:
                self.send_header("Content-Range", f"bytes */{len(data)}")
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, *_: Any) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    state["url"] = f"http://127.0.0.1:{server.server_address[1]}/a.jsonl?signature=secret"
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    try:
        yield state
    finally:
        server.shutdown()
        server.server_close()
        thread.join()


def test_a_file_on_a_web_server_is_cut_and_its_signature_shown_nowhere(
    web: dict[str, Any], opensearch: FakeOpenSearch, target: OpenSearchTarget
) -> None:
    web["data"] = b"".join(b'{"id":"d%03d","t":%d}\n' % (n, n) for n in range(500))
    shards = cut(web["url"], 3_000)
    assert len(shards) == 4
    assert "secret" not in repr(shards)
    for shard in shards:
        report = load(request(shard.uri, field_map={"_id": "$.id", "t": "$.t"}), target=target)
        assert "#bytes=" in report.sources[0].uri
        assert "secret" not in report.model_dump_json()
    assert opensearch.documents == {f"d{n:03}": {"t": n} for n in range(500)}


def test_a_web_server_that_gives_no_parts_is_refused(web: dict[str, Any]) -> None:
    web["data"], web["ranges"] = b"1\n" * 100, False
    with pytest.raises(SpecError, match="gives no parts of files. Load it whole") as caught:
        cut(web["url"], 10)
    assert "secret" not in str(caught.value)


def test_an_empty_file_is_one_shard(web: dict[str, Any], tmp_path: Path) -> None:
    (tmp_path / "a").touch()
    assert [shard.size for shard in cut(web["url"], 10) + cut(str(tmp_path / "a"), 10)] == [0, 0]


@pytest.mark.parametrize("name", ["k#1.jsonl", "k#bytes=x", "k#bytes=1-2.jsonl", "k#bytes"])
def test_only_a_range_at_the_end_is_one(name: str, tmp_path: Path) -> None:
    (tmp_path / name).write_bytes(b"a\nb\n")
    assert [line.data for line in read_lines(str(tmp_path / name))] == [b"a", b"b"]
    assert [line.data for line in read_lines(f"{tmp_path / name}#bytes=2-4")] == [b"b"]
