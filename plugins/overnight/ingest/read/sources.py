"""The sources of a load: what files each has, and their lines as streams."""

from __future__ import annotations

import logging
from collections.abc import Callable, Generator, Iterator, Mapping, Sequence
from contextlib import closing
from dataclasses import dataclass, field, replace
from functools import partial
from typing import IO, Any, BinaryIO, TypeAlias, cast

from overnight.compression import DamagedStreamError, recognise, uncompress
from overnight.errors import OvernightError, SpecError
from overnight.file_formats import PARQUET, copy_to_disk, read_json_lines, recognise_table
from overnight.ingest.read.byte_range import ByteRange, UnevenRangeError, first_byte, split_range, within
from overnight.ingest.read.lines import START, Line, LineBlock, Position, skip, split_blocks
from overnight.read_ahead import RANGE_BYTES
from overnight.storage import Storage, StoredFile, get_scheme, is_pattern, redact

log = logging.getLogger(__name__)

Opener: TypeAlias = Callable[[str, int], Iterator[bytes]]
"""Opens a URI at a byte offset and yields its bytes in chunks."""

Look: TypeAlias = Callable[[str], tuple[int | None, str]]
"""Returns the size and the identity of what a URI stands for, as far as its server tells."""

CHUNK_BYTES = 256 << 10
HEAD_BYTES = 1 << 10


class SourceError(OvernightError):
    """A source could not be read to its end."""


@dataclass(frozen=True)
class SourceFile:
    """
    One file, or a part of one.

    :param uri: Of the whole file.
    :param size: Bytes as stored, ``None`` where the server does not say.
    :param identity: Changes when the content does (an ETag, or the time of change); empty where that is not known.
    :param local_path: Set for a file on this machine that is not compressed, and so can be read at random.
    :param part: What of it is read; ``None`` is all.
    """

    uri: str
    size: int | None = None
    identity: str = ""
    local_path: str | None = None
    part: ByteRange | None = None

    @property
    def name(self) -> str:
        """The URI as it may be shown, with the byte range: what a line's number counts in."""
        return f"{self.origin}{self.part or ''}"

    @property
    def origin(self) -> str:
        """The whole file's URI as it may be shown: what a line's offset counts in."""
        return redact(self.uri)

    @property
    def start(self) -> Position:
        """Where the first line is."""
        return Position(self.part.start) if self.part is not None else START

    @property
    def part_size(self) -> int | None:
        """Bytes to be read, ``None`` when the file's size has to be known for that and is not."""
        if self.part is None:
            return self.size
        end = self.part.end if self.part.end is not None else self.size
        return max(end - self.part.start, 0) if end is not None else None


@dataclass(frozen=True)
class Source:
    """One entry of ``data_source.source``: a file, or all files of a glob or prefix, in the order of their names."""

    index: int
    uri: str
    files: tuple[SourceFile, ...]

    @property
    def size(self) -> int | None:
        """Bytes as stored, ``None`` when it is not known of every file."""
        sizes = [size for file in self.files if (size := file.part_size) is not None]
        return sum(sizes) if len(sizes) == len(self.files) else None

    @property
    def is_seekable(self) -> bool:
        """Whether single lines can be read at random, without a copy."""
        return all(file.local_path is not None for file in self.files)


@dataclass
class StoredBytes:
    """How many bytes of sources were read, as they are stored: what a progress is measured in."""

    count: int = 0


