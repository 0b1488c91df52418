"""Files that are no JSON Lines: tables are read, everything else is named, with what to do."""

from __future__ import annotations

import builtins
import csv
import gzip
import io
import json
import sys
from collections.abc import Iterator
from datetime import UTC, date, datetime
from decimal import Decimal
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest
from backports import zstd
from hypothesis import given
from hypothesis import strategies as st
from pyarrow import parquet

from overnight.errors import SpecError
from overnight.file_formats import check_json_lines, get_delimiter, read_csv, recognise_table
from overnight.ingest.read.lines import Position
from overnight.ingest.read.sources import SourceReader
from overnight.storage import Storage


def read(path: Path | str, start: Position | None = None, reader: SourceReader | None = None) -> list[bytes | None]:
    reader = reader or SourceReader()
    (file,) = reader.resolve(0, [str(path)]).files
    return [line.data for line in reader.lines(file, start or Position())]


def write_parquet(path: Path, **columns: Any) -> Path:
    parquet.write_table(pa.table(columns), path, row_group_size=2)
    return path


def test_a_parquet_file_is_read_row_by_row(tmp_path: Path) -> None:
    path = write_parquet(
        tmp_path / "a.bin",
        id=["a", "b", "c"],
        n=[2**53 + 1, None, 3],
        vector=[[0.5, 1.0], [2.0], []],
        day=[date(2026, 1, 2)] * 3,
        at=[datetime(2026, 1, 2, 3, 4, tzinfo=UTC)] * 3,
        price=[Decimal("1.10")] * 3,
        raw=[b"\x00\xff"] * 3,
    )
    rows = [json.loads(line or b"") for line in read(path)]
    assert rows[0] == {
        "id": "a",
        "n": 2**53 + 1,
        "vector": [0.5, 1.0],
        "day": "2026-01-02",
        "at": "2026-01-02T03:04:00+00:00",
        "price": "1.10",
        "raw": "AP8=",
    }
    assert [row["id"] for row in rows] == ["a", "b", "c"]
    assert rows[1]["n"] is None


def test_reading_a_table_goes_on_at_any_of_its_rows(tmp_path: Path) -> None:
    path = write_parquet(tmp_path / "a.parquet", id=[f"d{n}" for n in range(7)])
    table = tmp_path / "a.csv"
    table.write_text("id,text\n" + "".join(f"d{n},t\n" for n in range(7)))
    for source in (path, table):
        reader = SourceReader()
        (file,) = reader.resolve(0, [str(source)]).files
        lines = list(reader.lines(file))
        assert file.local_path is None
        for line in lines:
            assert list(reader.lines(file, Position(line.end, line.number))) == lines[line.number :]


def test_a_parquet_file_from_the_web_and_from_memory(tmp_path: Path) -> None:
    data = write_parquet(tmp_path / "a.parquet", id=["a", "b"]).read_bytes()

    def opener(uri: str, start: int) -> Iterator[bytes]:
        yield data[start : start + 10]
        yield data[start + 10 :]

    rows = [b'{"id":"a"}', b'{"id":"b"}']
    assert read("web://a.parquet", reader=SourceReader(openers={"web": opener})) == rows
    storage = Storage()
    with storage.open("memory://tables/a.parquet", "wb") as file:
        file.write(data)
    assert read("memory://tables/a.parquet") == rows
    (tmp_path / "b.parquet.gz").write_bytes(gzip.compress(data))
    assert read(tmp_path / "b.parquet.gz") == rows


