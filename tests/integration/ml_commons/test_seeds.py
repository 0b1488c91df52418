"""
The documented requests of ML Commons, run as the pages of ``tests/seeds`` have them.

The cluster is sent the page's own text, and so are the operators and the command line. What stands in ``<your …>`` is
filled in where a server has to know it, as the page asks its reader to do.
"""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import httpx
import pytest
from typer.testing import CliRunner, Result

import seed_texts
from http_server import Server, json_answer
from overnight.cli.app import app
from overnight.errors import SpecError
from overnight.hooks.ml_commons import MLCommonsIngestHook, MLCommonsPredictHook
from overnight.jobs import JobKey, JobState
from overnight.operators.ml_commons import (
    MLCommonsDeleteConnectorOperator,
    MLCommonsDeleteModelOperator,
    MLCommonsRegisterModelOperator,
)
from overnight.operators.ml_commons_ingest import MLCommonsBatchIngestOperator
from overnight.services.ml_commons.predict.spec import MLCommonsPredictSpec
from patience import PATIENCE

from .conftest import Cluster, TaskRun, wait

INGESTION = seed_texts.read_page("000")
ONE_FILE, SEVERAL_FILES = (request for request in seed_texts.requests(INGESTION) if request.body)
(CREATED,) = seed_texts.answers(INGESTION)

PREDICTION = seed_texts.read_page("001")
_, CONNECTOR, MODEL, PREDICT, LOOK, CANCEL = seed_texts.requests(PREDICTION)
CONNECTOR_CREATED, MODEL_REGISTERED, PREDICTED, TASK, CANCELLED = seed_texts.answers(PREDICTION)

IDS = [f"d{number}" for number in range(3)]


def _answer(cluster: Cluster, request: seed_texts.Request, body: str) -> httpx.Response:
    headers = {"Content-Type": "application/json"}
    return cluster.http.request(request.method, request.target, content=body, headers=headers)


def _send(cluster: Cluster, request: seed_texts.Request, body: str) -> Any:
    return _answer(cluster, request, body).raise_for_status().json()


def _make_index(cluster: Cluster, request: seed_texts.Request) -> str:
    """Make the index that a request names, empty."""
    body = request.json()
    vectors = {name: {"type": "float"} for name in body["field_map"] if name.endswith("_embedding")}
    name = str(body["index_name"])
    cluster.http.delete(f"/{name}", params={"ignore_unavailable": "true"}).raise_for_status()
    cluster.http.put(f"/{name}", json={"mappings": {"properties": vectors}}).raise_for_status()
    cluster.indices.append(name)
    return name


def _load(body: str, folder: Path, url: str) -> Result:
    path = folder / "request.json"
    path.write_text(body)
    return CliRunner().invoke(app, ["load", str(path), "--url", url])


@pytest.fixture
def sagemaker_output(cluster: Cluster) -> dict[str, Any]:
    """Put the file of the first example where it names it, and return the documents that it asks for."""
    (uri,) = ONE_FILE.json()["data_source"]["source"]
    bucket, _, key = uri.removeprefix("s3://").partition("/")
    cluster.s3.create_bucket(Bucket=bucket)
    lines = [
        {"id": name, "content": [f"chapter {name}", f"title {name}"], "SageMakerOutput": [[n + 0.25], [n + 0.5]]}
        for n, name in enumerate(IDS)
    ]
    cluster.s3.put_object(Bucket=bucket, Key=key, Body="".join(f"{json.dumps(line)}\n" for line in lines).encode())
    return {
        name: {
            "chapter": f"chapter {name}",
            "title": f"title {name}",
            "chapter_embedding": [n + 0.25],
            "title_embedding": [n + 0.5],
            "id": name,
        }
        for n, name in enumerate(IDS)
    }


@pytest.fixture
def openai_files(openai_url: str) -> Mapping[str, str]:
    """Upload the three files of the second example, and return what stands in its placeholders."""
    outputs = [
        {
            "custom_id": name,
            "response": {"status_code": 200, "body": {"data": [{"embedding": [n + 0.25]}, {"embedding": [n + 0.5]}]}},
        }
        for n, name in enumerate(IDS)
    ]
    inputs = [{"custom_id": name, "body": {"input": [f"question {name}", f"answer {name}"]}} for name in IDS]
    others = [{"custom_id": name, "custom_field1": f"one {name}", "custom_field2": f"two {name}"} for name in IDS]
    values = {"<you openAI key>": "sandbox"}
    for what, lines in (("output file id", outputs), ("input file id", inputs), ("other file", others)):
        content = "".join(f"{json.dumps(line)}\n" for line in lines).encode()
        answer = httpx.post(
            f"{openai_url}/files",
            headers={"Authorization": "Bearer sandbox"},
            data={"purpose": "user_data"},
            files={"file": ("file.jsonl", content)},
        )
        values[f"<your {what}>"] = str(answer.raise_for_status().json()["id"]).removeprefix("file-")
    return values


