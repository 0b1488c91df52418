from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any, TypeVar

import pytest
from pydantic import ValidationError

from overnight.errors import (
    ChangedSpecError,
    CredentialsError,
    NotFoundError,
    RequestRefusedError,
    ServiceError,
    SpecError,
    UnavailableError,
    UnsupportedError,
)
from overnight.jobs import JobKey, JobRecord, JobState
from overnight.jobs.wait import poll
from overnight.services.azure_ingestion.connection import JOBS, AzureIngestionConnection
from overnight.services.azure_ingestion.service import AzureIngestionService
from overnight.services.azure_ingestion.spec import AzureIngestionSpec
from overnight.services.create import CREATE_TRIES
from overnight.transport.flow import Flow, Pause
from overnight.transport.http import HttpAnswer, HttpCall, Retry

T = TypeVar("T")
NOW = datetime.now(UTC)
KEY = JobKey(dag_id="d", task_id="t", run_id="r", fingerprint="0" * 16)
ACCOUNT = AzureIngestionConnection(
    endpoint="https://x",
    api_key="s3cr3t-api-key",
    search_service_endpoint="https://s",
    storage_connection_string="AccountName=a;AccountKey=s3cr3t-account-key",
    storage_container="docs",
)
SERVICE = AzureIngestionService("conn", ACCOUNT)
MISSING = NotFoundError("Azure OpenAI answered GET with 404: no such job", status=404, code="notFound")


@dataclass
class Fake:
    """Jobs in a dictionary; a test overrides what it is about."""

    jobs: dict[str, dict[str, Any]] = field(default_factory=dict)
    calls: list[HttpCall] = field(default_factory=list)
    pauses: list[float] = field(default_factory=list)
    put: Callable[[HttpCall], Any] | None = None
    listing: Any = None

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
                    call = flow.send(HttpAnswer(answer, 9.0) if call.whole else answer)
        except StopIteration as stop:
            return stop.value  # type: ignore[no-any-return]

    def answer(self, call: HttpCall) -> Any:
        job_id = call.path.removeprefix(JOBS).lstrip("/")
        if call.method == "PUT":
            return self.put(call) if self.put else self.keep(job_id, call)
        if job_id:
            if job_id not in self.jobs:
                raise MISSING
            return self.jobs[job_id]
        if isinstance(self.listing, ServiceError):
            raise self.listing
        return self.listing if self.listing is not None else {"value": list(self.jobs.values())}

    def keep(self, job_id: str, call: HttpCall) -> dict[str, Any]:
        return self.jobs.setdefault(job_id, {"id": job_id, "status": "notRunning", "warnings": [], **call.json})

    def puts(self) -> list[HttpCall]:
        return [call for call in self.calls if call.method == "PUT"]


@pytest.fixture
def fake() -> Fake:
    return Fake()


def test_a_job_is_put_once_under_our_id_with_every_credential_in_a_header(fake: Fake) -> None:
    spec = AzureIngestionSpec(chunk_size=256, completion_action="keepAllAssets", embedding_deployment_name="ada")
    ref = fake.run(SERVICE.submit(spec, KEY))
    assert (ref.service, ref.id, ref.conn_id) == ("azure_ingestion", KEY.name, "conn")
    (put,) = fake.puts()
    assert put.path == f"openai/extensions/on-your-data/ingestion-jobs/{KEY.name}"
    assert put.json == {"dataRefreshIntervalInMinutes": 0, "chunkSize": 256, "completionAction": "keepAllAssets"}
    assert put.headers["storageConnectionString"] == ACCOUNT.storage_connection_string
    assert put.headers["embeddingDeploymentName"] == "ada"
    assert put.retry is Retry.REJECTED
    assert "s3cr3t" not in repr(put)


def test_what_is_left_out_is_the_services_choice() -> None:
    assert AzureIngestionSpec().body() == {"dataRefreshIntervalInMinutes": 0}


def test_a_job_that_is_there_is_attached_to(fake: Fake) -> None:
    spec = AzureIngestionSpec(chunk_size=256)
    fake.jobs[KEY.name] = {"id": KEY.name, "status": "running", "dataRefreshIntervalInMinutes": 0, "chunkSize": 256}
    assert fake.run(SERVICE.submit(spec, KEY)).id == KEY.name
    assert not fake.puts()


def test_a_job_with_our_id_and_other_settings_is_refused(fake: Fake) -> None:
    fake.jobs[KEY.name] = {"id": KEY.name, "status": "running", "dataRefreshIntervalInMinutes": 60, "chunkSize": 1}
    with pytest.raises(ChangedSpecError, match="dataRefreshIntervalInMinutes is 60 there and 0 here; chunkSize is 1"):
        fake.run(SERVICE.submit(AzureIngestionSpec(chunk_size=256), KEY))
    assert not fake.puts()


