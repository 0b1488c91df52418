from __future__ import annotations

import bz2
import gzip
import lzma
import os
import uuid
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path

import fsspec
import pytest
from backports import zstd
from fsspec.implementations.memory import MemoryFileSystem
from hypothesis import given
from hypothesis import strategies as st

from overnight.errors import SpecError
from overnight.storage import Listing, Location, Storage, get_folder, get_scheme, get_version, parse_location, redact
from overnight.storage_errors import MissingFileError, StorageError

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


def listed(storage: Storage, pattern: str) -> list[str]:
    return [file.uri for file in storage.list_files(pattern).files]


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
    assert names(listed(storage, place(""))) == ["a.jsonl", "b.jsonl", "c.jsonl", "d.txt"]
    assert names(listed(storage, place("*.jsonl"))) == ["a.jsonl", "b.jsonl"]
    assert names(listed(storage, place("**", "*.jsonl"))) == ["a.jsonl", "b.jsonl", "c.jsonl"]
    assert names(listed(storage, place("[ab].jsonl"))) == ["a.jsonl", "b.jsonl"]


def test_what_was_found_can_be_opened_by_its_uri(storage: Storage, place: Place) -> None:
    write(storage, place("a.txt"), b"found")
    (uri,) = listed(storage, place("*"))
    assert "://" in uri
    with storage.open(uri) as file:
        assert file.read() == b"found"


def matched(storage: Storage, *uris: str) -> list[str]:
    return [file.uri for file in storage.match_files(uris).files]


def test_a_uri_without_a_pattern_stands_for_itself_even_when_nothing_is_there(storage: Storage, place: Place) -> None:
    assert matched(storage, place("none.jsonl")) == [place("none.jsonl")]
    assert matched(storage, place("none", "*")) == []
    assert matched(storage, place("none", "")) == []
    assert matched(storage, "http://127.0.0.1:1/a?signature=x") == ["http://127.0.0.1:1/a?signature=x"]


def test_several_uris_are_their_files_each_once_and_what_was_left_out_is_counted(
    storage: Storage, place: Place
) -> None:
    for name in ("a/x", "a/_SUCCESS", "b/y", "b/.crc"):
        write(storage, place(*name.split("/")))
    # A folder without its slash is that folder, as in a load.
    listing = storage.match_files([place("b"), place("a", ""), place("b", "y"), place("a", "*")])
    assert names([file.uri for file in listing.files]) == ["y", "x"]
    assert listing.ignored == 3


def test_a_file_that_was_written_after_a_listing_is_in_the_next(storage: Storage, place: Place) -> None:
    write(storage, place("a"))
    assert names(matched(storage, place(""))) == ["a"]
    write(Storage(), place("b"))
    assert names(matched(storage, place(""))) == ["a", "b"]


def test_when_files_were_last_written_is_told_with_a_time_zone(storage: Storage, place: Place) -> None:
    before = datetime.now(UTC) - timedelta(seconds=5)
    write(storage, place("b"))
    write(storage, place("deep", "a"))
    found = storage.list_files(place("")).files
    assert names([file.uri for file in found]) == ["b", "a"]
    for file in found:
        assert file.modified is not None
        assert before <= file.modified <= datetime.now(UTC) + timedelta(seconds=5)


def test_a_folder_that_is_not_there_has_no_files(storage: Storage, place: Place) -> None:
    for pattern in (place("none", ""), place("none", "*"), place("none")):
        assert storage.list_files(pattern) == Listing()


def test_a_later_write_has_a_later_time(storage: Storage, tmp_path: Path) -> None:
    for number, name in enumerate(("old", "new")):
        write(storage, str(tmp_path / name))
        os.utime(tmp_path / name, (1_700_000_000 + number, 1_700_000_000 + number))
    new, old = (file.modified for file in storage.list_files(f"{tmp_path}/").files)
    assert new is not None
    assert old is not None
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
        ("s3a://bucket/key", "s3"),
        ("az://container/key", "abfs"),
        ("gcs://bucket/key", "gs"),
        ("staging:docs", "file"),
        ("folder/a::b", "file"),
        ("https://host/path", "https"),
        ("/a/path", "file"),
        ("a/path", "file"),
        ("file:///a/path", "file"),
        ("C:\\a\\path", "file"),
    ],
)
def test_the_scheme_of_a_plain_path_is_file(uri: str, scheme: str) -> None:
    assert get_scheme(uri) == scheme


