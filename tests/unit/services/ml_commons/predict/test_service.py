from __future__ import annotations

from collections.abc import Callable
from datetime import UTC, datetime
from typing import Any

import pytest

from overnight.errors import CreatedUnknownError, RequestRefusedError, SpecError, UnavailableError, UnsupportedError
from overnight.jobs import FoundJob, JobKey, JobRef, JobState
from overnight.services.ml_commons.causes import NAME_TAKEN, NO_ACTION
from overnight.services.ml_commons.predict.service import MLCommonsPredictService
from overnight.services.ml_commons.predict.spec import MLCommonsPredictSpec
from overnight.transport.http import HttpCall
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