def test_one_file_is_accepted_by_the_cluster_which_takes_the_session_token_for_the_region(
    cluster: Cluster, sagemaker_output: dict[str, Any]
) -> None:
    index = _make_index(cluster, ONE_FILE)
    assert ONE_FILE.body is not None
    task = _send(cluster, ONE_FILE, ONE_FILE.body)
    assert set(task) == set(CREATED)
    assert {**task, "task_id": ""} == {**CREATED, "task_id": ""}
    with MLCommonsIngestHook().client() as client:
        status = wait(client, client.service.ref(task["task_id"]))
    assert "region" in status.describe()
    assert cluster.documents(index) == {}


@pytest.mark.parametrize("engine", ["server", "client", "auto"])
def test_one_file_is_ingested_by_the_operator(
    cluster: Cluster, sagemaker_output: dict[str, Any], task_run: TaskRun, engine: Any
) -> None:
    index = _make_index(cluster, ONE_FILE)
    # In a DAG the credential is the connection's; all else is the page's.
    request = {name: value for name, value in ONE_FILE.json().items() if name != "credential"}
    MLCommonsBatchIngestOperator(task_id="ingest", request=request, engine=engine, poll_interval=0.2).execute(
        task_run.context
    )
    assert cluster.documents(index) == sagemaker_output


