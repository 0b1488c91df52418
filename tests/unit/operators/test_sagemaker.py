from __future__ import annotations

import inspect
from pathlib import Path
from typing import Any, cast

import orjson
import pytest
from pydantic import ValidationError

from overnight.errors import SpecError
from overnight.operators import sagemaker
from overnight.operators.sagemaker import SageMakerBatchTransformOperator
from overnight.services.sagemaker.spec import SageMakerTransformSpec
from overnight.storage import Storage

PLAIN: dict[str, Any] = {
    "task_id": "embed",
    "model_name": "embed",
    "output_uri": "s3://corpus/out/",
    "instance_type": "ml.m5.large",
}


def build(**fields: Any) -> SageMakerTransformSpec:
    return SageMakerBatchTransformOperator(**{**PLAIN, **fields}).build_spec(cast("Any", {}))


@pytest.fixture
def bucket(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """What stands for S3: a local folder, reached through whatever connection."""

    class Local(Storage):
        def open(self, uri: str, mode: str = "rb", **options: Any) -> Any:
            return super().open(uri.replace("s3:/", str(tmp_path)), mode, **options)

    monkeypatch.setattr(sagemaker, "connected_storage", lambda conn_id: Local())
    return tmp_path


def test_every_field_of_the_spec_can_be_given() -> None:
    parameters = set(inspect.signature(SageMakerBatchTransformOperator).parameters)
    documented = inspect.getdoc(SageMakerBatchTransformOperator) or ""
    for name in SageMakerTransformSpec.model_fields:
        assert name in parameters or f"``{name}``" in documented


def test_a_prefix_is_taken_as_it_is() -> None:
    spec = build(input_uri="s3://corpus/in/", options={"invocation_retries": 1}, max_payload_mb=3)
    assert (spec.input_uri, spec.input_kind, spec.invocation_retries) == ("s3://corpus/in/", "S3Prefix", 1)
    assert spec.max_payload_mb == 3


@pytest.mark.parametrize("uris", [["s3://corpus/in/b", "s3://corpus/in/a"], "['s3://corpus/in/b', 's3://corpus/in/a']"])
def test_listed_inputs_become_a_manifest_below_the_output(bucket: Path, uris: Any) -> None:
    spec = build(input_uris=uris)
    assert spec.input_kind == "ManifestFile"
    assert spec.input_uri.startswith("s3://corpus/out/_manifests/")
    body = (bucket / spec.input_uri.removeprefix("s3://")).read_bytes()
    assert orjson.loads(body) == [{"prefix": "s3://corpus/in/"}, "a", "b"]
    assert build(input_uris=uris).fingerprint("c") == spec.fingerprint("c")


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({}, "either input_uri or input_uris"),
        ({"input_uri": "s3://corpus/in/", "input_uris": ["s3://corpus/in/a"]}, "either input_uri or input_uris"),
        ({"input_uris": "s3://corpus/in/a"}, "not a list"),
        ({"input_uris": [1]}, "not a list"),
        ({"input_uris": []}, "the list of objects is empty"),
    ],
)
def test_inputs_that_say_nothing_are_refused(bucket: Path, fields: dict[str, Any], message: str) -> None:
    with pytest.raises(SpecError, match=message):
        build(**fields)


def test_nothing_is_written_for_a_spec_that_is_wrong(bucket: Path) -> None:
    with pytest.raises(ValidationError, match="MultiRecord"):
        build(input_uris=["s3://corpus/in/a"], strategy="MultiRecord")
    assert list(bucket.iterdir()) == []
