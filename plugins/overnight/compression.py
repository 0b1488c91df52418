"""Compressed streams, recognised by their first bytes and never by their names: gzip, zstd, bzip2 and xz."""

from __future__ import annotations

import bz2
import gzip
import io
import lzma
import re
import sys
from collections.abc import Callable, Iterator
from itertools import chain
from typing import IO, BinaryIO, Final, cast

from isal import igzip, igzip_lib

from overnight.errors import OvernightError, SpecError

if sys.version_info >= (3, 14):
    from compression import zstd
else:
    from backports import zstd

HEAD_BYTES: Final = 16
"""How many of its first bytes say what a file is."""
PIECE_BYTES: Final = 1 << 20

# The first bytes as a regular expression, and what reads such a file.
_FORMATS: Final[dict[str, tuple[bytes, Callable[[BinaryIO], BinaryIO]]]] = {
    "gzip": (rb"\x1f\x8b\x08", lambda file: cast("BinaryIO", igzip.IGzipFile(fileobj=file))),  # type: ignore[no-untyped-call]
    "zstd": (rb"\(\xb5/\xfd", lambda file: cast("BinaryIO", zstd.ZstdFile(file))),
    "bzip2": (rb"BZh[1-9](?:1AY&SY|\x17rE8P\x90)", lambda file: cast("BinaryIO", bz2.BZ2File(file))),
    "xz": (rb"\xfd7zXZ\x00", lambda file: cast("BinaryIO", lzma.LZMAFile(file))),  # noqa: SIM115 - closed by its reader
}
_UNSUPPORTED: Final = {
    "a ZIP archive": b"PK\x03\x04",
    "LZ4": b"\x04\x22\x4d\x18",
    "Snappy": b"\xff\x06\x00\x00sNaPpY",
    "a 7z archive": b"7z\xbc\xaf\x27\x1c",
    "LZO": b"\x89LZO\x00\r\n\x1a\n",
}


class DamagedStreamError(OvernightError):
    """A compressed file is cut or damaged: what it holds cannot be read to its end."""


def recognise(head: bytes, uri: str) -> str | None:
    """
    Return the name of the compression of a file that starts like this, ``None`` when it is not compressed.

    :param head: Its first :data:`HEAD_BYTES` bytes, or all of them.
    :param uri: What it is called, for the text of the error.
    :raises SpecError: it is compressed in a way that is not read here.
    """
    for name, (magic, _) in _FORMATS.items():
        if re.match(magic, head, re.DOTALL):
            return name
    for name, magic in _UNSUPPORTED.items():
        if head.startswith(magic):
            raise SpecError(
                f"{uri} is {name}, which is not read here; write it uncompressed, or as {', '.join(_FORMATS)}."
            )
    return None


def open_plain(file: IO[bytes], uri: str) -> IO[bytes]:
    """
    Return what reads a file uncompressed; the file itself when it is not compressed.

    Closing what is returned closes the file. Reading raises :class:`DamagedStreamError` where a stream is cut.

    :param file: At its start.
    :param uri: What it is called, for the texts of errors.
    :raises SpecError: it is compressed in a way that is not read here.
    """
    buffered = file if isinstance(file, io.BufferedReader) else io.BufferedReader(cast("io.RawIOBase", file))
    name = recognise(buffered.peek(HEAD_BYTES)[:HEAD_BYTES], uri)
    if name is None:
        return buffered
    return io.BufferedReader(
        _Uncompressed(_FORMATS[name][1](cast("BinaryIO", buffered)), buffered, f"{uri}: the {name} stream"), PIECE_BYTES
    )


def uncompress(chunks: Iterator[bytes], uri: str) -> Iterator[bytes]:
    """
    Yield a stream as it is, or uncompressed when its first bytes say that it is compressed, at most 1 MiB at a time.

    :raises SpecError: it is compressed in a way that is not read here.
    :raises DamagedStreamError: it is cut or damaged.
    """
    head = b""
    for chunk in chunks:
        head += chunk
        if len(head) >= HEAD_BYTES:
            break
    stream = chain([head] if head else [], chunks)
    if recognise(head, uri) is None:
        yield from stream
        return
    with open_plain(io.BufferedReader(ChunkReader(stream), PIECE_BYTES), uri) as file:
        while piece := file.read(PIECE_BYTES):
            yield piece


class ChunkReader(io.RawIOBase):
    """An iterator of bytes as a file."""

    def __init__(self, chunks: Iterator[bytes]) -> None:
        self._chunks = chunks
        self._rest = memoryview(b"")

    def readable(self) -> bool:
        """Return true."""
        return True

    def readinto(self, buffer: memoryview) -> int:  # type: ignore[override]
        """Fill a buffer from the next chunks."""
        while not self._rest:
            chunk = next(self._chunks, None)
            if chunk is None:
                return 0
            self._rest = memoryview(chunk)
        size = min(len(buffer), len(self._rest))
        buffer[:size] = self._rest[:size]
        self._rest = self._rest[size:]
        return size


class _Uncompressed(io.RawIOBase):
    """The uncompressed side of a file, which it owns."""

    def __init__(self, stream: BinaryIO, file: IO[bytes], name: str) -> None:
        self._stream = stream
        self._file = file
        self._name = name

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: memoryview) -> int:  # type: ignore[override]
        try:
            piece = self._stream.read(len(buffer))
        except EOFError as error:
            # isal takes less than a header behind the end for one that is cut.
            damaged = ", or damaged by bytes behind its end" if isinstance(self._stream, igzip.IGzipFile) else ""
            raise DamagedStreamError(f"{self._name} is cut{damaged}: its end mark is missing") from error
        except (igzip_lib.IsalError, gzip.BadGzipFile, lzma.LZMAError, zstd.ZstdError) as error:  # type: ignore[misc]
            raise DamagedStreamError(f"{self._name} is damaged: {error}") from error
        except OSError as error:
            if isinstance(self._stream, bz2.BZ2File) and error.errno is None:
                raise DamagedStreamError(f"{self._name} is damaged: {error}") from error
            raise
        buffer[: len(piece)] = piece
        return len(piece)

    def close(self) -> None:
        try:
            self._stream.close()
            self._file.close()
        finally:
            super().close()
