from __future__ import annotations

from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Any

import orjson
import pytest
from botocore.exceptions import ClientError

from overnight.errors import CredentialsError, SpecError
from overnight.jobs import JobKey
from overnight.services.sagemaker.service import SageMakerTransformService
from overnight.services.sagemaker.spec import SageMakerTransformSpec
from overnight.transport.aws import AwsTransport
from unit.services.sagemaker.bucket import Bucket

BEFORE = datetime(2026, 11, 23, 2, tzinfo=UTC)
KEY = JobKey(dag_id="d", task_id="t", run_id="r", fingerprint="0" * 16)


class Account(Bucket):
    """A bucket, and a SageMaker that takes every job."""

    def __init__(self, objects: Mapping[str, datetime]) -> None:
        super().__init__(objects)
        self.created: list[dict[str, Any]] = []

    def create_transform_job(self, **request: Any) -> dict[str, Any]:
        self.created.append(request)
        return {"TransformJobArn": "arn:x"}


def submit(account: Account, uri: str = "s3://b/in/") -> Mapping[str, Any]:
    spec = SageMakerTransformSpec(model_name="m", input_uri=uri, output_uri="s3://b/out/", instance_type="ml.m5.large")
    ref = AwsTransport(lambda _: account).run(SageMakerTransformService("aws").submit(spec, KEY))
    assert ref.id == KEY.name
    [request] = account.created
    source: Mapping[str, Any] = request["TransformInput"]["DataSource"]["S3DataSource"]
    return source


def test_a_job_is_not_paid_for_reading_what_is_no_input(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level("INFO")
    account = Account(dict.fromkeys(("in/", "in/a", "in/b/c", "in/_delta_log/1.json", "in/b/.c.crc"), BEFORE))
    source = submit(account)
    assert source["S3DataType"] == "ManifestFile"
    name = source["S3Uri"].removeprefix("s3://b/")
    assert name.startswith("out/_manifests/")
    assert orjson.loads(account.bodies[name]) == [{"prefix": "s3://b/in/"}, "a", "b/c"]
    assert "3 whose names start with '_' or '.', or that mark a folder, were ignored." in caplog.text


def test_a_prefix_of_inputs_alone_is_given_as_it_is() -> None:
    account = Account(dict.fromkeys(("in/a", "in/b"), BEFORE))
    assert submit(account) == {"S3DataType": "S3Prefix", "S3Uri": "s3://b/in/"}
    assert account.bodies == {}


def test_a_prefix_within_a_name_keeps_the_places_of_its_outputs() -> None:
    account = Account(dict.fromkeys(("in/part-1", "in/part-2/_x"), BEFORE))
    source = submit(account, "s3://b/in/part")
    assert orjson.loads(account.bodies[source["S3Uri"].removeprefix("s3://b/")]) == [{"prefix": "s3://b/in/"}, "part-1"]


def test_a_prefix_of_nothing_but_that_says_so() -> None:
    with pytest.raises(SpecError, match="nothing to transform. 2 whose names start"):
        submit(Account(dict.fromkeys(("in/_SUCCESS", "in/"), BEFORE)))


def test_a_manifest_that_may_not_be_written_names_the_right() -> None:
    class ReadOnly(Account):
        def put_object(self, **asked: Any) -> dict[str, Any]:
            answer: Any = {"Error": {"Code": "AccessDenied"}, "ResponseMetadata": {"HTTPStatusCode": 403}}
            raise ClientError(answer, "PutObject")

    account = ReadOnly(dict.fromkeys(("in/a", "in/_SUCCESS"), BEFORE))
    with pytest.raises(CredentialsError, match="s3:PutObject"):
        submit(account)
    assert account.created == []
