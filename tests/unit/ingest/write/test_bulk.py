from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from typing import Any

import pytest

from overnight.errors import (
    CredentialsError,
    RateLimitedError,
    RequestRefusedError,
    TransientError,
    UnavailableError,
)
from overnight.ingest import OpenSearchTarget
from overnight.ingest.write.bulk import BulkSender
from overnight.ingest.write.sink import (
    Body,
    BodyOutcome,
    IndexInfo,
    StoppedError,
    Throttle,
    WriteOperation,
    WriteOptions,
)
from unit.ingest.clock import Clock
from unit.ingest.fake_opensearch import Answer, FakeOpenSearch

REJECTED = {"type": "es_rejected_execution_exception", "reason": "queue is full"}
SOON = {"Retry-After": "0"}


def body_of(*keys: str) -> tuple[bytes, list[int], list[str]]:
    body, ends = b"", []
    for key in keys:
        body += json.dumps({"index": {"_id": key}}).encode() + b"\n" + json.dumps({"x": key}).encode() + b"\n"
        ends.append(len(body))
    return body, ends, list(keys)


def sender(
    target: OpenSearchTarget,
    clock: Clock,
    *,
    patience: float = 60.0,
    throttle: Throttle | None = None,
    operation: WriteOperation = "index",
    was_sent: bool = False,
    index: IndexInfo | None = None,
) -> BulkSender:
    options = WriteOptions(operation, patience, clock, throttle or Throttle(4), was_sent)
    return BulkSender(target, index or IndexInfo("docs", "uuid"), options)


@pytest.mark.parametrize(
    "fault",
    [
        Answer(429, {"error": {"type": "circuit_breaking_exception", "reason": "heap"}}, SOON),
        Answer(503, b"<html>busy</html>", SOON),
        Answer(502, b"", SOON),
        Answer(200, b'{"errors":false,"items":[{"ind', SOON),
        Answer(200, {"errors": False, "items": [{"index": {"status": 201}}]}, carried_out=True),
        Answer(200, {"took": 1}),
        Answer(200, {"errors": True, "items": [{"index": {"error": "?"}}] * 3}),
        Answer(200, {"errors": True, "items": ["a", None, 3]}),
        Answer(200, {"errors": True, "items": [{}, {"index": None}, {"index": {"status": "201"}}]}),
        Answer(200, {"errors": False, "items": [{"index": {"status": 201}}] * 4}),
        Answer(200, {"error": {"type": "x", "reason": "no"}, "status": 500}),
        Answer(200, b"<html>signed out</html>"),
        Answer(200, ["items"]),
        Answer(0),
        Answer(0, carried_out=True),
    ],
    ids=[
        "429",
        "503",
        "502",
        "cut answer",
        "short answer",
        "no items",
        "no status",
        "no objects",
        "no outcomes",
        "long answer",
        "an error",
        "a page",
        "a list",
        "dropped before",
        "dropped after",
    ],
)
def test_a_body_that_was_not_answered_is_sent_again(
    fault: Answer, clock: Clock, opensearch: FakeOpenSearch, target: OpenSearchTarget
) -> None:
    opensearch.faults = [fault, fault]
    assert sender(target, clock).send(*body_of("a", "b", "c")) == BodyOutcome()
    assert opensearch.documents == {key: {"x": key} for key in "abc"}
    assert opensearch.bulks == [["a", "b", "c"]] * 3


@pytest.mark.parametrize("status", [429, 503])
def test_only_rejected_documents_are_sent_again(
    status: int, clock: Clock, opensearch: FakeOpenSearch, target: OpenSearchTarget
) -> None:
    busy = {"b": 2, "d": 1}

    def on_item(key: str, _: Any) -> dict[str, Any] | None:
        if key == "c":
            return {"status": 400, "error": {"type": "mapper_parsing_exception", "reason": "bad"}}
        busy[key] = busy.get(key, 0) - 1
        return {"status": status, "error": REJECTED} if busy[key] >= 0 else None

    opensearch.on_item = on_item
    rejected = sender(target, clock).send(*body_of(*"abcd")).rejected
    assert [(number, bad.code, bad.reason) for number, bad in rejected.items()] == [
        (2, "mapper_parsing_exception", "bad")
    ]
    assert opensearch.bulks == [["a", "b", "c", "d"], ["b", "d"], ["b"]]
    assert set(opensearch.documents) == {"a", "b", "d"}


@pytest.mark.parametrize(
    ("status", "code"),
    [(500, "node_closed_exception"), (404, "index_shard_closed_exception"), (500, "already_closed_exception")],
)
def test_documents_that_a_stopping_node_gave_back_are_sent_again(
    status: int, code: str, clock: Clock, opensearch: FakeOpenSearch, target: OpenSearchTarget
) -> None:
    left = {"b": 2}

    def on_item(key: str, _: Any) -> dict[str, Any] | None:
        left[key] = left.get(key, 0) - 1
        return {"status": status, "error": {"type": code, "reason": "node closed"}} if left[key] >= 0 else None

    opensearch.on_item = on_item
    assert sender(target, clock).send(*body_of(*"abc")) == BodyOutcome()
    assert opensearch.bulks == [["a", "b", "c"], ["b"], ["b"]]
    left["b"] = 1_000
    with pytest.raises(UnavailableError, match="going away"):
        sender(target, clock, patience=0.5).send(*body_of("b"))


