from __future__ import annotations

import uuid
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

import boto3
import httpx
import orjson
import pytest
from botocore.config import Config

from overnight.jobs import JobKey
from overnight.jobs.client import JobClient
from overnight.sandbox.process import free_port
from overnight.sandbox.sagemaker.launch import launch
from overnight.sandbox.services import serving
from overnight.services.sagemaker import connection
from overnight.services.sagemaker.service import SageMakerTransformService
from overnight.services.sagemaker.spec import SageMakerTransformSpec
from patience import PATIENCE

REGION = "us-east-1"


@dataclass
class Account:
    """An account of its own for a test: its bucket, its clients, and the emulator's own switches."""

    sagemaker_url: str
    s3_endpoint: str
    bucket: str
    admin: httpx.Client
    model: str = "sandbox-embedding"
    made: list[Any] = field(default_factory=list)

    def connect(self, service: str, **options: Any) -> Any:
        url = self.sagemaker_url if service == "sagemaker" else self.s3_endpoint
        client = boto3.client(
            service,
            endpoint_url=url,
            region_name=REGION,
            aws_access_key_id="sandbox",
            aws_secret_access_key="sandbox",
            config=Config(retries={"mode": "standard", "total_max_attempts": options.get("attempts", 3)}),
        )
        self.made.append(client)
        return client

    @property
    def s3(self) -> Any:
        return self.connect("s3")

    @property
    def sagemaker(self) -> Any:
        return self.connect("sagemaker")

    def client(self, attempts: int = 3) -> JobClient[SageMakerTransformService]:
        transport = connection.transport(lambda service: self.connect(service, attempts=attempts))
        return JobClient(SageMakerTransformService("aws_default"), transport)

    def uri(self, key: str) -> str:
        return f"s3://{self.bucket}/{key}"

    def put(self, key: str, body: bytes) -> str:
        self.s3.put_object(Bucket=self.bucket, Key=key, Body=body)
        return self.uri(key)

    def get(self, uri: str) -> bytes:
        key = uri.removeprefix(f"s3://{self.bucket}/")
        body: bytes = self.s3.get_object(Bucket=self.bucket, Key=key)["Body"].read()
        return body

    def put_lines(self, key: str, *texts: Any) -> str:
        lines = [orjson.dumps({"id": number, "content": text}) for number, text in enumerate(texts)]
        return self.put(key, b"\n".join(lines) + b"\n")

    def faults(self, **faults: Any) -> None:
        self.admin.put("/_sandbox/faults", json=faults).raise_for_status()

    def limits(self, **limits: int) -> None:
        self.admin.put("/_sandbox/limits", json=limits).raise_for_status()

    def pace(self, **pace: float) -> None:
        self.admin.put("/_sandbox/pace", json=pace).raise_for_status()

    def calls(self, operation: str) -> list[dict[str, Any]]:
        answer: list[dict[str, Any]] = self.admin.get("/_sandbox/calls", params={"operation": operation}).json()
        return answer

    def spec(self, **fields: Any) -> SageMakerTransformSpec:
        given = {
            "model_name": self.model,
            "input_uri": self.uri("in/"),
            "output_uri": self.uri("out/"),
            "instance_type": "ml.m5.large",
            "content_type": "application/json",
            "accept": "application/json",
            "split_type": "Line",
            "assemble_with": "Line",
            "strategy": "SingleRecord",
            "input_filter": "$.content",
            "join_source": "Input",
        }
        return SageMakerTransformSpec.model_validate({**given, **fields})


@pytest.fixture(scope="session")
def sagemaker_url(s3_endpoint: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """The address of an emulated SageMaker over the session's S3."""
    with serving(launch(tmp_path_factory.mktemp("sagemaker"), free_port(), s3_endpoint)) as launched:
        yield launched.url


@pytest.fixture
def account(sagemaker_url: str, s3_endpoint: str) -> Iterator[Account]:
    bucket = f"test-{uuid.uuid4().hex[:16]}"
    with httpx.Client(base_url=sagemaker_url, timeout=PATIENCE) as admin:
        made = Account(sagemaker_url, s3_endpoint, bucket, admin)
        made.faults()
        made.limits()
        made.pace(starting=0.0, stopping=0.1)
        admin.delete("/_sandbox/calls").raise_for_status()
        made.s3.create_bucket(Bucket=bucket)
        yield made
        made.faults()
        made.limits()
        for client in made.made:
            client.close()


@pytest.fixture
def key() -> JobKey:
    return JobKey(
        dag_id="nightly", task_id="embed", run_id=f"manual__{uuid.uuid4().hex}", fingerprint="0123456789abcdef"
    )
