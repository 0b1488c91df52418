"""Documents as a stream of lines, taken in blocks: of files a piece that was read at once, of anything else a list."""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Iterable, Iterator, Mapping, Sequence
from functools import cached_property, partial
from itertools import accumulate
from typing import Any, Final, NamedTuple, Protocol

import orjson

from overnight.file_formats import read_json_lines
from overnight.rejection import Rejection
from overnight.services.openai.scan import InputError
from overnight.storage import Storage, redact

LONGEST_DOCUMENT = 64 << 20
"""Bytes of one line; a longer one is no document but a file that is not JSONL."""
BLOCK_DOCUMENTS: Final = 1 << 12
BLOCK_BYTES: Final = 1 << 18
"""What is made of so much stays in a core's own cache."""


class DocumentLine(NamedTuple):
    """
    One line of a file of documents.

    :param data: With its end.
    :param uri: The file.
    :param number: In the file, counted from 1.
    :param offset: Of its first byte in the uncompressed file.
    """

    data: bytes
    uri: str
    number: int
    offset: int


class LineBlock(Protocol):
    """
    Lines that are taken together.

    :ivar data: All of them with a line feed behind each, where they stand in memory like that; who keeps the block and
        does not need it sets it to ``None``.
    """

    data: memoryview | None

    @property
    def lines(self) -> list[bytes]:
        """The lines, without their ends."""

    @property
    def begun(self) -> list[tuple[int, str]]:
        """The files whose first lines are among these, each with that line's place in the block."""

    def get(self, at: int) -> DocumentLine:
        """Return a line as it was."""


class DocumentFiles:
    """The lines of JSONL files and the rows of tables; see :func:`read_documents`."""

    def __init__(self, uris: Iterable[str], storage: Storage) -> None:
        self._uris = list(uris)
        self._storage = storage

    def __iter__(self) -> Iterator[DocumentLine]:
        """Yield one line after the other."""
        for block in self.read_blocks():
            for at in range(len(block.lines)):
                yield block.get(at)

    def read_blocks(self) -> Iterator[LineBlock]:
        """Yield the lines in blocks, none of which has lines of two files."""
        for uri in self._uris:
            with self._storage.open_plain(uri) as file:
                yield from _split(read_json_lines(iter(partial(file.read, BLOCK_BYTES), b""), redact(uri)), uri)


def read_documents(uris: Iterable[str], storage: Storage | None = None) -> DocumentFiles:
    """
    Return the lines of JSONL files and the rows of tables (CSV, Parquet), one file after the other, also compressed.

    They are read when they are iterated over, which raises

    * :class:`InputError`: a line is longer than :data:`LONGEST_DOCUMENT`;
    * :class:`SpecError`: a file is something else that is recognised (a JSON array, UTF-16, a PDF …).
    """
    return DocumentFiles(uris, storage or Storage())


def take_blocks(documents: Iterable[DocumentLine | bytes | Mapping[str, Any]]) -> Iterator[LineBlock]:
    """Yield a stream of documents in blocks: files as they are read, anything else in lists."""
    if isinstance(documents, DocumentFiles):
        yield from documents.read_blocks()
        return
    block: list[DocumentLine] = []
    size = 0
    for number, document in enumerate(documents, 1):
        raw = orjson.dumps(document) if isinstance(document, Mapping) else document
        line = raw if isinstance(raw, DocumentLine) else DocumentLine(raw, "", number, 0)
        block.append(line)
        size += len(line.data)
        if len(block) >= BLOCK_DOCUMENTS or size >= BLOCK_BYTES:
            yield _GivenBlock(block)
            block, size = [], 0
    if block:
        yield _GivenBlock(block)


