from __future__ import annotations

from collections.abc import Callable
from datetime import UTC, datetime
from typing import Any

import httpx
import pytest

from overnight.errors import (
    CreatedUnknownError,
    RateLimitedError,
    RequestRefusedError,
    ServiceError,
    SpecError,
    UnavailableError,
    UnsupportedError,
)
from overnight.jobs import FoundJob, JobKey, JobRecord, JobRef, JobState
from overnight.jobs.wait import poll
from overnight.services.ml_commons.causes import NAME_TAKEN, NO_ACTION
from overnight.services.ml_commons.connection import transport
from overnight.services.ml_commons.predict.service import MLCommonsPredictService
from overnight.services.ml_commons.predict.spec import MLCommonsPredictSpec
from overnight.transport.flow import Flow
from overnight.transport.http import HttpCall
from overnight.transport.opensearch import OpenSearchConnection
from unit.services.answers import Service

KEY = JobKey(dag_id="d", task_id="t", run_id="r", fingerprint="0" * 16, generation=1)
BEFORE = KEY.model_copy(update={"generation": 0})
SINCE = datetime(2026, 11, 23, 2, tzinfo=UTC)


def cluster(body: str, create: Callable[[], Any] = lambda: {"task_id": "task-1"}) -> Service:
    """Return a cluster without tasks, whose only model has a connector with this body of batch_predict."""

    def answer(call: HttpCall) -> Any:
        match call.method, call.path.removeprefix("_plugins/_ml/").split("/"):
            case "GET", ["models", _]:
                return {"connector": {"actions": [{"action_type": "batch_predict", "request_body": body}]}}
            case "POST", ["tasks", "_search"]:
                return {"hits": {"hits": []}}
        return create()

    return Service(answer)


def submit(server: Service, **fields: Any) -> JobRef:
    spec = MLCommonsPredictSpec(model_id="m", **fields)
    ref: JobRef = server.run(MLCommonsPredictService("os").submit(spec, KEY))
    return ref


def find(orphan: FoundJob | None) -> FoundJob | None:
    service = MLCommonsPredictService("os", lambda key, since: orphan)
    found: FoundJob | None = cluster("{}").run(service.find(KEY, SINCE))
    return found


def make_orphan(key: JobKey, state: JobState) -> FoundJob:
    ref = JobRef(service="openai", id="batch_1", conn_id="my_openai")
    found = FoundJob.from_name(key.name, KEY, ref=ref, created_at=SINCE, state=state)
    assert found is not None
    return found


@pytest.mark.parametrize(
    ("key", "state"),
    [
        # Lost at the cluster and billed: the retry asks for the next generation, and must not pay beside it.
        (BEFORE, JobState.RUNNING),
        (BEFORE, JobState.QUEUED),
        (KEY, JobState.RUNNING),
        (KEY, JobState.SUCCEEDED),
    ],
)
def test_a_job_that_only_the_remote_service_knows_is_not_created_again(key: JobKey, state: JobState) -> None:
    with pytest.raises(RequestRefusedError, match="not created twice") as refusal:
        find(make_orphan(key, state))
    job = {"service": "openai", "id": "batch_1", "conn_id": "my_openai"}
    assert f"BatchJobSensor(job={job})" in str(refusal.value)
    assert refusal.value.code == NAME_TAKEN


@pytest.mark.parametrize(
    ("key", "state"),
    [(BEFORE, JobState.SUCCEEDED), (BEFORE, JobState.FAILED), (KEY, JobState.CANCELLING), (KEY, JobState.CANCELLED)],
)
def test_a_remote_job_that_is_done_with_is_in_nobodys_way(key: JobKey, state: JobState) -> None:
    assert find(make_orphan(key, state)) is None


TAKEN = RequestRefusedError('Error from remote service: {"message": "x already exists"}', code=NAME_TAKEN)


def raising(error: Exception) -> Callable[[], Any]:
    def create() -> Any:
        raise error

    return create


