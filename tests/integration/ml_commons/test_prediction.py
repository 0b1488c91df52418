from __future__ import annotations

import asyncio
import dataclasses
import json
import uuid
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any

import httpx
import pytest
from airflow.sdk.exceptions import AirflowFailException, TaskDeferred

from overnight.errors import NotFoundError, RateLimitedError, RequestRefusedError, SpecError
from overnight.hooks.job import hook_for
from overnight.hooks.ml_commons import MLCommonsPredictHook
from overnight.jobs import JobKey, JobState
from overnight.jobs.client import JobClient
from overnight.operators.cancel import CancelBatchJobOperator
from overnight.operators.ml_commons import (
    MLCommonsBatchPredictOperator,
    MLCommonsConnectorOperator,
    MLCommonsDeleteConnectorOperator,
    MLCommonsDeleteModelOperator,
    MLCommonsRegisterModelOperator,
)
from overnight.operators.ml_commons_ingest import MLCommonsBatchIngestOperator
from overnight.sensors.job import BatchJobSensor
from overnight.services.ml_commons.predict.service import MLCommonsPredictService
from overnight.services.ml_commons.predict.spec import MLCommonsPredictSpec

from .conftest import BLUEPRINTS, Cluster, TaskRun, wait

Make = Callable[..., str]


def _on_loopback(name: str) -> dict[str, Any]:
    """
    A blueprint that the node can poll and cancel at 127.0.0.1.

    The plugin refuses an ``http`` connector a private address there, and ``aws_sigv4`` signs over ``Authorization``.
    """
    blueprint = json.loads((BLUEPRINTS / name).read_text())
    blueprint["protocol"] = "aws_sigv4"
    blueprint["parameters"] |= {"region": "us-east-1", "service_name": "openai"}
    blueprint["credential"] = {}
    for action in blueprint["actions"]:
        action["headers"] = {"api-key": "${credential.openAI_key}"}
    return blueprint


@pytest.fixture(scope="module")
def shared(ml_url: str) -> Iterator[Callable[..., None]]:
    """Sets connections for what all tests of this module share."""
    with pytest.MonkeyPatch.context() as patch:

        def connect(conn_id: str, **fields: Any) -> None:
            patch.setenv(f"AIRFLOW_CONN_{conn_id.upper()}", json.dumps(fields))

        connect("opensearch_default", conn_type="opensearch", host=ml_url)
        yield connect


@pytest.fixture(scope="module")
def make_model(shared: Callable[..., None], ml_url: str) -> Iterator[Make]:
    """Make a deployed model of a connector; both are deleted at the end."""
    made: list[tuple[str, str]] = []

    def make(connector_id: str) -> str:
        name = f"m-{uuid.uuid4().hex[:8]}"
        model_id = MLCommonsRegisterModelOperator(
            task_id="register", model_name=name, connector_id=connector_id
        ).execute({})
        made.append((model_id, connector_id))
        return model_id

    yield make
    # The environment of a test that is over is gone; the one of the module is back.
    shared("opensearch_default", conn_type="opensearch", host=ml_url)
    for model_id, connector_id in made:
        MLCommonsDeleteModelOperator(task_id="delete", model_id=model_id).execute({})
        MLCommonsDeleteConnectorOperator(task_id="delete", connector_id=connector_id).execute({})


@dataclass
class OpenAI:
    """The emulator behind the connector, and the model in the cluster."""

    url: str
    model_id: str
    connector_id: str

    def set(self, section: str, **values: Any) -> None:
        httpx.put(f"{self.url.removesuffix('/v1')}/_sandbox/{section}", json=values).raise_for_status()

    def reset(self) -> None:
        for section in ("faults", "quirks", "limits", "pace"):
            self.set(section)

    def upload(self, count: int = 3) -> str:
        lines = (
            json.dumps(
                {
                    "custom_id": f"d{number}",
                    "method": "POST",
                    "url": "/v1/embeddings",
                    "body": {"model": "text-embedding-3-small", "input": f"text {number}", "dimensions": 4},
                }
            )
            for number in range(count)
        )
        return str(
            self.call("POST", "/files", data={"purpose": "batch"}, files={"file": ("a.jsonl", "\n".join(lines))})["id"]
        )

    def call(self, method: str, path: str, **options: Any) -> dict[str, Any]:
        answer = httpx.request(method, self.url + path, headers={"api-key": "sandbox"}, **options)
        return dict(answer.raise_for_status().json())