@pytest.mark.parametrize(
    ("error", "expected"),
    [
        ("MapperParsingException[no]", ("status_400", "MapperParsingException[no]")),
        (None, ("status_400", "OpenSearch answered 400")),
        ({"reason": "no"}, ("status_400", "no")),
        ({"type": "x", "reason": None, "caused_by": "deep"}, ("x", "OpenSearch answered 400")),
        ({"type": "x", "reason": "no", "caused_by": {"reason": "deep"}}, ("x", "no: deep")),
    ],
)
def test_an_error_of_any_shape_is_a_rejection(
    error: Any, expected: tuple[str, str], clock: Clock, opensearch: FakeOpenSearch, target: OpenSearchTarget
) -> None:
    opensearch.on_item = lambda _key, _document: {"status": 400, "error": error}
    (rejection,) = sender(target, clock).send(*body_of("a")).rejected.values()
    assert (rejection.code, rejection.reason) == expected


def test_documents_that_stay_rejected_fail_the_load(
    clock: Clock, opensearch: FakeOpenSearch, target: OpenSearchTarget
) -> None:
    opensearch.on_item = lambda _key, _document: {"status": 429, "error": REJECTED}
    with pytest.raises(RateLimitedError, match=r"queue is full\. Lower max_in_flight"):
        sender(target, clock, patience=0.5).send(*body_of("a"))


def test_a_server_that_stays_away_fails_the_load(
    clock: Clock, opensearch: FakeOpenSearch, target: OpenSearchTarget
) -> None:
    opensearch.faults = [Answer(503, b"")] * 50
    with pytest.raises(UnavailableError):
        sender(target, clock, patience=0.5).send(*body_of("a"))


def test_waiting_ends_when_the_load_does(clock: Clock, opensearch: FakeOpenSearch, target: OpenSearchTarget) -> None:
    opensearch.faults = [Answer(429, b"", {"Retry-After": "200"})]
    opensearch.gate = lambda _: clock.set()
    with pytest.raises(StoppedError) as raised:
        sender(target, clock, patience=600).send(*body_of("a"))
    assert isinstance(raised.value.__cause__, RateLimitedError)
    assert len(opensearch.bulks) == 1


def test_a_body_that_is_too_large_is_halved_down_to_the_culprit(
    clock: Clock, opensearch: FakeOpenSearch, target: OpenSearchTarget
) -> None:
    keys = [*"abcdef", "g" * 300, *"hij"]
    opensearch.max_bytes = 150
    rejected = sender(target, clock).send(*body_of(*keys)).rejected
    assert [(number, bad.code) for number, bad in rejected.items()] == [(6, "status_413")]
    assert "413" in rejected[6].reason
    assert set(opensearch.documents) == set("abcdefhij")


def test_one_document_that_spoils_the_request_is_found(
    clock: Clock, opensearch: FakeOpenSearch, target: OpenSearchTarget
) -> None:
    error = {"error": {"type": "illegal_argument_exception", "reason": "bad"}}

    def answer(body: bytes, original: Any = opensearch._bulk) -> Answer:
        return Answer(400, error) if b'"c"' in body else original(body)

    opensearch._bulk = answer  # type: ignore[method-assign]
    rejected = sender(target, clock).send(*body_of(*"abcde")).rejected
    assert [(number, bad.code) for number, bad in rejected.items()] == [(2, "illegal_argument_exception")]
    assert rejected[2].reason.endswith("400: bad")
    assert set(opensearch.documents) == set("abde")


def test_a_request_that_is_wrong_whatever_is_in_it_fails_the_load(
    clock: Clock, opensearch: FakeOpenSearch, target: OpenSearchTarget
) -> None:
    opensearch._bulk = lambda _: Answer(400, {"error": {"type": "x", "reason": "no"}})  # type: ignore[method-assign]
    with pytest.raises(RequestRefusedError):
        sender(target, clock).send(*body_of(*map(str, range(100))))


def test_any_number_of_documents_may_spoil_the_request_once_others_were_taken(
    clock: Clock, opensearch: FakeOpenSearch, target: OpenSearchTarget
) -> None:
    def answer(body: bytes, original: Any = opensearch._bulk) -> Answer:
        return Answer(400, {"error": {"type": "x", "reason": "no"}}) if b'"bad' in body else original(body)

    opensearch._bulk = answer  # type: ignore[method-assign]
    keys = [*map(str, range(12)), *(f"bad{number}" for number in range(12))]
    rejected = sender(target, clock).send(*body_of(*keys)).rejected
    assert sorted(rejected) == list(range(12, 24))
    assert set(opensearch.documents) == set(keys[:12])


