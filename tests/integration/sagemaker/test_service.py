from __future__ import annotations

import time
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import httpx
import orjson
import pytest
import s3fs

from overnight.errors import (
    ChangedSpecError,
    CredentialsError,
    NotFoundError,
    RateLimitedError,
    RequestRefusedError,
    SpecError,
    UnavailableError,
)
from overnight.jobs import FailureCause, JobKey, JobRef, JobState, JobStatus
from overnight.jobs.resume import Attach, adopt
from overnight.sandbox.process import free_port, start, wait_ready
from overnight.sandbox.sagemaker.launch import launch
from overnight.services.sagemaker.spec import SageMakerTransformSpec, write_manifest
from overnight.storage import Storage
from patience import PATIENCE

from .conftest import REGION, Account


def submit(account: Account, key: JobKey, spec: SageMakerTransformSpec | None = None) -> JobRef:
    with account.client() as client:
        return client.run(client.service.submit(spec or account.spec(), key))


def look(account: Account, ref: JobRef) -> JobStatus:
    with account.client() as client:
        return client.run(client.service.status(ref))


def wait(account: Account, ref: JobRef) -> JobStatus:
    until = time.monotonic() + PATIENCE
    while not (status := look(account, ref)).state.is_terminal:
        assert time.monotonic() < until, status.describe()
        time.sleep(0.05)
    return status


def results(account: Account, ref: JobRef) -> Any:
    with account.client() as client:
        return client.run(client.service.results(ref))


def find(account: Account, key: JobKey) -> Any:
    with account.client() as client:
        return client.run(client.service.find(key, datetime.now(UTC) - timedelta(minutes=5)))


def storage(account: Account) -> Storage:
    def connect() -> s3fs.S3FileSystem:
        return s3fs.S3FileSystem(
            key="sandbox",
            secret="sandbox",
            endpoint_url=account.s3_endpoint,
            client_kwargs={"region_name": REGION},
            skip_instance_cache=True,
        )

    return Storage(connectors={"s3": connect})


def five_with_a_bad_one(account: Account) -> list[str]:
    good = [account.put_lines(f"in/{number}.jsonl", "sea", "rain") for number in (1, 2, 4)]
    deep = account.put_lines("in/deep/5.jsonl", "wind")
    account.put_lines("in/3.jsonl", "sun", 17)
    return [*good, deep]


def test_a_job_is_submitted_watched_and_its_outputs_are_named(account: Account, key: JobKey) -> None:
    inputs = [account.put_lines(f"in/{name}.jsonl", "sea") for name in ("a", "b")]
    account.put("in/empty-folder/", b"")
    ref = submit(account, key)
    assert ref.id == key.name
    status = wait(account, ref)
    assert (status.state, status.raw) == (JobState.SUCCEEDED, "Completed")
    assert (status.counts.total, status.counts.succeeded, status.counts.failed) == (2, 2, 0)
    manifest = results(account, ref)
    assert manifest.uris("output") == [account.uri("out/a.jsonl.out"), account.uri("out/b.jsonl.out")]
    assert manifest.uris("input") == inputs
    assert manifest.uris("missing") == []
    assert orjson.loads(account.get(manifest.uris("output")[0]))["content"] == "sea"


def test_one_bad_file_among_five_is_partial_and_named(account: Account, key: JobKey) -> None:
    good = five_with_a_bad_one(account)
    ref = submit(account, key)
    status = wait(account, ref)
    assert (status.state, status.raw, status.cause) == (JobState.PARTIAL, "Failed", FailureCause.INPUT)
    assert (status.counts.total, status.counts.succeeded, status.counts.failed) == (5, 4, 1)
    assert any(error.message == f"{account.uri('in/3.jsonl')} has no output" for error in status.errors)
    manifest = results(account, ref)
    assert sorted(manifest.uris("input")) == sorted(good)
    assert [uri.rpartition("/")[2] for uri in manifest.uris("output")] == [
        f"{uri.rpartition('/')[2]}.out" for uri in manifest.uris("input")
    ]
    assert manifest.uris("missing") == [account.uri("in/3.jsonl")]