@pytest.fixture(scope="module")
def openai_model(shared: Callable[..., None], openai_url: str, make_model: Make) -> OpenAI:
    shared("openai_default", conn_type="overnight_openai", host=openai_url, password="sandbox")
    config = {
        "kind": "openai",
        "name": f"openai-{uuid.uuid4().hex[:8]}",
        "model": "text-embedding-3-small",
        "base_url": openai_url,
    }
    connector_id = _make_signed_openai(_on_loopback("openai_batch.json"), config)
    return OpenAI(openai_url, make_model(connector_id), connector_id)


@pytest.fixture
def openai(cluster: Cluster, openai_model: OpenAI, connect: Callable[..., None]) -> Iterator[OpenAI]:
    connect("openai_default", conn_type="overnight_openai", host=openai_model.url, password="sandbox")
    openai_model.reset()
    yield openai_model
    openai_model.reset()


def _make_signed_openai(body: Mapping[str, Any], config: Mapping[str, Any]) -> str:
    from overnight.hooks.ml_commons import connector_credential
    from overnight.hooks.opensearch import OpenSearchHook
    from overnight.services.ml_commons.connection import transport
    from overnight.services.ml_commons.connectors import checked, fill, read_config
    from overnight.services.ml_commons.models import ensure_connector

    credential = connector_credential("openai", "openai_default") | {"access_key": "x", "secret_key": "x"}
    with transport(OpenSearchHook().get_config()) as plugin:
        return plugin.run(ensure_connector(checked(fill(body, read_config(config)), credential)))


def _spec(openai: OpenAI, **parameters: Any) -> MLCommonsPredictSpec:
    return MLCommonsPredictSpec(
        model_id=openai.model_id,
        parameters={"input_file_id": openai.upload(), "endpoint": "/v1/embeddings", **parameters},
    )


def _predict(task_run: TaskRun, openai: OpenAI, **options: Any) -> MLCommonsBatchPredictOperator:
    parameters = {"input_file_id": openai.upload(options.pop("count", 3))}
    return MLCommonsBatchPredictOperator(
        task_id="predict", model_id=openai.model_id, parameters=parameters, poll_interval=0.2, **options
    )


def test_a_batch_goes_from_its_connector_into_the_index(cluster: Cluster, openai: OpenAI, task_run: TaskRun) -> None:
    outcome = _predict(task_run, openai).execute(task_run.context)
    assert outcome["status"]["state"] == "succeeded"
    assert outcome["status"]["counts"] == {"total": 3, "succeeded": 3, "failed": 0}
    (output,) = [file["uri"] for file in outcome["results"]["files"] if file["kind"] == "output"]
    assert output.startswith("openai://file-")
    index = cluster.index()
    request = {
        "index_name": index,
        "field_map": {"_id": "$.custom_id", "embedding": "$.response.body.data[0].embedding"},
        "data_source": {"type": "openAI", "source": [output]},
    }
    MLCommonsBatchIngestOperator(task_id="ingest", request=request, engine="client").execute(TaskRun().context)
    documents = cluster.documents(index)
    assert sorted(documents) == ["d0", "d1", "d2"]
    assert all(len(document["embedding"]) == 4 for document in documents.values())


def test_completed_over_failed_lines_is_partial(openai: OpenAI, task_run: TaskRun) -> None:
    openai.set("faults", lines_failed={"custom_id": "^d1$", "share": 1.0})
    operator = _predict(task_run, openai)
    with pytest.raises(AirflowFailException, match="allowed_failures"):
        operator.execute(task_run.context)
    allowing = _predict(task_run, openai, allowed_failures=1)
    allowing.parameters = operator.parameters
    outcome = allowing.execute(task_run.context)
    assert outcome["status"]["state"] == "partial"
    assert {file["kind"] for file in outcome["results"]["files"]} == {"output", "error", "input"}


