"""A connector is shown as the cluster would be given it, without its credential, or refused with the reason."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from overnight.cli.app import app

BLUEPRINTS = Path(__file__).parents[3] / "include" / "connectors"
CONFIGS: dict[str, dict[str, Any]] = {
    "openai_batch": {"kind": "openai", "name": "n", "model": "m"},
    "cohere_embed_job": {"kind": "cohere", "name": "n"},
    "sagemaker_batch_transform": {"kind": "sagemaker", "name": "n", "region": "us-east-1", "ModelName": "m"},
}


def render(folder: Path, blueprint: Path, config: object) -> Any:
    file = folder / "config.json"
    file.write_text(json.dumps(config))
    return CliRunner().invoke(app, ["connector", "render", str(blueprint), str(file)])


@pytest.mark.parametrize("name", sorted(path.stem for path in BLUEPRINTS.glob("*.json")))
def test_each_blueprint_of_the_project_is_shown_filled_and_without_a_credential(tmp_path: Path, name: str) -> None:
    found = render(tmp_path, BLUEPRINTS / f"{name}.json", CONFIGS[name])
    assert found.exit_code == 0, found.output
    shown = json.loads(found.stdout)
    assert shown["name"] == "n"
    assert shown["credential"] == {}
    assert {action["action_type"].lower() for action in shown["actions"]} >= {"batch_predict", "batch_predict_status"}


def test_a_role_is_no_secret_and_is_shown(tmp_path: Path) -> None:
    role = "arn:aws:iam::123456789012:role/overnight"
    config = {**CONFIGS["sagemaker_batch_transform"], "role_arn": role}
    found = render(tmp_path, BLUEPRINTS / "sagemaker_batch_transform.json", config)
    assert json.loads(found.stdout)["credential"] == {"roleArn": role}


@pytest.mark.parametrize(
    ("config", "said"),
    [
        ({"kind": "openai", "name": "n"}, "model: Field required"),
        ({"kind": "other", "name": "n"}, "config"),
        ([], "config"),
        ({"kind": "openai", "name": "n", "model": "m", "base_url": "http://a/v1"}, "is not https"),
    ],
)
def test_what_would_not_work_is_refused_with_the_reason(tmp_path: Path, config: object, said: str) -> None:
    found = render(tmp_path, BLUEPRINTS / "openai_batch.json", config)
    assert found.exit_code == 2
    assert found.stderr.startswith("Refused: ")
    assert said in found.stderr


def test_a_file_that_is_not_there_is_named(tmp_path: Path) -> None:
    found = render(tmp_path, tmp_path / "none.json", CONFIGS["openai_batch"])
    assert found.exit_code == 2
    assert "none.json cannot be read" in found.stderr
