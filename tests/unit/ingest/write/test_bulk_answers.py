"""Whatever order, number and identity the items of an answer have, each document gets its own outcome, or none."""

from __future__ import annotations

import random
from typing import Any

import orjson
import pytest

from overnight.errors import RateLimitedError, UnavailableError
from overnight.ingest import OpenSearchTarget
from overnight.ingest.write import bulk
from overnight.ingest.write.bulk import IndexRefusedError
from overnight.ingest.write.sink import BodyOutcome, IndexInfo
from overnight.rejection import Rejection
from unit.ingest.clock import Clock
from unit.ingest.fake_opensearch import Answer, FakeOpenSearch
from unit.ingest.write.test_bulk import REJECTED, SOON, body_of, sender

FAILED = {"status": 500, "error": {"type": "fail_processor_exception", "reason": "no"}}
DROPPED = {"status": 200, "result": "noop", "_version": -3}


def test_items_that_come_back_in_each_others_places_are_matched_by_id(
    clock: Clock, opensearch: FakeOpenSearch, target: OpenSearchTarget
) -> None:
    # As OpenSearch 2.19.6 and 3.6.0 answer through a pipeline in which one processor drops and one fails.
    keys = "01234567"
    outcomes = {"1": DROPPED, "4": DROPPED, "7": DROPPED, "2": FAILED, "6": FAILED}
    opensearch.on_item = lambda key, _: outcomes.get(key)
    order = [0, 1, 4, 3, 7, 5, 2, 6]
    opensearch.on_answer = lambda items: [items[number] for number in order]
    found = sender(target, clock).send(*body_of(*keys))
    assert found.rejected == dict.fromkeys((2, 6), Rejection("fail_processor_exception", "no"))
    assert found.dropped == [1, 4, 7]
    assert set(opensearch.documents) == set("035")
    assert len(opensearch.bulks) == 1


@pytest.mark.parametrize("version", [-3, -4])
def test_a_version_below_zero_is_a_dropped_document(
    version: int, clock: Clock, opensearch: FakeOpenSearch, target: OpenSearchTarget
) -> None:
    opensearch.on_item = lambda key, _: {**DROPPED, "_version": version} if key == "b" else None
    assert sender(target, clock).send(*body_of("a", "b")) == BodyOutcome(dropped=[1])


@pytest.mark.parametrize("version", [0, 1])
def test_an_update_that_changes_nothing_is_indexed(
    version: int, clock: Clock, opensearch: FakeOpenSearch, target: OpenSearchTarget
) -> None:
    opensearch.on_item = lambda _key, _document: {"status": 200, "result": "noop", "_version": version}
    assert sender(target, clock, operation="update").send(*body_of("a", "b")) == BodyOutcome()


def test_throttled_items_in_other_places_send_the_right_documents_again(
    clock: Clock, opensearch: FakeOpenSearch, target: OpenSearchTarget
) -> None:
    busy = {"b", "d"}

    def on_item(key: str, _: Any) -> dict[str, Any] | None:
        if key in busy:
            busy.remove(key)
            return {"status": 429, "error": REJECTED}
        return None

    opensearch.on_item = on_item
    opensearch.on_answer = lambda items: items[::-1]
    assert sender(target, clock).send(*body_of(*"abcde")) == BodyOutcome()
    assert opensearch.bulks == [list("abcde"), list("bd")]
    assert set(opensearch.documents) == set("abcde")


