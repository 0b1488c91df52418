"""
Files wherever they are: one place that turns a URI and a set of filesystems into listings and streams.

What lies below a prefix, what a glob matches, which names are left out, and how a compressed file is recognised are
decided here, for the load and for every service.
"""

from __future__ import annotations

import hashlib
import io
import logging
import os
import re
import uuid
from collections.abc import Callable, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any, Final, NamedTuple, cast
from urllib.parse import urlsplit, urlunsplit

import fsspec
from fsspec import AbstractFileSystem
from fsspec.spec import AbstractBufferedFile

from overnight.compression import open_plain
from overnight.errors import SpecError
from overnight.read_ahead import RANGE_BYTES, ReadAhead
from overnight.storage_errors import ChangedFileError, to_storage_error

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

log = logging.getLogger(__name__)

READ_BYTES = 1 << 20

# Anchored: searched for anywhere in a long text, it would take time in the square of the length.
_SCHEME = re.compile(r"^([A-Za-z][A-Za-z0-9+.-]+)://")
_ALIASES: Final = {"s3a": "s3", "s3n": "s3", "gcs": "gs", "az": "abfs", "abfss": "abfs", "local": "file"}
_OBJECT_STORES: Final = frozenset({"s3", "gs", "abfs"})
"""Stores without folders, whose URIs can name an Airflow connection."""
_AZURE_HOST: Final = re.compile(r"[^/@]+@[^/@]+\.(?:dfs|blob)\.core\.")
_HIDDEN: Final = ("_", ".")
_ODD_CHARACTERS: Final = re.compile(r"[^A-Za-z0-9_.-]+")

# What filesystems call the thing that changes when a file does, surest first.
_VERSIONS: Final = (
    "ETag", "etag", "e_tag", "md5", "md5Hash", "content_md5", "contentMd5", "md5_hash", "generation", "version_id",
    "mtime", "LastModified", "last_modified", "lastModified", "updated", "timeModified",
)  # fmt: skip
_SAYS_NOTHING: Final = frozenset({"name", "Key", "size", "Size", "type", "StorageClass", "islink", "mimetype", "url"})


def to_segment(text: str) -> str:
    """Return a text as one segment of a path: one underscore for characters that a file's name had better not have."""
    return _ODD_CHARACTERS.sub("_", text)


class Location(NamedTuple):
    """
    A URI taken apart.

    :param scheme: In lower case, one name for each kind of store (``s3a`` is ``s3``, ``az`` is ``abfs``).
    :param conn_id: The Airflow connection that the URI names.
    :param path: What follows the scheme and the connection: bucket and key, or a path on this machine.
    """

    scheme: str
    conn_id: str | None
    path: str

    @property
    def uri(self) -> str:
        """The URI in its one form; a local path stays one."""
        if self.scheme == "file":
            return self.path
        return f"{self.scheme}://{f'{self.conn_id}@' if self.conn_id else ''}{self.path}"

    @property
    def bucket(self) -> str:
        """The first part of the path."""
        return self.path.partition("/")[0]


@dataclass(frozen=True, slots=True)
class StoredFile:
    """
    One file of a listing.

    :param size: In bytes, as stored; ``None`` where the store does not say.
    :param version: Changes when the content does, as far as the store says; empty where it says nothing.
    :param modified: When it was last written, with a time zone.
    """

    uri: str
    size: int | None = None
    version: str = ""
    modified: datetime | None = None


@dataclass(frozen=True, slots=True)
class Listing:
    """
    What a URI stands for.

    :param files: Sorted by URI; of several URIs one after the other.
    :param ignored: How many objects below it are no input: names that start with ``_`` or ``.`` at any depth
        (``_SUCCESS``, ``_delta_log/``, ``.ipynb_checkpoints/``, our own ``_manifests/``), and folder markers.
    """

    files: tuple[StoredFile, ...] = ()
    ignored: int = 0

    @property
    def remark(self) -> str:
        """A sentence about what was left out; empty when nothing was."""
        if not self.ignored:
            return ""
        return f"{self.ignored:,} whose names start with '_' or '.', or that mark a folder, were ignored."


