from __future__ import annotations

import os
import uuid
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path

import fsspec
import pytest
from fsspec.implementations.memory import MemoryFileSystem
from hypothesis import given
from hypothesis import strategies as st

from overnight.storage import Storage, get_scheme

Place = Callable[..., str]


@pytest.fixture(params=["plain path", "file", "memory"])
def place(request: pytest.FixtureRequest, tmp_path: Path) -> Place:
    """Makes URIs below a folder of the test's own, once for each kind of filesystem."""
    root = {
        "plain path": str(tmp_path),
        "file": tmp_path.as_uri(),
        "memory": f"memory://{uuid.uuid4().hex}",
    }[request.param]
    return lambda *parts: "/".join([root, *parts])


@pytest.fixture
def storage() -> Storage:
    return Storage()


def write(storage: Storage, uri: str, body: bytes = b"") -> None:
    with storage.open(uri, "wb") as file:
        file.write(body)


def names(uris: list[str]) -> list[str]:
    return [uri.rpartition("/")[2] for uri in uris]


def test_writing_makes_the_folders_in_between(storage: Storage, place: Place) -> None:
    write(storage, place("a", "b", "c.txt"), b"text")
    assert storage.exists(place("a", "b", "c.txt"))
    assert storage.size(place("a", "b", "c.txt")) == 4
    with storage.open(place("a", "b", "c.txt")) as file:
        assert file.read() == b"text"


def test_a_prefix_is_everything_below_it_and_a_glob_what_it_matches_both_sorted(storage: Storage, place: Place) -> None:
    for name in ("b.jsonl", "a.jsonl", "deep/c.jsonl", "deep/d.txt"):
        write(storage, place(*name.split("/")))
    assert names(list(storage.glob(place("")))) == ["a.jsonl", "b.jsonl", "c.jsonl", "d.txt"]
    assert names(list(storage.glob(place("*.jsonl")))) == ["a.jsonl", "b.jsonl"]
    assert names(list(storage.glob(place("**", "*.jsonl")))) == ["a.jsonl", "b.jsonl", "c.jsonl"]
    assert names(list(storage.glob(place("[ab].jsonl")))) == ["a.jsonl", "b.jsonl"]


def test_what_was_found_can_be_opened_by_its_uri(storage: Storage, place: Place) -> None:
    write(storage, place("a.txt"), b"found")
    (uri,) = storage.glob(place("*"))
    assert "://" in uri
    with storage.open(uri) as file:
        assert file.read() == b"found"


def test_a_uri_without_a_pattern_stands_for_itself_even_when_nothing_is_there(storage: Storage, place: Place) -> None:
    assert storage.matching(place("none.jsonl")) == [place("none.jsonl")]
    assert storage.matching(place("none", "*")) == []
    assert storage.matching(place("none", "")) == []


def test_a_file_that_was_written_after_a_listing_is_in_the_next(storage: Storage, place: Place) -> None:
    write(storage, place("a"))
    assert names(storage.matching(place(""))) == ["a"]
    write(Storage(), place("b"))
    assert names(storage.matching(place(""))) == ["a", "b"]


def test_when_files_were_last_written_is_told_with_a_time_zone(storage: Storage, place: Place) -> None:
    before = datetime.now(UTC) - timedelta(seconds=5)
    write(storage, place("b"))
    write(storage, place("deep", "a"))
    found = storage.modified(place(""))
    assert names(list(found)) == ["b", "a"]
    assert list(found) == list(storage.glob(place("")))
    assert all(before <= written <= datetime.now(UTC) + timedelta(seconds=5) for written in found.values())
    assert names(list(storage.modified(place("*")))) == ["b"]


def test_a_folder_that_is_not_there_has_no_files(storage: Storage, place: Place) -> None:
    assert storage.modified(place("none", "")) == {}
    assert storage.modified(place("none", "*")) == {}


def test_a_later_write_has_a_later_time(storage: Storage, tmp_path: Path) -> None:
    for number, name in enumerate(("old", "new")):
        write(storage, str(tmp_path / name))
        os.utime(tmp_path / name, (1_700_000_000 + number, 1_700_000_000 + number))
    new, old = storage.modified(f"{tmp_path}/").values()
    assert new - old == timedelta(seconds=1)


def test_deleting_twice_is_deleting_once(storage: Storage, place: Place) -> None:
    write(storage, place("a"))
    storage.delete(place("a"))
    assert not storage.exists(place("a"))
    storage.delete(place("a"))


def test_lines_are_read_up_to_a_limit_also_from_an_object_store(place: Place, storage: Storage) -> None:
    write(storage, place("lines"), b"short\n" + b"x" * 50 + b"\nlast")
    with storage.open(place("lines")) as file:
        assert file.readline(10) == b"short\n"
        assert file.readline(10) == b"x" * 10
        assert file.readline(100) == b"x" * 40 + b"\n"
        assert file.readline(100) == b"last"
        assert file.readline(100) == b""


class Remote(MemoryFileSystem):
    """An object store whose files have fsspec's own buffer, as S3's do."""

    cachable = False

    def _open(self, path: str, mode: str = "rb", **options: object) -> object:
        if mode != "rb":
            return super()._open(path, mode)
        return _Buffered(self, path, size=len(self.cat_file(path)))


class _Buffered(fsspec.spec.AbstractBufferedFile):  # type: ignore[misc]
    def _fetch_range(self, start: int, end: int) -> bytes:
        return bytes(self.fs.cat_file(self.path)[start:end])


@given(st.lists(st.binary(max_size=40).map(lambda line: line.replace(b"\n", b"")), max_size=12), st.integers(1, 60))
def test_a_buffered_file_reads_the_same_lines_as_a_local_one(lines: list[bytes], limit: int) -> None:
    body = b"\n".join(lines)
    storage = Storage(connectors={"memory": Remote})
    uri = f"memory://buffered-{uuid.uuid4().hex}"
    write(storage, uri, body)
    read = []
    with storage.open(uri) as file:
        while piece := file.readline(limit):
            assert len(piece) <= limit
            assert b"\n" not in piece[:-1]
            read.append(piece)
    storage.delete(uri)
    assert b"".join(read) == body


def test_a_filesystem_is_made_once_when_it_is_first_needed() -> None:
    made = []

    def connect() -> MemoryFileSystem:
        made.append(1)
        return MemoryFileSystem()

    storage = Storage(connectors={"memory": connect})
    assert made == []
    assert not storage.exists("memory://nothing-here")
    assert not storage.exists("memory://nothing-there")
    assert made == [1]


@pytest.mark.parametrize(
    ("uri", "scheme"),
    [
        ("s3://bucket/key", "s3"),
        ("S3://bucket/key", "s3"),
        ("https://host/path", "https"),
        ("/a/path", "file"),
        ("a/path", "file"),
        ("file:///a/path", "file"),
        ("C:\\a\\path", "file"),
    ],
)
def test_the_scheme_of_a_plain_path_is_file(uri: str, scheme: str) -> None:
    assert get_scheme(uri) == scheme