@pytest.mark.parametrize(
    ("name", "change", "again"),
    [
        ("two items of one id", lambda items: [items[0], items[0], items[2]], ["a", "b"]),
        ("an item too few", lambda items: [items[0], items[2]], ["b"]),
        ("an id that was not sent", lambda items: [items[0], {"index": {"_id": "z", "status": 201}}, items[2]], ["b"]),
        ("an item too many", lambda items: [*items, items[1]], ["b"]),
        (
            "an item without an id beside one that was not sent",
            lambda items: [*items[:2], {"index": {"_id": None, "status": 201}}, {"index": {"_id": "z", "status": 201}}],
            ["c"],
        ),
        ("a number for an id", lambda items: [items[0], {"index": {"_id": 7, "status": 201}}, items[2]], ["b"]),
    ],
)
def test_what_a_faulty_answer_leaves_open_is_sent_again(
    name: str, change: Any, again: list[str], clock: Clock, opensearch: FakeOpenSearch, target: OpenSearchTarget
) -> None:
    first = [change]
    opensearch.on_answer = lambda items: first.pop()(items) if first else items
    assert sender(target, clock).send(*body_of(*"abc")) == BodyOutcome()
    assert opensearch.bulks == [list("abc"), again]


def test_an_answer_with_an_item_that_has_no_status_is_not_used_at_all(
    clock: Clock, opensearch: FakeOpenSearch, target: OpenSearchTarget
) -> None:
    opensearch.on_answer = lambda items: [*items[:2], {"index": {"_id": "c", "error": "?"}}]
    with pytest.raises(UnavailableError, match="an item has no status"):
        sender(target, clock).send(*body_of(*"abc"))
    assert opensearch.bulks == [list("abc")] * len(opensearch.bulks)


def test_an_answer_that_stays_faulty_ends_the_load_and_names_the_document(
    clock: Clock, opensearch: FakeOpenSearch, target: OpenSearchTarget
) -> None:
    opensearch.on_answer = lambda items: [item for item in items if item["index"]["_id"] != "b"]
    with pytest.raises(UnavailableError, match="lacks 1 of 1 documents, such as 'b'"):
        sender(target, clock).send(*body_of(*"abc"))
    assert set(opensearch.documents) == set("abc")


def test_items_without_ids_are_told_apart_by_smaller_bodies(
    clock: Clock, opensearch: FakeOpenSearch, target: OpenSearchTarget
) -> None:
    # An update that a pipeline dropped has the id 'auto-generated', one that it failed has none.
    def on_item(key: str, _: Any) -> dict[str, Any] | None:
        outcome = {"b": {**DROPPED, "_id": "auto-generated"}, "d": {**FAILED, "_id": None}}.get(key)
        return dict(outcome) if outcome else None

    opensearch.on_item = on_item
    opensearch.on_answer = lambda items: items[::-1]
    found = sender(target, clock, operation="update").send(*_updates(*"abcde"))
    assert found == BodyOutcome({3: Rejection("fail_processor_exception", "no")}, [1])
    assert set(opensearch.documents) == set("ace")


def test_items_without_ids_that_all_say_the_same_are_taken_as_they_are(
    clock: Clock, opensearch: FakeOpenSearch, target: OpenSearchTarget
) -> None:
    opensearch.on_item = lambda key, _: {**DROPPED, "_id": "auto-generated"} if key in "bd" else None
    assert sender(target, clock, operation="update").send(*_updates(*"abcde")).dropped == [1, 3]
    assert len(opensearch.bulks) == 1


def test_the_halves_of_a_large_body_are_not_forgotten_while_one_of_them_is_split(
    clock: Clock, opensearch: FakeOpenSearch, target: OpenSearchTarget
) -> None:
    outcomes = {"b": {**DROPPED, "_id": "auto-generated"}, "d": {**FAILED, "_id": None}}
    opensearch.on_item = lambda key, _: dict(outcomes[key]) if key in outcomes else None
    body, ends, ids = _updates(*"abcdefgh")
    opensearch.max_bytes = len(body) - 1
    found = sender(target, clock, operation="update").send(body, ends, ids)
    assert found == BodyOutcome({3: Rejection("fail_processor_exception", "no")}, [1])
    assert set(opensearch.documents) == set("acefgh")


