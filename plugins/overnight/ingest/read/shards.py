"""One big file cut between its lines, so that several workers load it."""

from __future__ import annotations

from contextlib import closing
from dataclasses import dataclass
from itertools import pairwise

import httpx

from overnight.errors import SpecError, UnavailableError
from overnight.ingest.read.byte_range import ByteRange
from overnight.ingest.read.openers import web_openers
from overnight.ingest.read.sources import SourceFile, SourceReader
from overnight.storage import Storage, get_scheme, redact
from overnight.transport.errors import NOT_SENT

_PIECE_BYTES = 64 << 10


@dataclass(frozen=True)
class Shard:
    """
    A part of a file that starts and ends between two lines.

    :param source: The whole file's URI. A presigned one is a secret, and so is :attr:`uri`.
    :param part: ``None`` for a file that was not cut. The last shard's is open: it reads to the end that is found then.
    :param size: Bytes, at the time of the cut.
    """

    source: str
    part: ByteRange | None
    size: int

    @property
    def uri(self) -> str:
        """What a request takes as a source: ``s3://bucket/key.jsonl#bytes=0-104857600``."""
        return f"{self.source}{self.part or ''}"

    def __repr__(self) -> str:
        return f"Shard({redact(self.source)}{self.part or ''}, {self.size:,} bytes)"


def cut(uri: str, shard_bytes: int, storage: Storage | None = None) -> list[Shard]:
    """
    Cut a file into shards of about the same size; together they are its lines, each once and in order.

    Only the file's length, its first bytes, and what lies around the cuts is read. A shard is larger than asked for by
    the rest of its last line. A file that is not larger stays whole, and may then be compressed. Of a glob or a prefix
    every file is cut.

    :param uri: ``s3://``, a local path, ``http://`` or ``https://`` (with byte ranges); a file, a glob, or a prefix.
    :param shard_bytes: At least so many bytes are in each shard but the last.
    :raises SpecError: there is no such file, it is compressed, or its server does not give parts of it.
    """
    if shard_bytes < 1:
        raise SpecError(f"shard_bytes must be 1 or more, not {shard_bytes}.")
    if get_scheme(uri) == "openai":
        raise SpecError(f"{uri} cannot be cut: OpenAI's files are read from their start only. Load it whole.")
    storage = storage or Storage()
    openers = web_openers(storage)
    reader = SourceReader(storage, openers, dict.fromkeys(openers, _measure))
    files = reader.resolve(0, [uri]).files
    return [shard for file in files for shard in _cut(file, shard_bytes, reader)]


def _cut(file: SourceFile, shard_bytes: int, reader: SourceReader) -> list[Shard]:
    start, size = file.start.offset, file.part_size
    if size is None:
        raise SpecError(f"{file.name} cannot be cut: its server does not say how large it is. Load it whole.")
    end = start + size
    if size <= shard_bytes:
        return [Shard(file.uri, file.part, size)]
    if file.part is None and (name := reader.get_encoding(file)) is not None:
        raise SpecError(
            f"{file.name} cannot be cut: it is {name}, which cannot be read from the middle. Load it "
            "whole, or have it written uncompressed, or as many smaller files below one prefix."
        )
    cuts = [start]
    while end - cuts[-1] > shard_bytes and (place := _next_line(file, cuts[-1] + shard_bytes, reader)) < end:
        cuts.append(place)
    if len(cuts) == 1:
        return [Shard(file.uri, file.part, size)]
    last = ByteRange(cuts[-1], file.part.end if file.part is not None else None)
    parts = [ByteRange(*span) for span in pairwise(cuts)]
    sizes = [after - before for before, after in zip(cuts, [*cuts[1:], end], strict=True)]
    return [Shard(file.uri, part, size) for part, size in zip([*parts, last], sizes, strict=True)]


def _next_line(file: SourceFile, place: int, reader: SourceReader) -> int:
    """Return where the first line at or after a place starts; the end of the file when there is none."""
    offset = place - 1
    with closing(reader.read(file, offset, _PIECE_BYTES)) as chunks:
        for chunk in chunks:
            found = chunk.find(b"\n")
            if found >= 0:
                return offset + found + 1
            offset += len(chunk)
    return offset


def _measure(uri: str) -> tuple[int | None, str]:
    """Ask a web server for one byte, and so for the file's size, and whether it gives parts at all."""
    headers = {"Range": "bytes=0-0", "Accept-Encoding": "identity"}
    try:
        with httpx.stream("GET", uri, headers=headers, follow_redirects=True, timeout=30.0) as response:
            pass
    except NOT_SENT as error:
        raise UnavailableError(f"{redact(uri)} cannot be reached: {type(error).__name__}.") from None
    version = response.headers.get("ETag") or response.headers.get("Last-Modified") or ""
    total = response.headers.get("Content-Range", "").rpartition("/")[2]
    match response.status_code:
        case httpx.codes.PARTIAL_CONTENT:
            return (int(total) if total.isdecimal() else None), version
        case httpx.codes.REQUESTED_RANGE_NOT_SATISFIABLE:
            return 0, version  # there is no first byte
        case httpx.codes.OK:
            raise SpecError(f"{redact(uri)} cannot be cut: its server gives no parts of files. Load it whole.")
        case status if status >= httpx.codes.INTERNAL_SERVER_ERROR or status == httpx.codes.TOO_MANY_REQUESTS:
            raise UnavailableError(f"{redact(uri)} cannot be read: its server answers {status}.")
        case status:
            raise SpecError(f"{redact(uri)} cannot be read: its server answers {status}.")
