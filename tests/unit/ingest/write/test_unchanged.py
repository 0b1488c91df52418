"""``skip_unchanged``: what the index has as it is, is not written; whatever is in doubt is."""

from __future__ import annotations

import json
from copy import deepcopy
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from overnight.errors import SpecError, TransientError, UnavailableError
from overnight.ingest import (
    LoadOptions,
    LoadReport,
    OpenSearchTarget,
    VerificationError,
    load,
    read_dead_letters,
    replace_index,
)
from overnight.ingest.write.bulk import BulkSender, IndexRefusedError
from overnight.ingest.write.index import inspect_index
from overnight.ingest.write.sink import Body, BodyOutcome, Frame, IndexInfo, Throttle, WriteOptions
from overnight.ingest.write.unchanged import FIELD, MAPPING, ChangedSender
from unit.ingest.clock import Clock
from unit.ingest.fake_opensearch import Answer, FakeOpenSearch
from unit.ingest.test_load import request, write

BUSY = Answer(429, {"error": {"type": "circuit_breaking_exception", "reason": "heap"}}, {"Retry-After": "1"})
FORBIDDEN = Answer(403, {"error": {"type": "security_exception", "reason": "no permissions"}})


class Night:
    """A corpus that is loaded again and again."""

    def __init__(self, target: OpenSearchTarget, opensearch: FakeOpenSearch, folder: Path) -> None:
        self.target, self.opensearch, self.folder = target, opensearch, folder
        self.rows: dict[str, Any] = {}
        self._stored: dict[str, Any] = {}

    def load(self, *, fields: dict[str, Any] | None = None, **options: Any) -> LoadReport:
        path = self.folder / "docs.jsonl"
        if self.rows != self._stored:
            write(path, [{"id": key, **row} for key, row in self.rows.items()])
            self._stored = deepcopy(self.rows)
        wanted = request(path, field_map=fields or {"_id": "$.id", "text": "$.t"})
        given = {"skip_unchanged": True, "write": "index", "bulk_bytes": 1_000, **options}
        self.opensearch.bulks.clear()
        return load(wanted, target=self.target, options=LoadOptions(**given))

    @property
    def written(self) -> set[str]:
        return {key for ids in self.opensearch.bulks for key in ids}

    def without_digests(self) -> dict[str, Any]:
        return {
            key: {name: value for name, value in document.items() if name != FIELD}
            for key, document in self.opensearch.documents.items()
        }


@pytest.fixture
def night(target: OpenSearchTarget, opensearch: FakeOpenSearch, tmp_path: Path) -> Night:
    night = Night(target, opensearch, tmp_path)
    night.rows = {f"d{n}": {"t": f"text {n}"} for n in range(60)}
    return night


@pytest.mark.parametrize("mode", ["index", "update", "auto"])
def test_the_same_load_again_writes_nothing_and_says_so(mode: str, night: Night) -> None:
    first = night.load(write=mode)
    assert (first.submitted, first.indexed, first.unchanged) == (60, 60, 0)
    second = night.load(write=mode)
    assert (second.submitted, second.indexed, second.unchanged) == (60, 0, 60)
    assert night.opensearch.bulks == []
    assert night.without_digests() == {f"d{n}": {"text": f"text {n}"} for n in range(60)}
    assert "unchanged: 60" in list(second.describe())


@pytest.mark.parametrize("mode", ["index", "update"])
def test_only_what_changed_is_written(mode: str, night: Night) -> None:
    night.load(write=mode)
    night.rows |= {"d7": {"t": "another"}, "new": {"t": "text"}}
    report = night.load(write=mode)
    assert night.written == {"d7", "new"}
    assert (report.submitted, report.indexed, report.unchanged) == (61, 2, 59)
    assert night.without_digests()["d7"] == {"text": "another"}
    assert night.load(write=mode).unchanged == 61


def test_what_somebody_else_deleted_is_written_again(night: Night) -> None:
    night.load()
    del night.opensearch.documents["d3"]
    assert night.load().indexed == 1
    assert night.written == {"d3"}
    # OpenSearch goes on counting the versions of a document that was just deleted.
    assert night.load().indexed == 1
    assert night.load().unchanged == 60


@pytest.mark.parametrize("mode", ["index", "update"])
def test_what_somebody_else_changed_is_written_again_although_its_digest_is_there(mode: str, night: Night) -> None:
    night.load(write=mode)
    night.opensearch.documents["d3"]["text"] = "by somebody"
    night.opensearch.versions["d3"] += 1
    report = night.load(write=mode)
    assert (report.indexed, report.unchanged) == (1, 59)
    assert night.without_digests()["d3"] == {"text": "text 3"}
    assert night.load(write=mode).unchanged == 60


