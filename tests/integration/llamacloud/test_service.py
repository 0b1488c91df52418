"""The five verbs against the emulator: one job out of many files, whatever goes wrong on the way."""

from __future__ import annotations

import asyncio
import dataclasses
from datetime import datetime
from pathlib import Path
from typing import Any

import httpx
import orjson
import pytest

from overnight.errors import CredentialsError, NotFoundError, RequestRefusedError, SpecError
from overnight.jobs import FailureCause, JobKey, JobRef, JobState, JobStatus
from overnight.sandbox.services import KEY
from overnight.services.llamacloud.connection import LlamaCloudConnection
from overnight.services.llamacloud.results import batch_ids
from overnight.services.llamacloud.spec import Limits, LlamaCloudBatchSpec

from .conftest import FAST, RUN_START, Bench, a_key, parsing, read_lines

SMALL = FAST.model_copy(update={"files_per_batch": 10})
SCHEMA = {"type": "object", "properties": {"invoice_number": {"type": "integer"}}}


def submit(bench: Bench, spec: LlamaCloudBatchSpec, key: JobKey, **options: Any) -> Any:
    with bench.client(**options) as client:
        return client.run(client.service.submit(spec, key))


async def on_the_loop(bench: Bench, ref: JobRef) -> JobStatus:
    """Look at a job as a triggerer does."""
    async with bench.client() as client:
        return await client.arun(client.service.status(ref))


def test_many_files_are_one_job_of_several_batches(bench: Bench, key: JobKey) -> None:
    ref = submit(bench, parsing(bench.files(25)), key, limits=SMALL)
    assert len(batch_ids(ref)) == 3
    with bench.client(results_uri=str(bench.folder / "results")) as client:
        status = bench.finish(client, ref)
        assert (status.state, status.raw) == (JobState.SUCCEEDED, "COMPLETED")
        assert (status.counts.total, status.counts.succeeded, status.counts.failed) == (25, 25, 0)
        results = client.run(client.service.results(ref))
    lines = read_lines(results, "output")
    assert {line["name"]: line["markdown"] for line in lines} == {
        f"note-{n:04}.md": f"# note {n}\n\nWords of note {n}." for n in range(25)
    }
    assert all(Path(line["source_uri"].removeprefix("file://")).is_file() for line in lines)
    assert results.uris("error") == []
    assert results.counts == status.counts


def test_a_second_submit_uploads_and_creates_nothing(bench: Bench, key: JobKey) -> None:
    spec = parsing(bench.files(12))
    ref = submit(bench, spec, key, limits=SMALL)
    assert submit(bench, spec, key, limits=SMALL) == ref
    assert len(bench.requests("POST", "/files/upload")) == 12
    assert len(bench.directories(key)) == 2
    assert len(bench.batches(key)) == 2


def test_a_complete_job_is_found_with_its_generation_and_its_first_creation(bench: Bench, key: JobKey) -> None:
    spec = parsing(bench.files(12))
    ref = submit(bench, spec, key, limits=SMALL)
    with bench.client() as client:
        found = client.run(client.service.find(key, RUN_START))
        assert found is not None
        assert (found.ref, found.generation, found.fingerprint) == (ref, key.generation, key.fingerprint)
        created = min(datetime.fromisoformat(batch["created_at"]) for batch in bench.batches(key))
        assert found.created_at == created
        assert client.run(client.service.find(a_key("somebody else"), RUN_START)) is None


def test_the_newest_generation_is_found(bench: Bench, key: JobKey) -> None:
    spec = parsing(bench.files(2))
    submit(bench, spec, key)
    newer = key.model_copy(update={"generation": 1, "fingerprint": "f" * 16})
    ref = submit(bench, spec, newer)
    with bench.client() as client:
        found = client.run(client.service.find(key, RUN_START))
    assert found is not None
    assert (found.ref, found.generation, found.fingerprint) == (ref, 1, "f" * 16)


