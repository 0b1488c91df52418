"""The emulator through boto3, which must not be able to tell."""

from __future__ import annotations

import gzip
import json
import uuid
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime, timedelta
from typing import Any

import boto3
import pytest
from botocore.exceptions import ClientError, ConnectionClosedError, WaiterError

from .conftest import REGION, Account

ROLE = "arn:aws:iam::123456789012:role/transform"


def name() -> str:
    return f"job-{uuid.uuid4().hex[:20]}"


def request(account: Account, job: str, **changes: Any) -> dict[str, Any]:
    asked = account.spec().request(job, {"team": "search"})
    return {**asked, **changes}


def waiter(client: Any) -> Any:
    found = client.get_waiter("transform_job_completed_or_stopped")
    found.config.delay, found.config.max_attempts = 0.1, 200
    return found


def refusal(error: pytest.ExceptionInfo[ClientError]) -> tuple[str, str, int]:
    facts = error.value.response
    return facts["Error"]["Code"], facts["Error"]["Message"], facts["ResponseMetadata"]["HTTPStatusCode"]


def test_a_job_goes_from_creation_to_its_output(account: Account) -> None:
    account.put("in/a.jsonl", b'{"id": 7, "content": ["the sea", "a chapter"]}\n{"id": 8, "content": ["rain"]}\n')
    client, job = account.sagemaker, name()
    arn = client.create_transform_job(**request(account, job))["TransformJobArn"]
    assert arn == f"arn:aws:sagemaker:{REGION}:123456789012:transform-job/{job}"
    waiter(client).wait(TransformJobName=job)
    described = client.describe_transform_job(TransformJobName=job)
    assert described["TransformJobStatus"] == "Completed"
    assert described["CreationTime"] <= described["TransformStartTime"] <= described["TransformEndTime"]
    assert described["CreationTime"].tzinfo is not None
    assert described["DataProcessing"] == {"InputFilter": "$.content", "OutputFilter": "$", "JoinSource": "Input"}
    assert client.list_tags(ResourceArn=arn)["Tags"] == [{"Key": "team", "Value": "search"}]
    first, second = account.get(account.uri("out/a.jsonl.out")).decode().splitlines()
    assert json.loads(first)["id"] == 7
    assert [len(vector) for vector in json.loads(first)["SageMakerOutput"]] == [384, 384]
    assert len(json.loads(second)["SageMakerOutput"]) == 1


def test_a_model_is_created_listed_used_and_deleted(account: Account) -> None:
    client, model = account.sagemaker, name()
    container = {"Image": "embed:1", "Environment": {"EMBEDDING_DIMENSIONS": "8"}}
    created = client.create_model(ModelName=model, PrimaryContainer=container, ExecutionRoleArn=ROLE)
    described = client.describe_model(ModelName=model)
    assert described["ModelArn"] == created["ModelArn"]
    assert described["PrimaryContainer"] == container
    listed = client.get_paginator("list_models").paginate(NameContains=model)
    assert [item["ModelName"] for page in listed for item in page["Models"]] == [model]
    with pytest.raises(ClientError, match="already existing model"):
        client.create_model(ModelName=model, PrimaryContainer=container, ExecutionRoleArn=ROLE)
    account.put_lines("in/a.jsonl", "sea")
    job = name()
    client.create_transform_job(**request(account, job, ModelName=model))
    waiter(client).wait(TransformJobName=job)
    assert len(json.loads(account.get(account.uri("out/a.jsonl.out")))["SageMakerOutput"]) == 8
    client.delete_model(ModelName=model)
    with pytest.raises(ClientError) as error:
        client.describe_model(ModelName=model)
    assert refusal(error)[0] == "ValidationException"


def test_an_endpoint_of_a_models_name_answers_at_once(account: Account, sagemaker_url: str) -> None:
    client = boto3.client(
        "sagemaker-runtime",
        endpoint_url=sagemaker_url,
        region_name=REGION,
        aws_access_key_id="sandbox",
        aws_secret_access_key="sandbox",
    )
    asked = {"EndpointName": account.model, "ContentType": "application/json"}
    answer = client.invoke_endpoint(**asked, Body=b'["the sea", "rain"]')
    assert [len(vector) for vector in json.loads(answer["Body"].read())] == [384, 384]
    with pytest.raises(client.exceptions.ModelError, match="400"):
        client.invoke_endpoint(**asked, Body=b"17")
    with pytest.raises(ClientError, match="not found"):
        client.invoke_endpoint(**{**asked, "EndpointName": "nobody"}, Body=b'"x"')
    client.close()