def test_parquet_without_its_package_names_the_extra(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = write_parquet(tmp_path / "a.parquet", id=["a"])
    original = builtins.__import__

    def refuse(name: str, *others: Any, **named: Any) -> Any:
        if name.startswith("pyarrow"):
            raise ImportError(name)
        return original(name, *others, **named)

    monkeypatch.setattr(builtins, "__import__", refuse)
    monkeypatch.delitem(sys.modules, "pyarrow.parquet", raising=False)
    with pytest.raises(SpecError, match=r"a\.parquet is Parquet.*airflow-provider-overnight\[tables\]"):
        read(path)


def test_a_damaged_parquet_file_is_named(tmp_path: Path) -> None:
    path = tmp_path / "a.parquet"
    path.write_bytes(b"PAR1 and no table")
    with pytest.raises(SpecError, match=r"a\.parquet is a Parquet file that cannot be read"):
        read(path)


@pytest.mark.parametrize("compress", [bytes, gzip.compress, zstd.compress])
def test_a_csv_file_is_objects_of_texts(compress: Any, tmp_path: Path) -> None:
    text = '\ufeffid,text\r\n007,"two\nlines, ""quoted"""\r\n8,\r\n9\r\n'
    suffix = {bytes: "", gzip.compress: ".gz", zstd.compress: ".zst"}[compress]
    path = tmp_path / f"a.CSV{suffix}"
    path.write_bytes(compress(text.encode()))
    assert [json.loads(line or b"") for line in read(path)] == [
        {"id": "007", "text": 'two\nlines, "quoted"'},
        {"id": "8", "text": ""},
        {"id": "9"},
    ]


def test_a_row_with_too_many_cells_is_no_document(tmp_path: Path) -> None:
    (tmp_path / "a.tsv").write_text("id\ttext\na\tb\tc\n")
    assert read(tmp_path / "a.tsv") == [b"<row 2 has 1 cells too many>"]


@pytest.mark.parametrize(
    ("data", "text"),
    [
        (b"", "name each column"),
        (b"a,a\n1,2\n", "name each column"),
        (b"a,b\n\xff,2\n", "UTF-8"),
        (b'a\n"x\n', "no CSV"),
    ],
)
def test_what_is_no_csv_is_refused_by_name(data: bytes, text: str, tmp_path: Path) -> None:
    (tmp_path / "a.csv").write_bytes(data)
    with pytest.raises(SpecError, match=rf"a\.csv.*{text}"):
        read(tmp_path / "a.csv")


cells = st.text(st.characters(exclude_categories=("Cs",), exclude_characters="\x00"), max_size=5)


@given(st.lists(st.tuples(cells, cells), max_size=5), st.integers(1, 9))
def test_csv_is_read_as_it_was_written(rows: list[tuple[str, str]], size: int) -> None:
    file = io.StringIO(newline="")
    writer = csv.writer(file, quoting=csv.QUOTE_ALL)
    writer.writerows([("id", "text"), *rows])
    data = file.getvalue().encode()
    chunks = (data[start : start + size] for start in range(0, len(data), size))
    found = b"".join(read_csv(chunks, "a.csv")).splitlines()
    assert [tuple(json.loads(line).values()) for line in found] == rows


@pytest.mark.parametrize(
    ("data", "words"),
    [
        ('{"a":1}'.encode("utf-16"), "UTF-16"),
        ('{"a":1}'.encode("utf-16-le"), "UTF-16"),
        ('{"a":1}'.encode("utf-16-be"), "UTF-16"),
        (b'[{"a":1},{"a":2}]', "a JSON array"),
        (b'\xef\xbb\xbf\n [\n  {"a":1}\n]', "a JSON array"),
        (b"<!DOCTYPE html><html>", "an HTML"),
        (b'<?xml version="1.0"?><Error/>', "an HTML or XML"),
        (b"Obj\x01\x04", "Avro"),
        (b"%PDF-1.7", "a PDF"),
    ],
)
def test_what_is_no_json_lines_is_named_with_what_to_do(data: bytes, words: str, tmp_path: Path) -> None:
    (tmp_path / "a.jsonl").write_bytes(data)
    with pytest.raises(SpecError, match=rf"a\.jsonl is no JSON Lines but {words}.*;"):
        read(tmp_path / "a.jsonl")


@given(st.lists(st.binary(min_size=1, max_size=9), max_size=5))
def test_any_bytes_pass_unchanged_or_are_refused(chunks: list[bytes]) -> None:
    try:
        assert b"".join(check_json_lines(iter(chunks), "a")) == b"".join(chunks)
    except SpecError:
        assert not b"".join(chunks).startswith(b'{"')


@pytest.mark.parametrize(
    ("uri", "delimiter"),
    [
        ("s3://b/a.csv", ","),
        ("a.tsv.gz", "\t"),
        ("https://host/a.csv?X-Amz-Signature=x", ","),
        ("a.csv.jsonl", None),
        ("csv", None),
    ],
)
def test_a_csv_file_is_known_by_its_name(uri: str, delimiter: str | None) -> None:
    assert get_delimiter(uri) == delimiter
    assert recognise_table(b"{}", uri) == ("CSV" if delimiter else None)
