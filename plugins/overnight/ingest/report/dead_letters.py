"""Every document that was not written, one JSON line each, with the reason."""

from __future__ import annotations

import os
import shutil
import tempfile
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import IO, Literal

import msgspec

from overnight.storage import Storage, get_scheme

MAX_TEXT_BYTES = 64 << 10

Outcome = Literal["rejected", "missing", "dropped"]
"""What becomes of a document that is not indexed, in the words of the report."""


class DeadLetter(msgspec.Struct, frozen=True, omit_defaults=True):
    """
    One document that was not written.

    :param outcome: As the report counts it.
    :param uri: The file the line is in, with ``#bytes=START-END`` when a part of it was loaded.
    :param source: N of ``source[N]``.
    :param line: From 1, in the file or its part.
    :param offset: Of the line's first byte, uncompressed, in the whole file.
    :param code: To count by: ours, the AI service's or OpenSearch's.
    :param reason: In words.
    :param routing: The document's routing value (``_routing``), where it has one.
    :param text: The line, or the document for one that OpenSearch refused; left out when it is not UTF-8 or longer than
        64 KiB.
    :param is_document: Whether it was a document that OpenSearch was sent, so that ``text`` is not its line.
    """

    outcome: Outcome
    uri: str
    source: int
    line: int
    offset: int
    code: str
    reason: str
    id: str | None = None
    routing: str | None = None
    text: str | None = None
    is_document: bool = False


_encode = msgspec.json.Encoder().encode
_decode = msgspec.json.Decoder(DeadLetter).decode


def excerpt(data: bytes | None) -> str | None:
    """Return a line as text, if it is one and not too long."""
    if data is None or len(data) > MAX_TEXT_BYTES:
        return None
    try:
        return data.decode()
    except UnicodeDecodeError:
        return None


def read_dead_letters(uri: str, storage: Storage | None = None) -> Iterator[DeadLetter]:
    """Yield the records of a file."""
    with (storage or Storage()).open(uri, "rb") as file:
        for line in file:
            yield _decode(line)


class DeadLetterFile:
    """
    Writes dead-letter records so that a load that was killed and goes on doubles none.

    A checkpoint records how many bytes were there; what a killed attempt wrote after that is cut off. Object stores
    cannot append, so there the file is kept here and uploaded at each checkpoint that has new records.

    :param uri: ``None`` writes nowhere.
    :param keep: Bytes of an earlier attempt that stay; without them the file starts anew.
    """

    def __init__(self, uri: str | None, storage: Storage, *, keep: int = 0) -> None:
        self._uri = uri
        self._storage = storage
        self._file: IO[bytes] | None = None
        self._is_remote = uri is not None and get_scheme(uri) != "file"
        self._is_committed = True
        self.size = 0
        if uri is None or not storage.exists(uri):
            return
        if self._is_remote:
            self._file = tempfile.TemporaryFile()  # noqa: SIM115
            if keep:
                with storage.open(uri, "rb") as earlier:
                    shutil.copyfileobj(earlier, self._file)
        else:
            self._file = Path(storage.resolve(uri)[1]).open("r+b")  # noqa: SIM115
        self.size = min(keep, self._file.seek(0, os.SEEK_END))
        self._is_committed = self._file.tell() == self.size and bool(keep)
        self._file.truncate(self.size)
        self._file.seek(self.size)

    def write(self, records: Iterable[DeadLetter]) -> None:
        """Append records."""
        if self._uri is None:
            return
        for record in records:
            if self._file is None:
                self._file = self._create(self._uri)
            self.size += self._file.write(_encode(record) + b"\n")
            self._is_committed = False

    def commit(self) -> None:
        """Make sure that what was written outlives this process."""
        if self._uri is None or self._file is None or self._is_committed:
            return
        self._file.flush()
        if self._is_remote:
            self._file.seek(0)
            with self._storage.open(self._uri, "wb") as remote:
                shutil.copyfileobj(self._file, remote)
            self._file.seek(0, os.SEEK_END)
        self._is_committed = True

    def close(self) -> None:
        """Commit, and close the file."""
        self.commit()
        if self._file is not None:
            self._file.close()
            self._file = None

    def _create(self, uri: str) -> IO[bytes]:
        return tempfile.TemporaryFile() if self._is_remote else self._storage.open(uri, "wb")