def test_connectors_name_the_operation_in_the_path_and_ask_by_get(account: Account) -> None:
    signed = {"authorization": f"AWS4-HMAC-SHA256 Credential=sandbox/20261123/{REGION}/sagemaker/aws4_request, x"}
    account.put_lines("in/a.jsonl", "sea")
    job = name()
    made = account.admin.post("/CreateTransformJob", headers=signed, json=request(account, job))
    assert made.json()["TransformJobArn"].endswith(job)
    asked = account.admin.request("GET", "/DescribeTransformJob", headers=signed, json={"TransformJobName": job})
    assert asked.json()["TransformJobName"] == job
    gone = account.admin.post("/StopTransformJob", headers=signed, json={"TransformJobName": "nobody"})
    assert (gone.status_code, gone.json()["__type"]) == (400, "ResourceNotFound")
    assert account.admin.get("/StopTransformJob").status_code == 403


def test_a_name_is_taken_for_ever(account: Account) -> None:
    account.put_lines("in/a.jsonl", "sea")
    client, job = account.sagemaker, name()
    arn = client.create_transform_job(**request(account, job))["TransformJobArn"]
    waiter(client).wait(TransformJobName=job)
    with pytest.raises(client.exceptions.ResourceInUse) as error:
        client.create_transform_job(**request(account, job))
    assert refusal(error) == (
        "ResourceInUse",
        f"Job name must be unique within an AWS account and region, and a job with this name already exists ({arn})",
        400,
    )


def test_a_missing_model_and_a_missing_input_are_said_in_the_words_of_aws(account: Account) -> None:
    client = account.sagemaker
    account.put_lines("in/a.jsonl", "sea")
    with pytest.raises(ClientError) as error:
        client.create_transform_job(**request(account, name(), ModelName="nobody"))
    arn = "arn:aws:sagemaker:us-east-1:123456789012:model/nobody"
    assert refusal(error) == ("ValidationException", f'Could not find model "{arn}".', 400)
    asked = account.spec(input_uri=account.uri("nothing/")).request(name(), {})
    with pytest.raises(ClientError, match='No S3 objects found under S3 URL "s3://'):
        client.create_transform_job(**asked)


def test_what_breaks_the_model_of_the_api_is_told_member_by_member(account: Account) -> None:
    client = account.sagemaker
    asked = request(account, "no_underscores", BatchStrategy="Both")
    asked["TransformResources"]["InstanceType"] = "ml.huge"
    with pytest.raises(ClientError) as error:
        client.create_transform_job(**asked)
    code, message, _ = refusal(error)
    assert code == "ValidationException"
    assert message.startswith("3 validation errors detected: ")
    assert (
        "Value 'no_underscores' at 'transformJobName' failed to satisfy constraint: Member must satisfy regular "
        "expression pattern: ^[a-zA-Z0-9](-*[a-zA-Z0-9]){0,62}" in message
    )
    assert "'Both' at 'batchStrategy' failed to satisfy constraint: Member must satisfy enum value set" in message
    assert "at 'transformResources.instanceType'" in message


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"MaxPayloadInMB": 101}, "MaxPayloadInMB"),
        ({"MaxPayloadInMB": 20, "MaxConcurrentTransforms": 6}, "MaxConcurrentTransforms"),
        ({"DataProcessing": {"InputFilter": "$..id"}}, "JSONPath"),
    ],
)
def test_combinations_that_sagemaker_refuses_are_refused(account: Account, changes: Any, words: str) -> None:
    account.put_lines("in/a.jsonl", "sea")
    with pytest.raises(ClientError, match=words):
        account.sagemaker.create_transform_job(**request(account, name(), **changes))


def test_record_io_is_refused_plainly(account: Account) -> None:
    account.put_lines("in/a.jsonl", "sea")
    asked = request(account, name())
    asked["TransformInput"]["SplitType"] = "RecordIO"
    with pytest.raises(ClientError, match="not emulated"):
        account.sagemaker.create_transform_job(**asked)


