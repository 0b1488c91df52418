from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any, TypeVar

import orjson
import pytest
from pydantic import ValidationError

from overnight.errors import (
    CreatedUnknownError,
    CredentialsError,
    NotFoundError,
    RequestRefusedError,
    ServiceError,
    SpecError,
    UnavailableError,
    UnsupportedError,
)
from overnight.jobs import FailureCause, JobKey, JobRecord, JobState
from overnight.services.openai.input import InputError, Limits
from overnight.services.openai.service import OpenAIBatchService, OpenAIBatchSpec
from overnight.transport.flow import Flow, Pause
from overnight.transport.http import HttpCall, Retry

T = TypeVar("T")
NOW = datetime.now(UTC)
KEY = JobKey(dag_id="d", task_id="t", run_id="r", fingerprint="0" * 16)
SERVICE = OpenAIBatchService("conn")


@dataclass
class Fake:
    """A service in a dictionary; a test overrides what it is about."""

    batches: list[dict[str, Any]] = field(default_factory=list)
    files: list[dict[str, Any]] = field(default_factory=list)
    calls: list[HttpCall] = field(default_factory=list)
    pauses: list[float] = field(default_factory=list)
    overrides: dict[str, Callable[[HttpCall], Any]] = field(default_factory=dict)
    keeps_metadata: bool = True

    def run(self, flow: Flow[T]) -> T:
        try:
            call = next(flow)
            while True:
                if isinstance(call, Pause):
                    self.pauses.append(call.seconds)
                    call = flow.send(None)
                    continue
                self.calls.append(call)
                try:
                    answer = self.answer(call)
                except ServiceError as error:
                    call = flow.throw(error)
                else:
                    body = answer if isinstance(answer, bytes) else orjson.dumps(answer)
                    call = flow.send(call.decode(body) if body else None)
        except StopIteration as stop:
            value: T = stop.value
            return value

    def answer(self, call: HttpCall) -> Any:
        name = f"{call.method} {call.path}"
        if name in self.overrides:
            return self.overrides[name](call)
        return self.usual(call)

    def usual(self, call: HttpCall) -> Any:
        match call.method, call.path.split("/"):
            case "GET", ["batches" | "files" as kind]:
                return self.page(self.batches if kind == "batches" else self.files, call.params or {})
            case "POST", ["files"]:
                return self.upload(call)
            case "POST", ["batches"]:
                return self.create(call.json)
            case "GET", ["batches", batch_id]:
                return self.one(self.batches, batch_id)
            case "GET", ["files", file_id]:
                return self.one(self.files, file_id)
        raise AssertionError(f"unexpected {call}")

    def page(self, items: list[dict[str, Any]], params: Any) -> Any:
        ids = [item["id"] for item in items]
        start = ids.index(params["after"]) + 1 if "after" in params else 0
        page = items[start : start + params["limit"]]
        return {"object": "list", "data": page, "has_more": start + len(page) < len(items)}

    def one(self, items: list[dict[str, Any]], wanted: str) -> Any:
        for item in items:
            if item["id"] == wanted:
                return item
        raise NotFoundError(f"no {wanted}", status=404)

    def upload(self, call: HttpCall) -> Any:
        assert call.files is not None
        name, open_file = call.files["file"]
        with open_file() as file:
            size = len(file.read())
        made = {"id": f"file-{len(self.files)}", "filename": name, "bytes": size, "purpose": "batch"}
        self.files.insert(0, {**made, "created_at": int(NOW.timestamp()), "status": "processed"})
        return self.files[0]

    def create(self, body: Any) -> Any:
        made = {"id": f"batch_{len(self.batches)}", "status": "validating", "created_at": int(NOW.timestamp()), **body}
        if not self.keeps_metadata:
            made["metadata"] = None
        self.batches.insert(0, made)
        return made

    def sent(self, name: str) -> list[HttpCall]:
        return [call for call in self.calls if f"{call.method} {call.path}" == name]


@pytest.fixture
def fake() -> Fake:
    return Fake()


@pytest.fixture
def spec(tmp_path: Path) -> OpenAIBatchSpec:
    file = tmp_path / "in.jsonl"
    line = {"custom_id": "a", "method": "POST", "url": "/v1/embeddings", "body": {"model": "m", "input": "x"}}
    file.write_bytes(orjson.dumps(line) + b"\n")
    return OpenAIBatchSpec(input_uri=str(file), endpoint="/v1/embeddings")


def batch(number: int, name: str | None = None, age: float = 0.0, **more: Any) -> dict[str, Any]:
    created = int((NOW - timedelta(seconds=age)).timestamp())
    metadata = {"overnight_name": name} if name else {"theirs": "1"}
    return {"id": f"batch_{number}", "status": "in_progress", "created_at": created, "metadata": metadata, **more}