@dataclass(frozen=True)
class Storage:
    """
    Object stores and local disks behind URIs (``s3://``, ``gs://``, ``abfs://``, ``https://``, ``file://``, a path).

    A URI of an object store can name an Airflow connection, as Airflow's ``ObjectStoragePath`` has it:
    ``s3://conn_id@bucket/key``.

    Every method raises :class:`SpecError` for a URI that nothing can be done with (no such bucket, an unknown scheme,
    a package that is not installed), :class:`CredentialsError` where access is denied, and
    :class:`UnavailableError` where a store cannot be reached or breaks off; so does what :meth:`open` returns.

    :param connectors: By scheme, what makes a filesystem with its credentials, when it is first needed (a hook makes
        it from a connection). A scheme that is not listed is opened with fsspec's defaults, which read the usual
        environment variables.
    :param connect: Makes the filesystem of a scheme and the id of a connection that a URI names.
    :param conn_ids: By scheme, the connection that the connector uses, for the texts of errors.
    """

    connectors: Mapping[str, Callable[[], AbstractFileSystem]] = field(default_factory=dict)
    connect: Callable[[str, str], AbstractFileSystem] | None = None
    conn_ids: Mapping[str, str] = field(default_factory=dict)
    _connected: dict[tuple[str, str | None, str], AbstractFileSystem] = field(
        default_factory=dict, init=False, repr=False, compare=False
    )

    def resolve(self, uri: str) -> tuple[AbstractFileSystem, str]:
        """Return the filesystem of a URI and the path on it."""
        place = parse_location(uri)
        if not _SCHEME.sub("", uri, count=1).strip():
            # fsspec would take it for the working directory.
            raise SpecError(f"The URI {uri!r} names no file.")
        with self._errors(uri):
            filesystem = self._filesystem(place)
            # fsspec's own way from a URI to a path takes '::' for a chain of filesystems.
            return filesystem, cast("str", filesystem._strip_protocol(_without_connection(place)))

    def list_files(self, uri: str) -> Listing:
        """
        List the files that a URI stands for.

        A URI that ends in ``/`` is everything below that prefix, at any depth; ``*``, ``?`` and ``[…]`` make it a
        glob (``**`` is any depth), unless there is a file of that very name; anything else is one file, or what is
        below the folder of that name. Names that start with ``_`` or ``.``, at any depth below what the URI says
        itself, are left out, and so are the empty objects that consoles make for folders.

        :return: No files, when there are none.
        """
        filesystem, path = self.resolve(uri)
        place = parse_location(uri)
        with self._errors(uri):
            # Another process may have written there since fsspec last listed it.
            filesystem.invalidate_cache()
            if not uri.endswith("/"):
                info = _find_info(filesystem, path)
                if info is not None and info.get("type") != "directory":
                    return Listing((_to_file(place.uri, info),))
                if info is None and not is_glob(uri):
                    return Listing()
                if info is None:
                    folder = get_folder(path)
                    return _select(place, filesystem.glob(path, detail=True), folder, path[len(folder) :])
            # The keys below an object store's prefix may begin with slashes.
            slashes = place.path[len(place.path.rstrip("/")) :] if place.scheme in _OBJECT_STORES else ""
            return _select(place, filesystem.find(path, detail=True), path.rstrip("/") + (slashes or "/"), "**")

    def open(self, uri: str, mode: str = "rb", *, end: int | None = None, **options: Any) -> IO[Any]:
        """
        Open a file; on a disk the parent folder is made when writing.

        :param end: The first byte that will not be read: of an object store, several ranges before it are fetched at
            once. ``None`` is the file's end.
        :param options: For fsspec, in place of ours.
        """
        filesystem, path = self.resolve(uri)
        if mode == "rb" and not options and parse_location(uri).scheme in _OBJECT_STORES:
            options = {"block_size": RANGE_BYTES, "cache_type": ReadAhead.name, "cache_options": {"end": end}}
        with self._errors(uri):
            if ("w" in mode or "a" in mode) and parse_location(uri).scheme not in _OBJECT_STORES:
                filesystem.makedirs(filesystem._parent(path), exist_ok=True)
            file = filesystem.open(path, mode, **options)
        if "b" in mode and isinstance(file, AbstractBufferedFile):
            wrapped = _RemoteFile(file, lambda: self._errors(uri))
            # fsspec's own buffer cannot read a line up to a limit.
            return io.BufferedReader(wrapped, READ_BYTES) if mode == "rb" else cast("IO[Any]", wrapped)
        return cast("IO[Any]", file)

    def open_plain(self, uri: str) -> IO[bytes]:
        """
        Open a file for reading, uncompressed: gzip, zstd, bzip2 and xz are recognised by their first bytes.

        :raises SpecError: it is compressed in another way. The text names the file.
        """
        file = self.open(uri)
        try:
            return open_plain(file, redact(uri))
        except BaseException:
            file.close()
            raise

    def put(self, uri: str, data: bytes) -> None:
        """
        Write a whole file, which is there with all its bytes or not at all, whenever the writer is killed.

        An object store does so itself. Elsewhere the file is written under a name that no listing shows, and renamed.
        """
        filesystem, path = self.resolve(uri)
        with self._errors(uri):
            if parse_location(uri).scheme in _OBJECT_STORES:
                filesystem.pipe_file(path, data)
                return
            folder = filesystem._parent(path)
            filesystem.makedirs(folder, exist_ok=True)
            temporary = f"{folder}/.{path.rpartition('/')[2]}-{uuid.uuid4().hex}.tmp"
            try:
                with filesystem.open(temporary, "wb") as file:
                    file.write(data)
                    file.flush()
                    if parse_location(uri).scheme == "file":
                        os.fsync(file.fileno())
                filesystem.mv(temporary, path)
            except BaseException:
                if filesystem.exists(temporary):
                    filesystem.rm_file(temporary)
                raise

    def create(self, uri: str, data: bytes) -> bool:
        """
        Write a whole file unless one of that name is there, also when others try the same at once.

        :return: Whether it was written. Stores that know no condition on a write look first, which others may do, too.
        """
        filesystem, path = self.resolve(uri)
        is_local = parse_location(uri).scheme == "file"
        try:
            with self._errors(uri):
                try:
                    if is_local:
                        _create_local(Path(path), data)
                    else:
                        filesystem.pipe_file(path, data, mode="create")
                except FileExistsError:
                    return False
        except ChangedFileError:
            # What S3 says of a condition that does not hold.
            return False
        return True

    def exists(self, uri: str) -> bool:
        """Whether a file or folder is there."""
        filesystem, path = self.resolve(uri)
        with self._errors(uri):
            return bool(filesystem.exists(path))

    def size(self, uri: str) -> int | None:
        """Return a file's size in bytes, or ``None`` where the server does not say."""
        filesystem, path = self.resolve(uri)
        with self._errors(uri):
            size = filesystem.size(path)
        return int(size) if size is not None else None

    def match_files(self, uris: Iterable[str]) -> Listing:
        """
        List the files that several URIs stand for together, each file once, in the order of the URIs.

        What was left out is logged. A URI of a single file stands for itself, even when there is none: opening it says
        what is wrong.
        """
        found: dict[str, StoredFile] = {}
        ignored = 0
        for uri in uris:
            # A web server lists nothing, and an address that was signed for reading may not be asked for more.
            is_listed = is_pattern(uri) or get_scheme(uri) not in ("http", "https")
            listing = self.list_files(uri) if is_listed else Listing()
            if listing.ignored:
                log.info("%s: %s", redact(uri), listing.remark)
            ignored += listing.ignored
            is_single = not listing.files and not listing.ignored and not is_pattern(uri)
            files = (StoredFile(uri),) if is_single else listing.files
            found |= {file.uri.removeprefix("file://"): file for file in files}
        return Listing(tuple(found.values()), ignored)

    def list_all(self, uri: str) -> dict[str, StoredFile]:
        """
        List everything below a folder, at any depth, by its path below it; names that are no inputs, too.

        Links and the empty objects that consoles make for folders are left out.

        :param uri: The folder, with or without its final ``/``.
        """
        filesystem, path = self.resolve(uri)
        place = parse_location(uri)
        with self._errors(uri):
            filesystem.invalidate_cache()
            found = filesystem.find(path, detail=True)
        folder = f"{path.rstrip('/')}/"
        return {
            name[len(folder) :]: _to_file(_build_uri(place, name), info)
            for name, info in sorted(found.items())
            if name.startswith(folder)
            and not name.endswith("/")
            and info.get("type", "file") == "file"
            and not info.get("islink")
        }

    def delete(self, uri: str) -> None:
        """Delete one file, if it is there, also when somebody else deletes it at the same time."""
        filesystem, path = self.resolve(uri)
        with self._errors(uri), suppress(FileNotFoundError):
            filesystem.rm_file(path)

    def remove_empty_folders(self, uri: str) -> None:
        """Remove a folder and those below it, as far as there is nothing in them. Object stores have none."""
        _, path = self.resolve(uri)
        if parse_location(uri).scheme == "file":
            for folder, _, _ in os.walk(path, topdown=False):
                # There is something in it.
                with suppress(OSError):
                    Path(folder).rmdir()

    @contextmanager
    def _errors(self, uri: str) -> Iterator[None]:
        try:
            yield
        except Exception as error:  # every filesystem has errors of its own
            place = parse_location(uri)
            conn_id = place.conn_id or self.conn_ids.get(place.scheme)
            raise to_storage_error(error, redact(uri), place.scheme, place.bucket, conn_id) from error

    def _filesystem(self, place: Location) -> AbstractFileSystem:
        options: Mapping[str, Any] = {}
        if place.conn_id is None and place.scheme not in self.connectors:
            # Of schemes whose URIs name a server.
            options = fsspec.get_filesystem_class(place.scheme)._get_kwargs_from_urls(place.uri)
        key = (place.scheme, place.conn_id, repr(options))
        if key not in self._connected:
            self._connected[key] = self._make_filesystem(place, options)
        return self._connected[key]

    def _make_filesystem(self, place: Location, options: Mapping[str, Any]) -> AbstractFileSystem:
        if place.conn_id is None:
            connector = self.connectors.get(place.scheme)
            return connector() if connector is not None else fsspec.filesystem(place.scheme, **options)
        if self.connect is None:
            raise SpecError(
                f"{place.uri} names the Airflow connection {place.conn_id!r}, and there is no Airflow here. "
                "Leave it out; the credentials are then those of the environment."
            )
        return self.connect(place.scheme, place.conn_id)