def test_a_creation_whose_answer_is_lost_is_looked_up_before_it_is_repeated(fake: Fake) -> None:
    def lose(call: HttpCall) -> Any:
        fake.keep(KEY.name, call)
        raise UnavailableError("cut")

    fake.put = lose
    assert fake.run(SERVICE.submit(AzureIngestionSpec(), KEY)).id == KEY.name
    assert len(fake.puts()) == 1
    assert fake.pauses


def test_a_creation_that_did_not_arrive_is_repeated_and_not_for_ever(fake: Fake) -> None:
    def never(_: HttpCall) -> Any:
        raise UnavailableError("cut")

    fake.put = never
    with pytest.raises(UnavailableError):
        fake.run(SERVICE.submit(AzureIngestionSpec(), KEY))
    assert len(fake.puts()) == CREATE_TRIES


@pytest.mark.parametrize("code", ["conflict", "itemDoesAlreadyExist"])
def test_a_refusal_since_the_job_is_there_is_an_attachment(fake: Fake, code: str) -> None:
    def taken(call: HttpCall) -> Any:
        fake.keep(KEY.name, call)
        raise RequestRefusedError("taken", status=409, code=code)

    fake.put = taken
    assert fake.run(SERVICE.submit(AzureIngestionSpec(), KEY)).id == KEY.name


def test_a_refusal_for_another_reason_is_raised_with_its_remedy(fake: Fake) -> None:
    def refuse(_: HttpCall) -> Any:
        raise RequestRefusedError("no", status=409, code="unexpectedEntityState")

    fake.put = refuse
    with pytest.raises(RequestRefusedError, match="running, and clear the task"):
        fake.run(SERVICE.submit(AzureIngestionSpec(), KEY))
    assert len(fake.puts()) == 1


def test_a_connection_that_lacks_something_is_refused_before_any_call(fake: Fake) -> None:
    bare = AzureIngestionService("conn", AzureIngestionConnection(endpoint="https://x", api_key="k"))
    with pytest.raises(SpecError):
        fake.run(bare.submit(AzureIngestionSpec(), KEY))
    assert not fake.calls


def test_the_newest_generation_is_found(fake: Fake) -> None:
    for generation, state in ((0, "failed"), (2, "running"), (1, "succeeded")):
        name = KEY.model_copy(update={"generation": generation}).name
        fake.jobs[name] = {"id": name, "status": state}
    fake.jobs["somebody-elses"] = {"id": "somebody-elses", "status": "running"}
    other = KEY.model_copy(update={"task_id": "other", "generation": 9}).name
    fake.jobs[other] = {"id": other, "status": "running"}
    found = fake.run(SERVICE.find(KEY, NOW))
    assert found is not None
    assert (found.generation, found.state, found.created_at) == (2, JobState.RUNNING, NOW)


def test_a_job_of_another_spec_is_found_for_the_caller_to_decide(fake: Fake) -> None:
    name = KEY.model_copy(update={"fingerprint": "f" * 16}).name
    fake.jobs[name] = {"id": name, "status": "Running"}
    found = fake.run(SERVICE.find(KEY, NOW))
    assert found is not None
    assert found.fingerprint == "f" * 16


def test_a_job_that_the_list_leaves_out_is_found_by_its_id(fake: Fake) -> None:
    fake.jobs[KEY.name] = {"id": KEY.name, "status": "running"}
    fake.listing = {"value": []}
    found = fake.run(SERVICE.find(KEY, NOW))
    assert found is not None
    assert found.ref.id == KEY.name


def test_nothing_is_found_where_there_is_nothing(fake: Fake) -> None:
    assert fake.run(SERVICE.find(KEY, NOW)) is None


@pytest.mark.parametrize(
    ("listing", "kind"),
    [
        (CredentialsError("no", status=401, code="unauthorized"), CredentialsError),
        (NotFoundError("Resource not found", status=404, code="404"), NotFoundError),
        ({"data": []}, UnavailableError),
        ([], UnavailableError),
    ],
)
def test_a_list_that_fails_never_reads_as_absent(fake: Fake, listing: Any, kind: type[ServiceError]) -> None:
    fake.listing = listing
    with pytest.raises(kind):
        fake.run(SERVICE.find(KEY, NOW))


def test_a_status_keeps_when_to_ask_again(fake: Fake) -> None:
    fake.jobs["j"] = {"id": "j", "status": "running"}
    assert fake.run(SERVICE.status(SERVICE.ref("j"))).poll_after == 9.0