def test_a_taken_name_is_the_one_of_the_service_that_says_so() -> None:
    with pytest.raises(RequestRefusedError) as refusal:
        submit(cluster('{"TransformJobName": "${parameters.TransformJobName}"}', raising(TAKEN)))
    assert KEY.name in str(refusal.value)
    assert "(sagemaker)" in str(refusal.value)
    assert "aws_default" not in str(refusal.value)
    with pytest.raises(RequestRefusedError) as refusal:
        submit(cluster('{"jobName": "${parameters.jobName}"}', raising(TAKEN)))
    assert KEY.name in str(refusal.value)
    assert "BatchJobSensor" not in str(refusal.value)


@pytest.mark.parametrize("parameter", ["metadata", "name"])
def test_already_exists_of_a_service_without_unique_names_is_a_refusal(parameter: str) -> None:
    body = f'{{"x": ${{parameters.{parameter}}}}}'
    with pytest.raises(RequestRefusedError) as refusal:
        submit(cluster(body, raising(TAKEN)))
    assert "already exists" in str(refusal.value)
    assert "sagemaker" not in str(refusal.value).lower()
    assert "earlier try" not in str(refusal.value)


# The one of ML Commons' documentation passes no name on.
NAMELESS = '{ "input_file_id": "${parameters.input_file_id}", "endpoint": "${parameters.endpoint}" }'


def test_a_connector_without_a_name_is_used_only_on_demand() -> None:
    with pytest.raises(SpecError, match="allow_unnamed=True"):
        submit(cluster(NAMELESS))
    assert submit(cluster(NAMELESS), allow_unnamed=True).id == "task-1"


def test_a_job_without_a_name_is_not_created_again_when_its_answer_is_lost() -> None:
    server = cluster(NAMELESS, raising(UnavailableError("lost")))
    with pytest.raises(CreatedUnknownError, match="passes no name on"):
        submit(server, allow_unnamed=True)
    assert sum(call.endswith("_batch_predict") for call in server.seen) == 1


def test_a_connector_that_cannot_cancel_says_so() -> None:
    text = "Please configure the action type 'cancel_batch_predict'"

    def answer(call: HttpCall) -> Any:
        raise RequestRefusedError(text, code=NO_ACTION)

    with pytest.raises(UnsupportedError, match="has no action 'cancel_batch_predict'"):
        Service(answer).run(MLCommonsPredictService("os").cancel(JobRef(service="x", id="t", conn_id="os")))


# --- Throttling in disguise, one 404, an answer without an id ---------------------------------------------------------

NAMED = '{"metadata": ${parameters.metadata}}'
THROTTLED = {
    "error": {"type": "status_exception", "reason": 'Error from remote service: {"__type":"ThrottlingException"}'},
    "status": 400,
}
REF = JobRef(service="ml_commons_predict", id="task-1", conn_id="os")


def over_http(flow: Flow[Any], answer: Callable[[httpx.Request], tuple[int, Any]]) -> tuple[Any, list[str]]:
    """Drive a flow through the plugin's real transport; return its result or error, and the calls."""
    seen: list[str] = []

    def respond(request: httpx.Request) -> httpx.Response:
        seen.append(f"{request.method} {request.url.path.rpartition('/_ml/')[2]}")
        status, body = answer(request)
        return httpx.Response(status, json=body)

    plugin = transport(OpenSearchConnection("http://localhost:9200"), attempts=2)
    plugin._backoff = 0.0
    plugin._client = httpx.Client(base_url=plugin.base_url, transport=httpx.MockTransport(respond))
    with plugin:
        try:
            return plugin.run(flow), seen
        except ServiceError as error:
            return error, seen