def test_only_the_missing_inputs_are_submitted_again(account: Account, key: JobKey) -> None:
    five_with_a_bad_one(account)
    ref = submit(account, key)
    wait(account, ref)
    first = results(account, ref)
    before = {item["Key"]: item["ETag"] for item in _listed(account, "out/")}
    account.put_lines("in/3.jsonl", "sun", "moon")
    manifest = write_manifest(
        first.uris("missing"),
        account.uri("manifests"),
        prefix=first.detail["input_prefix"],
        storage=storage(account),
    )
    spec = account.spec(input_uri=manifest, input_kind="ManifestFile")
    again = submit(account, key.model_copy(update={"task_id": "again"}), spec)
    assert wait(account, again).state is JobState.SUCCEEDED
    assert results(account, again).uris("output") == [account.uri("out/3.jsonl.out")]
    after = {item["Key"]: item["ETag"] for item in _listed(account, "out/")}
    assert after.keys() - before.keys() == {"out/3.jsonl.out"}
    assert before.items() <= after.items()


def test_outputs_of_an_earlier_job_do_not_count(account: Account, key: JobKey) -> None:
    account.put_lines("in/a.jsonl", "sea")
    account.put_lines("in/b.jsonl", 1)
    account.put("out/b.jsonl.out", b"yesterday's")
    time.sleep(1.1)  # S3 tells whole seconds
    ref = submit(account, key)
    assert wait(account, ref).state is JobState.PARTIAL
    assert results(account, ref).uris("missing") == [account.uri("in/b.jsonl")]


def test_inputs_that_arrive_while_a_job_runs_belong_to_the_next_one(account: Account, key: JobKey) -> None:
    account.put_lines("in/a.jsonl", "sea")
    ref = submit(account, key)
    assert wait(account, ref).state is JobState.SUCCEEDED
    time.sleep(1.1)
    account.put_lines("in/b.jsonl", "rain")
    assert look(account, ref).counts.total == 1
    assert results(account, ref).uris("missing") == []


def test_a_job_without_any_output_failed_for_its_input(account: Account, key: JobKey) -> None:
    account.put("in/a.jsonl", b"{not json\n")
    status = wait(account, submit(account, key))
    assert (status.state, status.cause) == (JobState.FAILED, FailureCause.INPUT)
    assert (status.counts.total, status.counts.failed) == (1, 1)


def test_a_job_that_the_service_broke_is_the_services_fault(account: Account, key: JobKey) -> None:
    account.put_lines("in/a.jsonl", "sea")
    account.faults(job_lost=1)
    status = wait(account, submit(account, key))
    assert (status.state, status.cause) == (JobState.FAILED, FailureCause.SERVICE)


def test_the_same_key_is_one_job_however_often_it_is_submitted(account: Account, key: JobKey) -> None:
    account.put_lines("in/a.jsonl", "sea")
    assert {submit(account, key).id for _ in range(3)} == {key.name}
    assert len(_jobs(account, key)) == 1


@pytest.mark.parametrize("attempts", [1, 3])
def test_a_lost_answer_is_looked_up_and_never_paid_twice(account: Account, key: JobKey, attempts: int) -> None:
    account.put_lines("in/a.jsonl", "sea")
    account.faults(lost_answer={"share": 1, "times": 1, "operations": ["CreateTransformJob"]})
    with account.client(attempts) as client:
        ref = client.run(client.service.submit(account.spec(), key))
    assert (ref.id, _jobs(account, key)) == (key.name, [key.name])
    assert len(account.calls("CreateTransformJob")) == min(attempts, 2)


def test_a_creation_that_was_not_carried_out_is_raised(account: Account, key: JobKey) -> None:
    account.put_lines("in/a.jsonl", "sea")
    account.faults(internal_error={"share": 1, "operations": ["CreateTransformJob"]})
    with account.client(attempts=1) as client, pytest.raises(UnavailableError):
        client.run(client.service.submit(account.spec(), key))
    assert _jobs(account, key) == []