class _RemoteFile(io.RawIOBase):
    """A file of an object store whose errors are ours, while it is read or written, too."""

    def __init__(self, file: AbstractBufferedFile, errors: Callable[[], Any]) -> None:
        self._file = file
        self._errors = errors

    def readable(self) -> bool:
        return bool(self._file.readable())

    def writable(self) -> bool:
        return bool(self._file.writable())

    def seekable(self) -> bool:
        return bool(self._file.seekable())

    def tell(self) -> int:
        return int(self._file.tell())

    def seek(self, offset: int, whence: int = io.SEEK_SET) -> int:
        with self._errors():
            return int(self._file.seek(offset, whence))

    def readinto(self, buffer: Any) -> int:
        with self._errors():
            return int(self._file.readinto(buffer))

    def write(self, data: Any) -> int:
        with self._errors():
            return int(self._file.write(data))

    def close(self) -> None:
        try:
            if not self._file.closed:
                with self._errors():
                    self._file.close()
        finally:
            super().close()


def parse_location(uri: str) -> Location:
    """
    Take a URI apart.

    :raises SpecError: it holds a user and a password, which have no place in the URI of a store.
    """
    scheme = get_scheme(uri)
    match = _SCHEME.match(uri)
    path = uri[match.end() :] if match is not None else uri
    if scheme == "file":
        return Location(scheme, None, uri)
    if scheme not in _OBJECT_STORES or _AZURE_HOST.match(path):
        return Location(scheme, None, path)
    user, at, rest = path.partition("@")
    if not at or "/" in user:
        return Location(scheme, None, path)
    if ":" in user:
        raise SpecError(
            f"A URI of {scheme}:// holds a user and a password. Put them into an Airflow connection, and write its id: "
            f"{scheme}://conn_id@{rest}"
        )
    return Location(scheme, user or None, rest)