def test_a_job_with_a_batch_to_come_is_left_to_submit_and_shown_to_another_spec(bench: Bench, key: JobKey) -> None:
    spec = parsing(bench.files(12))
    bench.set("faults", server_error={"share": 1.0, "path": "^/api/v2/batches$", "methods": ["POST"]})
    with pytest.raises(Exception, match="Internal server error"), bench.client(limits=SMALL) as client:
        client.run(_without_waiting(client.service.submit(spec, key)))
    bench.reset()
    first, second = sorted(bench.directories(key), key=lambda directory: directory["name"])
    body = {
        "source_directory_id": first["id"],
        "config": {"job": {"type": "parse_v2", "configuration_id": "cfg-PARSE_FAST"}},
    }
    headers = {"Authorization": f"Bearer {KEY}"}
    made = httpx.post(f"{bench.url}/api/v2/batches", json=body, headers=headers).json()
    with bench.client(limits=SMALL) as client:
        assert client.run(client.service.find(key, RUN_START)) is None
        other = client.run(client.service.find(key.model_copy(update={"fingerprint": "e" * 16}), RUN_START))
        assert other is not None
        assert other.ref.id == made["id"]
        ref = client.run(client.service.submit(spec, key))
    assert batch_ids(ref)[0] == made["id"]
    assert {batch["source_directory_id"] for batch in bench.batches(key)} == {first["id"], second["id"]}
    assert len(bench.batches(key)) == 2


def test_what_is_done_of_an_upload_is_not_done_again(bench: Bench, key: JobKey) -> None:
    spec = parsing(bench.files(20))
    bench.set("limits", file_bytes=27)
    # The names with two digits are longer by two than the limit: the service refuses these.
    with pytest.raises(RequestRefusedError, match="note-0010"), bench.client() as client:
        client.run(client.service.submit(spec, key))
    there = len(bench.get(f"/api/v1/beta/directories/{bench.directories(key)[0]['id']}/files", page_size=100)["items"])
    assert 0 < there < 20
    assert bench.batches(key) == []
    bench.reset()
    submit(bench, spec, key)
    assert len(bench.requests("POST", "/files/upload")) == 20 - there
    assert len(bench.directories(key)) == 1


def test_lost_answers_lead_to_nothing_twice(bench: Bench, key: JobKey) -> None:
    spec = parsing(bench.files(30))
    bench.set(
        "faults", lost_answer={"share": 0.3, "methods": ["POST"]}, rate_limited=0.1, server_error=0.05, retry_after=0.01
    )
    with bench.client(limits=SMALL) as client:
        ref = client.run(_without_waiting(client.service.submit(spec, key)))
        bench.reset()
        assert len(batch_ids(ref)) == 3
        assert bench.finish(client, ref).counts.succeeded == 30
    assert len(bench.directories(key)) == 3
    assert len(bench.batches(key)) == 3


def test_the_services_own_rate_limit_is_honoured(bench: Bench, key: JobKey) -> None:
    bench.set("limits", uploads_per_window=10, upload_window=1.0)
    ref = submit(bench, parsing(bench.files(25)), key)
    refused = [one for one in bench.requests("POST", "/files/upload") if one["status"] == 429]
    assert refused
    with bench.client() as client:
        assert bench.finish(client, ref).counts.succeeded == 25


def test_files_that_fail_or_go_missing_make_a_partial_job_and_are_named(bench: Bench, key: JobKey) -> None:
    bench.files(4, "good")
    for name in ("failed", "unmapped", "missing"):
        bench.files(2, name)
    faults = {f"files_{name}": {"share": 1, "name": f"^{name}"} for name in ("failed", "unmapped", "missing")}
    bench.set("faults", **faults)
    ref = submit(bench, parsing(f"{bench.folder}/source/"), key)
    with bench.client(results_uri=str(bench.folder / "results")) as client:
        status = bench.finish(client, ref)
        results = client.run(client.service.results(ref))
    assert (status.state, status.raw) == (JobState.PARTIAL, "COMPLETED")
    assert (status.counts.total, status.counts.succeeded, status.counts.failed) == (10, 4, 4)
    assert len(status.errors) == 6
    errors = {line["name"]: (line["state"], bool(line["error"])) for line in read_lines(results, "error")}
    assert errors == {
        f"{name}-{n:04}.md": ("missing" if name == "missing" else "failed", True)
        for name in ("failed", "unmapped", "missing")
        for n in range(2)
    }
    assert len(read_lines(results, "output")) == 4
    assert results.detail["missing"] == 2


def test_a_page_that_fails_is_named_and_the_others_are_kept(bench: Bench, key: JobKey) -> None:
    (bench.folder / "two.txt").write_text("page one\fpage two")
    bench.set("faults", pages_failed=1.0)
    ref = submit(bench, parsing(f"{bench.folder}/two.txt"), key)
    with bench.client(results_uri=str(bench.folder / "results"), content=("markdown", "text")) as client:
        bench.finish(client, ref)
        (line,) = read_lines(client.run(client.service.results(ref)), "output")
    assert (line["markdown"], line["pages"]) == ("page two", 2)
    assert [page["page"] for page in line["failed_pages"]] == [1]