def answers(*values: Any) -> Callable[[HttpCall], Any]:
    """Answer in turn; an exception is raised."""
    left: Iterator[Any] = iter(values)

    def answer(call: HttpCall) -> Any:
        value = next(left)
        if isinstance(value, Exception):
            raise value
        return value

    return answer


LOST = UnavailableError("no whole answer")


# The spec


@pytest.mark.parametrize(
    "wrong",
    [
        {},
        {"input_uri": "a", "input_file_id": "b"},
        {"input_uri": "a", "endpoint": "v1/embeddings"},
        {"input_uri": "a", "endpoint": "https://host/v1/embeddings"},
        {"input_uri": "a", "output_expires_after": 3_599},
        {"input_uri": "a", "input_expires_after": 2_592_001},
        {"input_uri": "a", "metadata": {"overnight_name": "mine"}},
        {"input_uri": "a", "metadata": {"n": 1}},
        {"input_uri": "a", "api_key": "x"},
    ],
)
def test_a_wrong_spec_is_refused(wrong: dict[str, Any]) -> None:
    with pytest.raises(ValidationError):
        OpenAIBatchSpec.model_validate({"endpoint": "/v1/embeddings", **wrong})


def test_the_fingerprint_follows_the_content_and_not_the_place(spec: OpenAIBatchSpec, tmp_path: Path) -> None:
    moved = tmp_path / "elsewhere.jsonl"
    moved.write_bytes(Path(spec.input_uri or "").read_bytes())
    measured = spec.measured()
    assert (measured.input_requests, measured.input_bytes) == (1, moved.stat().st_size)
    assert measured.fingerprint("c") == spec.model_copy(update={"input_uri": str(moved)}).measured().fingerprint("c")
    assert measured.fingerprint("c") != measured.fingerprint("other")
    moved.write_bytes(moved.read_bytes().replace(b'"x"', b'"y"'))
    assert measured.fingerprint("c") != spec.model_copy(update={"input_uri": str(moved)}).measured().fingerprint("c")


# Find


def test_find_reads_page_after_page(fake: Fake) -> None:
    fake.batches = [batch(n) for n in range(250)]
    fake.batches[230] = batch(230, KEY.name)
    found = fake.run(SERVICE.find(KEY, NOW))
    assert found is not None
    assert (found.ref.id, found.generation, found.fingerprint) == ("batch_230", 0, "0" * 16)
    assert (found.ref.conn_id, found.state) == ("conn", JobState.RUNNING)
    assert [(call.params or {}).get("after") for call in fake.calls] == [None, "batch_99", "batch_199"]


def test_find_returns_the_highest_generation_of_the_task_whatever_its_spec(fake: Fake) -> None:
    second = KEY.model_copy(update={"generation": 2, "fingerprint": "1" * 16})
    other = KEY.model_copy(update={"task_id": "other", "generation": 9})
    fake.batches = [batch(1, KEY.name), batch(2, second.name), batch(3, other.name), batch(4, "not-ours")]
    found = fake.run(SERVICE.find(KEY, NOW))
    assert found is not None
    assert (found.ref.id, found.generation, found.fingerprint) == ("batch_2", 2, "1" * 16)


def test_find_stops_at_jobs_from_before_the_run(fake: Fake) -> None:
    fake.batches = [batch(n, age=n * 600) for n in range(500)]
    assert fake.run(SERVICE.find(KEY, NOW)) is None
    assert len(fake.calls) == 1


def test_find_allows_for_a_clock_that_is_behind(fake: Fake) -> None:
    fake.batches = [batch(n, age=1_800) for n in range(150)] + [batch(200, KEY.name, age=1_800)]
    assert fake.run(SERVICE.find(KEY, NOW)) is not None


def test_find_reads_to_the_end_where_the_oldest_come_first(fake: Fake) -> None:
    fake.batches = [batch(n, age=1_000_000 - n) for n in range(300)] + [batch(300, KEY.name)]
    found = fake.run(SERVICE.find(KEY, NOW))
    assert found is not None
    assert found.ref.id == "batch_300"


def test_find_ends_on_a_server_that_ignores_paging(fake: Fake) -> None:
    page = {"data": [batch(n) for n in range(100)], "has_more": True}
    fake.overrides["GET batches"] = lambda call: page
    assert fake.run(SERVICE.find(KEY, NOW)) is None
    assert len(fake.calls) == 2


def test_find_reads_on_where_has_more_is_missing(fake: Fake) -> None:
    fake.overrides["GET batches"] = answers({"data": [batch(1)]}, {"data": [batch(2, KEY.name)]}, {"data": []})
    found = fake.run(SERVICE.find(KEY, NOW))
    assert found is not None
    assert found.ref.id == "batch_2"