def test_a_text_of_any_length_is_searched_once(storage: Storage) -> None:
    # In the square of its length it would take a quarter of an hour.
    text = "x" * 1_000_000
    assert storage.resolve(text)[1].endswith(text)


HIDDEN = (
    "_SUCCESS",
    ".part.crc",
    "sub/_SUCCESS",
    "_temporary/0/part-0.jsonl",
    "sub/.ipynb_checkpoints/a.jsonl",
    "_delta_log/0.json",
    "sub/.hoodie/x",
    "deep/er/_manifests/inputs.json",
)


@pytest.mark.parametrize("pattern", ["", "**"])
def test_names_that_start_with_an_underscore_or_a_dot_are_left_out_at_any_depth_and_counted(
    storage: Storage, place: Place, pattern: str
) -> None:
    for name in (*HIDDEN, "a.jsonl", "sub/b_c.jsonl"):
        write(storage, place(*name.split("/")), b"{}")
    listing = storage.list_files(place(pattern))
    assert names([file.uri for file in listing.files]) == ["a.jsonl", "b_c.jsonl"]
    assert listing.ignored == len(HIDDEN)
    assert f"{len(HIDDEN)} " in listing.remark


def test_what_the_uri_itself_names_is_not_left_out(storage: Storage, place: Place) -> None:
    for name in ("_out/a.jsonl", "_out/_b.jsonl"):
        write(storage, place(*name.split("/")), b"{}")
    assert names(listed(storage, place("_out", ""))) == ["a.jsonl"]
    assert names(listed(storage, place("_out", "*"))) == ["a.jsonl"]
    assert names(listed(storage, place("_out", "_*.jsonl"))) == ["_b.jsonl"]
    assert names(listed(storage, place("_*", "*"))) == ["a.jsonl"]
    assert names(listed(storage, place("_out", "_b.jsonl"))) == ["_b.jsonl"]


def test_a_file_whose_name_looks_like_a_pattern_is_that_file(storage: Storage, place: Place) -> None:
    for name in ("a[1].jsonl", "a1.jsonl"):
        write(storage, place(name), b"{}")
    assert names(listed(storage, place("a[1].jsonl"))) == ["a[1].jsonl"]


def test_the_version_changes_when_the_content_does(storage: Storage, place: Place) -> None:
    write(storage, place("a"), b"one")
    (before,) = storage.list_files(place("a")).files
    write(storage, place("a"), b"two")
    (after,) = storage.list_files(place("a")).files
    assert before.version
    assert before.version != after.version


@pytest.mark.parametrize(
    "info",
    [
        {"ETag": '"abc"'},
        {"etag": "abc"},
        {"e_tag": "abc"},
        {"md5": "abc"},
        {"md5Hash": "abc"},
        {"generation": 1},
        {"mtime": 1.5},
        {"LastModified": datetime(2026, 1, 1, tzinfo=UTC)},
        {"last_modified": datetime(2026, 1, 1, tzinfo=UTC)},
        {"updated": "2026-01-01"},
        {"a word of a filesystem that nobody knows": 7},
    ],
)
def test_every_filesystem_has_its_own_word_for_the_version(info: dict[str, object]) -> None:
    what = {"name": "b/k", "size": 3, "type": "file"}
    assert get_version({**what, **info})
    changed = {name: f"{value}x" for name, value in info.items()}
    assert get_version({**what, **info}) != get_version({**what, **changed})


def test_a_filesystem_that_says_nothing_gives_no_version() -> None:
    assert get_version({"name": "b/k", "size": 3, "type": "file", "StorageClass": "STANDARD"}) == ""