def test_a_job_whose_worker_died_before_recording_it_is_found_and_adopted(account: Account, key: JobKey) -> None:
    account.put_lines("in/a.jsonl", "sea")
    assert find(account, key) is None
    account.pace(starting=600.0)
    ref = submit(account, key)
    following = key.model_copy(update={"generation": 1, "fingerprint": "f" * 16})
    found = find(account, following)
    assert (found.ref, found.generation, found.fingerprint) == (ref, 0, key.fingerprint)
    step = adopt(found, 0, key.fingerprint)
    assert isinstance(step, Attach)
    assert step.ref == ref
    # It still runs, so a later generation goes on with it, too, and with another spec is refused.
    assert isinstance(adopt(found, 1, key.fingerprint), Attach)
    with pytest.raises(ChangedSpecError):
        adopt(found, 1, "f" * 16)
    other = key.model_copy(update={"map_index": 3})
    assert find(account, other) is None


def test_the_newest_generation_is_found_behind_many_pages(account: Account, key: JobKey) -> None:
    account.put_lines("in/a.jsonl", "sea")
    # No job is over before it is stopped.
    account.pace(starting=600.0, stopping=0.0)
    request = account.spec().request("x", {})
    client = account.sagemaker
    for generation in range(102):
        generated = key.model_copy(update={"generation": generation})
        client.create_transform_job(**{**request, "TransformJobName": generated.name})
        client.stop_transform_job(TransformJobName=generated.name)
        if generation % 15 == 14:
            wait(account, JobRef(service="sagemaker", id=generated.name, conn_id="aws_default"))
    assert find(account, key).generation == 101
    assert len(account.calls("ListTransformJobs")) == 2


def test_a_name_taken_by_other_work_is_an_error_that_says_so(account: Account, key: JobKey) -> None:
    account.put_lines("in/a.jsonl", "sea")
    submit(account, key)
    with pytest.raises(RequestRefusedError, match=f"The name {key.name} is taken"):
        submit(account, key, account.spec(output_uri=account.uri("elsewhere/")))


def test_a_running_job_is_stopped_and_stays_stopped(account: Account, key: JobKey) -> None:
    for number in range(6):
        account.put_lines(f"in/{number}.jsonl", "sea")
    account.faults(job_stuck=1)
    ref = submit(account, key)
    until = time.monotonic() + PATIENCE
    while len(_listed(account, "out/")) < 3:
        assert time.monotonic() < until
        time.sleep(0.05)
    with account.client() as client:
        assert client.run(client.service.list_statuses([ref.id]))[ref.id].state is JobState.RUNNING
        assert client.run(client.service.cancel(ref)).state is JobState.CANCELLING
        again = client.run(client.service.cancel(ref))
    assert again.state.is_stopped
    assert wait(account, ref).state is JobState.CANCELLED
    assert len(results(account, ref).uris("output")) == 3
    assert look(account, ref).state is JobState.CANCELLED


def test_cancelling_a_finished_job_leaves_it_as_it_is(account: Account, key: JobKey) -> None:
    account.put_lines("in/a.jsonl", "sea")
    ref = submit(account, key)
    wait(account, ref)
    with account.client() as client:
        assert client.run(client.service.cancel(ref)).state is JobState.SUCCEEDED


def test_an_unknown_job_is_gone_and_not_refused(account: Account) -> None:
    ref = JobRef(service="sagemaker", id="nobody", conn_id="aws_default")
    with account.client() as client:
        for verb in (client.service.status, client.service.cancel, client.service.results):
            with pytest.raises(NotFoundError) as error:
                client.run(verb(ref))
            assert error.value.status == 404