def test_what_is_wrong_with_an_answer_is_counted_in_the_log(
    clock: Clock, opensearch: FakeOpenSearch, target: OpenSearchTarget, caplog: pytest.LogCaptureFixture
) -> None:
    strangers = [{"index": {"_id": key, "status": 201}} for key in "xyz"]
    first = [lambda items: [items[0], items[0], items[1], items[1], *strangers]]
    opensearch.on_answer = lambda items: first.pop()(items) if first else items
    sender(target, clock).send(*body_of(*"abc"))
    assert "has 3 ids that were not sent and 2 more than once" in caplog.text


def _updates(*keys: str) -> tuple[bytes, list[int], list[str]]:
    body, ends = b"", []
    for key in keys:
        body += b'{"update":{"_id":"%b"}}\n{"doc":{"x":1},"doc_as_upsert":true}\n' % key.encode()
        ends.append(len(body))
    return body, ends, list(keys)


@pytest.mark.parametrize("seed", range(25))
def test_the_outcomes_are_those_of_the_index_whatever_happens_to_the_answers(
    seed: int, clock: Clock, opensearch: FakeOpenSearch, target: OpenSearchTarget
) -> None:
    chance = random.Random(seed)
    keys = [f"d{number}" for number in range(chance.randrange(1, 120))]
    fate = {key: chance.choice([None, None, None, DROPPED, FAILED]) for key in keys}

    def on_item(key: str, _: Any) -> dict[str, Any] | None:
        if chance.random() < 0.1:
            return {"status": 429, "error": REJECTED}
        return fate[key]

    def on_answer(items: list[Any]) -> list[Any]:
        if chance.random() < 0.5:
            chance.shuffle(items)
        if chance.random() < 0.3:
            items = [item for item in items if chance.random() < 0.8]
        if chance.random() < 0.3:
            items += chance.choices(items, k=3) if items else []
        return items

    opensearch.on_item, opensearch.on_answer = on_item, on_answer
    found = sender(target, clock, patience=1e9).send(*body_of(*keys))
    assert {keys[number] for number in found.dropped} == {key for key in keys if fate[key] is DROPPED}
    assert {keys[number] for number in found.rejected} == {key for key in keys if fate[key] is FAILED}
    assert set(opensearch.documents) == {key for key in keys if fate[key] is None}
    assert len(found.dropped) == len(set(found.dropped))


INDEX_WIDE = [
    (403, "cluster_block_exception", "index [docs] blocked by: [FORBIDDEN/8/index write (api)];", "blocks.write"),
    (400, "index_closed_exception", "closed", "_open"),
    (400, "illegal_argument_exception", "pipeline with id [nope] does not exist", "Create the ingest pipeline"),
    (400, "illegal_argument_exception", "no write index is defined for alias [docs]. The write", "is_write_index"),
    (403, "security_exception", "no permissions for [indices:data/write/bulk[s]]", "lacks the permission"),
    (404, "index_not_found_exception", "no such index [docs]", "vanished"),
    (400, "validation_exception", "this action would add [2] total shards, but", "max_shards_per_node"),
]


@pytest.mark.parametrize(("status", "code", "reason", "remedy"), INDEX_WIDE)
def test_what_the_index_refuses_to_all_breaks_off_with_one_message(
    status: int, code: str, reason: str, remedy: str, clock: Clock, opensearch: FakeOpenSearch, target: OpenSearchTarget
) -> None:
    opensearch.on_item = lambda _key, _document: {"status": status, "error": {"type": code, "reason": reason}}
    with pytest.raises(IndexRefusedError, match=remedy) as raised:
        sender(target, clock).send(*body_of(*"abc"))
    assert (raised.value.code, raised.value.status) == (code, status)
    assert len(opensearch.bulks) == 1