def test_a_digest_that_a_search_does_not_see_yet_makes_the_document_be_written(night: Night) -> None:
    night.load()
    answer = night.opensearch.answer

    def hide(method: str, path: str, body: bytes) -> Answer:
        return Answer(200, {"timed_out": False}) if path.endswith("_search") else answer(method, path, body)

    night.opensearch.answer = hide  # type: ignore[method-assign]
    assert night.load().indexed == 60
    night.opensearch.answer = answer  # type: ignore[method-assign]
    assert night.load().unchanged == 60


def test_a_document_whose_version_is_not_told_is_written_each_time(night: Night) -> None:
    night.load()
    get = night.opensearch._get
    night.opensearch._get = lambda key: {"_id": key} if key == "d3" else get(key)  # type: ignore[method-assign]
    assert night.load().indexed == 1
    assert night.opensearch.documents["d3"][FIELD].endswith(":0")
    assert night.load().indexed == 1
    assert night.written == {"d3"}


def test_another_routing_value_is_another_action(night: Night) -> None:
    fields = {"_id": "$.id", "text": "$.t", "_routing": "$.r"}
    night.rows = {f"d{n}": {"t": 1, "r": "a" if n else None} for n in range(5)}
    night.load(fields=fields)
    assert night.load(fields=fields).unchanged == 5
    night.rows["d3"]["r"] = "b"
    assert night.load(fields=fields).indexed == 1
    assert night.written == {"d3"}


def test_each_lookup_has_the_routing_of_its_document(night: Night) -> None:
    asked: list[Any] = []
    answer = night.opensearch.answer

    def keep(method: str, path: str, body: bytes) -> Answer:
        asked.extend(json.loads(body)["docs"] if path.endswith("_mget") else ())
        return answer(method, path, body)

    night.opensearch.answer = keep  # type: ignore[method-assign]
    night.rows = {"p": {"t": 1, "r": None}, 'c"': {"t": 2, "r": 7}}
    night.load(fields={"_id": "$.id", "text": "$.t", "_routing": "$.r"}, verify=False)
    assert asked[1:] == [{"_id": "p"}, {"_id": 'c"', "routing": "7"}]
    asked.clear()
    night.opensearch.indices["docs-1"] = {**night.opensearch.indices["docs"]}
    night.opensearch.indices["docs-1"]["aliases"] = {"docs": {"index_routing": "z"}}
    del night.opensearch.indices["docs"]
    night.opensearch.on_request = lambda method, path: (
        Answer(200, {"docs-1": night.opensearch.indices["docs-1"]}) if (method, path) == ("GET", "/docs") else None
    )
    # The alias gives its routing to each document.
    assert night.load(verify=False).indexed == 2
    assert {document["routing"] for document in asked} == {"z"}


def test_another_kind_of_write_is_another_action(night: Night) -> None:
    night.load(write="index")
    assert night.load(write="update").indexed == 60


@pytest.mark.parametrize("change", ["index", "pipeline", "definition"])
def test_another_index_or_pipeline_makes_other_documents(change: str, night: Night) -> None:
    settings_of = night.opensearch.indices["docs"]["settings"]["index"]
    settings_of["default_pipeline"] = "p"
    definition = {"p": {"processors": []}, "q": {"processors": []}}
    night.opensearch.on_request = lambda _method, path: (
        Answer(200, definition) if path.startswith("/_ingest/pipeline/") else None
    )
    night.load()
    assert night.load().unchanged == 60
    if change == "index":
        settings_of["uuid"] = "another"
    elif change == "pipeline":
        settings_of["default_pipeline"] = "q"
    else:
        definition["p"] = {"processors": [{"set": {"field": "a", "value": 1}}]}
    assert night.load().indexed == 60


def test_a_pipeline_that_may_not_be_read_counts_by_its_name(night: Night, caplog: pytest.LogCaptureFixture) -> None:
    night.opensearch.indices["docs"]["settings"]["index"]["final_pipeline"] = "p"
    night.opensearch.on_request = lambda _method, path: FORBIDDEN if path.startswith("/_ingest") else None
    night.load()
    assert night.load().unchanged == 60
    assert "a change of it goes unnoticed" in caplog.text


