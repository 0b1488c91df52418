"""The seam: a load into something that is not OpenSearch, through the same code."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from overnight.errors import SpecError
from overnight.ingest import LoadOptions, VerificationError, load, read_dead_letters, replace_index
from overnight.ingest.write.sink import Sink
from unit.ingest.jsonl_sink import JsonlSink
from unit.ingest.test_load import request, write

FIELDS = {"_id": "$.id", "text": "$.t", "drop": "$.drop", "bad": "$.bad"}


@pytest.fixture
def sink(tmp_path: Path) -> JsonlSink:
    folder = tmp_path / "sink"
    folder.mkdir()
    return JsonlSink(folder)


def source(path: Path, count: int = 300) -> Path:
    rows: list[Any] = [
        {"id": f"d{number}", "t": number, "drop": number % 7 == 1, "bad": number % 11 == 2} for number in range(count)
    ]
    return write(path / "a.jsonl", [*rows, b"broken"])


def test_a_load_fills_any_sink(sink: JsonlSink, tmp_path: Path) -> None:
    seam: Sink = sink
    options = LoadOptions(
        create_index={}, bulk_bytes=1_000, dead_letter_uri=str(tmp_path / "dead.jsonl"), allowed_failures="20%"
    )
    report = load(request(source(tmp_path), field_map=FIELDS), target=seam, options=options)
    dropped = {f"d{number}" for number in range(300) if number % 7 == 1 and number % 11 != 2}
    bad = {f"d{number}" for number in range(300) if number % 11 == 2}
    assert sink.documents("docs").keys() == {f"d{number}" for number in range(300)} - dropped - bad
    assert (report.submitted, report.dropped, report.rejected) == (301, len(dropped), len(bad) + 1)
    records = list(read_dead_letters(str(tmp_path / "dead.jsonl")))
    assert {record.id for record in records if record.outcome == "dropped"} == dropped
    assert {record.id for record in records if record.code == "bad"} == bad
    assert json.loads(next(record for record in records if record.id == "d1").text or "")["text"] == 1


def test_a_sink_that_loses_a_document_fails_the_load(sink: JsonlSink, tmp_path: Path) -> None:
    sink.lost = {"d0"}
    with pytest.raises(VerificationError) as raised:
        load(request(source(tmp_path), field_map=FIELDS), target=sink, options=LoadOptions(create_index={}))
    assert raised.value.ids == ("d0",)


def test_a_missing_place_and_vectors_that_do_not_fit_are_refused(sink: JsonlSink, tmp_path: Path) -> None:
    path = write(tmp_path / "a.jsonl", [{"id": "a", "v": [1, 2, 3]}])
    wanted = request(path, field_map={"_id": "$.id", "v": "$.v"})
    with pytest.raises(SpecError, match="no docs"):
        load(wanted, target=sink)
    with pytest.raises(SpecError, match="vector of 2"):
        load(wanted, target=sink, options=LoadOptions(create_index={"v": 2}))
    assert sink.documents("docs") == {}


def test_an_alias_is_swapped_in_any_sink(sink: JsonlSink, tmp_path: Path) -> None:
    wanted = request(source(tmp_path), field_map=FIELDS)
    options = LoadOptions(create_index={}, allowed_failures="20%")
    for suffix in ("1", "2"):
        replace_index(wanted, suffix, target=sink, options=options)
    assert sink.inspect("docs").name == "docs-2"


def test_another_sink_cannot_tell_what_is_unchanged(sink: JsonlSink, tmp_path: Path) -> None:
    with pytest.raises(SpecError, match="in an OpenSearch index, and in no other sink"):
        load(request(source(tmp_path)), target=sink, options=LoadOptions(create_index={}, skip_unchanged=True))