def get_scheme(uri: str) -> str:
    """
    Return a URI's scheme in lower case, ``file`` for a plain path.

    Names that mean the same store are one: ``s3a`` is ``s3``, ``az`` and ``abfss`` are ``abfs``, ``gcs`` is ``gs``.
    """
    # A Windows drive letter is not a scheme, and neither is what stands before the colon of a file's name.
    match = _SCHEME.match(uri)
    scheme = match[1].lower() if match is not None else "file"
    return _ALIASES.get(scheme, scheme)


def redact(uri: str) -> str:
    """Return a URI without what can be secret: the query of a presigned URL, a user and password."""
    scheme = get_scheme(uri)
    if scheme in ("http", "https"):
        try:
            parts = urlsplit(uri)
        except ValueError:
            # What cannot be taken apart can hold a secret anywhere behind the scheme.
            return f"{scheme}://…"
        return urlunsplit(parts._replace(netloc=parts.netloc.rpartition("@")[2], query="", fragment=""))
    head, slashes, path = uri.partition("://")
    user, at, rest = path.partition("@")
    if scheme in _OBJECT_STORES and at and ":" in user and "/" not in user:
        return f"{head}{slashes}{rest}"
    return uri


def is_glob(uri: str) -> bool:
    """Whether a URI is a pattern with ``*``, ``?`` or ``[…]``; a web address never is, its ``?`` starts the query."""
    return get_scheme(uri) not in ("http", "https") and any(character in uri for character in "*?[")