def test_a_file_without_a_single_good_page_has_failed(bench: Bench, key: JobKey) -> None:
    bench.set("faults", pages_failed=1.0)
    ref = submit(bench, parsing(bench.files(1)), key)
    with bench.client(results_uri=str(bench.folder / "results")) as client:
        bench.finish(client, ref)
        results = client.run(client.service.results(ref))
    assert (results.counts.succeeded, results.counts.failed) == (0, 1)
    assert "all 1 pages failed" in read_lines(results, "error")[0]["error"]


def test_a_completed_batch_with_files_at_work_is_running(bench: Bench, key: JobKey) -> None:
    bench.set("pace", jobs_per_second=0.001)
    ref = submit(bench, parsing(bench.files(5)), key)
    with bench.client() as client:
        while bench.batches(key)[0]["status"] != "COMPLETED":
            pass
        status = client.run(client.service.status(ref))
        assert (status.state, status.raw) == (JobState.RUNNING, "COMPLETED, files at work")
        assert status.counts.total == 5
        assert asyncio.run(on_the_loop(bench, ref)).state is JobState.RUNNING
        bench.set("pace", jobs_per_second=None)
        assert bench.finish(client, ref).state is JobState.SUCCEEDED


def test_a_completed_batch_that_keeps_its_results_back_is_running(bench: Bench, key: JobKey) -> None:
    bench.set("pace", results=600.0)
    ref = submit(bench, parsing(bench.files(3)), key)
    with bench.client(results_uri=str(bench.folder / "results")) as client:
        while bench.batches(key)[0]["status"] != "COMPLETED":
            pass
        status = client.run(client.service.status(ref))
        assert (status.state, status.raw) == (JobState.RUNNING, "COMPLETED, results to come")
        with pytest.raises(SpecError, match="still at work"):
            client.run(client.service.results(ref))
        bench.set("pace", results=0.0)
        assert bench.finish(client, ref).state is JobState.SUCCEEDED


def test_throttled_is_queued(bench: Bench, key: JobKey) -> None:
    bench.set("faults", batch_throttled=1, throttled_seconds=600)
    ref = submit(bench, parsing(bench.files(1)), key)
    with bench.client() as client:
        while bench.batches(key)[0]["status"] != "THROTTLED":
            pass
        status = client.run(client.service.status(ref))
        assert (status.state, status.raw) == (JobState.QUEUED, "THROTTLED")
        assert [job.amount.jobs for job in client.run(client.service.list_queue("")) if job.name == key.name] == [1]
        assert client.run(client.service.list_statuses([ref.id])) == {ref.id: status}
        client.run(client.service.cancel(ref))


def test_cancelling_ends_every_batch_and_keeps_what_is_done(bench: Bench, key: JobKey) -> None:
    bench.set("pace", jobs_per_second=5.0, mapping_per_second=8.0, cancelling=0.3)
    ref = submit(bench, parsing(bench.files(40)), key, limits=SMALL)
    with bench.client(results_uri=str(bench.folder / "results")) as client:
        cancelling = client.run(client.service.cancel(ref))
        assert cancelling.state is JobState.CANCELLING
        status = bench.finish(client, ref)
        assert status.state is JobState.CANCELLED
        assert status.counts.total == 40
        assert client.run(client.service.cancel(ref)).state is JobState.CANCELLED
        results = client.run(client.service.results(ref))
        found = client.run(client.service.find(key, RUN_START))
    assert results.counts.total == 40
    assert found is not None
    assert found.state is JobState.CANCELLED


def test_cancelling_reaches_files_whose_batch_is_over(bench: Bench, key: JobKey) -> None:
    bench.set("pace", jobs_per_second=0.001)
    ref = submit(bench, parsing(bench.files(8)), key)
    with bench.client() as client:
        while bench.batches(key)[0]["status"] != "COMPLETED":
            pass
        assert client.run(client.service.cancel(ref)).state is JobState.CANCELLED
    assert bench.requests("POST", "/cancel")


def test_a_batch_that_fails_is_the_services_fault(bench: Bench, key: JobKey) -> None:
    bench.set("faults", batch_failed=1)
    ref = submit(bench, parsing(bench.files(3)), key)
    with bench.client() as client:
        status = bench.finish(client, ref)
    assert (status.state, status.cause) == (JobState.FAILED, FailureCause.SERVICE)
    assert status.counts.total == 3