def test_one_file_is_loaded_by_the_command_line(
    cluster: Cluster,
    sagemaker_output: dict[str, Any],
    ml_url: str,
    s3_endpoint: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    index = _make_index(cluster, ONE_FILE)
    monkeypatch.setenv("AWS_ENDPOINT_URL_S3", s3_endpoint)
    assert ONE_FILE.body is not None
    loaded = _load(ONE_FILE.body, tmp_path, ml_url)
    assert loaded.exit_code == 0, loaded.output
    assert cluster.documents(index) == sagemaker_output


def test_several_files_without_an_id_in_each_fail_at_the_cluster_and_are_refused_here(
    cluster: Cluster, openai_files: Mapping[str, str], openai_url: str, ml_url: str, tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:  # fmt: skip
    index = _make_index(cluster, SEVERAL_FILES)
    assert SEVERAL_FILES.body is not None
    body = seed_texts.fill(SEVERAL_FILES.body, openai_files)
    task = _send(cluster, SEVERAL_FILES, body)
    assert set(task) == set(CREATED)
    with MLCommonsIngestHook().client() as client:
        status = wait(client, client.service.ref(task["task_id"]))
    # The third file has no path to an id; the first two are in the index by then.
    assert "must be provided to match documents for multiple sources" in status.describe()
    assert sorted(cluster.documents(index)) == IDS
    _make_index(cluster, SEVERAL_FILES)
    monkeypatch.setenv("OPENAI_BASE_URL", openai_url)
    refused = _load(body, tmp_path, ml_url)
    assert refused.exit_code == 2
    assert "source[2] has no id to be joined by: add 'source[2].$." in refused.stderr
    assert cluster.documents(index) == {}


@pytest.mark.parametrize("way", ["server", "command line"])
def test_several_files_with_an_id_in_each_are_joined(
    cluster: Cluster,
    openai_files: Mapping[str, str],
    openai_url: str,
    ml_url: str,
    tmp_path: Path,
    task_run: TaskRun,
    monkeypatch: pytest.MonkeyPatch,
    way: str,
) -> None:
    index = _make_index(cluster, SEVERAL_FILES)
    assert SEVERAL_FILES.body is not None
    request = json.loads(seed_texts.fill(SEVERAL_FILES.body, openai_files))
    request["field_map"]["_id"].append("source[2].$.custom_id")
    if way == "server":
        del request["credential"]
        MLCommonsBatchIngestOperator(task_id="ingest", request=request, engine="server", poll_interval=0.2).execute(
            task_run.context
        )
    else:
        monkeypatch.setenv("OPENAI_BASE_URL", openai_url)
        loaded = _load(json.dumps(request), tmp_path, ml_url)
        assert loaded.exit_code == 0, loaded.output
    assert cluster.documents(index) == {
        name: {
            "question": f"question {name}",
            "answer": f"answer {name}",
            "question_embedding": [n + 0.25],
            "answer_embedding": [n + 0.5],
            "custom_field1": f"one {name}",
            "custom_field2": f"two {name}",
        }
        for n, name in enumerate(IDS)
    }


@pytest.fixture
def connector(cluster: Cluster) -> Iterator[dict[str, Any]]:
    """The cluster's answer to the page's connector, which is deleted at the end with the model over it."""
    # The plugin's own default; the sandbox's node trusts this machine only.
    cluster.set(trusted_connector_endpoints_regex=[r"^https://api\.openai\.com/.*$"])
    values = {"<your input file id in OpenAI>": "file-any", "<your openAI key>": "sandbox"}
    assert CONNECTOR.body is not None
    body = seed_texts.fill(CONNECTOR.body, values)
    until = time.monotonic() + PATIENCE
    # The first connector of a fresh cluster makes its key, which can be late.
    while "master key" in (answer := _answer(cluster, CONNECTOR, body)).text:
        assert time.monotonic() < until
    made = answer.raise_for_status().json()
    yield made
    query = {"query": {"term": {"connector_id.keyword": made["connector_id"]}}}
    models = cluster.http.post("/_plugins/_ml/models/_search", json=query).raise_for_status().json()
    for hit in models["hits"]["hits"]:
        MLCommonsDeleteModelOperator(task_id="delete", model_id=hit["_id"]).execute({})
    MLCommonsDeleteConnectorOperator(task_id="delete", connector_id=made["connector_id"]).execute({})


def test_the_connector_and_its_model_are_made_and_found(cluster: Cluster, connector: dict[str, Any]) -> None:
    assert set(connector) == set(CONNECTOR_CREATED)
    body = {**MODEL.json(), **connector}
    model = _send(cluster, MODEL, json.dumps(body))
    assert set(model) == set(MODEL_REGISTERED)
    assert model["status"] == MODEL_REGISTERED["status"]
    register = MLCommonsRegisterModelOperator(task_id="register", model_name=body["name"], **connector)
    assert register.execute({}) == model["model_id"]


def test_the_prediction_is_sent_followed_and_cancelled_as_documented(connect: Callable[..., None], key: JobKey) -> None:
    assert PREDICT.body is not None
    documented = {
        ("GET", PREDICT.target.removesuffix("/_batch_predict")): json_answer({"connector": CONNECTOR.json()}),
        (PREDICT.method, PREDICT.target): json_answer(PREDICTED),
        (LOOK.method, LOOK.target): json_answer(TASK),
        (CANCEL.method, CANCEL.target): json_answer(CANCELLED),
    }
    # From 2.17.1 on the cancellation has another address, and this is the answer at the documented one.
    other = json_answer({"error": "no handler found for uri [/_plugins/_ml/tasks/x/_cancel] and method [POST]"}, 400)
    server = Server()
    server.handler = lambda request: documented.get((request.method, request.path), other)
    connect("opensearch_default", conn_type="opensearch", host=server.url)
    model_id = PREDICT.target.split("/")[-2]
    spec = MLCommonsPredictSpec(model_id=model_id, **PREDICT.json())
    try:
        with MLCommonsPredictHook().client() as client:
            # The page's connector passes no name on to its service.
            with pytest.raises(SpecError, match="allow_unnamed=True"):
                client.run(client.service.submit(spec, key))
            ref = client.run(client.service.submit(spec.model_copy(update={"allow_unnamed": True}), key))
            status = client.run(client.service.status(ref))
            client.run(client.service.cancel(ref))
            files = client.run(client.service.results(ref)).files
    finally:
        server.stop()
    (sent,) = [request for request in server.requests if request.path == PREDICT.target]
    assert json.loads(sent.body) == PREDICT.json()
    assert CANCEL.target in [request.path for request in server.requests]
    assert ref.id == PREDICTED["task_id"]
    counts = TASK["remote_job"]["request_counts"]
    assert (status.state, status.counts.total) == (JobState.RUNNING, counts["total"])
    assert (status.counts.succeeded, status.counts.failed) == (counts["completed"], counts["failed"])
    assert {file.kind: file.uri for file in files} == {
        "output": f"openai://{TASK['remote_job']['output_file_id']}",
        "input": f"openai://{TASK['remote_job']['input_file_id']}",
    }
