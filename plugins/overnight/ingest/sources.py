"""The sources of a load: what files each has, and their lines as streams."""

from __future__ import annotations

import posixpath
from collections.abc import Callable, Generator, Iterator, Mapping, Sequence
from contextlib import closing
from dataclasses import dataclass, field
from typing import Any, BinaryIO, TypeAlias
from urllib.parse import urlsplit, urlunsplit

from overnight.ingest.lines import START, Line, Position, TruncatedError, is_gzip, plain, skip, split_lines
from overnight.jobs.errors import CredentialsError, OvernightError, SpecError, UnavailableError
from overnight.storage import Storage, scheme_of

Opener: TypeAlias = Callable[[str, int], Iterator[bytes]]
"""Opens a URI at a byte offset and yields its bytes in chunks."""

Look: TypeAlias = Callable[[str], tuple[int | None, str]]
"""Returns the size and the identity of what a URI stands for, as far as its server tells."""

CHUNK_BYTES = 1 << 20
REMOTE_CHUNK_BYTES = 8 << 20


class SourceError(OvernightError):
    """A source could not be read to its end."""


@dataclass(frozen=True)
class SourceFile:
    """
    One file.

    :param size: Bytes as stored, ``None`` where the server does not say.
    :param identity: Changes when the content does, as far as the store tells (ETag, or time of change).
    :param local_path: Set for a file on this machine that is not compressed, and so can be read at random.
    """

    uri: str
    size: int | None = None
    identity: str = ""
    local_path: str | None = None

    @property
    def name(self) -> str:
        """The URI as it may be shown."""
        return shown(self.uri)


@dataclass(frozen=True)
class Source:
    """One entry of ``data_source.source``: a file, or all files of a glob or prefix, in the order of their names."""

    index: int
    uri: str
    files: tuple[SourceFile, ...]

    @property
    def size(self) -> int | None:
        """Bytes as stored, ``None`` when it is not known of every file."""
        sizes = [file.size for file in self.files if file.size is not None]
        return sum(sizes) if len(sizes) == len(self.files) else None

    @property
    def is_seekable(self) -> bool:
        """Whether single lines can be read at random, without a copy."""
        return all(file.local_path is not None for file in self.files)