def test_find_tolerates_what_servers_leave_out(fake: Fake) -> None:
    bare = {"id": "batch_1", "metadata": {"overnight_name": KEY.name}}
    fake.overrides["GET batches"] = answers({"data": [None, {}, {"id": 5}, bare], "has_more": False})
    found = fake.run(SERVICE.find(KEY, NOW))
    assert found is not None
    assert found.created_at == NOW


@pytest.mark.parametrize(
    "answer", [LOST, CredentialsError("no"), RequestRefusedError("no"), {}, None, {"data": "x"}, []]
)
def test_a_listing_that_failed_is_not_an_empty_one(fake: Fake, answer: Any) -> None:
    fake.overrides["GET batches"] = answers(answer)
    with pytest.raises(ServiceError):
        fake.run(SERVICE.find(KEY, NOW))


@pytest.mark.parametrize("answer", [{"data": None}, UnsupportedError("405"), NotFoundError("404")])
def test_a_server_without_a_list_of_batches_or_with_a_null_one_can_be_submitted_to(
    fake: Fake, answer: Any, caplog: pytest.LogCaptureFixture
) -> None:
    fake.overrides["GET batches"] = answers(answer)
    assert fake.run(SERVICE.find(KEY, NOW)) is None
    assert ("does not list its batches, so a lost job cannot be found again" in caplog.text) == (
        not isinstance(answer, dict)
    )


@pytest.mark.parametrize("error", [RequestRefusedError("1 to 100"), UnsupportedError("405"), NotFoundError("404")])
def test_a_strangers_batch_without_metadata_does_not_stop_a_task_where_files_are_not_listed(
    fake: Fake, error: ServiceError, caplog: pytest.LogCaptureFixture
) -> None:
    fake.batches = [batch(1, metadata=None)]
    fake.overrides["GET files"] = answers(error)
    assert fake.run(SERVICE.find(KEY, NOW)) is None
    assert "does not list its files" in caplog.text


def test_files_are_listed_in_pages_that_every_server_takes(fake: Fake, spec: OpenAIBatchSpec) -> None:
    fake.run(SERVICE.submit(spec, KEY))
    assert {(call.params or {})["limit"] for call in fake.sent("GET files")} == {100}


def test_without_metadata_the_input_files_name_tells_the_job(fake: Fake, spec: OpenAIBatchSpec) -> None:
    fake.keeps_metadata = False
    ref = fake.run(SERVICE.submit(spec, KEY))
    fake.batches.insert(0, batch(9, metadata=None, input_file_id="file-of-others"))
    found = fake.run(SERVICE.find(KEY, NOW))
    assert found is not None
    assert found.ref == ref


# Submit


def test_submit_uploads_and_creates_with_our_tags(fake: Fake, spec: OpenAIBatchSpec) -> None:
    spec = spec.model_copy(
        update={"metadata": {"team": "search"}, "input_expires_after": 86_400, "output_expires_after": 3_600}
    )
    key = KEY.model_copy(update={"map_index": 3, "run_id": "r" * 600})
    ref = fake.run(SERVICE.submit(spec, key))
    assert (ref.service, ref.id, ref.conn_id) == ("openai", "batch_0", "conn")
    (upload,) = fake.sent("POST files")
    assert upload.data == {
        "purpose": "batch",
        "expires_after[anchor]": "created_at",
        "expires_after[seconds]": "86400",
    }
    assert fake.files[0]["filename"].startswith(f"{key.name}.")
    assert fake.files[0]["filename"].endswith(".jsonl")
    (create,) = fake.sent("POST batches")
    measured = spec.measured()
    assert measured.input_tokens
    assert create.retry is Retry.REJECTED
    assert create.json == {
        "input_file_id": "file-0",
        "endpoint": "/v1/embeddings",
        "completion_window": "24h",
        "output_expires_after": {"anchor": "created_at", "seconds": 3_600},
        "metadata": {
            "team": "search",
            "overnight_name": key.name,
            "overnight_dag": "d",
            "overnight_run": "r" * 512,
            "overnight_task": "t[3]",
            "overnight_size": f"{measured.input_tokens} tokens, {measured.input_requests} requests, model m",
        },
    }


def test_blank_lines_are_not_sent(fake: Fake, spec: OpenAIBatchSpec) -> None:
    file = Path(spec.input_uri or "")
    content = file.read_bytes()
    file.write_bytes(b"\n" + content + b" \r\n\n")
    ref = fake.run(SERVICE.submit(spec.measured(), KEY))
    assert ref.id == "batch_0"
    assert fake.files[0]["bytes"] == len(content)
    (upload,) = fake.sent("POST files")
    assert upload.files is not None
    with upload.files["file"][1]() as sent:
        assert sent.read() == content