def test_one_failed_batch_of_several_leaves_a_partial_job(bench: Bench, key: JobKey) -> None:
    bench.set("faults", batch_failed={"share": 1, "times": 1})
    ref = submit(bench, parsing(bench.files(20)), key, limits=SMALL)
    with bench.client() as client:
        status = bench.finish(client, ref)
    assert (status.state, status.raw) == (JobState.PARTIAL, "1 COMPLETED, 1 FAILED")
    assert (status.counts.total, status.counts.succeeded) == (20, 10)


def test_a_job_whose_every_file_fails_has_failed(bench: Bench, key: JobKey) -> None:
    bench.set("faults", files_failed=1)
    ref = submit(bench, parsing(bench.files(3)), key)
    with bench.client() as client:
        status = bench.finish(client, ref)
    assert (status.state, status.cause, status.counts.failed) == (JobState.FAILED, None, 3)


def test_a_directory_of_the_users_is_referred_to_and_not_sent_again(bench: Bench, key: JobKey) -> None:
    headers = {"Authorization": f"Bearer {KEY}"}
    base = f"{bench.url}/api/v1/beta/directories"
    theirs = httpx.post(base, json={"name": "theirs", "type": "user"}, headers=headers).json()["id"]
    for number in range(12):
        httpx.post(
            f"{base}/{theirs}/files/upload",
            files={"upload_file": (f"{number}.txt", f"text {number}".encode())},
            data={"metadata": orjson.dumps({"number": number}).decode()},
            headers=headers,
        ).raise_for_status()
    sent = len(bench.requests("POST", "/files/upload"))
    spec = LlamaCloudBatchSpec(
        job_type="parse_v2", configuration_id="cfg-PARSE_FAST", directory_id=theirs, metadata={"of": "us"}
    )
    with bench.client(limits=SMALL, results_uri=str(bench.folder / "results")) as client:
        measured = client.run(client.service.measure(spec))
        assert measured.files_count == 12
        ref = client.run(client.service.submit(measured, key))
        bench.finish(client, ref)
        lines = read_lines(client.run(client.service.results(ref)), "output")
    assert len(bench.requests("POST", "/files/upload")) == sent
    assert len(bench.batches(key)) == 2
    assert {(line["metadata"]["number"], line["markdown"]) for line in lines} == {(n, f"text {n}") for n in range(12)}
    assert {line["metadata"]["of"] for line in lines} == {"us"}
    originals = {one["id"] for one in bench.get(f"/api/v1/beta/directories/{theirs}/files")["items"]}
    assert {line["source_file_id"] for line in lines} == originals


def test_fields_are_extracted_by_a_configuration_that_is_made_once(bench: Bench, key: JobKey) -> None:
    for number in range(3):
        (bench.folder / f"invoice-{number}.txt").write_text(f"Invoice number: {number}\n")
    name = f"invoices {bench.folder}"
    spec = LlamaCloudBatchSpec(
        job_type="extract_v2",
        configuration_name=name,
        parameters={"data_schema": SCHEMA, "cite_sources": True, "confidence_scores": True},
        sources=(f"{bench.folder}/invoice-*.txt",),
    )
    with bench.client(results_uri=str(bench.folder / "results")) as client:
        ref = client.run(client.service.submit(spec, key))
        bench.finish(client, ref)
        lines = read_lines(client.run(client.service.results(ref)), "output")
        assert {line["name"]: line["extracted"] for line in lines} == {
            f"invoice-{n}.txt": {"invoice_number": n} for n in range(3)
        }
        for line in lines:
            field = line["field_metadata"]["invoice_number"]
            number = line["extracted"]["invoice_number"]
            assert field["citation"] == [{"page": 1, "matching_text": f"Invoice number: {number}"}]
            assert 0 < field["confidence"] <= 1
        again = key.model_copy(update={"generation": 1})
        client.run(client.service.submit(spec.model_copy(update={"parameters": None}), again))
        changed = {"data_schema": {"type": "object", "properties": {"other": {"type": "string"}}}}
        with pytest.raises(SpecError, match="has other parameters"):
            client.run(client.service.submit(spec.model_copy(update={"parameters": changed}), again))
    assert len(bench.get("/api/v1/beta/configurations", name=name)["items"]) == 1