def test_a_forgotten_job_is_explained(fake: Fake) -> None:
    with pytest.raises(NotFoundError, match=r"48 hours after its end.*same name is still in the search") as caught:
        fake.run(SERVICE.status(SERVICE.ref("j")))
    assert caught.value.status == 404


def test_an_answer_that_is_no_job_is_not_a_status(fake: Fake) -> None:
    fake.jobs["j"] = {"hello": "world"}
    with pytest.raises(UnavailableError):
        fake.run(SERVICE.status(SERVICE.ref("j")))


def test_a_running_job_cannot_be_cancelled_and_what_goes_on_is_told(fake: Fake) -> None:
    fake.jobs["j"] = {"id": "j", "status": "running", "dataRefreshIntervalInMinutes": 0}
    with pytest.raises(
        UnsupportedError, match=r"until it ends by itself, and fills the index j .* disable the indexers"
    ):
        fake.run(SERVICE.cancel(SERVICE.ref("j")))


def test_a_recurring_job_cannot_be_cancelled_even_after_a_run(fake: Fake) -> None:
    fake.jobs["j"] = {"id": "j", "status": "succeeded", "dataRefreshIntervalInMinutes": 60}
    with pytest.raises(UnsupportedError, match="every 60 minutes, for ever"):
        fake.run(SERVICE.cancel(SERVICE.ref("j")))


def test_a_job_that_is_over_stays_as_it_is(fake: Fake) -> None:
    fake.jobs["j"] = {"id": "j", "status": "failed", "dataRefreshIntervalInMinutes": 0}
    assert fake.run(SERVICE.cancel(SERVICE.ref("j"))).state is JobState.FAILED


def test_results_name_the_index(fake: Fake) -> None:
    stages = [
        {"name": "Preprocessing", "totalItems": 2, "processedItems": 2},
        {"name": "Indexing", "totalItems": 9, "processedItems": 9},
    ]
    fake.jobs["j"] = {"id": "j", "status": "succeeded", "progress": {"stageProgress": stages}}
    manifest = fake.run(SERVICE.results(SERVICE.ref("j")))
    assert manifest.files == ()
    assert manifest.counts.succeeded == 9
    assert manifest.detail["index"] == "j"
    assert manifest.detail["stages"][0] == {"name": "Preprocessing", "total": 2, "processed": 2}


@pytest.mark.parametrize(
    "values",
    [
        {"data_refresh_interval_minutes": -1},
        {"data_refresh_interval_minutes": 2**31},
        {"chunk_size": 0},
        {"chunk_size": "many"},
        {"completion_action": "cleanupassets"},
        {"storage_container": "Upper"},
        {"storage_container": "a--b"},
        {"storage_container": "ab"},
        {"storage_container": "a" * 64},
        {"embedding_deployment_name": ""},
        {"search_service_admin_key": "k"},
    ],
)
def test_a_spec_that_the_service_would_refuse_is_refused_here(values: dict[str, Any]) -> None:
    with pytest.raises(ValidationError):
        AzureIngestionSpec.model_validate(values)


def test_a_fingerprint_follows_the_spec_and_the_connection() -> None:
    specs = [AzureIngestionSpec(), AzureIngestionSpec(chunk_size=1), AzureIngestionSpec(storage_container="other")]
    assert len({spec.fingerprint(conn) for spec in specs for conn in ("a", "b")}) == 6


# --- A 404 that passes, a null list -----------------------------------------------------------------------------------


@pytest.mark.parametrize("times", [1, 2])
def test_a_404_that_passes_is_no_loss(times: int, fake: Fake) -> None:
    ref = fake.run(SERVICE.submit(AzureIngestionSpec(), KEY))
    asked = [0]

    def answer(call: HttpCall) -> Any:
        asked[0] += 1
        if asked[0] <= times:
            raise MISSING
        return fake.jobs[KEY.name]

    fake.answer = answer  # type: ignore[method-assign]
    assert fake.run(poll(SERVICE, ref)).state is JobState.QUEUED
    assert asked[0] == times + 1


def test_a_job_that_the_list_has_is_not_lost(fake: Fake) -> None:
    ref = fake.run(SERVICE.submit(AzureIngestionSpec(), KEY))
    listing = {"value": [fake.jobs.pop(KEY.name)]}
    fake.listing = listing
    with pytest.raises(UnavailableError, match="lists"):
        fake.run(poll(SERVICE, ref, record=JobRecord.attached(ref, KEY, NOW)))


def test_a_null_list_is_an_empty_one(fake: Fake) -> None:
    fake.listing = {"value": None}
    assert fake.run(SERVICE.find(KEY, NOW)) is None
    assert fake.run(SERVICE.submit(AzureIngestionSpec(), KEY)).id == KEY.name
    assert fake.run(SERVICE.list_statuses({KEY.name})) == {}
