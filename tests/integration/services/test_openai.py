from __future__ import annotations

from datetime import UTC, datetime, timedelta
from pathlib import Path

import orjson
import pytest

from overnight.errors import CredentialsError, NotFoundError, RequestRefusedError, UnavailableError
from overnight.jobs import FailureCause, JobKey, JobRef, JobState
from overnight.jobs.client import JobClient
from overnight.services.openai.connection import OpenAIConnection
from overnight.services.openai.files import InputFile, provide
from overnight.services.openai.results import OutcomeCounts, chunks_from, join_results, read_outcomes
from overnight.services.openai.service import OpenAIBatchService, OpenAIBatchSpec, content
from overnight.transport.http import HttpTransport

from .conftest import Bench


def batches_of(bench: Bench, key: JobKey) -> list[str]:
    transport = bench.client.transport
    assert isinstance(transport, HttpTransport)
    found, after = [], None
    while True:
        params = {"limit": 100} | ({"after": after} if after else {})
        page = transport.client.get("batches", params=params).raise_for_status().json()
        found += [b["id"] for b in page["data"] if (b["metadata"] or {}).get("overnight_name") == key.name]
        if not page["has_more"]:
            return found
        after = page["last_id"]


def join(bench: Bench, ref: JobRef, ended: JobState) -> OutcomeCounts:
    transport = bench.client.transport
    assert isinstance(transport, HttpTransport)
    return join_results(
        bench.client.run(bench.client.service.results(ref)),
        chunks_from(transport),
        outcomes_uri=str(bench.folder / "outcomes.jsonl"),
        retry_uri=str(bench.folder / "retry.jsonl"),
        succeeded_uri=str(bench.folder / "succeeded.jsonl"),
        ended=ended,
    )


def found(bench: Bench, key: JobKey) -> JobRef | None:
    job = bench.client.run(bench.client.service.find(key, datetime.now(UTC) - timedelta(minutes=5)))
    return job.ref if job is not None else None


def test_a_batch_from_documents_to_results(bench: Bench, key: JobKey) -> None:
    ref = bench.submit(key, 30, metadata={"team": "search"}, output_expires_after=7_200, input_expires_after=7_200)
    status = bench.wait(ref)
    assert (status.state, status.counts.succeeded, status.progress) == (JobState.SUCCEEDED, 30, 1.0)
    assert status.results_expire_at is not None
    assert timedelta(minutes=110) < status.results_expire_at - datetime.now(UTC) < timedelta(minutes=130)
    counts = join(bench, ref, status.state)
    assert counts.model_copy(update={"usage": {}}) == OutcomeCounts(
        submitted=30, succeeded=30, failed=0, expired=0, missing=0
    )
    assert counts.usage["input"] == counts.usage["total"] > 0
    line = orjson.loads((bench.folder / "succeeded.jsonl").read_bytes().splitlines()[0])
    assert len(line["response"]["body"]["data"][0]["embedding"]) == 8
    assert found(bench, key) == ref
    assert found(bench, key.model_copy(update={"task_id": "other"})) is None


async def test_the_triggerers_half_sees_the_same(bench: Bench, key: JobKey) -> None:
    ref = bench.submit(key)
    waited = bench.wait(ref)
    async with bench.client.transport:
        assert await bench.client.arun(bench.client.service.status(ref)) == waited
        assert await bench.client.arun(bench.client.service.cancel(ref)) == waited


@pytest.mark.parametrize("fault", ["lost_create", "server_error_after", "cut_body", "broken_json"])
def test_one_batch_exists_although_the_answer_to_its_creation_was_lost(bench: Bench, key: JobKey, fault: str) -> None:
    bench.set("faults", **{fault: {"share": 1, "times": 1, "path": "^/v1/batches$", "methods": ["POST"]}})
    ref = bench.submit(key)
    assert batches_of(bench, key) == [ref.id]
    assert len(bench.requests("POST", "/v1/batches")) == 1


def test_a_batch_that_was_really_not_created_is_created_once(bench: Bench, key: JobKey) -> None:
    bench.set("faults", server_error={"share": 1, "times": 1, "path": "^/v1/batches$", "methods": ["POST"]})
    ref = bench.submit(key)
    assert batches_of(bench, key) == [ref.id]
    assert len(bench.requests("POST", "/v1/batches")) == 2


