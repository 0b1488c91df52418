"""Where the answers of many keys are, in columns; and as lines of a file."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import NamedTuple

import msgspec
import pyarrow as arrow
from pyarrow import compute

from overnight.cache.digests import DIGEST_BYTES
from overnight.cache.files import DIGEST


class Place(NamedTuple):
    """
    Where an answer is.

    :param file: The name of its file.
    :param row: In the file, counted from 0.
    """

    file: str
    row: int


class Places:
    """
    Where the answers of keys are, ``None`` where there is none.

    :param keys: The keys.
    :param files: The names of the files, for each key.
    :param rows: In the files.
    :param names: The files that are there: an answer in another one is none.
    """

    def __init__(
        self,
        keys: arrow.FixedSizeBinaryArray,
        files: arrow.DictionaryArray,
        rows: arrow.UInt32Array,
        names: frozenset[str],
    ) -> None:
        self._keys = keys
        self._names: list[str] = files.dictionary.to_pylist()
        is_there = arrow.array([name in names for name in self._names], arrow.bool_())
        self._there = is_there.take(files.indices).fill_null(False)
        self._files = files.indices
        self._rows = rows

    def __iter__(self) -> Iterator[Place | None]:
        """Yield one after the other."""
        columns = (column.to_pylist() for column in (self._there, self._files, self._rows))
        for is_there, file, row in zip(*columns, strict=True):
            yield Place(self._names[file], row) if is_there else None

    def list_missing(self) -> list[int]:
        """Return which keys have no answer."""
        missing: list[int] = compute.indices_nonzero(compute.invert(self._there)).to_pylist()
        return missing

    def encode(self, wanted: Sequence[int]) -> memoryview:
        """
        Return lines of JSON, each with the key, the file and the row of an answer.

        :param wanted: Which keys; all of them have an answer.
        """
        rows = arrow.array(wanted, arrow.int32())
        keys = read_digests(self._keys.take(rows)).hex().encode()
        hexadecimal = arrow.FixedSizeBinaryArray.from_buffers(
            arrow.binary(2 * DIGEST_BYTES), len(rows), [None, arrow.py_buffer(keys)]
        )
        names = arrow.array(map(msgspec.json.encode, self._names), arrow.binary())
        lines = compute.binary_join_element_wise(
            b'{"key":"',
            hexadecimal.cast(arrow.binary()),
            b'","file":',
            names.take(self._files.take(rows)),
            b',"row":',
            self._rows.take(rows).cast(arrow.string()).cast(arrow.binary()),
            b"}\n",
            b"",
        )
        return memoryview(lines.buffers()[2]) if len(lines) else memoryview(b"")


class _Line(msgspec.Struct):
    key: str
    file: str
    row: int


_decode = msgspec.json.Decoder(_Line).decode


def decode_place(line: bytes) -> tuple[bytes, Place]:
    """Return the key and the place in a line that :meth:`Places.encode` made."""
    read = _decode(line)
    return bytes.fromhex(read.key), Place(read.file, read.row)


def build_digests(data: bytes | bytearray) -> arrow.FixedSizeBinaryArray:
    """Return digests that lie one behind the other as a column."""
    return arrow.FixedSizeBinaryArray.from_buffers(DIGEST, len(data) // DIGEST_BYTES, [None, arrow.py_buffer(data)])


def read_digests(column: arrow.FixedSizeBinaryArray) -> bytearray:
    """Return the digests of a column, one behind the other; zeros where it has none."""
    if column.null_count:
        column = column.fill_null(bytes(DIGEST_BYTES))
    start = column.offset * DIGEST_BYTES
    return bytearray(memoryview(column.buffers()[1])[start : start + len(column) * DIGEST_BYTES])