@pytest.mark.parametrize(
    ("uri", "place"),
    [
        ("s3://bucket/key", Location("s3", None, "bucket/key")),
        ("s3://conn@bucket/a/b", Location("s3", "conn", "bucket/a/b")),
        ("S3A://conn@bucket/a", Location("s3", "conn", "bucket/a")),
        ("s3://bucket/mail/me@example.org", Location("s3", None, "bucket/mail/me@example.org")),
        ("gs://conn@bucket/a", Location("gs", "conn", "bucket/a")),
        ("az://conn@box/a", Location("abfs", "conn", "box/a")),
        (
            "abfss://box@account.dfs.core.windows.net/a",
            Location("abfs", None, "box@account.dfs.core.windows.net/a"),
        ),
        ("https://me:secret@host/a", Location("https", None, "me:secret@host/a")),
        ("/a/b@c", Location("file", None, "/a/b@c")),
    ],
)
def test_a_uri_of_an_object_store_can_name_a_connection(uri: str, place: Location) -> None:
    assert parse_location(uri) == place


@given(
    st.sampled_from(["s3", "gs", "abfs"]),
    st.none() | st.from_regex(r"[a-z][a-z0-9_]{0,9}", fullmatch=True),
    st.from_regex(r"[a-z][a-z0-9-]{2,9}", fullmatch=True),
    st.text(st.characters(exclude_categories=("Cs",)), max_size=20),
)
def test_a_location_is_written_as_it_was_read(scheme: str, conn_id: str | None, bucket: str, key: str) -> None:
    place = Location(scheme, conn_id, f"{bucket}/{key}")
    assert parse_location(place.uri) == place
    assert place.bucket == bucket


def test_keys_in_a_uri_are_refused_and_not_quoted() -> None:
    with pytest.raises(SpecError, match="connection") as caught:
        parse_location("s3://AKIAXX:5ecre7@bucket/key")
    assert "5ecre7" not in str(caught.value)
    assert "AKIAXX" not in str(caught.value)
    assert redact("s3://AKIAXX:5ecre7@bucket/key") == "s3://bucket/key"


class Bucket(MemoryFileSystem):
    protocol = "s3"

    @classmethod
    def _strip_protocol(cls, path: str) -> str:
        return str(super()._strip_protocol(path.removeprefix("s3://")))


def test_a_connection_in_a_uri_makes_its_own_filesystem() -> None:
    made: list[tuple[str, str]] = []

    def connect(scheme: str, conn_id: str) -> MemoryFileSystem:
        made.append((scheme, conn_id))
        return Bucket()

    root = uuid.uuid4().hex
    storage = Storage(connect=connect)
    write(storage, f"s3://one@{root}/a.jsonl", b"{}\n")
    assert listed(storage, f"s3://one@{root}/") == [f"s3://one@{root}/a.jsonl"]
    with storage.open(f"s3://two@{root}/a.jsonl") as file:
        assert file.read() == b"{}\n"
    assert made == [("s3", "one"), ("s3", "two")]


def test_a_connection_in_a_uri_is_refused_where_there_is_no_airflow(storage: Storage) -> None:
    with pytest.raises(SpecError, match="no Airflow here"):
        storage.exists("s3://aws_default@bucket/key")


@pytest.mark.parametrize(("scheme", "extra"), [("gs", "gs"), ("gcs", "gs"), ("az", "azure"), ("abfs", "azure")])
def test_a_missing_extra_is_named(storage: Storage, monkeypatch: pytest.MonkeyPatch, scheme: str, extra: str) -> None:
    def refuse(protocol: str) -> type:
        raise ImportError(f"Install something to access {protocol}")

    monkeypatch.setattr(fsspec, "get_filesystem_class", refuse)
    with pytest.raises(SpecError, match=rf"airflow-provider-overnight\[{extra}\]"):
        storage.list_files(f"{scheme}://bucket/docs/")