def test_a_lost_answer_to_an_upload_leaves_one_file(bench: Bench, key: JobKey) -> None:
    bench.set("faults", lost_answer={"share": 1, "times": 1, "path": "^/v1/files$", "methods": ["POST"]})
    ref = bench.submit(key)
    assert bench.wait(ref).state is JobState.SUCCEEDED
    assert len(bench.requests("POST", "/v1/files")) == 1


def test_a_worker_that_died_behind_the_creation_finds_its_batch(bench: Bench, key: JobKey) -> None:
    bench.set(
        "faults",
        lost_create={"share": 1, "times": 1},
        server_error={"share": 1, "path": "^/v1/batches$", "methods": ["GET"]},
    )
    with pytest.raises(UnavailableError):
        bench.submit(key)
    bench.set("faults")
    (only,) = batches_of(bench, key)
    ref = found(bench, key)
    assert ref is not None
    assert ref.id == only


def test_an_upload_that_was_not_used_is_used_by_the_next_try(bench: Bench, key: JobKey) -> None:
    spec = bench.spec()
    wrong = spec.model_copy(update={"completion_window": "7d"})
    with pytest.raises(RequestRefusedError):
        bench.client.run(bench.client.service.submit(wrong, key))
    bench.client.run(bench.client.service.submit(spec, key))
    assert len(bench.requests("POST", "/v1/files")) == 1


def test_a_running_batch_is_cancelled_and_keeps_what_was_done(bench: Bench, key: JobKey) -> None:
    bench.set("pace", lines_per_second=20)
    ref = bench.submit(key, 200)
    while not bench.look(ref).counts.succeeded:
        pass
    service = bench.client.service
    assert bench.client.run(service.list_statuses([ref.id]))[ref.id].state is JobState.RUNNING
    assert bench.client.run(service.cancel(ref)).state.is_stopped
    status = bench.wait(ref)
    assert status.state is JobState.CANCELLED
    counts = join(bench, ref, status.state)
    assert counts.submitted == 200 == counts.succeeded + counts.unsuccessful
    assert 0 < counts.succeeded < 200
    assert bench.client.run(service.cancel(ref)).state is JobState.CANCELLED


@pytest.mark.parametrize("status", [409, 400])
def test_cancelling_a_finished_batch_is_no_error(bench: Bench, key: JobKey, status: int) -> None:
    bench.set("quirks", late_cancel_status=status)
    ref = bench.submit(key)
    bench.wait(ref)
    assert bench.client.run(bench.client.service.cancel(ref)).state is JobState.SUCCEEDED


@pytest.mark.parametrize("without_output", [False, True])
def test_an_expired_batch_keeps_what_was_done(bench: Bench, key: JobKey, without_output: bool) -> None:
    bench.set("faults", batch_expired={"share": 1, "times": 1}, batch_expired_after=0.5)
    bench.set("quirks", expire_without_output=without_output)
    ref = bench.submit(key, 40)
    status = bench.wait(ref)
    assert status.state is JobState.EXPIRED
    counts = join(bench, ref, status.state)
    assert counts.submitted == 40
    assert (counts.succeeded, counts.expired) == ((0, 40) if without_output else (20, 20))


@pytest.mark.parametrize(
    "quirks",
    [
        {},
        {"body_as_string": True, "no_final_newline": True},
        {"bare_error_lines": True, "empty_error_file": True, "drop_after_error": True},
        {
            "omit_fields": ["in_progress_at", "expires_at", "request_counts"],
            "no_finalizing": True,
            "ignore_range": True,
        },
    ],
)
def test_every_line_is_accounted_for_and_only_the_failed_are_tried_again(
    bench: Bench, key: JobKey, quirks: dict[str, object]
) -> None:
    bench.set("faults", lines_failed=0.2, lines_missing=0.2, lines_non_200=0.2)
    bench.set("quirks", **quirks)
    ref = bench.submit(key, 100)
    status = bench.wait(ref)
    # Without counts it is the error file that says so.
    assert status.state is JobState.PARTIAL
    counts = join(bench, ref, status.state)
    assert counts.submitted == 100 == counts.succeeded + counts.failed + counts.missing
    assert min(counts.succeeded, counts.failed, counts.missing) > 0
    assert counts.unknown_id == counts.repeated == counts.broken == 0
    outcomes = list(read_outcomes(str(bench.folder / "outcomes.jsonl")))
    assert len(outcomes) == counts.unsuccessful
    assert all(outcome.message for outcome in outcomes if outcome.outcome == "failed")

    bench.set("faults")
    again = OpenAIBatchSpec(input_uri=str(bench.folder / "retry.jsonl"), endpoint="/v1/embeddings").measured()
    assert again.input_requests == counts.unsuccessful
    retried = bench.client.run(bench.client.service.submit(again, key.model_copy(update={"generation": 1})))
    status = bench.wait(retried)
    assert join(bench, retried, status.state).succeeded == counts.unsuccessful


