from __future__ import annotations

import copy
import json
from pathlib import Path
from typing import Any

import pytest

from overnight.errors import SpecError
from overnight.services.ml_commons.connectors import checked, fill, read_blueprint, read_config
from overnight.services.ml_commons.predict.service import identity_parameter
from overnight.services.ml_commons.predict.spec import MLCommonsPredictSpec

BLUEPRINTS = Path(__file__).parents[4] / "include" / "connectors"
AWS = {"access_key": "AKIDEXAMPLE", "secret_key": "topsecret"}
KINDS: dict[str, tuple[str, dict[str, Any], dict[str, str], str]] = {
    "sagemaker": (
        "sagemaker_batch_transform.json",
        {"kind": "sagemaker", "name": "n", "region": "us-east-1", "ModelName": "m"},
        AWS,
        "TransformJobName",
    ),
    "openai": ("openai_batch.json", {"kind": "openai", "name": "n", "model": "m"}, {"openAI_key": "k"}, "metadata"),
    "cohere": ("cohere_embed_job.json", {"kind": "cohere", "name": "n"}, {"cohere_key": "k"}, "name"),
}


def _filled(kind: str, **changes: Any) -> dict[str, Any]:
    file, config, _, _ = KINDS[kind]
    return copy.deepcopy(fill(read_blueprint(BLUEPRINTS / file), read_config({**config, **changes})))


@pytest.mark.parametrize("kind", KINDS)
def test_every_blueprint_is_complete_and_passes_a_name_on(kind: str) -> None:
    body = checked(_filled(kind), KINDS[kind][2])
    assert {action["action_type"] for action in body["actions"]} == {
        "predict",
        "batch_predict",
        "batch_predict_status",
        "cancel_batch_predict",
    }
    assert identity_parameter(body) == KINDS[kind][3]
    assert body["credential"] == KINDS[kind][2]


def test_every_file_among_the_blueprints_is_tested() -> None:
    assert {path.name for path in BLUEPRINTS.glob("*.json")} == {file for file, *_ in KINDS.values()}


def test_a_role_stands_for_keys_on_amazons_own_service() -> None:
    role = "arn:aws:iam::123456789012:role/opensearch"
    assert checked(_filled("sagemaker", role_arn=role), {})["credential"] == {"roleArn": role}
    with pytest.raises(SpecError, match="access_key and secret_key"):
        checked(_filled("sagemaker"), {})


def _without(body: dict[str, Any], action: str) -> None:
    body["actions"] = [item for item in body["actions"] if item["action_type"] != action]


BREAKS: dict[str, tuple[Any, str]] = {
    "no status": (lambda body: _without(body, "batch_predict_status"), "'batch_predict_status' is missing"),
    "no predict": (lambda body: _without(body, "predict"), "without the action 'predict' the server sends no headers"),
    "empty body": (lambda body: body["actions"][3].update(request_body=""), r"must be \"\{\}\""),
    "not JSON": (lambda body: body["actions"][1].update(request_body="{ ${parameters.model} }"), "is not JSON"),
    "no value": (lambda body: body["parameters"].pop("model"), r"\$\{parameters.model\} has no value"),
    "no credential": (
        lambda body: [a["headers"].update({"X": "${credential.other}"}) for a in body["actions"]],
        r"\$\{credential.other\} has no value",
    ),
    "http": (lambda body: body["parameters"].update(base_url="http://api.example.com"), "is not https"),
    "inline key": (lambda body: body["credential"].update(openAI_key="k"), "Airflow connection"),
    "key in a header": (
        lambda body: body["actions"][0]["headers"].update(Authorization="Bearer sk-abcdefghijklmnopqrst"),
        "a credential is written into it",
    ),
    "other headers": (lambda body: body["actions"][1]["headers"].update({"X": "y"}), "the headers of 'predict'"),
    "protocol": (lambda body: body.update(protocol="grpc"), "protocol must be"),
}


@pytest.mark.parametrize("name", BREAKS)
def test_a_connector_that_would_not_work_is_refused_before_it_is_sent(name: str) -> None:
    body = _filled("openai")
    breaking, text = BREAKS[name]
    breaking(body)
    with pytest.raises(SpecError, match=text) as refusal:
        checked(body, {"openAI_key": "thekeyitself"})
    assert "sk-abc" not in str(refusal.value)
    assert "thekeyitself" not in str(refusal.value)


