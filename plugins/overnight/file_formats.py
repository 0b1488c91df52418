"""What a file holds, by its first bytes: JSON Lines, a table that is read as JSON Lines, or neither."""

from __future__ import annotations

import base64
import csv
import io
import re
import tempfile
from collections.abc import Callable, Iterator
from itertools import chain
from typing import IO, Any, Final

import orjson

from overnight.compression import ChunkReader
from overnight.errors import SpecError

HEAD_BYTES: Final = 1 << 10
PARQUET: Final = "Parquet"
CSV: Final = "CSV"

_PARQUET_MAGIC: Final = b"PAR1"
_COMPRESSION_SUFFIX: Final = re.compile(r"\.(gz|gzip|zst|zstd|bz2|xz)$", re.IGNORECASE)
_DELIMITERS: Final = {".csv": ",", ".tsv": "\t"}
_BATCH_ROWS: Final = 1_000

# What is no JSON Lines, and what to do about it.
_FOREIGN: Final = (
    (
        re.compile(rb"\xff\xfe|\xfe\xff|[{\[]\x00|\x00[{\[]"),
        "UTF-16 text; write it as UTF-8 (iconv -f UTF-16 -t UTF-8)",
    ),
    (
        re.compile(rb"(?:\xef\xbb\xbf)?\s*\[\s*\{"),
        "a JSON array; write its objects one per line (jq -c '.[]')",
    ),
    (
        re.compile(rb"\s*<(?:!doctype|html|\?xml)", re.IGNORECASE),
        "an HTML or XML page, perhaps a server's answer in place of the file; fetch it again",
    ),
    (re.compile(rb"\x1f\x8b\x08"), "gzip within another compression; uncompress it once"),
    (re.compile(rb".{257}ustar", re.DOTALL), "a tar archive; unpack it, and name the files that were in it"),
    (re.compile(rb"Obj\x01"), "Avro; write it as JSON Lines or Parquet"),
    (re.compile(rb"ORC"), "ORC; write it as JSON Lines or Parquet"),
    (re.compile(rb"%PDF-"), "a PDF document; parse it first (LlamaCloud, say)"),
)


def recognise_table(head: bytes, uri: str) -> str | None:
    """
    Return :data:`PARQUET` or :data:`CSV` for a file that is a table, ``None`` for any other.

    :param head: Its first bytes, uncompressed for a CSV file.
    :param uri: Its name tells a CSV file (``.csv`` and ``.tsv``, compressed or not), as its content cannot.
    """
    if head.startswith(_PARQUET_MAGIC):
        return PARQUET
    return CSV if get_delimiter(uri) is not None else None


def get_delimiter(uri: str) -> str | None:
    """Return what separates the cells of a file of this name; ``None`` when it is no table of text."""
    name = _COMPRESSION_SUFFIX.sub("", uri.partition("?")[0] if "://" in uri else uri).lower()
    return _DELIMITERS.get(name[-4:])


def check_json_lines(chunks: Iterator[bytes], uri: str) -> Iterator[bytes]:
    """
    Yield a stream as it is, after a look at its start.

    :param uri: The file's, as it may be shown.
    :raises SpecError: it is no JSON Lines but something that is recognised; the text says what to do.
    """
    head = b""
    for chunk in chunks:
        head += chunk
        if len(head) >= HEAD_BYTES:
            break
    for pattern, words in _FOREIGN:
        if pattern.match(head):
            raise SpecError(f"{uri} is no JSON Lines but {words}.")
    yield from chain([head] if head else [], chunks)


def read_json_lines(
    chunks: Iterator[bytes], uri: str, open_table: Callable[[Iterator[bytes]], IO[bytes]] | None = None
) -> Iterator[bytes]:
    """
    Yield a file as JSON Lines: the rows of a table, or its own bytes.

    :param chunks: The file, uncompressed.
    :param uri: The file's, as it may be shown.
    :param open_table: Opens a Parquet file, which is read at random, given what ``chunks`` are; a copy on the disk when
        left out.
    :raises SpecError: it is neither; the text says what to do.
    """
    head = next(chunks, b"")
    chunks = chain([head] if head else [], chunks)
    kind = recognise_table(head, uri)
    if kind == PARQUET:
        with (open_table or copy_to_disk)(chunks) as table:
            yield from read_parquet(table, uri)
    elif kind == CSV:
        yield from read_csv(chunks, uri)
    else:
        yield from check_json_lines(chunks, uri)


def copy_to_disk(chunks: Iterator[bytes]) -> IO[bytes]:
    """Return a temporary file with these bytes, at its start; it goes when it is closed."""
    copy = tempfile.TemporaryFile()  # noqa: SIM115 - the caller's
    copy.writelines(chunks)
    copy.seek(0)
    return copy


def read_csv(chunks: Iterator[bytes], uri: str) -> Iterator[bytes]:
    """
    Yield the rows of a CSV or TSV file as JSON Lines: an object of texts each, by the names in the first row.

    Nothing is guessed of types: ``007`` stays ``"007"``. A row with too many cells becomes a line that is no JSON, and
    so is rejected; one with too few lacks the last names.

    :raises SpecError: it is not UTF-8, or has no names.
    """
    text = io.TextIOWrapper(io.BufferedReader(ChunkReader(chunks)), encoding="utf-8-sig", newline="")
    rows = csv.DictReader(text, delimiter=get_delimiter(uri) or ",", strict=True)
    try:
        if not rows.fieldnames or len(set(rows.fieldnames)) != len(rows.fieldnames):
            raise SpecError(f"{uri}: the first row of a CSV file must name each column once, not {rows.fieldnames!r}.")
        for row in rows:
            if None in row:
                yield b"<row %d has %d cells too many>\n" % (rows.line_num, len(row[None]))
            else:
                found = {name: value for name, value in row.items() if value is not None}
                yield orjson.dumps(found, option=orjson.OPT_APPEND_NEWLINE)
    except UnicodeDecodeError as error:
        raise SpecError(f"{uri} is no CSV in UTF-8 ({error.reason}); write it as UTF-8.") from error
    except csv.Error as error:
        raise SpecError(f"{uri}, line {rows.line_num}, is no CSV: {error}.") from error


def read_parquet(file: IO[bytes], uri: str) -> Iterator[bytes]:
    """
    Yield the rows of a Parquet file as JSON Lines.

    Dates and times become ISO 8601, decimals texts, and bytes base64.

    :raises SpecError: pyarrow is not installed, or the file is damaged.
    """
    try:
        import pyarrow as arrow  # noqa: PLC0415 - an extra
        from pyarrow import parquet  # noqa: PLC0415
    except ImportError:
        raise SpecError(
            f"{uri} is Parquet, which needs a package that is not installed here: "
            "pip install 'airflow-provider-overnight[tables]'."
        ) from None
    try:
        for batch in parquet.ParquetFile(file).iter_batches(_BATCH_ROWS):
            rows = batch.to_pylist()
            option = orjson.OPT_APPEND_NEWLINE | orjson.OPT_NON_STR_KEYS
            yield b"".join(orjson.dumps(row, _to_json, option) for row in rows)
    except arrow.ArrowException as error:
        raise SpecError(f"{uri} is a Parquet file that cannot be read: {error}") from error


def _to_json(value: Any) -> str:
    return base64.b64encode(value).decode() if isinstance(value, bytes) else str(value)