def is_pattern(uri: str) -> bool:
    """Whether a URI stands for many files: a glob, or a prefix ending in ``/``."""
    return uri.endswith("/") or is_glob(uri)


def get_folder(pattern: str) -> str:
    """Return the deepest folder that everything a prefix or glob matches lies in, with its final ``/``."""
    fixed = re.split(r"[*?\[]", pattern, maxsplit=1)[0] if is_glob(pattern) else pattern
    return fixed[: fixed.rfind("/") + 1]


def get_version(info: Mapping[str, Any]) -> str:
    """Return what changes when a file does, from what its filesystem says of it; empty when that says nothing."""
    for name in _VERSIONS:
        if info.get(name):
            return str(info[name]).strip('"')
    others = sorted((name, repr(value)) for name, value in info.items() if name not in _SAYS_NOTHING and value)
    return hashlib.sha256(repr(others).encode()).hexdigest() if others else ""


def _create_local(path: Path, data: bytes) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".{path.name}-{uuid.uuid4().hex}.tmp")
    try:
        with temporary.open("wb") as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
        # Unlike a rename, it fails where there is a file; unlike an open, the file is there with all its bytes.
        os.link(temporary, path)
    finally:
        temporary.unlink(missing_ok=True)


def _find_info(filesystem: AbstractFileSystem, path: str) -> Mapping[str, Any] | None:
    try:
        return cast("Mapping[str, Any]", filesystem.info(path))
    except FileNotFoundError as error:
        if error.__cause__ is not None and "bucket" in str(error).lower():
            raise
        return None
    except NotADirectoryError:
        return None


def _select(place: Location, found: Mapping[str, Mapping[str, Any]], folder: str, pattern: str) -> Listing:
    """Return the files among what a filesystem found below a folder for a pattern."""
    files: list[StoredFile] = []
    ignored = 0
    for name, info in sorted(found.items()):
        if info.get("type") == "directory" or not name.startswith(folder):
            continue
        if is_ignored(name[len(folder) :], pattern):
            ignored += 1
        elif info.get("type", "file") == "file":
            files.append(_to_file(_build_uri(place, name), info))
    return Listing(tuple(files), ignored)


def _build_uri(place: Location, name: str) -> str:
    """Return the URI of a path that a filesystem listed."""
    if _SCHEME.match(name):
        return name
    if place.scheme == "file":
        return f"file://{name}"
    if _AZURE_HOST.match(place.path):
        return place._replace(path=f"{place.bucket}/{name.partition('/')[2]}").uri
    return place._replace(path=name.lstrip("/")).uri


def is_ignored(place: str, pattern: str = "**") -> bool:
    """
    Whether an object is no input: its name, or a folder's, starts with ``_`` or ``.``, or it only marks a folder.

    :param place: Its path below the folder that was listed.
    :param pattern: The glob below that folder; names that it asks for itself are inputs.
    """
    segments = place.split("/")
    return not segments[-1] or _is_hidden(segments, pattern.split("/"))


def _is_hidden(segments: list[str], wanted: list[str]) -> bool:
    if "**" in wanted or len(wanted) != len(segments):
        return any(segment.startswith(_HIDDEN) for segment in segments)
    # A pattern that asks for such names, as shells have it: '_part-*' finds '_part-0'.
    return any(
        segment.startswith(_HIDDEN) and not part.startswith(segment[0])
        for segment, part in zip(segments, wanted, strict=True)
    )


def _to_file(uri: str, info: Mapping[str, Any]) -> StoredFile:
    size = info.get("size")
    return StoredFile(uri, int(size) if size is not None else None, get_version(info), _get_modified(info))


def _get_modified(info: Mapping[str, Any]) -> datetime | None:
    for name in ("LastModified", "last_modified", "mtime", "updated", "created"):
        value = info.get(name)
        if isinstance(value, datetime):
            return value if value.tzinfo is not None else value.replace(tzinfo=UTC)
        if isinstance(value, int | float) and not isinstance(value, bool):
            return datetime.fromtimestamp(value, UTC)
        if isinstance(value, str):
            try:
                return datetime.fromisoformat(value)
            except ValueError:
                continue
    return None


def _without_connection(place: Location) -> str:
    return place._replace(conn_id=None).uri