def test_a_submit_that_the_remote_service_throttles_is_repeated_and_is_a_full_queue() -> None:
    def answer(request: httpx.Request) -> tuple[int, Any]:
        if request.url.path.endswith("_batch_predict"):
            return 400, THROTTLED
        return 200, {"connector": {"actions": [{"action_type": "batch_predict", "request_body": NAMED}]}}

    service = MLCommonsPredictService("os")
    error, seen = over_http(service.submit(MLCommonsPredictSpec(model_id="m"), KEY), answer)
    assert isinstance(error, RateLimitedError)
    # Repeated since it was not carried out, and nothing is looked for.
    assert seen == ["GET models/m", "POST models/m/_batch_predict", "POST models/m/_batch_predict"]
    assert service.find_refusal(error) is not None


@pytest.mark.parametrize("state", ["RUNNING", "COMPLETED"])
def test_a_cancellation_that_the_remote_service_throttles_can_be_made_again(state: str) -> None:
    def answer(request: httpx.Request) -> tuple[int, Any]:
        return (400, THROTTLED) if request.method == "POST" else (200, {"state": state, "remote_job": {}})

    result, seen = over_http(MLCommonsPredictService("os").cancel(REF), answer)
    assert seen == ["POST tasks/task-1/_cancel", "POST tasks/task-1/_cancel", "GET tasks/task-1"]
    if state == "RUNNING":
        assert isinstance(result, RateLimitedError)
    else:
        assert result.state is JobState.SUCCEEDED


@pytest.mark.parametrize("times", [1, 2])
def test_a_404_that_passes_is_no_loss(times: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("overnight.jobs.wait.CONFIRM_WAITS", (0.0, 0.0))
    left = [times]

    def answer(request: httpx.Request) -> tuple[int, Any]:
        left[0] -= 1
        gone = {"error": {"type": "status_exception", "reason": "Failed to find task"}, "status": 404}
        return (404, gone) if left[0] >= 0 else (200, {"state": "RUNNING", "remote_job": {}})

    status, seen = over_http(poll(MLCommonsPredictService("os"), REF), answer)
    assert (status.state, len(seen)) == (JobState.RUNNING, times + 1)


def test_a_task_that_the_list_has_is_not_lost() -> None:
    task = {"state": "RUNNING", "remote_job": {"metadata": {"overnight_name": KEY.name}}, "create_time": 1}

    def answer(request: httpx.Request) -> tuple[int, Any]:
        if request.method == "GET":
            return 404, {"error": {"type": "status_exception", "reason": "Failed to find task"}, "status": 404}
        return 200, {"hits": {"hits": [{"_id": "task-1", "_source": task}]}}

    record = JobRecord.attached(REF, KEY, SINCE)
    error, _ = over_http(poll(MLCommonsPredictService("os"), REF, record=record), answer)
    assert isinstance(error, UnavailableError)
    assert "lists" in str(error)


@pytest.mark.parametrize("answer", [{}, {"status": "CREATED"}, {"task_id": None}, {"task_id": 7}, {"task_id": ""}])
@pytest.mark.parametrize("is_listed", [True, False])
def test_an_answer_without_a_task_id_is_looked_for_and_nothing_is_created_again(answer: Any, is_listed: bool) -> None:
    task = {"state": "CREATED", "remote_job": {"metadata": {"overnight_name": KEY.name}}, "create_time": 1}
    listed = [{"_id": "task-1", "_source": task}] if is_listed else []

    def respond(call: HttpCall) -> Any:
        if call.path.endswith("_batch_predict"):
            return answer
        if call.path.endswith("_search"):
            return {"hits": {"hits": listed}}
        return {"connector": {"actions": [{"action_type": "batch_predict", "request_body": NAMED}]}}

    server = Service(respond)
    if is_listed:
        assert submit(server).id == "task-1"
    else:
        with pytest.raises(CreatedUnknownError, match=KEY.name):
            submit(server)
    assert sum(call.endswith("_batch_predict") for call in server.seen) == 1


def test_a_null_list_is_an_empty_one() -> None:
    nothing: Any = {"hits": {"hits": None}}
    assert Service(lambda _: nothing).run(MLCommonsPredictService("os").find(KEY, SINCE)) is None
    with pytest.raises(UnavailableError):
        Service(lambda _: {"hits": None}).run(MLCommonsPredictService("os").find(KEY, SINCE))