class _GivenBlock:
    """Documents that were given one by one."""

    data: memoryview | None = None

    def __init__(self, documents: list[DocumentLine]) -> None:
        self._documents = documents
        self.lines = [line.data.rstrip(b"\r\n") for line in documents]

    @property
    def begun(self) -> list[tuple[int, str]]:
        return [(at, line.uri) for at, line in enumerate(self._documents) if line.number == 1 and line.uri]

    def get(self, at: int) -> DocumentLine:
        return self._documents[at]


class JoinedBlock:
    """Several blocks as one."""

    data: memoryview | None = None

    def __init__(self, blocks: Sequence[LineBlock]) -> None:
        self._blocks = blocks
        self._starts = list(accumulate((len(block.lines) for block in blocks), initial=0))
        self.lines = [line for block in blocks for line in block.lines]

    @property
    def begun(self) -> list[tuple[int, str]]:
        """See :class:`LineBlock`."""
        return [
            (start + at, uri)
            for start, block in zip(self._starts, self._blocks, strict=False)
            for at, uri in block.begun
        ]

    def get(self, at: int) -> DocumentLine:
        """See :class:`LineBlock`."""
        number = bisect_right(self._starts, at) - 1
        return self._blocks[number].get(at - self._starts[number])


class _FileBlock:
    """
    Neighbouring lines of a file.

    :param raw: As they were, but for the line feeds.
    :param data: The same with the line feeds, and what is behind them.
    :param size: Of the lines in there.
    :param number: Of the first one.
    :param offset: The same.
    """

    def __init__(self, raw: list[bytes], data: bytes, size: int, uri: str, *, number: int, offset: int) -> None:
        self._raw = raw
        self._uri = uri
        self._number = number
        self._offset = offset
        self._is_ended = data.endswith(b"\n", 0, size)
        # The lines have no ends at all.
        has_returns = b"\r" in data
        self.lines = [line.rstrip(b"\r") for line in raw] if has_returns else raw
        self.data = memoryview(data)[:size] if self._is_ended and not has_returns else None

    @property
    def begun(self) -> list[tuple[int, str]]:
        return [(0, self._uri)] if self._number == 1 else []

    def get(self, at: int) -> DocumentLine:
        end = b"\n" if self._is_ended or at < len(self._raw) - 1 else b""
        return DocumentLine(self._raw[at] + end, self._uri, self._number + at, self._offsets[at])

    @cached_property
    def _offsets(self) -> list[int]:
        return list(accumulate((len(line) + 1 for line in self._raw), initial=self._offset))


def _split(chunks: Iterator[bytes], uri: str) -> Iterator[LineBlock]:
    """Yield the lines of a file; a line that goes on in the next chunk waits for it."""
    number, offset = 1, 0
    pieces: list[bytes] = []
    size = 0
    for chunk in chunks:
        pieces.append(chunk)
        size += len(chunk)
        if size > LONGEST_DOCUMENT or (size >= BLOCK_BYTES and b"\n" in chunk):
            data = b"".join(pieces)
            raw = data.split(b"\n")
            rest = raw.pop()
            if len(data) > LONGEST_DOCUMENT:
                _check_lengths(raw, rest, uri, number)
            if raw:
                yield _FileBlock(raw, data, len(data) - len(rest), uri, number=number, offset=offset)
            number += len(raw)
            offset += len(data) - len(rest)
            pieces, size = [rest], len(rest)
    data = b"".join(pieces)
    if data:
        raw = data.split(b"\n")
        if not raw[-1]:
            raw.pop()
        if len(data) > LONGEST_DOCUMENT:
            _check_lengths(raw, b"", uri, number)
        yield _FileBlock(raw, data, len(data), uri, number=number, offset=offset)


def _check_lengths(raw: list[bytes], rest: bytes, uri: str, number: int) -> None:
    for at, line in enumerate((*raw, rest)):
        if len(line) + (at < len(raw)) > LONGEST_DOCUMENT:
            text = f"the line is longer than {LONGEST_DOCUMENT:,} bytes; is this JSONL?"
            raise InputError(uri, [Rejection("too_long", text, number + at)])