def test_an_unknown_job_is_not_found_in_three_different_ways(account: Account) -> None:
    client = account.sagemaker
    with pytest.raises(ClientError) as error:
        client.describe_transform_job(TransformJobName="nobody")
    assert refusal(error)[:2] == ("ValidationException", "Could not find requested job with name: nobody")
    with pytest.raises(client.exceptions.ResourceNotFound, match="Could not find job to update with name: nobody"):
        client.stop_transform_job(TransformJobName="nobody")
    with pytest.raises(WaiterError):
        waiter(client).wait(TransformJobName="nobody")


def test_a_stopped_job_passes_through_stopping_and_is_stopped_once(account: Account) -> None:
    account.put_lines("in/a.jsonl", "sea")
    account.pace(starting=60.0, stopping=0.5)
    client, job = account.sagemaker, name()
    client.create_transform_job(**request(account, job))
    client.stop_transform_job(TransformJobName=job)
    assert client.describe_transform_job(TransformJobName=job)["TransformJobStatus"] == "Stopping"
    with pytest.raises(ClientError, match="rejected because the transform job is in status Stopping"):
        client.stop_transform_job(TransformJobName=job)
    waiter(client).wait(TransformJobName=job)
    assert client.describe_transform_job(TransformJobName=job)["TransformJobStatus"] == "Stopped"


def test_a_bad_record_fails_its_file_and_the_job_and_nothing_else(account: Account) -> None:
    account.put_lines("in/a.jsonl", "sea")
    account.put("in/b.jsonl", b'{"id": 1, "content": "rain"}\n{"id": 2, "content": 3}\n')
    account.put_lines("in/deep/c.jsonl", "wind")
    client, job = account.sagemaker, name()
    client.create_transform_job(**request(account, job))
    with pytest.raises(WaiterError):
        waiter(client).wait(TransformJobName=job)
    described = client.describe_transform_job(TransformJobName=job)
    assert described["TransformJobStatus"] == "Failed"
    assert described["FailureReason"] == "ClientError: See job logs for more information"
    listed = account.s3.list_objects_v2(Bucket=account.bucket, Prefix="out/")["Contents"]
    assert [item["Key"] for item in listed] == ["out/a.jsonl.out", "out/deep/c.jsonl.out"]
    (log,) = account.admin.get(f"/_sandbox/logs/{job}").json().values()
    assert "b.jsonl: Bad HTTP status received from algorithm: 400" in log[0]


def test_jobs_are_listed_by_page_name_status_and_time(account: Account) -> None:
    account.put_lines("in/a.jsonl", "sea")
    account.pace(starting=60.0, stopping=0.0)
    client, tag = account.sagemaker, uuid.uuid4().hex[:12]
    names = [f"list-{tag}-{number:02}" for number in range(12)]
    before = datetime.now(UTC) - timedelta(seconds=5)
    for job in names:
        client.create_transform_job(**request(account, job))
    pages = client.get_paginator("list_transform_jobs").paginate(
        NameContains=tag, SortBy="Name", SortOrder="Ascending", PaginationConfig={"PageSize": 5}
    )
    listed = [[item["TransformJobName"] for item in page["TransformJobSummaries"]] for page in pages]
    assert listed == [names[:5], names[5:10], names[10:]]
    assert len(client.list_transform_jobs(NameContains=tag)["TransformJobSummaries"]) == 10
    client.stop_transform_job(TransformJobName=names[0])
    waiter(client).wait(TransformJobName=names[0])
    stopped = client.list_transform_jobs(NameContains=tag, StatusEquals="Stopped")["TransformJobSummaries"]
    assert [item["TransformJobName"] for item in stopped] == names[:1]
    recent = client.list_transform_jobs(NameContains=tag, CreationTimeAfter=before, MaxResults=100)
    assert len(recent["TransformJobSummaries"]) == 12
    later = client.list_transform_jobs(NameContains=tag, CreationTimeAfter=datetime.now(UTC) + timedelta(minutes=1))
    assert later["TransformJobSummaries"] == []
    with pytest.raises(ClientError, match="pagination token"):
        client.list_transform_jobs(NextToken="nonsense")
    for job in names[1:]:
        client.stop_transform_job(TransformJobName=job)