def test_submit_takes_a_file_that_is_there_already(fake: Fake) -> None:
    spec = OpenAIBatchSpec(input_file_id="file-9", endpoint="/v1/embeddings")
    fake.run(SERVICE.submit(spec, KEY))
    assert [f"{call.method} {call.path}" for call in fake.calls] == ["POST batches"]
    assert fake.batches[0]["input_file_id"] == "file-9"


def test_bad_input_is_refused_before_anything_is_sent(fake: Fake, spec: OpenAIBatchSpec) -> None:
    wrong = spec.model_copy(update={"endpoint": "/v1/chat/completions"})
    with pytest.raises(InputError, match="line 1: url"):
        fake.run(SERVICE.submit(wrong, KEY))
    assert fake.calls == []


@pytest.mark.parametrize(
    ("metadata", "what"),
    [
        ({str(n): "x" for n in range(13)}, "at most 12"),
        ({"k" * 65: "x"}, "too long"),
        ({"k": "x" * 513}, "too long"),
    ],
)
def test_metadata_over_the_limits_is_refused_before_anything_is_sent(
    fake: Fake, spec: OpenAIBatchSpec, metadata: dict[str, str], what: str
) -> None:
    with pytest.raises(SpecError, match=what):
        fake.run(SERVICE.submit(spec.model_copy(update={"metadata": metadata}), KEY))
    assert fake.calls == []
    service = OpenAIBatchService("c", limits=Limits(metadata_pairs=99, metadata_key_chars=99, metadata_value_chars=999))
    assert fake.run(service.submit(spec.model_copy(update={"metadata": metadata}), KEY))


def test_an_input_that_grew_since_it_was_measured_is_refused(fake: Fake, spec: OpenAIBatchSpec) -> None:
    measured = spec.measured()
    with Path(spec.input_uri or "").open("ab") as file:
        file.write(b"{}\n")
    with pytest.raises(SpecError, match="when it was measured"):
        fake.run(SERVICE.submit(measured, KEY))
    assert fake.calls == []


def test_an_upload_that_no_batch_used_is_used_again(fake: Fake, spec: OpenAIBatchSpec) -> None:
    fake.overrides["POST batches"] = answers(RequestRefusedError("no such endpoint", status=400))
    with pytest.raises(RequestRefusedError):
        fake.run(SERVICE.submit(spec, KEY))
    del fake.overrides["POST batches"]
    fake.run(SERVICE.submit(spec, KEY))
    assert len(fake.sent("POST files")) == 1
    assert fake.batches[0]["input_file_id"] == "file-0"


@pytest.mark.parametrize(
    "change",
    [
        {"status": "error"},
        {"bytes": 1},
        {"filename": "other.jsonl"},
        {"expires_at": int(NOW.timestamp()) + 60},
    ],
)
def test_a_file_that_is_no_use_is_not_used_again(fake: Fake, spec: OpenAIBatchSpec, change: dict[str, Any]) -> None:
    fake.run(SERVICE.submit(spec, KEY))
    fake.batches.clear()
    fake.files[0].update(change)
    fake.run(SERVICE.submit(spec, KEY))
    assert fake.batches[0]["input_file_id"] == "file-1"


def test_a_new_generation_uploads_anew(fake: Fake, spec: OpenAIBatchSpec) -> None:
    fake.run(SERVICE.submit(spec, KEY))
    fake.run(SERVICE.submit(spec, KEY.model_copy(update={"generation": 1})))
    assert len(fake.sent("POST files")) == 2


@pytest.mark.parametrize("error", [RequestRefusedError("limit", status=400), UnsupportedError("x"), NotFoundError("x")])
def test_a_server_without_a_list_of_files_is_uploaded_to(fake: Fake, spec: OpenAIBatchSpec, error: Exception) -> None:
    fake.overrides["GET files"] = answers(error)
    assert fake.run(SERVICE.submit(spec, KEY)).id == "batch_0"


def test_an_upload_whose_answer_is_lost_is_found(fake: Fake, spec: OpenAIBatchSpec) -> None:
    def carried_out_and_lost(call: HttpCall) -> Any:
        fake.upload(call)
        raise LOST

    fake.overrides["POST files"] = carried_out_and_lost
    fake.run(SERVICE.submit(spec, KEY))
    assert len(fake.sent("POST files")) == 1
    assert fake.batches[0]["input_file_id"] == "file-0"