@dataclass(frozen=True)
class SourceReader:
    """
    Finds and reads sources.

    :param storage: Local files, S3 and whatever else fsspec knows.
    :param openers: By scheme, for what is no file system; ``openai`` is one.
    :param looks: By scheme, for those of the openers whose content can change; of the others a URI is the identity.
    :param max_line_bytes: Longer lines come without their data.
    :param stored: Counts the bytes that were read for lines.
    """

    storage: Storage = field(default_factory=Storage)
    openers: Mapping[str, Opener] = field(default_factory=dict)
    looks: Mapping[str, Look] = field(default_factory=dict)
    max_line_bytes: int = 32 << 20
    stored: StoredBytes = field(default_factory=StoredBytes)

    def resolve(self, index: int, uris: Sequence[str]) -> Source:
        """
        Find the files of a source that one or several URIs name.

        In a prefix or folder, names starting with ``_`` or ``.`` (``_SUCCESS``, ``.part.crc``) are left out, as
        Hadoop and Spark do. A URI that ends in ``#bytes=START-END`` is a part of one uncompressed file.

        :raises SpecError: there is nothing, or a part is named of what has none.
        """
        files = [file for uri in uris for file in self._files(index, uri)]
        names = (f"{redact(whole)}{part or ''}" for whole, part in map(split_range, uris))
        return Source(index, " ".join(names), tuple(files))

    def _files(self, index: int, uri: str) -> list[SourceFile]:
        uri, part = split_range(uri)
        files = self._whole_files(index, uri)
        if part is None:
            return files
        if len(files) > 1 or uri.endswith("/"):
            raise SpecError(f"source[{index}]: a byte range is a part of one file, and {redact(uri)} names several.")
        if (name := self.get_encoding(files[0])) is not None:
            raise SpecError(
                f"source[{index}]: {redact(uri)} is {name}, which cannot be read from the middle. Load it whole."
            )
        return [replace(files[0], part=part)]

    def _whole_files(self, index: int, uri: str) -> list[SourceFile]:
        if get_scheme(uri) in self.openers:
            size, identity = self.looks.get(get_scheme(uri), _look_nowhere)(uri)
            return [SourceFile(uri, size, identity)]
        listing = self.storage.list_files(uri)
        if listing.ignored:
            log.info("source[%d]: %s: %s", index, redact(uri), listing.remark)
        if not listing.files:
            what = f"no file matches {redact(uri)}" if is_pattern(uri) else f"there is no file {redact(uri)}"
            raise SpecError(f"source[{index}]: {what}. {listing.remark}".rstrip())
        return [self._file(file) for file in listing.files]

    def lines(self, file: SourceFile, start: Position = START) -> Iterator[Line]:
        """Yield the lines of a file one by one; see :meth:`blocks`."""
        for block in self.blocks(file, start):
            for index in range(len(block)):
                yield block.line(index)

    def blocks(self, file: SourceFile, start: Position = START, *, tee: BinaryIO | None = None) -> Generator[LineBlock]:
        """
        Yield the lines of a file, or of its part, uncompressed, from a position on.

        Offsets are those in the whole file; a part's lines are counted from its own start.

        :param tee: Is written the bytes that the lines were cut from.
        :raises SourceError: the file is cut or damaged, or its part does not start and end between two lines.
        """
        start = max(start, file.start)
        with closing(self._chunks(file, start.offset)) as chunks:
            stream = chunks if tee is None else _copy(chunks, tee)
            try:
                yield from split_blocks(stream, self.max_line_bytes, start)
            except DamagedStreamError as error:
                raise SourceError(f"{error}. Fetch or write it again.") from error
            except UnevenRangeError as error:
                raise SourceError(f"{file.name}: {error}. It has changed since it was cut; cut it again.") from error

    def get_encoding(self, file: SourceFile) -> str | None:
        """
        Return what a file's lines are made from (``gzip``, ``Parquet`` …); ``None`` when they are its own bytes.

        :raises SpecError: it is compressed in a way that is not read here.
        """
        head = self.read_head(file)
        return recognise(head, file.origin) or recognise_table(head, file.origin)

    def read_head(self, file: SourceFile) -> bytes:
        """Return a file's first bytes as they are stored, up to some kilobytes."""
        with closing(self.read(file, 0, HEAD_BYTES)) as chunks:
            return next(chunks, b"")

    def read(self, file: SourceFile, offset: int, chunk_bytes: int | None = None) -> Generator[bytes]:
        """
        Yield a file's bytes as they are stored, from an offset on.

        :param chunk_bytes: How much is asked of a file system at once, when little is needed.
        """
        opener = self.openers.get(get_scheme(file.uri))
        yield from opener(file.uri, offset) if opener is not None else self._read(file, offset, chunk_bytes)

    def _chunks(self, file: SourceFile, offset: int) -> Generator[bytes]:
        if file.part is not None:
            self.stored.count += max(offset - file.part.start, 0)
            yield from within(self._stored(file, first_byte(file.part, offset)), file.part, offset)
        elif not offset:
            yield from self._whole(file)
        elif self.get_encoding(file) is not None:
            yield from skip(self._whole(file), offset)
        else:
            self.stored.count += offset
            yield from self._stored(file, offset)

    def _whole(self, file: SourceFile) -> Generator[bytes]:
        """Yield a whole file as JSON Lines."""
        before = self.stored.count
        chunks = uncompress(self._stored(file, 0), file.origin)
        yield from read_json_lines(chunks, file.origin, partial(self._open_table, file))
        # A table that was read at random is not in the count.
        self.stored.count = max(before + (file.size or 0), self.stored.count)

    def _open_table(self, file: SourceFile, chunks: Iterator[bytes]) -> IO[bytes]:
        """Open a file that is read at random; a copy where it was made for reading from its start."""
        if get_scheme(file.uri) not in self.openers and self.get_encoding(file) == PARQUET:
            return cast("IO[bytes]", self.storage.open(file.uri))
        return copy_to_disk(chunks)

    def _stored(self, file: SourceFile, offset: int) -> Generator[bytes]:
        """Yield a file's bytes, and count them."""
        for chunk in self.read(file, offset):
            self.stored.count += len(chunk)
            yield chunk

    def _read(self, file: SourceFile, offset: int, chunk_bytes: int | None) -> Iterator[bytes]:
        is_local = get_scheme(file.uri) == "file"
        size = chunk_bytes or (CHUNK_BYTES if is_local else RANGE_BYTES)
        # fsspec's own read-ahead would fetch more than is wanted.
        options: dict[str, Any] = {"block_size": size, "cache_type": "none"} if chunk_bytes and not is_local else {}
        end = file.part.end if file.part is not None else None
        with self.storage.open(file.uri, "rb", end=end, **options) as stream:
            if offset:
                stream.seek(offset)
            while chunk := stream.read(size):
                yield chunk

    def _file(self, stored: StoredFile) -> SourceFile:
        identity = f"{stored.size}:{stored.version}" if stored.version else ""
        file = SourceFile(stored.uri, stored.size, identity)
        if get_scheme(stored.uri) != "file" or self.get_encoding(file) is not None:
            return file
        return replace(file, local_path=self.storage.resolve(stored.uri)[1])


def _look_nowhere(uri: str) -> tuple[None, str]:
    # What is named by an id (a file of OpenAI) never changes.
    return None, uri


def _copy(chunks: Iterator[bytes], tee: BinaryIO) -> Iterator[bytes]:
    for chunk in chunks:
        tee.write(chunk)
        yield chunk