def test_the_quota_of_instances_is_kept(account: Account) -> None:
    account.put_lines("in/a.jsonl", "sea")
    asked = request(account, name())
    asked["TransformResources"] = {"InstanceType": "ml.m5.xlarge", "InstanceCount": 21}
    client = account.sagemaker
    with pytest.raises(client.exceptions.ResourceLimitExceeded, match="is 20 Instances, with current utilization"):
        client.create_transform_job(**asked)


def test_calls_at_the_same_time_keep_the_quota_too(account: Account) -> None:
    account.limits(instances=2)
    account.pace(starting=600.0)
    account.put_lines("in/a.jsonl", "sea")

    def create(_: int) -> bool:
        try:
            account.sagemaker.create_transform_job(**request(account, name()))
        except account.sagemaker.exceptions.ResourceLimitExceeded:
            return False
        return True

    with ThreadPoolExecutor(8) as pool:
        assert sum(pool.map(create, range(16))) == 2


def test_inputs_are_read_from_a_manifest_and_unzipped(account: Account) -> None:
    body = gzip.compress(b'{"id": 1, "content": "sea"}\n')
    account.put("in/a.jsonl.gz", body)
    account.put("in/b.jsonl.gz", body)
    manifest = account.put("m.json", json.dumps([{"prefix": account.uri("in/")}, "b.jsonl.gz"]).encode())
    client, job = account.sagemaker, name()
    spec = account.spec(input_uri=manifest, input_kind="ManifestFile", compression="Gzip")
    client.create_transform_job(**spec.request(job, {}))
    waiter(client).wait(TransformJobName=job)
    listed = account.s3.list_objects_v2(Bucket=account.bucket, Prefix="out/")["Contents"]
    assert [item["Key"] for item in listed] == ["out/b.jsonl.gz.out"]


@pytest.mark.parametrize(
    ("fault", "code", "status"),
    [
        ("throttled", "ThrottlingException", 400),
        ("unavailable", "ServiceUnavailable", 503),
        ("internal_error", "InternalFailure", 500),
        ("access_denied", "AccessDeniedException", 400),
        ("expired_token", "ExpiredTokenException", 400),
    ],
)
def test_faults_have_the_shape_that_aws_gives_them(account: Account, fault: str, code: str, status: int) -> None:
    account.faults(**{fault: 1})
    with pytest.raises(ClientError) as error:
        account.connect("sagemaker", attempts=1).list_transform_jobs()
    assert (refusal(error)[0], refusal(error)[2]) == (code, status)


def test_boto3_repeats_what_was_throttled(account: Account) -> None:
    account.faults(throttled={"share": 1, "times": 2})
    account.sagemaker.list_transform_jobs()
    assert [call["fault"] for call in account.calls("ListTransformJobs")] == ["throttled", "throttled", None]


def test_a_lost_answer_is_a_closed_connection_and_the_job_is_there(account: Account) -> None:
    account.put_lines("in/a.jsonl", "sea")
    account.faults(lost_answer={"share": 1, "operations": ["CreateTransformJob"]})
    job = name()
    with pytest.raises(ConnectionClosedError):
        account.connect("sagemaker", attempts=1).create_transform_job(**request(account, job))
    assert account.sagemaker.describe_transform_job(TransformJobName=job)["TransformJobName"] == job


def test_another_key_is_not_accepted(sagemaker_url: str) -> None:
    client = boto3.client(
        "sagemaker",
        endpoint_url=sagemaker_url,
        region_name=REGION,
        aws_access_key_id="somebody",
        aws_secret_access_key="else",
    )
    with pytest.raises(ClientError) as error:
        client.list_transform_jobs()
    assert refusal(error)[0] == "UnrecognizedClientException"
    client.close()


def test_other_regions_have_jobs_of_their_own(account: Account, sagemaker_url: str) -> None:
    account.put_lines("in/a.jsonl", "sea")
    job = name()
    account.sagemaker.create_transform_job(**request(account, job))
    elsewhere = boto3.client(
        "sagemaker",
        endpoint_url=sagemaker_url,
        region_name="eu-west-1",
        aws_access_key_id="sandbox",
        aws_secret_access_key="sandbox",
    )
    assert elsewhere.list_transform_jobs(NameContains=job)["TransformJobSummaries"] == []
    arn = elsewhere.create_transform_job(**request(account, job))["TransformJobArn"]
    assert ":eu-west-1:" in arn
    elsewhere.close()
