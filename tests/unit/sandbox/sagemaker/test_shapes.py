from __future__ import annotations

from typing import Any

import pytest

from overnight.sandbox.sagemaker.errors import AwsError
from overnight.sandbox.sagemaker.shapes import check_request


def job(**changes: Any) -> dict[str, Any]:
    request: dict[str, Any] = {
        "TransformJobName": "job-1",
        "ModelName": "embed",
        "TransformInput": {"DataSource": {"S3DataSource": {"S3DataType": "S3Prefix", "S3Uri": "s3://b/in/"}}},
        "TransformOutput": {"S3OutputPath": "s3://b/out/"},
        "TransformResources": {"InstanceType": "ml.m5.large", "InstanceCount": 1},
    }
    return {**request, **changes}


def complaint(request: Any, operation: str = "CreateTransformJob") -> tuple[str, str]:
    with pytest.raises(AwsError) as error:
        check_request(operation, request)
    return error.value.code, error.value.message


def test_a_request_that_fits_passes_unchanged() -> None:
    request = job(Tags=[{"Key": "overnight:dag", "Value": "täglich +1"}], Environment={"A": "b"}, MaxPayloadInMB=6)
    assert check_request("CreateTransformJob", request) is request


@pytest.mark.parametrize(
    ("changes", "text"),
    [
        (
            {"Environment": {"A": "x" * 10_241}},
            "' at 'environment.A.member' failed to satisfy constraint: Member must have length less than or equal to",
        ),
        ({"ModelName": None}, "Value null at 'modelName' failed to satisfy constraint: Member must not be null"),
        (
            {"TransformResources": {"InstanceType": "ml.m5.large", "InstanceCount": 0}},
            "Value '0' at 'transformResources.instanceCount' failed to satisfy constraint: Member must have value",
        ),
        (
            {"Tags": [{"Key": "a;b", "Value": ""}]},
            "Value 'a;b' at 'tags.1.member.key' failed to satisfy constraint: Member must satisfy regular expression",
        ),
        ({"Environment": {"1": "b"}}, "Value '1' at 'environment.key' failed to satisfy constraint"),
        (
            {"TransformInput": {"DataSource": {"S3DataSource": {"S3DataType": "S3Prefix", "S3Uri": "b/in"}}}},
            "Value 'b/in' at 'transformInput.dataSource.s3DataSource.s3Uri' failed to satisfy constraint",
        ),
    ],
)
def test_a_member_that_breaks_its_rule_is_named_as_aws_names_it(changes: dict[str, Any], text: str) -> None:
    code, message = complaint(job(**changes))
    assert code == "ValidationException"
    assert message.startswith("1 validation error detected: ")
    assert text in message.replace("1 validation error detected: ", "")


def test_all_broken_rules_are_counted() -> None:
    _, message = complaint({})
    assert message.startswith("5 validation errors detected: ")
    assert message.count("Member must not be null") == 5


@pytest.mark.parametrize(
    "request_body", [[], "x", None, {"TransformJobName": 1}, {"Tags": {}}, {"MaxPayloadInMB": True}]
)
def test_what_is_of_another_type_cannot_be_read_at_all(request_body: Any) -> None:
    wrong = job(**request_body) if isinstance(request_body, dict) else request_body
    assert complaint(wrong)[0] == "SerializationException"


def test_members_of_a_newer_api_are_let_pass() -> None:
    assert check_request("StopTransformJob", {"TransformJobName": "a", "Gently": True})