def test_an_upload_that_never_arrives_is_repeated_and_given_up(fake: Fake, spec: OpenAIBatchSpec) -> None:
    fake.overrides["POST files"] = answers(LOST, LOST, LOST)
    with pytest.raises(UnavailableError):
        fake.run(SERVICE.submit(spec, KEY))
    assert len(fake.sent("POST files")) == 3


def test_half_an_upload_is_not_submitted(fake: Fake, spec: OpenAIBatchSpec) -> None:
    fake.overrides["POST files"] = answers({"id": "file-1", "bytes": 3})
    with pytest.raises(UnavailableError, match="received 3 of"):
        fake.run(SERVICE.submit(spec, KEY))
    assert fake.batches == []


def test_a_file_that_is_still_imported_is_waited_for(fake: Fake, spec: OpenAIBatchSpec) -> None:
    fake.overrides["POST files"] = answers({"id": "f", "status": "pending"})
    fake.overrides["GET files/f"] = answers({"id": "f", "status": "running"}, {"id": "f", "status": "processed"})
    fake.run(SERVICE.submit(spec, KEY))
    assert len(fake.pauses) == 2
    assert fake.batches[0]["input_file_id"] == "f"


def test_a_file_that_is_imported_for_ever_is_kept_for_the_next_try(fake: Fake, spec: OpenAIBatchSpec) -> None:
    fake.overrides["GET files/file-0"] = lambda call: {**fake.files[0], "status": "pending"}
    pending = fake.overrides["POST files"] = lambda call: {**fake.upload(call), "status": "pending"}
    with pytest.raises(UnavailableError, match="goes on with the same file"):
        fake.run(SERVICE.submit(spec, KEY))
    assert (fake.batches, len(fake.files), bool(pending)) == ([], 1, True)
    fake.run(SERVICE.submit(spec, KEY))
    assert (fake.batches[0]["input_file_id"], len(fake.files)) == ("file-0", 1)


def test_a_file_that_the_service_cannot_import_is_told(fake: Fake, spec: OpenAIBatchSpec) -> None:
    fake.overrides["POST files"] = answers({"id": "f", "status": "error", "status_details": "not UTF-8"})
    with pytest.raises(RequestRefusedError, match="not UTF-8"):
        fake.run(SERVICE.submit(spec, KEY))


def test_a_batch_whose_answer_is_lost_is_found_and_not_created_again(fake: Fake, spec: OpenAIBatchSpec) -> None:
    def carried_out_and_lost(call: HttpCall) -> Any:
        fake.create(call.json)
        raise LOST

    for keeps_metadata in (True, False):
        fake.batches.clear()
        fake.files.clear()
        fake.keeps_metadata = keeps_metadata
        fake.overrides["POST batches"] = carried_out_and_lost
        assert fake.run(SERVICE.submit(spec, KEY)).id == "batch_0"
        assert len(fake.batches) == 1


def test_a_batch_that_is_listed_late_is_found(fake: Fake, spec: OpenAIBatchSpec) -> None:
    late = {"data": [batch(7, KEY.name)], "has_more": False}
    fake.overrides["POST batches"] = answers(LOST)
    fake.overrides["GET batches"] = answers({"data": []}, {"data": []}, late)
    assert fake.run(SERVICE.submit(spec, KEY)).id == "batch_7"


def test_a_batch_that_was_not_created_is_created(fake: Fake, spec: OpenAIBatchSpec) -> None:
    creations = iter([LOST, LOST])

    def lost_twice(call: HttpCall) -> Any:
        error = next(creations, None)
        if error is not None:
            raise error
        return fake.create(call.json)

    fake.overrides["POST batches"] = lost_twice
    assert fake.run(SERVICE.submit(spec, KEY)).id == "batch_0"
    assert len(fake.batches) == 1
    assert len(fake.pauses) == 6


def test_creating_is_given_up(fake: Fake, spec: OpenAIBatchSpec) -> None:
    fake.overrides["POST batches"] = answers(LOST, LOST, LOST)
    with pytest.raises(UnavailableError):
        fake.run(SERVICE.submit(spec, KEY))


def test_nothing_is_created_while_nobody_knows_whether_it_was(fake: Fake, spec: OpenAIBatchSpec) -> None:
    fake.overrides["POST batches"] = answers(LOST)
    fake.overrides["GET batches"] = answers(*[UnavailableError("list is down")] * 3)
    with pytest.raises(UnavailableError, match="list is down"):
        fake.run(SERVICE.submit(spec, KEY))
    assert len(fake.sent("POST batches")) == 1