def test_a_retry_attaches_and_a_dead_workers_job_is_found(openai: OpenAI, task_run: TaskRun, key: JobKey) -> None:
    openai.set("pace", validating=0.1, lines_per_second=5)
    operator = _predict(task_run, openai, count=10)
    with operator.make_client() as client:
        attempt = operator.begin_attempt(task_run.context, client, operator.parse_settings())
        record = attempt.attach_or_submit(operator.build_spec(task_run.context))
    # The worker died before it recorded the job.
    task_run.store.values.clear()
    outcome = operator.execute(task_run.context)
    assert outcome["ref"]["id"] == record.job.id
    # The remote service has one batch of that file.
    batches = openai.call("GET", "/batches?limit=100")["data"]
    assert sum(batch["input_file_id"] == operator.parameters["input_file_id"] for batch in batches) == 1


def test_a_lost_answer_is_looked_up_and_not_paid_twice(
    openai: OpenAI, prediction: JobClient[MLCommonsPredictService], key: JobKey, monkeypatch: pytest.MonkeyPatch
) -> None:
    from overnight.errors import UnavailableError

    spec = _spec(openai)
    send = prediction.transport.send

    def lose(call: Any) -> Any:
        answer = send(call)
        if call.path.endswith("_batch_predict"):
            raise UnavailableError("lost")
        return answer

    monkeypatch.setattr(prediction.transport, "send", lose)
    ref = prediction.run(prediction.service.submit(spec, key))
    assert wait(prediction, ref).state is JobState.SUCCEEDED
    batches = openai.call("GET", "/batches?limit=100")["data"]
    assert sum(batch["input_file_id"] == spec.parameters["input_file_id"] for batch in batches) == 1


def test_a_job_that_never_became_a_task_is_found_at_the_remote_service(openai: OpenAI, task_run: TaskRun) -> None:
    operator = _predict(task_run, openai, remote_service="openai", remote_conn_id="openai_default")
    spec = operator.build_spec(task_run.context)
    lost = JobKey(
        dag_id="dag", task_id="task", run_id=task_run.run_id, fingerprint=spec.fingerprint("opensearch_default")
    )
    body = {
        "input_file_id": operator.parameters["input_file_id"],
        "endpoint": "/v1/embeddings",
        "completion_window": "24h",
        "metadata": {"overnight_name": lost.name},
    }
    batch = openai.call("POST", "/batches", json=body)
    with pytest.raises(AirflowFailException, match="not created twice") as refusal:
        operator.execute(task_run.context)
    # The remedy that the text names works.
    job = {"service": "openai", "id": batch["id"], "conn_id": "openai_default"}
    assert str(job) in str(refusal.value)
    sensor = BatchJobSensor(task_id="wait", job=job, poke_interval=0.2, timeout=60)
    assert sensor.execute(TaskRun().context)["status"]["state"] == "succeeded"


def test_a_running_batch_is_cancelled(
    openai: OpenAI, prediction: JobClient[MLCommonsPredictService], key: JobKey
) -> None:
    openai.set("faults", batch_stuck=1.0)
    openai.set("pace", cancelling=0.5)
    ref = prediction.run(prediction.service.submit(_spec(openai), key))
    assert prediction.run(prediction.service.list_statuses([ref.id]))[ref.id].state.is_terminal is False
    outcome = CancelBatchJobOperator(task_id="cancel", job=ref.model_dump()).execute(TaskRun().context)
    assert outcome["status"]["state"] in ("cancelling", "cancelled")
    assert wait(prediction, ref).state is JobState.CANCELLED
    # Asking twice is fine.
    assert prediction.run(prediction.service.cancel(ref)).state is JobState.CANCELLED


def test_cancelling_a_finished_batch_leaves_it_as_it_is(
    openai: OpenAI, prediction: JobClient[MLCommonsPredictService], key: JobKey
) -> None:
    ref = prediction.run(prediction.service.submit(_spec(openai), key))
    assert wait(prediction, ref).state is JobState.SUCCEEDED
    assert prediction.run(prediction.service.cancel(ref)).state is JobState.SUCCEEDED


def test_a_restarted_or_unreachable_service_is_borne(
    openai: OpenAI, cluster: Cluster, prediction: JobClient[MLCommonsPredictService], key: JobKey
) -> None:
    ref = prediction.run(prediction.service.submit(_spec(openai), key))
    wait(prediction, ref)
    # What the cluster's own poller does after ten failures; nothing but a look at the remote job undoes it.
    update = {"doc": {"state": "UNREACHABLE", "remote_job": {"num_of_retries": 11, "status": "in_progress"}}}
    cluster.http.post(f"/.plugins-ml-task/_update/{ref.id}?refresh=true", json=update).raise_for_status()
    assert prediction.run(prediction.service.status(ref)).state is JobState.SUCCEEDED


