"""The end of a load: what was acknowledged is looked up in the index."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from overnight.errors import CredentialsError, UnavailableError
from overnight.ingest import LoadOptions, LoadReport, OpenSearchTarget, VerificationError, load, read_dead_letters
from overnight.ingest.write.bulk import IndexRefusedError
from unit.ingest.fake_opensearch import Answer, FakeOpenSearch
from unit.ingest.test_load import request, write

FORBIDDEN = Answer(403, {"error": {"type": "security_exception", "reason": "no permissions for [x]"}})


def lines(path: Path, count: int) -> Path:
    return write(path / "a.jsonl", [{"id": f"d{number}", "t": number} for number in range(count)])


def test_a_document_that_was_acknowledged_and_is_not_there_fails_the_load_by_name(
    opensearch: FakeOpenSearch, target: OpenSearchTarget, tmp_path: Path
) -> None:
    opensearch.on_item = lambda key, _: {"status": 201} if key == "d0" else None
    options = LoadOptions(checkpoint_uri=str(tmp_path / "checkpoint.json"))
    with pytest.raises(VerificationError, match=r"acknowledged these documents.*'d0'") as raised:
        load(request(lines(tmp_path, 5)), target=target, options=options)
    assert raised.value.ids == ("d0",)
    assert raised.value.report is not None
    assert LoadReport.model_validate(raised.value.report).indexed == 5
    # Everything has to be written again, so there is nothing to go on from.
    assert not (tmp_path / "checkpoint.json").exists()
    assert load(request(lines(tmp_path, 5)), target=target, options=LoadOptions(verify=False)).indexed == 5


def test_too_few_documents_in_the_index_fail_the_load(
    opensearch: FakeOpenSearch, target: OpenSearchTarget, tmp_path: Path
) -> None:
    short = Answer(200, {"count": 4})
    opensearch.on_request = lambda _method, path: short if path == "/docs/_count" else None
    with pytest.raises(VerificationError, match=r"5 documents were indexed or are unchanged, and 'docs' has 4"):
        load(request(lines(tmp_path, 5)), target=target)
    # A line that overwrites an earlier one is one document less; and what is not refreshed is not counted.
    for options in (LoadOptions(duplicates="overwrite"), LoadOptions(refresh=False), LoadOptions(verify=False)):
        assert load(request(lines(tmp_path, 5)), target=target, options=options).indexed == 5


@pytest.mark.parametrize(
    ("refused", "said"),
    [("/docs/_refresh", "not refreshed"), ("/docs/_count", "not counted"), ("/docs/_mget", "looked up")],
)
@pytest.mark.parametrize("status", [403, 404])
def test_a_right_that_is_missing_does_not_lose_the_report(
    refused: str, said: str, status: int, opensearch: FakeOpenSearch, target: OpenSearchTarget, tmp_path: Path
) -> None:
    answer = Answer(status, FORBIDDEN.body)
    opensearch.on_request = lambda _method, path: answer if path == refused else None
    report = load(request(lines(tmp_path, 5)), target=target, options=LoadOptions(write="index"))
    assert report.indexed == 5
    assert any(said in note for note in report.notes)
    assert "no permissions" in report.notes[0]


def test_documents_that_security_refuses_one_by_one_are_said_not_to_be_looked_up(
    opensearch: FakeOpenSearch, target: OpenSearchTarget, tmp_path: Path
) -> None:
    error = {"type": "security_exception", "reason": "no permissions for [indices:data/read/mget[shard]]"}
    answer = Answer(200, {"docs": [{"_index": "docs", "_id": f"d{n}", "error": error} for n in range(5)]})
    opensearch.on_request = lambda _method, path: answer if path == "/docs/_mget" else None
    report = load(request(lines(tmp_path, 5)), target=target, options=LoadOptions(write="index"))
    assert report.indexed == 5
    assert "No document was looked up by its id (OpenSearch does not let documents be looked up" in report.notes[0]


def test_an_answer_that_is_no_lookup_is_an_error_of_the_service(
    opensearch: FakeOpenSearch, target: OpenSearchTarget, tmp_path: Path
) -> None:
    for body in ({}, {"docs": None}, {"docs": []}, [], None):
        odd = Answer(200, body)
        opensearch.on_request = lambda _method, path, odd=odd: odd if path == "/docs/_mget" else None  # type: ignore[misc]
        with pytest.raises(UnavailableError, match="_mget is not whole"):
            load(request(lines(tmp_path, 5)), target=target)


def test_dropped_documents_are_an_outcome_of_their_own(
    opensearch: FakeOpenSearch, target: OpenSearchTarget, tmp_path: Path
) -> None:
    def on_item(key: str, _: Any) -> dict[str, Any] | None:
        if key == "d1":
            return {"status": 200, "result": "noop", "_version": -3}
        return {"status": 400, "error": {"type": "x", "reason": "no"}} if key == "d3" else None

    opensearch.on_item = on_item
    opensearch.on_answer = lambda items: items[::-1]
    options = LoadOptions(dead_letter_uri=str(tmp_path / "dead.jsonl"))
    report = load(request(lines(tmp_path, 5)), target=target, options=options)
    assert (report.submitted, report.indexed, report.dropped, report.rejected, report.missing) == (5, 3, 1, 1, 0)
    assert (report.dropped_sample, report.reasons, report.failed) == (("d1",), {"x": 1}, 1)
    found = [
        (record.outcome, record.id, record.line, record.text)
        for record in read_dead_letters(str(tmp_path / "dead.jsonl"))
    ]
    assert found == [("dropped", "d1", 2, '{"text":1}'), ("rejected", "d3", 4, '{"text":3}')]
    assert report.excess(0) is not None
    assert report.excess(1) is None


def test_an_index_that_refuses_all_breaks_off_and_the_next_start_goes_on(
    opensearch: FakeOpenSearch, target: OpenSearchTarget, tmp_path: Path
) -> None:
    blocked = {"status": 403, "error": {"type": "cluster_block_exception", "reason": "index write (api)"}}
    opensearch.on_item = lambda key, _: blocked if int(key[1:]) >= 60 else None
    options = LoadOptions(
        checkpoint_uri=str(tmp_path / "checkpoint.json"),
        dead_letter_uri=str(tmp_path / "dead.jsonl"),
        bulk_bytes=1_000,
        max_in_flight=1,
        checkpoint_seconds=0,
    )
    path = lines(tmp_path, 200)
    with pytest.raises(IndexRefusedError, match=r"takes no documents.*blocks\.write"):
        load(request(path), target=target, options=options)
    assert not (tmp_path / "dead.jsonl").exists()
    done = len(opensearch.documents)
    assert 0 < done <= 60
    opensearch.on_item = lambda _key, _document: None
    opensearch.bulks.clear()
    report = load(request(path), target=target, options=options)
    assert (report.indexed, report.resumed) == (200, True)
    assert "d0" not in opensearch.bulks[0]


def test_no_permission_to_write_breaks_off(
    opensearch: FakeOpenSearch, target: OpenSearchTarget, tmp_path: Path
) -> None:
    opensearch.faults = [FORBIDDEN]
    with pytest.raises(CredentialsError, match="lacks a permission"):
        load(request(lines(tmp_path, 5)), target=target)
