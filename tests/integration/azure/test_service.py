"""The five verbs against the emulator over HTTP: one job whatever gets lost, and each error as what it is."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any, get_args

import boto3
import pytest

from overnight.errors import (
    ChangedSpecError,
    CredentialsError,
    JobEndedError,
    JobFailedError,
    JobLostError,
    NotFoundError,
    RateLimitedError,
    RequestRefusedError,
    ServiceError,
    UnavailableError,
    UnsupportedError,
)
from overnight.jobs import JobKey, JobState
from overnight.jobs.allowance import Allowance
from overnight.jobs.evaluate import evaluate
from overnight.jobs.poller import PollEnd, PollOutcome
from overnight.jobs.wait import wait_for_end
from overnight.sandbox.azure.errors import Code
from overnight.services.azure_ingestion.causes import CAUSES
from overnight.services.azure_ingestion.spec import AzureIngestionSpec
from overnight.transport.flow import Pause, Within

DAY = 86_400
NOW = datetime.now(UTC)
SPEC = AzureIngestionSpec(chunk_size=8)

REFUSED: dict[str, type[ServiceError]] = {
    "conflict": RequestRefusedError,
    "contentFilter": RequestRefusedError,
    "fileImportFailed": RequestRefusedError,
    "forbidden": CredentialsError,
    "internalFailure": UnavailableError,
    "invalidPayload": RequestRefusedError,
    "itemDoesAlreadyExist": RequestRefusedError,
    "jsonlValidationFailed": RequestRefusedError,
    "notFound": NotFoundError,
    "quotaExceeded": RequestRefusedError,
    "serviceUnavailable": UnavailableError,
    "tooManyRequests": RateLimitedError,
    "unauthorized": CredentialsError,
    "unexpectedEntityState": RequestRefusedError,
}
RETRYABLE = {"internalFailure", "serviceUnavailable", "tooManyRequests"}


@pytest.fixture(autouse=True)
def _no_waits(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("overnight.services.create.LOOKUP_WAITS", (0.01,))


def test_documents_become_a_searchable_index(azure: Any, key: JobKey) -> None:
    azure.document("rockets.html", "<h1>Rockets</h1><p>They fly to the moon.</p>")
    azure.document("odd.docx", "x")
    with azure.client() as client:
        ref = client.run(client.service.submit(SPEC, key))
        status = azure.wait(ref)
        assert status.state is JobState.SUCCEEDED
        assert status.counts.succeeded == 2
        assert status.warnings[0].startswith("odd.docx was left out")
        manifest = client.run(client.service.results(ref))
    assert manifest.detail["index"] == ref.id == key.name
    assert [row["title"] for row in azure.search(ref.id, "moon")] == ["Rockets"]


def test_a_bucket_stands_for_a_container(azure: Any, key: JobKey, s3_endpoint: str) -> None:
    s3 = boto3.client(
        "s3",
        endpoint_url=s3_endpoint,
        aws_access_key_id="any",
        aws_secret_access_key="any",
        region_name="us-east-1",
    )
    bucket = f"azure-{key.tag}"
    s3.create_bucket(Bucket=bucket)
    s3.put_object(Bucket=bucket, Key="deep/a.txt", Body=b"from a bucket")
    storage = f"AccountName=any;AccountKey=any-any-any;BlobEndpoint={s3_endpoint}"
    with azure.client(storage_connection_string=storage) as client:
        ref = client.run(client.service.submit(AzureIngestionSpec(storage_container=bucket), key))
        assert azure.wait(ref).state is JobState.SUCCEEDED
    assert azure.search(ref.id, "bucket")[0]["filepath"] == "deep/a.txt"


@pytest.mark.parametrize(
    "fault",
    [
        {"lost_answer": {"share": 1, "times": 1, "methods": ["PUT"]}},
        {"refused_after": {"share": 1, "times": 1, "methods": ["PUT"]}, "refused_code": "internalFailure"},
        {"refused": {"share": 1, "times": 1, "methods": ["PUT"]}, "refused_code": "serviceUnavailable"},
        {"refused": {"share": 1, "times": 2, "methods": ["PUT"]}, "refused_code": "tooManyRequests", "retry_after": 0},
        {"refused_after": {"share": 1, "times": 1, "methods": ["PUT"]}, "refused_code": "conflict"},
    ],
    ids=["answer lost", "500 though carried out", "503", "429", "409 though carried out"],
)
def test_whatever_happens_to_the_creation_there_is_one_job(azure: Any, key: JobKey, fault: dict[str, Any]) -> None:
    azure.set("faults", **fault)
    with azure.client() as client:
        ref = client.run(client.service.submit(SPEC, key))
    assert azure.jobs() == [ref.id]
    assert azure.wait(ref).state is JobState.SUCCEEDED


def test_an_orphan_is_found_and_a_second_submit_attaches(azure: Any, key: JobKey) -> None:
    with azure.client() as client:
        ref = client.run(client.service.submit(SPEC, key))
        found = client.run(client.service.find(key, NOW))
        assert found is not None
        assert (found.ref, found.generation, found.fingerprint) == (ref, 0, key.fingerprint)
        assert client.run(client.service.submit(SPEC, key)) == ref
        with pytest.raises(ChangedSpecError):
            client.run(client.service.submit(AzureIngestionSpec(chunk_size=9), key))
    assert len(azure.requests("PUT")) == 1


@pytest.mark.parametrize("code", get_args(Code))
def test_each_refusal_is_its_exception_with_its_remedy(azure: Any, key: JobKey, code: str) -> None:
    azure.set("faults", refused=1, refused_code=code, retry_after=0)
    with azure.client(attempts=1) as client, pytest.raises(REFUSED[code]) as caught:
        client.run(client.service.find(key, NOW))
    assert type(caught.value) is REFUSED[code]
    assert caught.value.code == code
    assert CAUSES[code.lower()].remedy in str(caught.value)


@pytest.mark.parametrize("code", get_args(Code))
def test_each_failure_of_a_job_is_its_verdict_with_its_remedy(azure: Any, key: JobKey, code: str) -> None:
    azure.set("faults", job_failed=1, job_failed_code=code)
    with azure.client() as client:
        status = azure.wait(ref := client.run(client.service.submit(SPEC, key)))
    error = evaluate(ref, PollOutcome(PollEnd.ENDED, status), Allowance(count=0)).error
    assert isinstance(error, JobEndedError)
    assert type(error) is (JobLostError if code in RETRYABLE else JobFailedError)
    assert CAUSES[code.lower()].remedy in str(error)


def test_the_service_is_asked_again_when_it_says(azure: Any, key: JobKey) -> None:
    azure.set("faults", job_stuck=1)
    azure.set("quirks", retry_after=30)

    class Quiet:
        def info(self, event: Any, *args: Any) -> None: ...
        def warning(self, event: Any, *args: Any) -> None: ...

    with azure.client() as client:
        ref = client.run(client.service.submit(SPEC, key))
        flow = wait_for_end(
            client.service, ref, poll_interval=1, deadline=None, patience=60, cancel_on_deadline=False, log=Quiet()
        )
        within = next(flow)
        assert isinstance(within, Within)
        pause = flow.send(client.transport.send(within.call))
    assert isinstance(pause, Pause)
    assert pause.seconds >= 27


def test_states_of_later_previews_are_understood(azure: Any, key: JobKey) -> None:
    azure.set("quirks", capitalised=True, no_progress_at_end=True)
    with azure.client() as client:
        status = azure.wait(client.run(client.service.submit(SPEC, key)))
    assert (status.raw, status.state) == ("Succeeded", JobState.SUCCEEDED)


def test_after_48_hours_the_job_is_gone_and_the_text_says_why(azure: Any, key: JobKey) -> None:
    with azure.client() as client:
        ref = client.run(client.service.submit(SPEC, key))
        azure.wait(ref)
        azure.advance(2 * DAY + 60)
        with pytest.raises(NotFoundError, match=r"for 48 hours after its end.*is still in the search service"):
            client.run(client.service.status(ref))
        assert client.run(client.service.find(key, NOW)) is None
    assert azure.search(ref.id, "krill")


def test_a_running_job_cannot_be_cancelled_and_an_ended_one_stays(azure: Any, key: JobKey) -> None:
    azure.set("faults", job_stuck={"share": 1, "times": 1})
    with azure.client() as client:
        stuck = client.run(client.service.submit(SPEC, key))
        assert client.run(client.service.list_statuses([stuck.id]))[stuck.id].state.is_terminal is False
        with pytest.raises(UnsupportedError, match="goes on until it ends by itself"):
            client.run(client.service.cancel(stuck))
        done = client.run(client.service.submit(SPEC, key.model_copy(update={"generation": 1})))
        azure.wait(done)
        assert client.run(client.service.cancel(done)).state is JobState.SUCCEEDED


@pytest.mark.parametrize("facts", [{"api_key": "wrong-key"}, {"endpoint": "http://127.0.0.1:9"}])
def test_what_cannot_be_asked_is_never_absent(azure: Any, key: JobKey, facts: dict[str, str]) -> None:
    with azure.client(attempts=1, **facts) as client, pytest.raises((CredentialsError, UnavailableError)):
        client.run(client.service.find(key, NOW))


async def test_the_triggers_colour_reads_the_same(azure: Any, key: JobKey) -> None:
    with azure.client() as client:
        ref = client.run(client.service.submit(SPEC, key))
    azure.wait(ref)
    async with azure.client() as client:
        assert (await client.arun(client.service.status(ref))).state is JobState.SUCCEEDED
