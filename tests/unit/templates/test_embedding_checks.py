"""What is known to be useless is refused before it is paid for."""

from __future__ import annotations

import json
from types import SimpleNamespace
from typing import Any

import orjson
import pytest
from airflow.sdk import DAG, BaseOperator
from airflow.sdk.exceptions import AirflowFailException
from pydantic import ValidationError

from http_server import Server, json_answer
from overnight.templates.embedding import configure_run
from overnight.templates.openai_batch_to_index import OpenAIBatchToIndexConfig

PLACES = {"input_uri": "in", "work_uri": "s3://work", "index_name": "docs"}
CHAT = {"model": "m", "messages": [{"role": "user", "content": "${$.text}"}]}
ANSWER = "source[1].$.response.body.choices[0].message.content"


def make(**config: Any) -> OpenAIBatchToIndexConfig:
    return OpenAIBatchToIndexConfig(**(PLACES | config))


def configure(config: OpenAIBatchToIndexConfig, **conf: Any) -> dict[str, Any]:
    with DAG("d", params=config.params()) as dag:
        task = BaseOperator(task_id="configure")
    given = {name: param.resolve() for name, param in dag.params.items()} | conf
    context: Any = {
        "dag_run": SimpleNamespace(conf=conf), "params": given, "task": task, "dag": dag, "run_id": "r",
    }  # fmt: skip
    return configure_run(config, context)


@pytest.fixture
def connect(monkeypatch: pytest.MonkeyPatch) -> Any:
    def connect(host: str | None) -> None:
        connection = {"conn_type": "overnight_openai", "password": "sk-x", "host": host}
        monkeypatch.setenv("AIRFLOW_CONN_OPENAI_DEFAULT", json.dumps(connection))

    return connect


@pytest.mark.parametrize(
    ("wrong", "why"),
    [
        ({"request_body": CHAT}, "has no input"),
        ({"request_body": CHAT, "endpoint": "/v1/chat/completions"}, "field_map is empty, and its default reads"),
        ({"request_body": CHAT, "endpoint": "/v1/chat/completions", "field_map": {}}, "field_map is empty"),
        (
            {
                "request_body": CHAT,
                "endpoint": "/v1/responses",
                "field_map": {"v": "source[1].$.response.body.data[0].embedding"},
            },
            "reads embeddings into v",
        ),
        ({"endpoint": "/v1/chat/completions"}, "needs a request_body"),
        ({"endpoint": "/v1/chat/completions", "request_body": {}}, "needs a request_body"),
        ({"model": "text-embedding-ada-002", "dimension": 512}, "cannot be had"),
        ({"model": "text-embedding-3-small", "dimension": 3072}, "at most 1536"),
        ({"request_body": {"model": "text-embedding-3-small", "input": "${t}", "dimensions": 4096}}, "at most 1536"),
    ],
)
def test_requests_whose_answers_could_not_be_loaded_are_refused_by_the_dag_and_by_configure(
    connect: Any, wrong: dict[str, Any], why: str
) -> None:
    connect(None)
    with pytest.raises(ValidationError, match=why):
        make(**wrong)
    with pytest.raises(AirflowFailException, match=why):
        configure(make(), **wrong)


def test_a_chat_with_a_field_map_has_no_vectors_and_asks_nobody(connect: Any) -> None:
    connect("http://127.0.0.1:9/v1")
    chat = {"request_body": CHAT, "endpoint": "/v1/chat/completions", "field_map": {"answer": ANSWER}}
    assert configure(make(**chat))["vectors"] == {}


def test_a_known_models_length_is_what_the_index_must_have(connect: Any) -> None:
    connect(None)
    assert configure(make())["vectors"] == {"embedding": 1536}
    assert configure(make(dimension=256))["vectors"] == {"embedding": 256}
    field_map = {"a": "source[0].$.text", "b.v": "source[1].$.response.body.data[0].embedding"}
    assert configure(make(model="text-embedding-3-large", field_map=field_map))["vectors"] == {"b.v": 3072}


def test_a_model_of_one_length_is_not_asked_for_it(connect: Any) -> None:
    connect(None)
    settings = configure(make(model="text-embedding-ada-002", dimension=1536))
    assert "dimensions" not in settings["template"]["body"]
    assert settings["vectors"] == {"embedding": 1536}


def test_another_server_is_asked_with_the_request_that_the_batches_have(connect: Any, server: Server) -> None:
    connect(f"{server.url}/v1")
    server.answers = [json_answer({"data": [{"embedding": [0.1] * 5}]})]
    assert configure(make(dimension=5))["vectors"] == {"embedding": 5}
    (request,) = server.requests
    assert (request.method, request.path) == ("POST", "/v1/embeddings")
    assert orjson.loads(request.body) == {
        "model": "text-embedding-3-small", "input": "overnight", "encoding_format": "float", "dimensions": 5,
    }  # fmt: skip
    body = {"model": "own", "input": "${$.text}", "task": "search"}
    with pytest.raises(AirflowFailException, match="dimension is 4, and the vectors of own will have the length 5"):
        configure(make(request_body=body, dimension=4))
    assert orjson.loads(server.requests[-1].body) == {"model": "own", "input": "overnight", "task": "search"}


def test_the_probe_can_be_left_out(connect: Any, server: Server) -> None:
    connect(f"{server.url}/v1")
    assert configure(make(probe=False))["vectors"] == {}
    # A model that each document names cannot be asked for.
    assert configure(make(request_body={"model": "${$.model}", "input": "${$.text}"}))["vectors"] == {}
    assert server.requests == []


def test_a_connection_that_is_not_there_is_said_in_one_sentence_and_not_tried_again() -> None:
    with pytest.raises(AirflowFailException, match=r"`nowhere` isn't defined. Create the connection, or name another"):
        configure(make(openai_conn_id="nowhere"))