def test_an_unknown_task_is_not_found(cluster: Cluster, prediction: JobClient[MLCommonsPredictService]) -> None:
    ref = prediction.service.ref("nothing-of-this-id")
    for verb in (prediction.service.status, prediction.service.cancel):
        with pytest.raises(NotFoundError):
            prediction.run(verb(ref))


def test_an_unknown_model_is_refused(
    openai: OpenAI, prediction: JobClient[MLCommonsPredictService], key: JobKey
) -> None:
    with pytest.raises(RequestRefusedError, match="MLCommonsRegisterModelOperator"):
        prediction.run(prediction.service.submit(MLCommonsPredictSpec(model_id="nope"), key))


def test_what_the_remote_service_refuses_is_not_our_credentials_fault(
    openai: OpenAI, prediction: JobClient[MLCommonsPredictService], key: JobKey
) -> None:
    spec = _spec(openai, input_file_id="file-nowhere")
    with pytest.raises(RequestRefusedError, match=r"Cannot find file file-nowhere.*connector's credential") as error:
        prediction.run(prediction.service.submit(spec, key))
    assert error.value.status is None


def test_a_feature_that_is_off_names_its_setting(
    openai: OpenAI, cluster: Cluster, prediction: JobClient[MLCommonsPredictService], key: JobKey
) -> None:
    ref = prediction.run(prediction.service.submit(_spec(openai), key))
    cluster.set(offline_batch_inference_enabled=False)
    for flow in (
        prediction.service.submit(_spec(openai), key),
        prediction.service.status(ref),
        prediction.service.cancel(ref),
    ):
        with pytest.raises(RequestRefusedError, match=r"plugins.ml_commons.offline_batch_inference_enabled"):
            prediction.run(flow)


def test_too_many_tasks_are_a_matter_of_time(openai: OpenAI, cluster: Cluster, key: JobKey) -> None:
    from overnight.hooks.opensearch import OpenSearchHook
    from overnight.services.ml_commons.connection import transport

    cluster.set(max_batch_inference_tasks=0)
    service = MLCommonsPredictHook().service(OpenSearchHook().get_config())
    with (
        transport(OpenSearchHook().get_config(), attempts=1) as plugin,
        pytest.raises(RateLimitedError, match="max_batch_inference_tasks"),
    ):
        plugin.run(service.submit(_spec(openai), key))


def test_a_connector_that_passes_no_name_on_is_refused(
    cluster: Cluster,
    openai: OpenAI,
    make_model: Make,
    openai_url: str,
    prediction: JobClient[MLCommonsPredictService],
    key: JobKey,
) -> None:
    body = _on_loopback("openai_batch.json")
    body["actions"][1]["request_body"] = '{ "input_file_id": "${parameters.input_file_id}" }'
    config = {"kind": "openai", "name": f"nameless-{uuid.uuid4().hex[:6]}", "model": "m", "base_url": openai_url}
    model_id = make_model(_make_signed_openai(body, config))
    with pytest.raises(SpecError, match="would pay twice"):
        prediction.run(prediction.service.submit(MLCommonsPredictSpec(model_id=model_id), key))


def test_the_connector_of_the_documentation_is_used_on_demand(
    cluster: Cluster, openai: OpenAI, make_model: Make, openai_url: str, task_run: TaskRun
) -> None:
    """It passes no name on, its key is a placeholder, two of its actions have no body, and it need not cancel."""
    body = _on_loopback("openai_batch.json")
    body["credential"] = {"openAI_key": "<your openAI key>"}
    body["actions"] = [action for action in body["actions"] if action["action_type"] != "cancel_batch_predict"]
    body["actions"][1]["request_body"] = (
        '{ "input_file_id": "${parameters.input_file_id}", "endpoint": "${parameters.endpoint}", '
        '"completion_window": "24h" }'
    )
    del body["actions"][2]["request_body"]
    config = {"kind": "openai", "name": f"documented-{uuid.uuid4().hex[:6]}", "model": "m", "base_url": openai_url}
    nameless = dataclasses.replace(openai, model_id=make_model(_make_signed_openai(body, config)))
    with pytest.raises(AirflowFailException, match="allow_unnamed=True"):
        _predict(task_run, nameless).execute(task_run.context)
    assert _predict(task_run, nameless, durable=False).execute(task_run.context)["status"]["state"] == "succeeded"
    openai.set("faults", batch_stuck=1.0)
    task = TaskRun()
    job = _predict(task, nameless, allow_unnamed=True, wait_for_completion=False).execute(task.context)
    with pytest.raises(AirflowFailException, match="has no action 'cancel_batch_predict'"):
        CancelBatchJobOperator(task_id="cancel", job=job).execute(TaskRun().context)