BUSY = [
    (429, "cluster_block_exception", "TOO_MANY_REQUESTS/12/disk usage exceeded flood-stage watermark", "disk is full"),
    (429, "rejected_execution_exception", "rejected execution of coordinating operation", "max_in_flight"),
    (429, "circuit_breaking_exception", "Data too large", "more memory"),
    (429, "status_exception", "Error from remote service: slow down", "remote model"),
    (400, "status_exception", "The request was denied due to remote server throttling", "remote model"),
    (500, "status_exception", "Error communicating with remote model: Connection reset by peer", "remote model"),
    (503, "unavailable_shards_exception", "primary shard is not active", "healthy again"),
    (409, "version_conflict_engine_exception", "[a]: version conflict", "Something else writes"),
]


@pytest.mark.parametrize(("status", "code", "reason", "remedy"), BUSY)
def test_what_passes_is_sent_again_and_its_remedy_is_its_own(
    status: int,
    code: str,
    reason: str,
    remedy: str,
    clock: Clock,
    opensearch: FakeOpenSearch,
    target: OpenSearchTarget,
) -> None:
    left = [2]

    def on_item(_key: str, _document: Any) -> dict[str, Any] | None:
        left[0] -= 1
        return {"status": status, "error": {"type": code, "reason": reason}} if left[0] >= 0 else None

    opensearch.on_item = on_item
    assert sender(target, clock).send(*body_of("a")) == BodyOutcome()
    assert opensearch.bulks == [["a"]] * 3
    left[0] = 1_000
    with pytest.raises((RateLimitedError, UnavailableError), match=remedy) as raised:
        sender(target, clock).send(*body_of("a"))
    what = "A node of OpenSearch is going away" if status == 503 else "OpenSearch rejects documents"
    assert str(raised.value).startswith(f"{what}: {code}: {reason}. ")
    assert (raised.value.status, raised.value.code) == (status, code)


def test_the_wait_doubles_and_starts_again_when_a_document_gets_through(
    clock: Clock, opensearch: FakeOpenSearch, target: OpenSearchTarget
) -> None:
    refusals = [["a", "b"], ["a", "b"], ["b"], ["b"], []]

    def on_item(key: str, _: Any) -> dict[str, Any] | None:
        return {"status": 429, "error": REJECTED} if key in refusals[len(opensearch.bulks) - 1] else None

    opensearch.on_item = on_item
    # Without a new start the four waits would be longer than the patience.
    assert sender(target, clock, patience=1.0).send(*body_of("a", "b")) == BodyOutcome()
    assert clock.waits == [0.25, 0.5, 0.25, 0.5]


def test_the_server_says_how_long_to_wait(clock: Clock, opensearch: FakeOpenSearch, target: OpenSearchTarget) -> None:
    opensearch.faults = [Answer(429, b"", {"Retry-After": "17"}), Answer(503, b"", SOON), Answer(429, b"")]
    sender(target, clock).send(*body_of("a"))
    assert clock.waits == [17.0, 0.0, 1.0]