# https://docs.opensearch.org/2.19/ml-commons-plugin/api/model-apis/batch-predict/, without its optional action.
DOCUMENTED = """{
  "name": "OpenAI Embedding model",
  "description": "OpenAI embedding model for testing offline batch",
  "version": "1",
  "protocol": "http",
  "parameters": {
    "model": "text-embedding-ada-002",
    "input_file_id": "<your input file id in OpenAI>",
    "endpoint": "/v1/embeddings"
  },
  "credential": {"openAI_key": "<your openAI key>"},
  "actions": [
    {
      "action_type": "predict",
      "method": "POST",
      "url": "https://api.openai.com/v1/embeddings",
      "headers": {"Authorization": "Bearer ${credential.openAI_key}"},
      "request_body": "{ \\"input\\": ${parameters.input}, \\"model\\": \\"${parameters.model}\\" }"
    },
    {
      "action_type": "batch_predict",
      "method": "POST",
      "url": "https://api.openai.com/v1/batches",
      "headers": {"Authorization": "Bearer ${credential.openAI_key}"},
      "request_body": "{ \\"input_file_id\\": \\"${parameters.input_file_id}\\" }"
    },
    {
      "action_type": "batch_predict_status",
      "method": "GET",
      "url": "https://api.openai.com/v1/batches/${parameters.id}",
      "headers": {"Authorization": "Bearer ${credential.openAI_key}"}
    }
  ]
}"""


def test_the_connector_of_the_documentation_is_taken() -> None:
    config = read_config({"kind": "openai", "name": "n", "model": "text-embedding-ada-002"})
    body = checked(fill(json.loads(DOCUMENTED), config), {"openAI_key": "k"})
    assert body["credential"] == {"openAI_key": "k"}
    assert [action["request_body"] for action in body["actions"]][-1] == "{}"
    assert identity_parameter(body) is None


def test_a_placeholder_that_the_connection_does_not_fill_is_refused() -> None:
    config = read_config({"kind": "openai", "name": "n", "model": "m"})
    with pytest.raises(SpecError, match="Airflow connection"):
        checked(fill(json.loads(DOCUMENTED), config), {"other_key": "k"})


@pytest.mark.parametrize("kind", KINDS)
def test_an_action_that_no_job_needs_may_be_left_out(kind: str) -> None:
    body = _filled(kind)
    _without(body, "cancel_batch_predict")
    checked(body, KINDS[kind][2])
    if body["protocol"] == "aws_sigv4":
        _without(body, "predict")
        checked(body, KINDS[kind][2])


@pytest.mark.parametrize(
    ("config", "named"),
    [
        ({"kind": "sagemaker", "name": "n", "region": "us-east-1"}, "ModelName"),
        ({"kind": "sagemaker", "name": "n", "region": "here", "ModelName": "m"}, "region"),
        ({"kind": "openai", "name": "n"}, "model"),
        ({"kind": "openai", "name": "n", "model": "m", "api_key": "sk-secretsecret"}, "api_key"),
        ({"name": "n"}, "kind"),
    ],
)
def test_a_wrong_config_names_its_field_and_quotes_nothing(config: dict[str, Any], named: str) -> None:
    with pytest.raises(SpecError, match=named) as refusal:
        read_config(config)
    assert "sk-secret" not in str(refusal.value)


def test_a_blueprint_that_cannot_be_read_is_named(tmp_path: Path) -> None:
    with pytest.raises(SpecError, match="nowhere"):
        read_blueprint(tmp_path / "nowhere.json")
    (tmp_path / "broken.json").write_text("{")
    with pytest.raises(SpecError, match="not JSON"):
        read_blueprint(tmp_path / "broken.json")
    (tmp_path / "list.json").write_text(json.dumps([]))
    with pytest.raises(SpecError, match="not a JSON object"):
        read_blueprint(str(tmp_path / "list.json"))


@pytest.mark.parametrize("name", ["access_key", "secret_key", "openAI_key", "session_token", "Authorization"])
def test_credentials_among_a_jobs_parameters_are_refused(name: str) -> None:
    with pytest.raises(ValueError, match="look like credentials"):
        MLCommonsPredictSpec(model_id="m", parameters={name: "x"})