@pytest.mark.parametrize("answer", [None, {}, [], "ok", {"id": ""}, {"object": "list", "data": []}])
def test_an_answer_without_an_id_counts_as_lost(fake: Fake, spec: OpenAIBatchSpec, answer: Any) -> None:
    fake.overrides["POST batches"] = answers(answer)
    fake.overrides["GET batches"] = answers({"data": [batch(7, KEY.name)], "has_more": False})
    assert fake.run(SERVICE.submit(spec, KEY)).id == "batch_7"


@pytest.mark.parametrize("answer", [None, {"job": {"id": "x"}}, UnavailableError("HTML", status=200)])
def test_a_success_without_an_id_that_is_not_listed_is_never_created_again(
    fake: Fake, spec: OpenAIBatchSpec, answer: Any
) -> None:
    fake.overrides["POST batches"] = answers(answer)
    with pytest.raises(CreatedUnknownError, match="not in the service's list"):
        fake.run(SERVICE.submit(spec, KEY))
    assert len(fake.sent("POST batches")) == 1


def test_a_lost_batch_over_our_own_file_is_ours_whatever_the_server_renames(fake: Fake, spec: OpenAIBatchSpec) -> None:
    def create_and_rename(call: HttpCall) -> Any:
        fake.create({**call.json, "metadata": {"proxy": "1"}})
        fake.files[0]["filename"] = "modified_file.jsonl"
        raise LOST

    fake.overrides["POST batches"] = create_and_rename
    assert fake.run(SERVICE.submit(spec, KEY)).id == "batch_0"
    assert len(fake.batches) == 1


class Killed(BaseException):
    """The worker's end."""


def test_a_dead_workers_batch_over_our_own_file_is_ours_whatever_the_server_renames(
    fake: Fake, spec: OpenAIBatchSpec
) -> None:
    def create_and_rename(call: HttpCall) -> Any:
        fake.create({**call.json, "metadata": {"proxy": "1"}})
        fake.files[0]["filename"] = "modified_file.jsonl"
        raise Killed

    fake.overrides["POST batches"] = create_and_rename
    service, noted = OpenAIBatchService("conn"), list[str]()
    service.on_upload = noted.append
    with pytest.raises(Killed):
        fake.run(service.submit(spec, KEY))
    record = JobRecord.intent(KEY).model_copy(update={"input_id": noted[0]})
    found = fake.run(SERVICE.find(KEY, NOW, record))
    assert found is not None
    assert (found.ref.id, found.is_for(KEY)) == ("batch_0", True)
    # A stranger's batch is none of ours, and one of a spec that has changed since is found as what it is.
    assert fake.run(SERVICE.find(KEY, NOW, JobRecord.intent(KEY))) is None
    other = fake.run(SERVICE.find(KEY.model_copy(update={"fingerprint": "1" * 16}), NOW, record))
    assert other is not None
    assert other.fingerprint == KEY.fingerprint


def test_a_strangers_batch_over_a_file_that_was_given_is_not_ours(fake: Fake) -> None:
    fake.batches = [batch(5, input_file_id="file-9")]
    spec = OpenAIBatchSpec(input_file_id="file-9", endpoint="/v1/embeddings")
    fake.overrides["POST batches"] = answers(None)
    with pytest.raises(CreatedUnknownError):
        fake.run(SERVICE.submit(spec, KEY))


def test_an_older_generation_is_not_taken_for_the_lost_batch(fake: Fake, spec: OpenAIBatchSpec) -> None:
    fake.run(SERVICE.submit(spec, KEY))
    fake.overrides["POST batches"] = answers(LOST, {"id": "batch_new", "metadata": {}})
    assert fake.run(SERVICE.submit(spec, KEY.model_copy(update={"generation": 1}))).id == "batch_new"


@pytest.mark.parametrize(
    "refusal",
    [
        RequestRefusedError("No such File object: file-0", status=400),
        RequestRefusedError("gone", status=400, code="file_not_found"),
        NotFoundError("File file-0 not found", status=404),
        RequestRefusedError("invalid input", status=400),
    ],
)
def test_an_uploaded_file_that_is_lost_is_uploaded_again_once(
    fake: Fake, spec: OpenAIBatchSpec, refusal: ServiceError
) -> None:
    refusals = iter([refusal])

    def create(call: HttpCall) -> Any:
        error = next(refusals, None)
        if error is not None:
            fake.files.clear()
            fake.files.append({"id": "x", "filename": "", "bytes": 0, "created_at": 0})
            raise error
        return fake.create(call.json)

    fake.overrides["POST batches"] = create
    fake.run(SERVICE.submit(spec, KEY))
    assert fake.batches[0]["input_file_id"] == "file-1"
    fake.overrides["POST batches"] = answers(refusal, refusal)
    fake.overrides["GET files/file-0"] = fake.overrides["GET files/file-1"] = answers(NotFoundError("x"))
    with pytest.raises((RequestRefusedError, NotFoundError)):
        fake.run(SERVICE.submit(spec, KEY.model_copy(update={"generation": 1})))