def test_a_batch_over_the_quota_fails_for_its_limits(bench: Bench, key: JobKey) -> None:
    bench.set("limits", enqueued_tokens=10)
    status = bench.wait(bench.submit(key))
    assert (status.state, status.cause) == (JobState.FAILED, FailureCause.LIMITS)
    assert "token_limit_exceeded" in status.describe()


def test_a_batch_with_a_bad_line_fails_for_its_input(bench: Bench, key: JobKey) -> None:
    spec = bench.spec()
    file = Path(spec.input_uri or "")
    file.write_bytes(file.read_bytes().replace(b'"d3"', b'"d2"'))
    # A file at the service is not validated here.
    wanted = InputFile(str(file), "bad.jsonl", file.stat().st_size)
    file_id = bench.client.run(provide(bench.client.service.storage, wanted))
    there = OpenAIBatchSpec(input_file_id=file_id, endpoint=spec.endpoint)
    status = bench.wait(bench.client.run(bench.client.service.submit(there, key)))
    assert (status.state, status.cause) == (JobState.FAILED, FailureCause.INPUT)
    assert status.errors[0].line is not None


def test_metadata_that_a_server_drops_is_not_needed_to_find_the_job(bench: Bench, key: JobKey) -> None:
    bench.set("quirks", omit_fields=["metadata"])
    bench.set("faults", lost_create={"share": 1, "times": 1})
    ref = bench.submit(key)
    assert found(bench, key) == ref
    assert len(bench.requests("POST", "/v1/batches")) == 1


def test_with_a_fifth_of_all_answers_gone_wrong_one_batch_ends_with_every_line(bench: Bench, key: JobKey) -> None:
    faults = dict.fromkeys(("rate_limited", "server_error", "lost_answer", "cut_body"), 0.05)
    bench.set("faults", **faults, retry_after=0.01)
    ref = bench.submit(key, 500)
    status = bench.wait(ref)
    assert status.state is JobState.SUCCEEDED
    assert join(bench, ref, status.state).succeeded == 500
    assert found(bench, key) == ref
    bench.set("faults")
    assert batches_of(bench, key) == [ref.id]


@pytest.mark.parametrize("start", [0, 1, 1_000])
def test_content_goes_on_where_a_broken_body_stopped(bench: Bench, key: JobKey, start: int) -> None:
    ref = bench.submit(key, 300)
    bench.wait(ref)
    (uri,) = bench.client.run(bench.client.service.results(ref)).uris("output")
    transport = bench.client.transport
    assert isinstance(transport, HttpTransport)
    file_id = uri.removeprefix("openai://")
    whole = b"".join(content(transport, file_id))
    bench.set("faults", cut_body={"share": 1, "times": 3, "path": "content$"})
    assert b"".join(content(transport, file_id, start)) == whole[start:]


def test_a_wrong_key_and_an_unknown_batch_are_told_at_once(bench: Bench) -> None:
    secret = "sk-wrong-key-4711"
    transport = OpenAIConnection(secret, base_url=bench.url).transport()
    with JobClient(OpenAIBatchService("c"), transport) as client:
        with pytest.raises(CredentialsError, match="Check the API key") as caught:
            client.run(client.service.status(client.service.ref("batch_1")))
        assert secret not in str(caught.value)
    with pytest.raises(NotFoundError):
        bench.look(bench.client.service.ref("batch_unknown"))


def test_azures_way_of_speaking_works_by_connection_alone(bench: Bench, key: JobKey) -> None:
    base = bench.url.removesuffix("/v1") + "/openai"
    facts = OpenAIConnection("sandbox", base_url=base, auth_style="api-key", api_version="2025-04-01-preview")
    with JobClient(OpenAIBatchService("azure"), facts.transport()) as client:
        ref = client.run(client.service.submit(bench.spec(), key))
        assert client.run(client.service.status(ref)).raw
    assert bench.wait(ref).state is JobState.SUCCEEDED
