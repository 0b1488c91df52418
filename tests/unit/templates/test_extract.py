"""Documents that are classified by a schema: what follows from it, and what is refused before anything is paid."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any, Literal

import pytest
from airflow.sdk import DAG, BaseOperator
from airflow.sdk.exceptions import AirflowFailException, ParamValidationError
from pydantic import BaseModel, ValidationError

from overnight.ingest import LoadOptions
from overnight.services.openai.input import RequestTemplate
from overnight.templates.embedding import configure_run
from overnight.templates.openai_batch_extract_to_index import OpenAIBatchExtractToIndexConfig

PLACES = {"input_uri": "in", "work_uri": "s3://work", "index_name": "docs", "instruction": "Classify ${name}."}
SCHEMA = {
    "type": "object",
    "properties": {"label": {"enum": ["a", "b"]}, "its score": {"type": "number"}},
    "required": ["label", "its score"],
}
ANSWER = "source[1].$.response.body.choices[0].message.content.json()"


class Finding(BaseModel):
    label: Literal["a", "b"]
    items: list[Literal["x"]] = []


def make(**config: Any) -> OpenAIBatchExtractToIndexConfig:
    given = PLACES | config
    return OpenAIBatchExtractToIndexConfig(**({} if "output_type" in given else {"output_schema": SCHEMA}) | given)


def configure(config: OpenAIBatchExtractToIndexConfig, **conf: Any) -> dict[str, Any]:
    with DAG("d", params=config.params()) as dag:
        task = BaseOperator(task_id="configure")
    given = {name: param.resolve() for name, param in dag.params.items()} | conf
    context: Any = {
        "dag_run": SimpleNamespace(conf=conf), "params": given, "task": task, "dag": dag, "run_id": "r",
    }  # fmt: skip
    return configure_run(config, context)


def test_request_field_map_index_and_validation_follow_from_the_schema() -> None:
    settings = configure(make(output_limit=200, ingest_fields=["$.kind"]))
    custom_id, request = RequestTemplate.model_validate(settings["template"]).render(
        {"id": "1", "text": "long", "name": "it"}
    )
    assert custom_id == "1"
    assert request["body"]["messages"][0]["content"] == "Classify it."
    assert request["body"]["max_completion_tokens"] == 200
    assert request["body"]["response_format"]["json_schema"]["schema"]["required"] == ["label", "its score"]
    assert settings["field_map"] == {
        "_id": ["source[0].$.id", "source[1].$.custom_id"],
        "text": "source[0].$.text",
        "label": f"{ANSWER}.label",
        "its score": f"{ANSWER}['its score']",
    }
    assert settings["ingest_fields"] == ["source[0].$.kind"]
    assert settings["index_body"]["mappings"]["properties"].keys() == {"text", "label", "its score"}
    assert settings["vectors"] == {}
    options = LoadOptions.of(settings["load_options"])
    assert (options.output_schema, options.missing_path) == (SCHEMA, "reject")


def test_a_type_is_given_to_the_workers_by_its_path() -> None:
    path = f"{__name__}.Finding"
    settings = configure(make(output_type=path))
    options = LoadOptions.of(settings["load_options"])
    # Its default lets a server leave it out.
    assert (options.output_schema, options.missing_path) == (path, "omit")
    assert settings["template"]["body"]["response_format"]["json_schema"]["name"] == "Finding"


def test_the_responses_api_has_its_own_request_and_way_to_the_answer() -> None:
    settings = configure(make(endpoint="/v1/responses"))
    assert settings["template"]["body"].keys() == {"model", "text", "input"}
    assert settings["field_map"]["label"].endswith(".text.json().label")


def test_what_the_author_says_of_the_index_comes_first() -> None:
    body = {"settings": {"number_of_replicas": 0}, "mappings": {"properties": {"label": {"type": "text"}}}}
    found = configure(make(index_body=body))["index_body"]
    assert found["settings"] == {"number_of_replicas": 0}
    assert found["mappings"]["properties"]["label"] == {"type": "text"}
    assert found["mappings"]["properties"]["its score"]["type"] == "double"


def test_a_run_brings_another_schema_and_no_other_type() -> None:
    other = {"type": "object", "properties": {"n": {"type": "integer"}}, "required": ["n"]}
    assert configure(make(), output_schema=other)["field_map"]["n"] == f"{ANSWER}.n"
    with pytest.raises(AirflowFailException, match="only the DAG's author gives it"):
        configure(make(), output_type="subprocess.Popen", output_schema=None)
    param = make().params()["output_type"]
    with pytest.raises(ParamValidationError):
        param.resolve("subprocess.Popen")


@pytest.mark.parametrize(
    ("wrong", "why"),
    [
        ({"output_schema": None}, "give one of them"),
        ({"output_schema": SCHEMA, "output_type": f"{__name__}.Finding"}, "give one of them"),
        ({"output_type": "no.such.Model"}, "cannot be imported"),
        ({"output_schema": {"type": "array", "items": {"type": "string"}}}, "answers are objects"),
        ({"output_schema": {"type": "object", "properties": {"x": {}}}}, "it may be anything"),
        ({"endpoint": "/v1/embeddings"}, "take no schema"),
        ({"output_schema": {"type": "object", "properties": {"text": {"type": "string"}}}}, "text would be a field"),
        ({"ingest_fields": ["$.meta.label"]}, "label would be a field"),
        ({"output_schema": {"type": "object", "properties": {"a.b": {"type": "string"}}}}, "no field of the name"),
        ({"field_map": {"answer": "source[1].$.response.body.choices[0].message.content"}}, "takes nothing from"),
        ({"field_map": {"answer": "$.label"}}, "names no source"),
        ({"request_options": {"messages": []}}, "messages in the options"),
        ({"instruction": ""}, "instruction"),
    ],
    ids=str,
)
def test_what_could_not_be_asked_or_loaded_is_refused(wrong: dict[str, Any], why: str) -> None:
    with pytest.raises(ValidationError, match=why):
        make(**wrong)
    if "output_type" not in wrong:
        with pytest.raises(AirflowFailException, match=why):
            configure(make(), **wrong)
