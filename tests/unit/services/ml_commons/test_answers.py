"""Whatever a cluster answers, every verb ends in a result or in a ServiceError of bounded length."""

from __future__ import annotations

from collections.abc import Callable
from datetime import UTC, datetime
from typing import Any

import pytest

from overnight.errors import JobFailedError, SpecError
from overnight.jobs import JobKey
from overnight.services.ml_commons.answers import make_task_index
from overnight.services.ml_commons.ingest.credential import S3Credential
from overnight.services.ml_commons.ingest.engine import has_endpoint
from overnight.services.ml_commons.ingest.service import MLCommonsIngestService
from overnight.services.ml_commons.ingest.spec import MLCommonsIngestSpec
from overnight.services.ml_commons.models import delete_connector, delete_model, ensure_connector, ensure_model
from overnight.services.ml_commons.predict.service import MLCommonsPredictService
from overnight.services.ml_commons.predict.spec import MLCommonsPredictSpec
from overnight.transport.flow import Flow
from overnight.transport.http import HttpCall
from overnight.transport.opensearch import OpenSearchConnection
from unit.services.answers import check

KEY = JobKey(dag_id="d", task_id="t", run_id="r", fingerprint="0" * 16)
NOW = int(datetime.now(UTC).timestamp() * 1000)
OPENAI = {
    "object": "batch", "id": "batch_1", "status": "completed", "output_file_id": "file-o", "error_file_id": "file-e",
    "input_file_id": "file-i", "metadata": {"overnight_name": KEY.name}, "endpoint": "/v1/embeddings",
    "request_counts": {"total": 3.0, "completed": 2.0, "failed": 1.0},
}  # fmt: skip
SAGEMAKER = {
    "TransformJobName": KEY.name, "TransformJobArn": f"arn:aws:sagemaker:x:1:transform-job/{KEY.name}",
    "TransformJobStatus": "Failed", "FailureReason": "ClientError: See job logs",
    "TransformOutput": {"S3OutputPath": "s3://b/out"},
    "TransformInput": {"DataSource": {"S3DataSource": {"S3Uri": "s3://b/in"}}},
}  # fmt: skip
CONNECTOR = {
    "parameters": {"metadata": {"a": "b"}},
    "actions": [
        {"action_type": "predict", "request_body": "{}"},
        {"action_type": "batch_predict", "request_body": '{"metadata": ${parameters.metadata}}'},
    ],
}
PREDICT = MLCommonsPredictService("conn")
INGEST = MLCommonsIngestService(
    "conn", OpenSearchConnection("http://localhost:9200"), lambda _: S3Credential("key", "secret", "us-east-1")
)


def good(task_type: str, state: str, remote: dict[str, Any]) -> Callable[[], Callable[[HttpCall], Any]]:
    # 2001: an ingestion that is old enough for a look at the nodes.
    created = NOW if task_type == "BATCH_PREDICTION" else 1_000_000_000_000
    task = {"task_type": task_type, "state": state, "create_time": created, "remote_job": remote, "error": "Missing x"}

    def answer(call: HttpCall) -> Any:
        match call.method, call.path.removeprefix("_plugins/_ml/").split("/"):
            case "POST", ["tasks", "_search"]:
                return {"hits": {"hits": [{"_id": "task-1", "_source": task, "sort": [NOW]}]}}
            case "GET", ["tasks", _]:
                return task
            case "GET", ["models", _]:
                return {"model_id": "m", "connector_id": "c"}
            case "GET", ["connectors", _]:
                return CONNECTOR
            case "GET", ["_nodes", _]:
                return {"nodes": {"n": {"jvm": {"start_time_in_millis": NOW}}}}
            case "GET", [""]:
                return {"version": {"distribution": "opensearch", "number": "2.18.0"}}
        return {"task_id": "task-1", "status": "CREATED"}

    return lambda: answer


@pytest.mark.parametrize("remote", [OPENAI, SAGEMAKER], ids=["openai", "sagemaker"])
def test_predictions(remote: dict[str, Any]) -> None:
    since = datetime.fromtimestamp(0, UTC)
    ref = PREDICT.ref("task-1")
    spec = MLCommonsPredictSpec(model_id="m")
    verbs: dict[str, Callable[[], Flow[Any]]] = {
        "find": lambda: PREDICT.find(KEY, since),
        "submit": lambda: PREDICT.submit(spec, KEY),
        "status": lambda: PREDICT.status(ref),
        "cancel": lambda: PREDICT.cancel(ref),
        "results": lambda: PREDICT.results(ref),
        "list_statuses": lambda: PREDICT.list_statuses({"task-1"}),
        "list_queue": lambda: PREDICT.list_queue(""),
        "list_own": lambda: PREDICT.list_own(since),
    }
    check(verbs, good("BATCH_PREDICTION", "COMPLETED", remote), also=(SpecError,))


@pytest.mark.parametrize("state", ["CREATED", "FAILED", "COMPLETED"])
def test_ingestions(state: str) -> None:
    ref = INGEST.ref("task-1")
    spec = MLCommonsIngestSpec(
        index_name="docs", field_map={"a": "$.a", "_id": ["$.id"]}, source_type="s3", sources=("s3://b/k",)
    )
    verbs: dict[str, Callable[[], Flow[Any]]] = {
        # find asks nothing.
        "submit": lambda: INGEST.submit(spec, KEY),
        "status": lambda: INGEST.status(ref),
        "cancel": lambda: INGEST.cancel(ref),
        "results": lambda: INGEST.results(ref),
        "list_statuses": lambda: INGEST.list_statuses({"task-1"}),
        "list_queue": lambda: INGEST.list_queue(""),
    }
    check(verbs, good("BATCH_INGEST", state, {}), also=(SpecError,))


BODY = {**CONNECTOR, "name": "n", "version": "1", "protocol": "http"}


def kept(found: bool, **model: Any) -> Callable[[], Callable[[HttpCall], Any]]:
    """A cluster that has the connector and the model, or makes them."""
    model = {"name": "m", "connector_id": "c", "model_state": "DEPLOYED", **model}

    def answer(call: HttpCall) -> Any:
        match call.method, call.path.removeprefix("_plugins/_ml/").split("/"):
            case "POST", ["connectors", "_search"]:
                return {"hits": {"hits": [{"_id": "c", "_source": BODY}] if found else []}}
            case "POST", ["models", "_search"]:
                return {"hits": {"hits": [{"_id": "m", "_source": model}] if found else []}}
            case "POST", ["connectors", "_create"]:
                return {"connector_id": "c"}
            case "GET", ["tasks", _]:
                return {"state": "COMPLETED", "model_id": "m", "task_type": "REGISTER_MODEL"}
            case "GET", ["models", _]:
                return {**model, "model_state": "DEPLOYED"}
        return {"task_id": "task-1", "status": "CREATED"}

    return lambda: answer


@pytest.mark.parametrize("found", [True, False])
def test_connectors_and_models(found: bool) -> None:
    flows: dict[str, Callable[[], Flow[Any]]] = {
        "ensure_connector": lambda: ensure_connector(BODY),
        "update_connector": lambda: ensure_connector(BODY, update=True),
        "delete_connector": lambda: delete_connector("c"),
        "ensure_model": lambda: ensure_model("m", "c"),
        "delete_model": lambda: delete_model("m"),
        "make_task_index": make_task_index,
        "has_endpoint": has_endpoint,
    }
    check(flows, kept(found, model_state="UNDEPLOYED"), also=(SpecError, JobFailedError))