def test_a_refusal_of_single_documents_is_believed_eight_times_while_none_was_taken(
    clock: Clock, opensearch: FakeOpenSearch, target: OpenSearchTarget
) -> None:
    opensearch._bulk = lambda _: Answer(400, {"error": {"type": "x", "reason": "no"}})  # type: ignore[method-assign]
    assert len(sender(target, clock).send(*body_of(*"12345678")).rejected) == 8
    with pytest.raises(RequestRefusedError):
        sender(target, clock).send(*body_of(*"123456789"))


@pytest.mark.parametrize("status", [401, 403])
def test_credentials_that_are_refused_fail_the_load_at_once(
    status: int, clock: Clock, opensearch: FakeOpenSearch, target: OpenSearchTarget
) -> None:
    opensearch.faults = [Answer(status, {"error": {"type": "security_exception", "reason": "no"}})] * 2
    with pytest.raises(CredentialsError):
        sender(target, clock).send(*body_of("a"))
    assert len(opensearch.bulks) == 1


def test_an_index_that_vanished_fails_the_load(
    clock: Clock, opensearch: FakeOpenSearch, target: OpenSearchTarget
) -> None:
    error = {"type": "index_not_found_exception", "reason": "no such index [docs]"}
    opensearch.on_item = lambda _key, _document: {"status": 404, "error": error}
    with pytest.raises(RequestRefusedError, match="vanished"):
        sender(target, clock).send(*body_of("a", "b"))


class Recording:
    """A target that takes every document and keeps the names and parameters of the requests."""

    def __init__(self) -> None:
        self.requests: list[tuple[str, Body, Mapping[str, str]]] = []

    def bulk(self, index: str, body: Body, params: Mapping[str, str], *, decode: Callable[[bytes], Any]) -> Any:
        self.requests.append((index, body, params))
        return decode(b'{"errors":false,"items":[{"index":{"_id":"a","_index":"docs","status":201}}]}')


ASKED_FOR = {
    "errors",
    *(f"items.*.{name}" for name in ("_id", "_version", "result", "status")),
    *(f"items.*.error.{name}" for name in ("type", "reason", "caused_by.reason")),
}


@pytest.mark.parametrize(
    ("index", "name", "more", "required"),
    [
        (IndexInfo("docs", "uuid"), "docs", set(), None),
        (IndexInfo("docs", "uuid", requested="a&b", is_alias=True), "a%26b", set(), "true"),
        (IndexInfo("docs", "uuid", pipelines=("p",)), "docs", {"items.*._index"}, None),
        (IndexInfo("docs", "uuid", is_data_stream=True), "docs", {"items.*._index"}, None),
    ],
)
def test_an_answer_is_asked_for_what_is_read_of_it_and_an_alias_must_stay_one(
    index: IndexInfo, name: str, more: set[str], required: str | None, clock: Clock
) -> None:
    target = Recording()
    sending = sender(target, clock, index=index)  # type: ignore[arg-type]
    assert sending.has_written is False
    content, ends, ids = body_of("a")
    body = memoryview(content)
    assert sending.send(body, ends, ids) == BodyOutcome()
    assert sending.has_written is True
    ((asked, sent, params),) = target.requests
    assert asked == name
    # A whole body is many megabytes: it is not copied.
    assert sent is body
    assert set(params["filter_path"].split(",")) == ASKED_FOR | more
    assert params.get("require_alias") == required
    assert set(params) <= {"filter_path", "require_alias"}


def test_nothing_counts_as_written_before_a_document_was_taken(
    clock: Clock, opensearch: FakeOpenSearch, target: OpenSearchTarget
) -> None:
    opensearch.on_item = lambda _key, _document: {"status": 400, "error": {"type": "x", "reason": "no"}}
    sending = sender(target, clock)
    sending.send(*body_of("a"))
    assert not sending.has_written


def test_the_throttle_halves_at_once_and_grows_slowly() -> None:
    throttle = Throttle(8)
    assert throttle.limit == 8
    throttle.push_back()
    assert throttle.limit == 4
    for _ in range(4):
        throttle.relax()
    assert throttle.limit in (4, 5)
    for _ in range(40):
        throttle.relax()
    assert throttle.limit == 8
    for _ in range(10):
        throttle.push_back()
    assert throttle.limit == 1


def test_every_push_back_reaches_the_throttle(
    clock: Clock, opensearch: FakeOpenSearch, target: OpenSearchTarget
) -> None:
    throttle = Throttle(8)
    opensearch.faults = [Answer(429, b"", SOON), Answer(429, b"", SOON)]
    sender(target, clock, throttle=throttle).send(*body_of("a"))
    assert throttle.limit == 2


def test_a_transient_error_is_one_for_airflow_too() -> None:
    assert TransientError.retryable