def test_nothing_is_made_for_input_that_will_not_do(bench: Bench, key: JobKey) -> None:
    pattern = bench.files(3)
    (bench.folder / "source" / "note-empty.md").write_bytes(b"")
    small = Limits(parse_bytes=27, uploads_per_second=1_000)
    (bench.folder / "source" / "note-large.md").write_bytes(b"x" * 28)
    cases = {
        "2 of 5 files cannot be sent.*note-empty.md is empty.*note-large.md has 28 bytes": parsing(pattern),
        "No file matches": parsing(f"{bench.folder}/nothing-*"),
        "There is no parse_v2 configuration": parsing(
            f"{bench.folder}/source/note-0000.md", configuration_id=None, configuration_name="no such"
        ),
    }
    with bench.client(limits=small) as client:
        for message, spec in cases.items():
            with pytest.raises(SpecError, match=message):
                client.run(client.service.submit(spec, key))
        few = Limits(files_per_batch=1, batches=2)
        with bench.client(limits=few) as narrow, pytest.raises(SpecError, match="more than the 2 of one job"):
            narrow.run(narrow.service.measure(parsing(f"{bench.folder}/source/note-000*.md")))
    assert bench.directories(key) == []


def test_files_that_change_between_measuring_and_submitting_are_refused(bench: Bench, key: JobKey) -> None:
    with bench.client() as client:
        measured = client.run(client.service.measure(parsing(bench.files(3))))
        (bench.folder / "source" / "note-0001.md").write_text("something else entirely")
        with pytest.raises(SpecError, match="changed since they were measured"):
            client.run(client.service.submit(measured, key))
        anew = client.run(client.service.measure(parsing(bench.files(3))))
    assert anew.fingerprint("c") != measured.fingerprint("c")
    assert bench.directories(key) == []


def test_what_is_not_there_and_not_allowed_is_said_so(bench: Bench) -> None:
    with bench.client() as client:
        with pytest.raises(NotFoundError, match="bat-none"):
            client.run(client.service.status(client.service.ref("bat-none")))
        spec = LlamaCloudBatchSpec(job_type="parse_v2", configuration_id="c", directory_id="dir-none")
        with pytest.raises(NotFoundError, match="dir-none"):
            client.run(client.service.measure(spec))
    stranger = LlamaCloudConnection(api_key="a-wrong-key", base_url=bench.url)
    with stranger.transport() as transport, pytest.raises(CredentialsError, match="region") as caught:
        transport.run(client.service.find(a_key("x"), RUN_START))
    assert "a-wrong-key" not in str(caught.value)
    elsewhere = dataclasses.replace(stranger, api_key=KEY, project_id="prj-other")
    with elsewhere.transport() as transport, pytest.raises(CredentialsError, match="project_id"):
        transport.run(client.service.find(a_key("x"), RUN_START))


def test_sources_are_read_from_s3_and_results_written_there(bench: Bench, key: JobKey, s3_endpoint: str) -> None:
    from s3fs import S3FileSystem

    from overnight.storage import Storage

    s3 = S3FileSystem(key="sandbox", secret="sandbox", endpoint_url=s3_endpoint)
    s3.call_s3("create_bucket", Bucket="parsed-from-s3")
    for number in range(4):
        s3.pipe(f"parsed-from-s3/in/{number}.txt", f"text {number}".encode())
    storage = Storage(connectors={"s3": lambda: s3})
    with bench.client(storage=storage, results_uri="s3://parsed-from-s3/out") as client:
        ref = client.run(client.service.submit(parsing("s3://parsed-from-s3/in/"), key))
        bench.finish(client, ref)
        results = client.run(client.service.results(ref))
    (uri,) = results.uris("output")
    assert uri.startswith("s3://parsed-from-s3/out/")
    assert s3.cat(uri).count(b"\n") == 4
    assert results.uris("error") == []


def _without_waiting(flow: Any) -> Any:
    """Drive a flow with its pauses cut short, so that a test of what it does need not wait for when."""
    from overnight.transport.flow import Pause

    step = lambda: next(flow)  # noqa: E731
    while True:
        try:
            call = step()
        except StopIteration as stop:
            return stop.value
        try:
            answer = yield Pause(min(call.seconds, 0.05)) if isinstance(call, Pause) else call
        except Exception as error:
            step = lambda error=error: flow.throw(error)  # noqa: E731
        else:
            step = lambda answer=answer: flow.send(answer)  # noqa: E731