@dataclass(frozen=True)
class SourceReader:
    """
    Finds and reads sources.

    :param storage: Local files, S3 and whatever else fsspec knows.
    :param openers: By scheme, for what is no file system; ``openai`` is one.
    :param looks: By scheme, for those of the openers whose content can change.
    :param max_line_bytes: Longer lines come without their data.
    """

    storage: Storage = field(default_factory=Storage)
    openers: Mapping[str, Opener] = field(default_factory=dict)
    looks: Mapping[str, Look] = field(default_factory=dict)
    max_line_bytes: int = 32 << 20

    def resolve(self, index: int, uris: Sequence[str]) -> Source:
        """
        Find the files of a source that one or several URIs name.

        In a prefix or folder, names starting with ``_`` or ``.`` (``_SUCCESS``, ``.part.crc``) are left out, as
        Hadoop and Spark do.

        :raises SpecError: there is nothing.
        """
        files = [file for uri in uris for file in self._files(index, uri)]
        return Source(index, " ".join(map(shown, uris)), tuple(files))

    def _files(self, index: int, uri: str) -> list[SourceFile]:
        if scheme_of(uri) in self.openers:
            size, identity = self.looks.get(scheme_of(uri), _look_nowhere)(uri)
            return [SourceFile(uri, size, identity)]
        try:
            return self._find(index, uri)
        except PermissionError as error:
            raise CredentialsError(f"source[{index}]: {shown(uri)} may not be read: {error}.") from error
        except OvernightError:
            raise
        except Exception as error:  # every file system has errors of its own
            raise UnavailableError(f"source[{index}]: {shown(uri)} cannot be reached: {error}") from error

    def _find(self, index: int, uri: str) -> list[SourceFile]:
        filesystem, path = self.storage.resolve(uri)
        # The file may have been replaced since this process last looked.
        filesystem.invalidate_cache()
        if not uri.endswith("/"):
            try:
                info = filesystem.info(path)
            except FileNotFoundError:
                info = None
            if info is not None and info.get("type") != "directory":
                return [self._file(uri, path, info)]
            if info is None and not any(character in path for character in "*?["):
                raise SpecError(f"source[{index}]: there is no file {uri}.")
            if info is not None:
                uri += "/"
        names = list(self.storage.glob(uri))
        if uri.endswith("/"):
            names = [name for name in names if not posixpath.basename(name).startswith(("_", "."))]
        if not names:
            raise SpecError(f"source[{index}]: no file matches {uri}.")
        return [self._look(name) for name in names]

    def lines(self, file: SourceFile, start: Position = START, *, tee: BinaryIO | None = None) -> Iterator[Line]:
        """
        Yield the lines of a file, uncompressed, from a position on.

        :param tee: Is written the bytes that the lines were cut from.
        :raises SourceError: the file is cut or damaged.
        """
        with closing(self._chunks(file, start.offset)) as chunks:
            stream = chunks if tee is None else _copy(chunks, tee)
            try:
                yield from split_lines(stream, self.max_line_bytes, start)
            except TruncatedError as error:
                raise SourceError(f"{file.name}: {error}. Fetch or write it again.") from error

    def _chunks(self, file: SourceFile, offset: int) -> Generator[bytes]:
        if not offset:
            yield from plain(self._open(file, 0))
        elif self._is_gzip(file):
            yield from skip(plain(self._open(file, 0)), offset)
        else:
            yield from self._open(file, offset)

    def _is_gzip(self, file: SourceFile) -> bool:
        with closing(_generate(self._open(file, 0))) as chunks:
            return is_gzip(next(chunks, b""))

    def _open(self, file: SourceFile, offset: int) -> Iterator[bytes]:
        opener = self.openers.get(scheme_of(file.uri))
        return opener(file.uri, offset) if opener is not None else self._read(file, offset)

    def _read(self, file: SourceFile, offset: int) -> Iterator[bytes]:
        is_local = scheme_of(file.uri) == "file"
        size = CHUNK_BYTES if is_local else REMOTE_CHUNK_BYTES
        # Whole chunks are asked for, so fsspec's own read-ahead would only hold everything twice.
        options: dict[str, Any] = {} if is_local else {"block_size": size, "cache_type": "none"}
        with self.storage.open(file.uri, "rb", **options) as stream:
            if offset:
                stream.seek(offset)
            while chunk := stream.read(size):
                yield chunk

    def _look(self, uri: str) -> SourceFile:
        filesystem, path = self.storage.resolve(uri)
        return self._file(uri, path, filesystem.info(path))

    def _file(self, uri: str, path: str, info: Mapping[str, Any]) -> SourceFile:
        size = info.get("size")
        version = info.get("ETag") or info.get("mtime") or info.get("LastModified") or ""
        file = SourceFile(uri, int(size) if size is not None else None, f"{size}:{version}")
        if scheme_of(uri) != "file":
            return file
        return file if self._is_gzip(file) else SourceFile(uri, file.size, file.identity, local_path=path)


def shown(uri: str) -> str:
    """Return a URI without what can be secret: the query of a presigned URL, a user and password."""
    if scheme_of(uri) not in ("http", "https"):
        return uri
    parts = urlsplit(uri)
    return urlunsplit(parts._replace(netloc=parts.netloc.rpartition("@")[2], query="", fragment=""))


def _look_nowhere(uri: str) -> tuple[None, str]:
    del uri
    return None, ""


def _generate(chunks: Iterator[bytes]) -> Generator[bytes]:
    yield from chunks


def _copy(chunks: Iterator[bytes], tee: BinaryIO) -> Iterator[bytes]:
    for chunk in chunks:
        tee.write(chunk)
        yield chunk