def test_connectors_and_models_are_made_once(cluster: Cluster, connect: Callable[..., None], openai_url: str) -> None:
    connect("openai_default", conn_type="overnight_openai", password="sk-abcdefghijklmnop1234")
    name = f"once-{uuid.uuid4().hex[:8]}"
    config = {"kind": "openai", "name": name, "model": "text-embedding-3-small", "base_url": openai_url}

    def make(**changes: Any) -> str:
        operator = MLCommonsConnectorOperator(
            task_id="connector",
            blueprint=str(BLUEPRINTS / "openai_batch.json"),
            config={**config, **changes.pop("config", {})},
            **changes,
        )
        return operator.execute({})

    connector_id = make()
    assert make() == connector_id
    with pytest.raises(AirflowFailException, match="with other parameters"):
        make(config={"model": "text-embedding-3-large"})
    assert make(config={"model": "text-embedding-3-large"}, update=True) == connector_id
    stored = cluster.http.get(f"/_plugins/_ml/connectors/{connector_id}").json()
    assert stored["parameters"]["model"] == "text-embedding-3-large"
    assert "sk-abc" not in json.dumps(stored)

    def register(**changes: str) -> str:
        values = {"model_name": name, "connector_id": connector_id, **changes}
        return MLCommonsRegisterModelOperator(task_id="register", **values).execute({})

    model_id = register()
    assert register() == model_id
    cluster.http.post(f"/_plugins/_ml/models/{model_id}/_undeploy").raise_for_status()
    assert register() == model_id
    with pytest.raises(AirflowFailException, match="another connector"):
        register(connector_id="some-other")
    with pytest.raises(AirflowFailException, match="MLCommonsDeleteModelOperator"):
        MLCommonsDeleteConnectorOperator(task_id="delete", connector_id=connector_id).execute({})
    for _ in range(2):
        MLCommonsDeleteModelOperator(task_id="delete", model_id=model_id).execute({})
        MLCommonsDeleteConnectorOperator(task_id="delete", connector_id=connector_id).execute({})


@pytest.fixture(scope="module")
def sagemaker_model(shared: Callable[..., None], sagemaker_url: str, make_model: Make) -> str:
    """A model whose connector reaches SageMaker; its id."""
    extra = {"region_name": "us-east-1", "endpoint_url": sagemaker_url}
    shared("sagemaker_default", conn_type="aws", login="sandbox", password="sandbox", extra=extra)
    connector_id = MLCommonsConnectorOperator(
        task_id="connector",
        blueprint=str(BLUEPRINTS / "sagemaker_batch_transform.json"),
        credential_conn_id="sagemaker_default",
        config={
            "kind": "sagemaker",
            "name": f"sagemaker-{uuid.uuid4().hex[:8]}",
            "region": "us-east-1",
            "ModelName": "sandbox-embedding",
            "DataProcessing": {"InputFilter": "$.text", "OutputFilter": "$", "JoinSource": "Input"},
            "api_url": sagemaker_url,
            "runtime_url": sagemaker_url,
        },
    ).execute({})
    return make_model(connector_id)


@pytest.fixture
def sagemaker(cluster: Cluster, sagemaker_model: str, sagemaker_url: str) -> Iterator[str]:
    for section in ("faults", "limits", "pace"):
        httpx.put(f"{sagemaker_url}/_sandbox/{section}", json={}).raise_for_status()
    yield sagemaker_model
    httpx.put(f"{sagemaker_url}/_sandbox/pace", json={}).raise_for_status()


