"""The operator and the sensor in a real Airflow, against the emulator."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from urllib.parse import urlsplit

import pytest

from overnight.sandbox.airflow import Airflow, DagRun
from overnight.sandbox.services import SERVICES

from .conftest import Account

DAGS = """
from airflow.sdk import DAG, task
from overnight.operators.sagemaker import SageMakerBatchTransformOperator
from overnight.sensors.job import BatchJobSensor

COMMON = {
    "model_name": "sandbox-embedding",
    "output_uri": "s3://{{ params.bucket }}/out/",
    "instance_type": "ml.m5.large",
    "content_type": "application/json",
    "accept": "application/json",
    "split_type": "Line",
    "assemble_with": "Line",
    "strategy": "SingleRecord",
    "input_filter": "$.content",
    "join_source": "Input",
    "poll_interval": 0.2,
}

with DAG("transform", params={"bucket": "x", "allowed": "1"}, render_template_as_native_obj=True):
    first = SageMakerBatchTransformOperator(
        task_id="first",
        input_uri="s3://{{ params.bucket }}/in/",
        allowed_failures="{{ params.allowed }}",
        deferrable=True,
        **COMMON,
    )

    @task
    def missing(job):
        return [file["uri"] for file in job["results"]["files"] if file["kind"] == "missing"]

    @task
    def mend(missing):
        import boto3
        for uri in missing:
            bucket, _, key = uri.removeprefix("s3://").partition("/")
            boto3.client("s3").put_object(Bucket=bucket, Key=key, Body=b'{"id": 9, "content": "mended"}\\n')
        return missing

    again = SageMakerBatchTransformOperator(
        task_id="again",
        input_uris=mend(missing(first.output)),
        input_prefix="{{ ti.xcom_pull('first')['results']['detail']['input_prefix'] }}",
        wait_for_completion=False,
        **COMMON,
    )
    BatchJobSensor(task_id="watch", job=again.output, poke_interval=0.2)
"""


@pytest.fixture(scope="module")
def airflow(
    tmp_path_factory: pytest.TempPathFactory, migrated_airflow: Airflow, sagemaker_url: str, s3_endpoint: str
) -> Airflow:
    home = tmp_path_factory.mktemp("airflow")
    (home / "dags").mkdir()
    (home / "dags" / "transform.py").write_text(DAGS)
    variables = {
        **SERVICES["s3"].environment(urlsplit(s3_endpoint).port or 0),
        **SERVICES["sagemaker"].environment(urlsplit(sagemaker_url).port or 0),
    }
    return replace(migrated_airflow.copy(home / "home"), dags=home / "dags", variables=variables)


def states(run: DagRun) -> dict[str, str]:
    return {task.task_id: task.state for task in run.tasks}


def test_a_partial_job_goes_on_and_its_missing_input_is_transformed_alone(
    account: Account, airflow: Airflow, tmp_path: Path
) -> None:
    for number in (1, 2, 4, 5):
        account.put_lines(f"in/{number}.jsonl", "sea")
    account.put_lines("in/deep/3.jsonl", 17)
    wanted = {"first": "return_value", "again": "return_value", "watch": "return_value"}
    run = airflow.run_dag("transform", {"bucket": account.bucket, "allowed": "1"}, xcoms=wanted, log=tmp_path / "log")
    assert states(run) == dict.fromkeys(("first", "missing", "mend", "again", "watch"), "success"), (
        tmp_path / "log"
    ).read_text()
    first, again = run.xcoms["first"], run.xcoms["watch"]
    assert (first["status"]["state"], first["status"]["counts"]["failed"]) == ("partial", 1)
    files = again["results"]["files"]
    assert [file["uri"] for file in files if file["kind"] == "output"] == [account.uri("out/deep/3.jsonl.out")]
    assert again["status"]["counts"]["total"] == 1
    assert run.xcoms["again"]["status"] is None
    assert len(account.calls("CreateTransformJob")) == 2
    tags = account.sagemaker.list_tags(ResourceArn=first["results"]["detail"]["arn"])["Tags"]
    shown = {tag["Key"]: tag["Value"] for tag in tags}
    assert (shown["overnight:dag"], shown["overnight:task"]) == ("transform", "first")


def test_a_partial_job_beyond_the_allowance_fails_and_says_what_to_do(
    account: Account, airflow: Airflow, tmp_path: Path
) -> None:
    account.put_lines("in/1.jsonl", "sea")
    account.put_lines("in/2.jsonl", 17)
    run = airflow.run_dag("transform", {"bucket": account.bucket, "allowed": "0"}, log=tmp_path / "log")
    assert states(run)["first"] == "failed"
    assert "Raise allowed_failures and clear the task" in (tmp_path / "log").read_text()
    assert len(account.calls("CreateTransformJob")) == 1