# Status, cancel, results

REF = SERVICE.ref("batch_1")


def test_status_is_one_call_while_the_batch_runs(fake: Fake) -> None:
    fake.batches = [batch(1)]
    assert fake.run(SERVICE.status(REF)).state is JobState.RUNNING
    assert len(fake.calls) == 1


def test_status_tells_when_the_output_lapses(fake: Fake) -> None:
    at = int(NOW.timestamp()) + 3_600
    fake.batches = [batch(1, status="completed", output_file_id="file-out")]
    fake.files = [{"id": "file-out", "expires_at": at}]
    assert fake.run(SERVICE.status(REF)).results_expire_at == datetime.fromtimestamp(at, UTC)


@pytest.mark.parametrize("answer", [LOST, NotFoundError("x"), {"id": "file-out"}, None, []])
def test_not_knowing_when_the_output_lapses_is_no_failure(fake: Fake, answer: Any) -> None:
    fake.batches = [batch(1, status="completed", output_file_id="file-out")]
    fake.overrides["GET files/file-out"] = answers(answer)
    status = fake.run(SERVICE.status(REF))
    assert (status.state, status.results_expire_at) == (JobState.SUCCEEDED, None)
    assert fake.calls[-1].retry is Retry.NEVER


def test_a_forgotten_batch_is_not_found(fake: Fake) -> None:
    with pytest.raises(NotFoundError):
        fake.run(SERVICE.status(REF))
    fake.overrides["GET batches/batch_1"] = answers({"error": {"message": "gone"}})
    with pytest.raises(NotFoundError, match="gone"):
        fake.run(SERVICE.status(REF))


@pytest.mark.parametrize("answer", [None, [], {"hello": "world"}])
def test_an_answer_that_is_no_batch_is_worth_another_look(fake: Fake, answer: Any) -> None:
    fake.overrides["GET batches/batch_1"] = answers(answer)
    with pytest.raises(UnavailableError):
        fake.run(SERVICE.status(REF))


@pytest.mark.parametrize(
    ("error", "kind", "status"),
    [
        ({"message": "gone"}, NotFoundError, 404),
        ("gone", NotFoundError, 404),
        ({"code": "rate_limit_exceeded", "message": "slow"}, UnavailableError, 200),
    ],
)
def test_a_success_that_holds_an_error_is_read_by_its_code(
    fake: Fake, error: Any, kind: type[ServiceError], status: int
) -> None:
    fake.overrides["GET batches/batch_1"] = answers({"error": error})
    with pytest.raises(kind) as caught:
        fake.run(SERVICE.status(REF))
    assert (type(caught.value), caught.value.status) == (kind, status)


def error_file(*lines: dict[str, Any]) -> Callable[[HttpCall], Any]:
    return lambda call: b"".join(orjson.dumps(line) + b"\n" for line in lines)


FAILED_LINE = {"custom_id": "a", "response": {"status_code": 0, "body": None}, "error": None}


def test_an_error_file_with_lines_contradicts_counts_without_failures(fake: Fake) -> None:
    counts = {"total": 3, "completed": 3, "failed": 0}
    files = {"output_file_id": "o", "error_file_id": "e"}
    fake.batches = [batch(1, status="completed", request_counts=counts, **files)]
    fake.overrides["GET files/e/content"] = error_file(FAILED_LINE)
    status = fake.run(SERVICE.status(REF))
    assert status.state is JobState.PARTIAL
    assert (status.counts.total, status.counts.succeeded, status.counts.failed) == (3, 2, 1)


@pytest.mark.parametrize("empty", [b"\n", b"", NotFoundError("x"), RequestRefusedError("416", status=416)])
def test_an_error_file_that_is_named_and_empty_is_no_failure(fake: Fake, empty: Any) -> None:
    counts = {"total": 3, "completed": 3, "failed": 0}
    fake.batches = [batch(1, status="completed", request_counts=counts, output_file_id="o", error_file_id="e")]
    fake.overrides["GET files/e/content"] = answers(empty)
    assert fake.run(SERVICE.status(REF)).state is JobState.SUCCEEDED


def test_an_error_file_that_cannot_be_read_just_now_is_read_at_the_next_poll(fake: Fake) -> None:
    fake.batches = [batch(1, status="completed", output_file_id="o", error_file_id="e")]
    fake.overrides["GET files/e/content"] = answers(LOST)
    with pytest.raises(UnavailableError):
        fake.run(SERVICE.status(REF))