def test_a_wait_is_random_between_its_half_and_its_whole(
    clock: Clock, opensearch: FakeOpenSearch, target: OpenSearchTarget, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(bulk.random, "uniform", lambda low, _high: low)
    opensearch.faults = [Answer(503)] * 3
    sender(target, clock).send(*body_of("a"))
    assert clock.waits == [0.125, 0.25, 0.5]


def test_patience_ends_before_a_wait_that_would_be_too_long(
    clock: Clock, opensearch: FakeOpenSearch, target: OpenSearchTarget
) -> None:
    opensearch.faults = [Answer(429, b"", {"Retry-After": seconds}) for seconds in ("60", "1")]
    with pytest.raises(RateLimitedError):
        sender(target, clock, patience=60).send(*body_of("a"))
    assert clock.waits == [60.0]


CONFLICT = {"status": 409, "error": {"type": "version_conflict_engine_exception", "reason": "document already exists"}}


def test_a_document_that_is_in_a_data_stream_already_is_rejected(
    clock: Clock, opensearch: FakeOpenSearch, target: OpenSearchTarget
) -> None:
    opensearch.on_item = lambda key, _: CONFLICT if key == "b" else None
    found = sender(target, clock, operation="create").send(*body_of("a", "b"))
    assert {number: rejection.code for number, rejection in found.rejected.items()} == {1: "document_exists"}


def test_a_conflict_says_nothing_of_the_documents_after_it(
    clock: Clock, opensearch: FakeOpenSearch, target: OpenSearchTarget
) -> None:
    opensearch.on_item = lambda key, _: CONFLICT if key == "a" else FAILED if key == "b" else None
    found = sender(target, clock, operation="create", was_sent=True).send(*body_of("a", "b"))
    assert found == BodyOutcome({1: Rejection("fail_processor_exception", "no")})


def test_a_document_that_our_own_lost_body_has_created_is_indexed(
    clock: Clock, opensearch: FakeOpenSearch, target: OpenSearchTarget
) -> None:
    opensearch.on_item = lambda _key, _document: CONFLICT
    assert sender(target, clock, operation="create", was_sent=True).send(*body_of("a")) == BodyOutcome()
    opensearch.faults = [Answer(0)]
    assert sender(target, clock, operation="create").send(*body_of("a", "b")) == BodyOutcome()


def test_a_document_that_a_pipeline_put_elsewhere_is_said_to_be_elsewhere(
    clock: Clock, opensearch: FakeOpenSearch, target: OpenSearchTarget
) -> None:
    opensearch.on_answer = lambda items: [
        {"index": {**item["index"], "_index": "docs" if item["index"]["_id"] == "a" else "other"}} for item in items
    ]
    index = IndexInfo("docs", "uuid", pipelines=("p",))
    assert sender(target, clock, index=index).send(*body_of("a", "b")) == BodyOutcome(elsewhere=[1])


def said_of(key: Any, **changes: Any) -> dict[str, Any]:
    said = {"_id": key, "_index": "docs", "status": 201, "result": "created", "_version": 1, **changes}
    return {name: value for name, value in said.items() if value != "left out"}


WHOLE: list[Any] = [{"index": said_of(key)} for key in "abc"]


@pytest.mark.parametrize(
    ("items", "is_whole"),
    [
        (WHOLE, True),
        ([{"create": item["index"]} for item in WHOLE], True),
        ([{"update": said_of(key, status=200, result="updated", _version=7)} for key in "abc"], True),
        ([{"index": said_of(key, result="left out", _version="left out")} for key in "abc"], True),
        ([{"index": said_of(key, _shards={"failed": 0})} for key in "abc"], True),
        ([WHOLE[1], WHOLE[0], WHOLE[2]], False),
        (WHOLE[:2], False),
        ([*WHOLE, WHOLE[2]], False),
        ([*WHOLE, {}], False),
        ([*WHOLE, {"index": None}], False),
        ([*WHOLE[:2], {"delete": said_of("c")}], False),
        *(
            ([*WHOLE[:2], {"index": said_of("c", **changes)}], False)
            for changes in (
                {"status": 429},
                {"status": 409},
                {"status": "201"},
                {"status": True},
                {"status": "left out"},
                {"result": "noop"},
                {"result": "noop", "_version": -3},
                {"_id": "d"},
                {"_id": None},
                {"_id": 1},
                {"_id": "left out"},
                {"_index": "docs-2"},
                {"_index": None},
                {"_index": "left out"},
            )
        ),
    ],
)
def test_an_answer_is_taken_as_a_whole_only_when_it_says_of_each_document_that_it_is_there(
    items: list[Any], is_whole: bool, clock: Clock, target: OpenSearchTarget
) -> None:
    piped = IndexInfo("docs", "uuid", pipelines=("p",))
    answer = {"errors": False, "items": items}
    found = sender(target, clock, index=piped)._read_answer([*"abc"], orjson.dumps(answer))
    assert found is bulk._ALL_INDEXED if is_whole else found == answer