def test_outcomes_are_those_of_the_documents_that_were_written(night: Night) -> None:
    night.load()
    for key in ("d5", "d20", "d40"):
        night.rows[key] = {"t": f"new {key}"}

    def judge(key: str, _document: dict[str, Any]) -> dict[str, Any] | None:
        if key == "d20":
            return {"status": 400, "error": {"type": "mapper_parsing_exception", "reason": "no"}}
        return {"status": 200, "result": "noop", "_version": -3} if key == "d40" else None

    night.opensearch.on_item = judge
    dead_letters = str(night.folder / "dead.jsonl")
    report = night.load(dead_letter_uri=dead_letters, bulk_bytes=5_000_000)
    assert (report.indexed, report.unchanged, report.rejected, report.dropped) == (1, 57, 1, 1)
    records = {record.id: record for record in read_dead_letters(dead_letters)}
    assert {key: record.outcome for key, record in records.items()} == {"d20": "rejected", "d40": "dropped"}
    assert json.loads(records["d20"].text or "") == {"text": "new d20"}
    assert records["d20"].line == 21


def test_a_load_without_it_replaces_documents_and_their_digests(night: Night) -> None:
    night.opensearch.indices["docs"]["mappings"]["properties"] = {"text": {"type": "text"}}
    night.load(write="auto")
    # The field of the digest is no field that a whole document would lose.
    report = night.load(skip_unchanged=False, write="auto")
    assert (report.indexed, report.unchanged) == (60, 0)
    assert all(FIELD not in document for document in night.opensearch.documents.values())
    assert night.load(write="auto").indexed == 60
    assert night.load(write="auto").unchanged == 60


def test_a_load_without_it_makes_no_call_and_no_field(night: Night) -> None:
    night.load(skip_unchanged=False, verify=False)
    assert not any(call.endswith(("_mget", "_search", "_mapping")) for call in night.opensearch.requests)
    assert night.opensearch.indices["docs"]["mappings"]["properties"] == {}


def test_a_killed_load_goes_on_and_counts_all(night: Night) -> None:
    checkpoint = {"checkpoint_uri": str(night.folder / "checkpoint.json"), "checkpoint_seconds": 0, "max_in_flight": 1}
    night.load()
    for key in ("d3", "d30", "d58"):
        night.rows[key] = {"t": "new"}
    night.opensearch.on_item = lambda key, _: (
        {"status": 403, "error": {"type": "cluster_block_exception", "reason": "blocked"}} if key == "d58" else None
    )
    with pytest.raises(IndexRefusedError, match="blocked"):
        night.load(**checkpoint)
    night.opensearch.on_item = lambda _key, _document: None
    report = night.load(**checkpoint)
    assert report.resumed
    assert (report.submitted, report.indexed, report.unchanged) == (60, 3, 57)
    assert night.written == {"d58"}


# --- refusals ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", [FIELD, f"{FIELD}.x"])
def test_a_field_map_that_writes_the_digests_field_is_refused(name: str, night: Night) -> None:
    with pytest.raises(SpecError, match="Give the field another name"):
        night.load(fields={"_id": "$.id", name: "$.t"})
    assert night.opensearch.requests == []
    night.load(fields={"_id": "$.id", name: "$.t"}, skip_unchanged=False)


def test_the_field_is_in_the_mapping_before_the_first_document(night: Night) -> None:
    night.load()
    assert night.opensearch.indices["docs"]["mappings"]["properties"] == {FIELD: MAPPING}
    calls = night.opensearch.requests
    assert calls.index("PUT /docs/_mapping") < calls.index("POST /docs/_bulk")


def test_an_index_that_cannot_have_the_field_is_refused(night: Night) -> None:
    refusal = Answer(400, {"error": {"type": "illegal_argument_exception", "reason": "cannot be changed from [text]"}})
    night.opensearch.on_request = lambda _method, path: refusal if path.endswith("_mapping") else None
    with pytest.raises(
        SpecError, match=r"cannot be changed from \[text\].*Nothing was written. Give the index this field.*keyword"
    ):
        night.load()
    assert night.opensearch.bulks == []


def test_who_may_not_change_the_mapping_needs_a_field_that_is_there(night: Night) -> None:
    night.opensearch.on_request = lambda _method, path: FORBIDDEN if path.endswith("_mapping") else None
    with pytest.raises(SpecError, match="before its first document"):
        night.load()
    night.opensearch.indices["docs"]["mappings"]["properties"] = {FIELD: MAPPING}
    night.load()
    assert night.load().unchanged == 60


@pytest.mark.parametrize("call", ["_mget", "_search"])
def test_who_may_not_look_documents_up_is_refused(call: str, night: Night) -> None:
    night.opensearch.on_request = lambda _method, path: FORBIDDEN if path.endswith(call) else None
    with pytest.raises(SpecError, match=r"indices:data/read/mget\* and indices:data/read/search, or leave"):
        night.load()
    assert night.opensearch.bulks == []