def _transform(cluster: Cluster, folder: str) -> dict[str, Any]:
    uri = cluster.put(f"{folder}/in.jsonl", [{"id": f"d{n}", "text": f"text {n}"} for n in range(3)])
    return {
        "TransformInput": {
            "ContentType": "application/jsonlines",
            "SplitType": "Line",
            "DataSource": {"S3DataSource": {"S3DataType": "S3Prefix", "S3Uri": uri}},
        },
        "TransformOutput": {
            "S3OutputPath": f"s3://{cluster.bucket}/{folder}-out",
            "AssembleWith": "Line",
            "Accept": "application/jsonlines",
        },
    }


def test_a_transform_job_goes_from_its_connector_into_the_index(
    cluster: Cluster, sagemaker: str, task_run: TaskRun
) -> None:
    parameters = _transform(cluster, "a")
    predict = MLCommonsBatchPredictOperator(
        task_id="predict", model_id=sagemaker, parameters=parameters, poll_interval=0.2
    )
    outcome = predict.execute(task_run.context)
    assert outcome["status"]["state"] == "succeeded"
    (output,) = [file["uri"] for file in outcome["results"]["files"] if file["kind"] == "output"]
    assert output == f"s3://{cluster.bucket}/a-out/"
    assert JobKey.parse_name(outcome["results"]["detail"]["TransformJobName"]) is not None
    index = cluster.index()
    request = {
        "index_name": index,
        "field_map": {"_id": "$.id", "text": "$.text", "embedding": "$.SageMakerOutput[0]"},
        "data_source": {"type": "s3", "source": [f"{output}in.jsonl.out"]},
    }
    MLCommonsBatchIngestOperator(task_id="ingest", request=request, poll_interval=0.2).execute(TaskRun().context)
    assert {name: document["text"] for name, document in cluster.documents(index).items()} == {
        f"d{n}": f"text {n}" for n in range(3)
    }


def test_a_transform_job_is_found_by_its_name_and_never_made_twice(
    cluster: Cluster, sagemaker: str, task_run: TaskRun, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("overnight.services.create.LOOKUP_WAITS", (1.5,))
    operator = MLCommonsBatchPredictOperator(
        task_id="predict", model_id=sagemaker, parameters=_transform(cluster, "b"), poll_interval=0.2
    )
    spec = operator.build_spec(task_run.context)
    with operator.make_client() as client:
        record = operator.begin_attempt(task_run.context, client, operator.parse_settings()).attach_or_submit(spec)
        # The cluster loses the task: only SageMaker knows the job now.
        cluster.http.delete(f"/.plugins-ml-task/_doc/{record.job.id}?refresh=true").raise_for_status()
    task_run.store.values.clear()
    with pytest.raises(AirflowFailException, match=r"not created twice.*'service': 'sagemaker'"):
        operator.execute(task_run.context)


def test_a_running_transform_job_is_stopped(
    cluster: Cluster,
    sagemaker: str,
    sagemaker_url: str,
    prediction: JobClient[MLCommonsPredictService],
    key: JobKey,
) -> None:
    httpx.put(f"{sagemaker_url}/_sandbox/pace", json={"starting": 30.0}).raise_for_status()
    spec = MLCommonsPredictSpec(model_id=sagemaker, parameters=_transform(cluster, "c"))
    ref = prediction.run(prediction.service.submit(spec, key))
    assert prediction.run(prediction.service.cancel(ref)).state.is_stopped
    assert wait(prediction, ref).state is JobState.CANCELLED


def test_the_reference_alone_finds_its_hook(openai: OpenAI, prediction: Any, key: JobKey) -> None:
    ref = prediction.run(prediction.service.submit(_spec(openai), key))
    with hook_for(ref).client() as client:
        assert client.run(client.service.find(key, datetime.now(UTC) - timedelta(minutes=5))).ref == ref


def test_a_deferred_task_goes_on_where_its_trigger_ends(openai: OpenAI, task_run: TaskRun) -> None:
    operator = _predict(task_run, openai, deferrable=True)
    with pytest.raises(TaskDeferred) as deferred:
        operator.execute(task_run.context)
    trigger = deferred.value.trigger
    assert "sandbox" not in json.dumps(trigger.serialize())

    async def watch() -> Any:
        return await anext(trigger.run())

    event = asyncio.run(watch())
    outcome = _predict(task_run, openai).execute_complete(task_run.context, event.payload)
    assert outcome["status"]["state"] == "succeeded"
    assert {file["kind"] for file in outcome["results"]["files"]} == {"output", "input"}