def test_an_unknown_scheme_and_a_missing_file_are_said(storage: Storage, place: Place) -> None:
    with pytest.raises(SpecError, match="nothing here reads nosuch://"):
        storage.open("nosuch://bucket/key")
    with pytest.raises(MissingFileError, match="none.jsonl"):
        storage.open(place("none.jsonl"))


@pytest.mark.parametrize(
    ("pattern", "folder"),
    [
        ("s3://b/in/", "s3://b/in/"),
        ("s3://b/in/*.jsonl", "s3://b/in/"),
        ("s3://b/in/2026-*/x/[ab].jsonl", "s3://b/in/"),
        ("s3://b/in/a.jsonl", "s3://b/in/"),
    ],
)
def test_the_folder_of_a_pattern(pattern: str, folder: str) -> None:
    assert get_folder(pattern) == folder


@pytest.mark.parametrize("compress", [gzip.compress, bz2.compress, lzma.compress, zstd.compress, bytes])
def test_a_file_is_read_uncompressed_whatever_its_name_says(
    storage: Storage, place: Place, compress: Callable[[bytes], bytes]
) -> None:
    write(storage, place("a.jsonl"), compress(b"one\ntwo\n"))
    with storage.open_plain(place("a.jsonl")) as file:
        assert list(file) == [b"one\n", b"two\n"]


def test_an_unsupported_compression_is_named_with_its_file(storage: Storage, place: Place) -> None:
    write(storage, place("a.jsonl"), b"PK\x03\x04 and so on")
    with pytest.raises(SpecError, match=r"a\.jsonl is a ZIP archive.*uncompressed"):
        storage.open_plain(place("a.jsonl"))


@pytest.mark.parametrize("step", ["write", "mv"])
def test_a_file_that_was_not_put_to_its_end_is_not_there(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, step: str
) -> None:
    storage = Storage()
    storage.put(f"{tmp_path}/folder/a", b"old")
    filesystem = storage.resolve(str(tmp_path))[0]
    file = type("File", (), {"write": _fail, "__enter__": lambda self: self, "__exit__": lambda *error: None})
    monkeypatch.setattr(filesystem, *({"write": ("open", lambda *_: file()), "mv": ("mv", _fail)}[step]))
    with pytest.raises(StorageError):
        storage.put(f"{tmp_path}/folder/a", b"new")
    assert [path.read_bytes() for path in (tmp_path / "folder").iterdir()] == [b"old"]


def _fail(*_: object) -> None:
    raise OSError(28, "No space left on device")


def test_a_file_is_created_once_and_whole(tmp_path: Path) -> None:
    uri = str(tmp_path / "new" / "a.json")
    assert Storage().create(uri, b"first")
    assert not Storage().create(uri, b"second")
    assert Path(uri).read_bytes() == b"first"
    assert [path.name for path in (tmp_path / "new").iterdir()] == ["a.json"]


def test_everything_below_a_folder_is_listed_by_its_path_there(tmp_path: Path) -> None:
    for name in ("work/a.txt", "work/_b/.c.tmp", "work2/d.txt"):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text("x")
    (tmp_path / "work/link").symlink_to(tmp_path / "work2/d.txt")
    for uri in (f"{tmp_path}/work", f"{tmp_path}/work/"):
        found = Storage().list_all(uri)
        assert {path: file.size for path, file in found.items()} == {"_b/.c.tmp": 1, "a.txt": 1}
    assert Storage().list_all(f"{tmp_path}/nowhere/") == {}


def test_a_file_that_is_gone_is_deleted(tmp_path: Path) -> None:
    Storage().delete(f"{tmp_path}/a.txt")


def test_folders_are_removed_as_far_as_they_are_empty(tmp_path: Path) -> None:
    (tmp_path / "a/b/c").mkdir(parents=True)
    (tmp_path / "a/d").mkdir()
    (tmp_path / "a/d/file").touch()
    Storage().remove_empty_folders(f"{tmp_path}/a")
    assert sorted(path.name for path in (tmp_path / "a").rglob("*")) == ["d", "file"]