def test_who_may_ask_the_cluster_for_documents_and_not_the_index_is_refused(night: Night) -> None:
    # OpenSearch's security refuses each document by itself then, and the answer as a whole is 200.
    reason = "no permissions for [indices:data/read/mget[shard]] and User [name=loader]"
    error = {"root_cause": [], "type": "security_exception", "reason": reason}
    answers = [Answer(200, {"docs": [{"_index": "docs", "_id": "overnight", "error": error}]})]
    night.opensearch.on_request = lambda _, path: answers.pop() if path.endswith("_mget") and answers else None
    with pytest.raises(SpecError, match=r"mget\[shard\]\] and User .*Nothing was written. Give the OpenSearch user"):
        night.load()
    assert night.opensearch.bulks == []


def test_a_data_stream_is_refused(target: OpenSearchTarget, clock: Clock) -> None:
    stream = IndexInfo("docs-1", "uuid", requested="docs", is_data_stream=True)
    options = WriteOptions("create", 60, clock, Throttle(1), skip_unchanged=True)
    with pytest.raises(SpecError, match="'docs' is a data stream"):
        ChangedSender(BulkSender(target, stream, options), target, stream, options)


# --- lookups ----------------------------------------------------------------------------------------------------------


def sender(target: OpenSearchTarget, clock: Clock, throttle: Throttle | None = None) -> ChangedSender:
    options = WriteOptions("index", 60, clock, throttle or Throttle(4), skip_unchanged=True)
    index = inspect_index(target, "docs")
    return ChangedSender(BulkSender(target, index, options), target, index, options)


BODY = b'{"index":{"_id":"a"}}\n{"x":1}\n'


@pytest.mark.parametrize("call", ["_mget", "_search"])
@pytest.mark.parametrize(
    "fault",
    [
        BUSY,
        Answer(503, b"<html>busy</html>"),
        Answer(0),
        Answer(200, {"docs": [{"_id": "b", "found": False}]}),
        Answer(200, {"docs": None}),
        Answer(200, ["?"]),
    ],
    ids=["429", "503", "cut off", "of another document", "nothing", "a list"],
)
def test_a_lookup_is_asked_again_as_long_as_a_body_is(
    call: str, fault: Answer, opensearch: FakeOpenSearch, target: OpenSearchTarget, clock: Clock
) -> None:
    throttle = Throttle(4)
    changed = sender(target, clock, throttle)
    changed.send(BODY, [len(BODY)], ["a"])
    faults = [fault, fault]

    def ask(_method: str, path: str) -> Answer | None:
        return faults.pop() if path.endswith(call) and faults else None

    opensearch.on_request = ask
    assert changed.send(BODY, [len(BODY)], ["a"]).unchanged == [0]
    assert (faults, len(clock.waits), throttle.limit) == ([], 2, 1)
    opensearch.on_request = lambda _method, path: fault if path.endswith(call) else None
    with pytest.raises(TransientError):
        changed.send(BODY, [len(BODY)], ["a"])
    assert clock.now <= 130
    assert len(opensearch.bulks) == 1


def test_an_answer_without_a_field_that_it_must_have_is_no_answer(
    opensearch: FakeOpenSearch, target: OpenSearchTarget, clock: Clock
) -> None:
    changed = sender(target, clock)
    opensearch.on_request = lambda _method, path: Answer(200, {}) if path.endswith("_mget") else None
    with pytest.raises(UnavailableError, match="_mget is not OpenSearch's"):
        changed.send(BODY, [len(BODY)], ["a"])


class Written:
    """Keeps the bodies that it is given."""

    def __init__(self, frame: Frame) -> None:
        self.frame = frame
        self.bodies: list[list[bytes]] = []

    def send(self, body: Body, ends: list[int], ids: list[str]) -> BodyOutcome:
        assert len(ends) == len(ids)
        self.bodies.append([bytes(body[start:end]) for start, end in zip([0, *ends], ends, strict=False)])
        return BodyOutcome()