async def test_the_triggerer_sees_the_same_on_its_event_loop(account: Account, key: JobKey) -> None:
    account.put_lines("in/a.jsonl", "sea")
    ref = submit(account, key)
    wait(account, ref)
    async with account.client() as client:
        status = await client.arun(client.service.status(ref))
    assert (status.state, status.counts.succeeded) == (JobState.SUCCEEDED, 1)


@pytest.mark.parametrize(
    ("fields", "text"),
    [
        ({"input_uri": "nothing/"}, "there is nothing to transform"),
        ({"input_uri": "m.json", "input_kind": "ManifestFile"}, "1 objects that are not there"),
        ({"input_uri": "in/", "split_type": None, "max_payload_mb": 1}, "larger than one payload of 1 MB"),
        ({"input_uri": "in/a.jsonl", "input_kind": "ManifestFile"}, "is not a manifest"),
    ],
)
def test_inputs_that_would_fail_are_refused_before_anything_is_paid(
    account: Account, key: JobKey, fields: dict[str, Any], text: str
) -> None:
    account.put("in/a.jsonl", b'"' + b"x" * (1 << 20) + b'"\n')
    account.put("m.json", orjson.dumps([{"prefix": account.uri("in/")}, "a.jsonl", "b.jsonl"]))
    spec = account.spec(**{**fields, "input_uri": account.uri(fields["input_uri"])})
    with pytest.raises(SpecError, match=text):
        submit(account, key, spec)
    assert account.calls("CreateTransformJob") == []


def test_a_bucket_that_is_not_there_is_a_wrong_spec(account: Account, key: JobKey) -> None:
    with pytest.raises(SpecError, match="cannot be found: s3 ListObjectsV2: NoSuchBucket"):
        submit(account, key, account.spec(input_uri="s3://no-such-bucket-here/in/"))


@pytest.mark.parametrize(
    ("fault", "error"),
    [
        ("throttled", RateLimitedError),
        ("unavailable", UnavailableError),
        ("access_denied", CredentialsError),
        ("expired_token", CredentialsError),
    ],
)
def test_faults_are_told_apart_by_who_can_mend_them(
    account: Account, key: JobKey, fault: str, error: type[Exception]
) -> None:
    account.faults(**{fault: 1})
    with account.client(attempts=1) as client, pytest.raises(error):
        client.run(client.service.find(key, datetime.now(UTC)))


def test_a_missing_model_is_a_refusal_and_not_a_missing_job(account: Account, key: JobKey) -> None:
    account.put_lines("in/a.jsonl", "sea")
    with pytest.raises(RequestRefusedError, match="Could not find model"):
        submit(account, key, account.spec(model_name="nobody"))


def test_a_killed_emulator_goes_on_where_it_was(account: Account, key: JobKey, tmp_path: Path) -> None:
    for number in range(4):
        account.put_lines(f"in/{number}.jsonl", "sea")
    plan = launch(tmp_path / "sagemaker", free_port(), account.s3_endpoint, {"pace": {"per_file": 0.3, "starting": 0}})
    own = Account(plan.url, account.s3_endpoint, account.bucket, httpx.Client(base_url=plan.url))
    process = start(plan)
    try:
        wait_ready(plan, process)
        ref = submit(own, key)
        until = time.monotonic() + PATIENCE
        while not _listed(own, "out/"):
            assert time.monotonic() < until
            time.sleep(0.02)
        running = process.find()
        assert running is not None
        running.kill()
        running.wait()
        process = start(plan)
        wait_ready(plan, process)
        assert wait(own, ref).counts.succeeded == 4
        assert submit(own, key) == ref
    finally:
        process.stop()
        own.admin.close()


def _listed(account: Account, prefix: str) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = account.s3.list_objects_v2(Bucket=account.bucket, Prefix=prefix).get("Contents", [])
    return found


def _jobs(account: Account, key: JobKey) -> list[str]:
    pages = account.sagemaker.get_paginator("list_transform_jobs").paginate(NameContains=key.tag)
    return [item["TransformJobName"] for page in pages for item in page["TransformJobSummaries"]]