@pytest.mark.parametrize(
    ("code", "cause"),
    [("content_filter", FailureCause.INPUT), ("InternalServerError", FailureCause.SERVICE), ("odd", None)],
)
@pytest.mark.parametrize("counts", [None, {"total": 0, "completed": 0, "failed": 0}, {"total": 1, "failed": 1}])
def test_a_completed_batch_without_output_failed_for_what_its_error_file_says(
    fake: Fake, code: str, cause: FailureCause | None, counts: Any
) -> None:
    line = {"custom_id": "a", "response": None, "error": {"code": code, "message": "the reason"}}
    fake.batches = [
        batch(1, status="completed", output_file_id=None, error_file_id="e", request_counts=counts),
    ]
    fake.overrides["GET files/e/content"] = error_file(line)
    status = fake.run(SERVICE.status(REF))
    assert (status.state, status.cause) == (JobState.FAILED, cause)
    assert str(status.errors[0]) == f"[{code}] the reason"
    assert "no output file" in status.warnings[0]


def test_an_id_cannot_lead_astray(fake: Fake) -> None:
    with pytest.raises(NotFoundError):
        fake.run(SERVICE.status(SERVICE.ref("../files?x=")))
    assert [call.path for call in fake.calls] == ["batches/..%2Ffiles%3Fx%3D"]


def test_cancel_returns_the_status_after_it(fake: Fake) -> None:
    fake.overrides["POST batches/batch_1/cancel"] = answers(batch(1, status="cancelling"))
    assert fake.run(SERVICE.cancel(REF)).state is JobState.CANCELLING


def test_cancel_looks_where_the_answer_says_nothing(fake: Fake) -> None:
    fake.batches = [batch(1, status="cancelled")]
    fake.overrides["POST batches/batch_1/cancel"] = answers(None)
    assert fake.run(SERVICE.cancel(REF)).state is JobState.CANCELLED


@pytest.mark.parametrize("word", ["completed", "failed", "expired", "cancelled", "cancelling"])
@pytest.mark.parametrize(
    "refusal",
    [RequestRefusedError("x", status=409), RequestRefusedError("x", status=400), NotFoundError("x", status=404)],
)
def test_cancelling_what_is_over_is_no_error(fake: Fake, word: str, refusal: ServiceError) -> None:
    fake.batches = [batch(1, status=word)]
    fake.overrides["POST batches/batch_1/cancel"] = answers(refusal)
    assert fake.run(SERVICE.cancel(REF)).raw == word


def test_a_refused_cancel_of_a_running_batch_is_an_error(fake: Fake) -> None:
    fake.batches = [batch(1)]
    fake.overrides["POST batches/batch_1/cancel"] = answers(RequestRefusedError("not now", status=409))
    with pytest.raises(RequestRefusedError, match="not now"):
        fake.run(SERVICE.cancel(REF))


def test_a_server_that_cannot_cancel_says_what_is_left_running(fake: Fake) -> None:
    fake.overrides["POST batches/batch_1/cancel"] = answers(UnsupportedError("405", status=405))
    with pytest.raises(UnsupportedError, match="batch_1 runs on"):
        fake.run(SERVICE.cancel(REF))


@pytest.mark.parametrize("word", ["completed", "expired", "cancelled"])
def test_results_are_uris(fake: Fake, word: str) -> None:
    done = {"input_file_id": "file-i", "output_file_id": "file-o", "error_file_id": None, "model": "m"}
    fake.batches = [batch(1, status=word, **done, request_counts={"total": 3, "completed": 2, "failed": 0})]
    manifest = fake.run(SERVICE.results(REF))
    assert manifest.uris("output") == ["openai://file-o"]
    assert manifest.uris("error") == []
    assert manifest.uris("input") == ["openai://file-i"]
    assert manifest.counts.succeeded == 2
    assert manifest.detail == {"status": word, "model": "m"}


@pytest.mark.parametrize(
    ("times", "seconds"),
    [
        ({"created_at": 100, "completed_at": 190}, 90.0),
        ({"created_at": 100, "completed_at": None, "expired_at": 400}, 300.0),
        ({"created_at": 100}, None),
        ({"created_at": "soon", "completed_at": 190}, None),
        ({"created_at": 100, "completed_at": 0}, None),
    ],
)
def test_results_say_how_long_the_batch_took(fake: Fake, times: dict[str, Any], seconds: float | None) -> None:
    fake.batches = [{**batch(1, status="completed"), **times}]
    assert fake.run(SERVICE.results(REF)).detail.get("seconds") == seconds


def test_a_server_without_pages_has_no_link() -> None:
    assert SERVICE.console_url(REF) == "https://platform.openai.com/batches/batch_1"
    assert OpenAIBatchService("c", console_url_prefix=None).console_url(REF) is None