@pytest.mark.parametrize(
    ("frame", "documents"),
    [
        (Frame(b'{"index":{"_id":', b"}}\n", b"\n"), [b'{"a":1}', b"{}", b'{"a":"{"}', b'{"a":{}}']),
        (Frame(b'{"update":{"_id":', b'}}\n{"doc":', b',"doc_as_upsert":true}\n'), [b'{"a":1}', b"{}", b'{"a":[{}]}']),
    ],
)
@pytest.mark.parametrize("kind", [bytes, memoryview])
def test_the_digest_is_the_last_field_of_each_document(
    kind: Any, frame: Frame, documents: list[bytes], target: OpenSearchTarget, clock: Clock
) -> None:
    options = WriteOptions("index", 60, clock, Throttle(4), skip_unchanged=True)
    written = Written(frame)
    changed = ChangedSender(written, target, inspect_index(target, "docs"), options)
    pieces = [frame.head + b'"%d"' % n + frame.middle + text + frame.tail for n, text in enumerate(documents)]
    ends = [sum(map(len, pieces[: n + 1])) for n in range(len(pieces))]
    changed.send(kind(b"".join(pieces)), ends, [str(n) for n in range(len(pieces))])
    for text, framed in zip(documents, written.bodies[0], strict=True):
        found = json.loads(framed.splitlines()[1])
        document = found.get("doc", found)
        stamp = document.pop(FIELD)
        assert document == json.loads(text)
        assert len(stamp) == 34
        assert stamp.endswith(":1")


# --- whatever happens in between --------------------------------------------------------------------------------------

KEYS = st.sampled_from([f"d{n}" for n in range(8)])
CORPORA = st.dictionaries(KEYS, st.integers(0, 3), min_size=1)
OTHERS = st.lists(st.tuples(st.sampled_from(["delete", "replace", "update", "lose", "nothing"]), KEYS), max_size=4)


@settings(max_examples=40, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(nights=st.lists(st.tuples(CORPORA, OTHERS), min_size=2, max_size=4), mode=st.sampled_from(["index", "update"]))
def test_the_index_is_that_of_a_fresh_load_whatever_others_do(
    nights: list[tuple[dict[str, int], list[tuple[str, str]]]], mode: str, night: Night
) -> None:
    fake = night.opensearch
    fake.documents.clear()
    fake.versions.clear()
    for corpus, others in nights:
        night.rows = {key: {"t": value} for key, value in corpus.items()}
        is_lost = any(what == "lose" for what, _ in others)
        fake.faults = [Answer(503, b"", {"Retry-After": "0"}, carried_out=True)] if is_lost else []
        report = night.load(write=mode, retry_seconds=60)
        fake.faults.clear()
        assert report.submitted == len(corpus) == report.indexed + report.unchanged
        found = night.without_digests()
        assert {key: found[key]["text"] for key in corpus} == corpus
        for what, key in others:
            if what == "delete":
                fake.documents.pop(key, None)
            elif what == "replace":
                fake.documents[key] = {"text": "by somebody"}
                fake.versions[key] = fake.versions.get(key, 0) + 1
            elif what == "update" and key in fake.documents:
                fake.documents[key] = {**fake.documents[key], "text": "by somebody"}
                fake.versions[key] += 1


# --- the index against the report -------------------------------------------------------------------------------------


def delete_at_the_end(fake: FakeOpenSearch, path: str) -> None:
    # The first refresh is that of the lookups, the second that of the load's end.
    if path.endswith("_refresh") and fake.requests.count("POST /docs/_refresh") == 2:
        del fake.documents["d0"]


@pytest.mark.parametrize("is_counted", [True, False], ids=["counted", "looked up"])
def test_the_index_must_have_what_is_unchanged_too(is_counted: bool, night: Night) -> None:
    night.rows = {"d0": {"t": 1}}
    night.load()
    fake = night.opensearch
    fake.requests.clear()
    if is_counted:
        fake.on_request = lambda _method, path: Answer(200, {"count": 0}) if path.endswith("_count") else None
    else:
        fake.on_request = lambda _method, path: delete_at_the_end(fake, path)
    said = "are unchanged, and 'docs' has 0" if is_counted else "or had them"
    with pytest.raises(VerificationError, match=said) as caught:
        night.load()
    assert caught.value.report is not None
    assert (caught.value.report["indexed"], caught.value.report["unchanged"]) == (0, 1)
    fake.on_request = lambda _method, _path: None
    assert night.load().unchanged == int(is_counted)
    assert night.without_digests() == {"d0": {"text": 1}}


def test_an_index_that_is_replaced_is_checked_with_what_is_unchanged(night: Night) -> None:
    path = write(night.folder / "docs.jsonl", [{"id": f"d{n}", "t": n} for n in range(9)])
    swapped = Answer(200, {})
    night.opensearch.on_request = lambda _method, path: swapped if "_alias" in path else None
    options = LoadOptions(skip_unchanged=True, create_index={"mappings": {}}, write="index")
    wanted = request(path, index_name="live")
    counts = []
    for _ in range(2):
        report = replace_index(wanted, "1", target=night.target, options=options)
        counts.append((report.indexed, report.unchanged))
    assert counts == [(9, 0), (0, 9)]
