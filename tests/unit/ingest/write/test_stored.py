"""The scan of an index and the deletes, with answers that a real OpenSearch gives rarely."""

from __future__ import annotations

from typing import Any

import pytest

from overnight.errors import RequestRefusedError, SpecError, UnavailableError
from overnight.ingest import OpenSearchTarget
from overnight.ingest.write.index import inspect_index
from overnight.ingest.write.sink import IndexInfo
from overnight.ingest.write.stored import Baseline, StoredDocument, delete_documents, read_baseline, scan
from unit.ingest.clock import Clock
from unit.ingest.fake_opensearch import Answer, FakeOpenSearch


@pytest.fixture(autouse=True)
def _no_waits(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("time.sleep", lambda seconds: None)


@pytest.fixture
def index(opensearch: FakeOpenSearch, target: OpenSearchTarget) -> IndexInfo:
    opensearch.documents = {str(number): {} for number in range(8)}
    opensearch.sequence = {str(number): number for number in range(8)}
    return inspect_index(target, "docs")


def nth(path: str, number: int, answer: Answer) -> Any:
    """Return what answers one call of a path in its own way."""
    seen = 0

    def on_request(_method: str, asked: str) -> Answer | None:
        nonlocal seen
        seen += asked == path
        return answer if asked == path and seen == number else None

    return on_request


FORGOTTEN = Answer(404, {"error": {"type": "search_context_missing_exception", "reason": "No search context found"}})
PARTIAL = Answer(200, {"_scroll_id": "0", "timed_out": False, "_shards": {"failed": 1}, "hits": {}})


@pytest.mark.parametrize("fault", [FORGOTTEN, PARTIAL, Answer(503, {}), Answer(0), Answer(200, {"no": "scan"})])
def test_a_scan_that_is_lost_begins_anew(
    opensearch: FakeOpenSearch, target: OpenSearchTarget, index: IndexInfo, clock: Clock, fault: Answer
) -> None:
    opensearch.on_request = nth("/_search/scroll", 2, fault)
    found = list(scan(target, index))
    assert {document.id for document in found} == set(opensearch.documents)
    assert len(found) > 8  # the pages before the loss came twice


def test_a_page_that_was_lost_between_is_noticed(
    opensearch: FakeOpenSearch, target: OpenSearchTarget, index: IndexInfo, clock: Clock
) -> None:
    empty = {"total": {"value": 8}, "hits": []}
    answer = {"_scroll_id": "0", "timed_out": False, "_shards": {"failed": 0}, "hits": empty}
    opensearch.on_request = nth("/_search/scroll", 1, Answer(200, answer))
    assert {document.id for document in scan(target, index)} == set(opensearch.documents)


def test_a_scan_is_given_up(
    opensearch: FakeOpenSearch, target: OpenSearchTarget, index: IndexInfo, clock: Clock
) -> None:
    opensearch.on_request = lambda _method, path: FORGOTTEN if path == "/_search/scroll" else None
    with pytest.raises(UnavailableError, match="Shard 0 of 'docs' cannot be read to its end"):
        list(scan(target, index))
    assert opensearch.requests.count("POST /docs/_search") == 5


def document(key: int, sequence: int | None = None) -> StoredDocument:
    return StoredDocument(str(key), None, 0, key if sequence is None else sequence, 1)


def test_deletes_that_opensearch_is_too_busy_for_are_sent_again(
    opensearch: FakeOpenSearch, target: OpenSearchTarget, index: IndexInfo, clock: Clock
) -> None:
    busy = {"status": 429, "error": {"type": "rejected_execution_exception", "reason": "full"}}
    answers = {"3": [busy, busy]}
    opensearch.on_item = lambda key, _document: answers[key].pop() if answers.get(key) else None
    opensearch.faults = [Answer(503, {}), Answer(0)]
    outcome = delete_documents(target, index, iter([document(key) for key in range(5)]))
    assert (outcome.deleted, outcome.changed) == (5, 0)
    assert set(opensearch.documents) == {"5", "6", "7"}


def test_a_delete_whose_answer_was_lost_counts_once(
    opensearch: FakeOpenSearch, target: OpenSearchTarget, index: IndexInfo
) -> None:
    gone = {"type": "version_conflict_engine_exception", "reason": "required seqNo [1], but no document was found"}
    opensearch.on_item = lambda key, _document: {"status": 409, "error": gone} if key == "1" else None
    outcome = delete_documents(target, index, iter([document(0), document(1), document(2, sequence=0)]))
    assert (outcome.deleted, outcome.changed) == (2, 1)
    assert set(opensearch.documents) == {"1", "2", "3", "4", "5", "6", "7"}


def test_a_delete_that_is_refused_ends_it(
    opensearch: FakeOpenSearch, target: OpenSearchTarget, index: IndexInfo
) -> None:
    blocked = {"type": "cluster_block_exception", "reason": "index [docs] blocked by: [FORBIDDEN/8/index write (api)]"}
    opensearch.on_item = lambda _key, _document: {"status": 403, "error": blocked}
    with pytest.raises(RequestRefusedError, match="'docs' does not delete '0': cluster_block_exception"):
        delete_documents(target, index, iter([document(0)]))


def test_answers_for_other_documents_delete_nothing_silently(
    opensearch: FakeOpenSearch, target: OpenSearchTarget, index: IndexInfo, clock: Clock
) -> None:
    opensearch.faults = [Answer(200, {"items": [{"delete": {"_id": "9", "status": 200}}]})] * 20
    with pytest.raises(UnavailableError, match="not for the documents that were sent"):
        delete_documents(target, index, iter([document(0)]))


def test_without_the_right_to_statistics_nothing_is_begun(
    opensearch: FakeOpenSearch, target: OpenSearchTarget, index: IndexInfo
) -> None:
    opensearch.on_request = lambda _method, path: Answer(403, {"error": "no"}) if path == "/docs/_stats" else None
    with pytest.raises(SpecError, match="indices:monitor/stats"):
        read_baseline(target, index)
    opensearch.on_request = lambda _method, path: Answer(200, {}) if path == "/docs/_stats" else None
    with pytest.raises(UnavailableError, match="has no shard"):
        read_baseline(target, index)


def test_what_is_newer_than_the_baseline(
    opensearch: FakeOpenSearch, target: OpenSearchTarget, index: IndexInfo
) -> None:
    baseline = read_baseline(target, index)
    assert baseline == Baseline(index.uuid, {"0": 7})
    assert not baseline.is_newer(index, document(7))
    assert baseline.is_newer(index, document(8))
    assert baseline.is_newer(index, document(7)._replace(shard=1))
    assert Baseline("another", {"0": 7}).is_newer(index, document(7))
