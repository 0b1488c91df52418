"""SageMaker emulators: each for one run, whose calls it counts."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx

from overnight.sandbox.process import free_port
from overnight.sandbox.sagemaker.launch import launch
from overnight.sandbox.services import serving

from .store import REGION, client


@dataclass(frozen=True)
class SageMaker:
    """What a user of the service sees at its console."""

    url: str
    s3_url: str

    @property
    def connection(self) -> dict[str, Any]:
        """The Airflow connection to it and to its S3."""
        endpoints = {"s3": {"endpoint_url": self.s3_url}, "sagemaker": {"endpoint_url": self.url}}
        extra = {"service_config": endpoints, "region_name": REGION}
        return {"conn_type": "aws", "login": "sandbox", "password": "sandbox", "extra": extra}

    def calls(self, operation: str) -> list[dict[str, Any]]:
        """Return the calls that it has seen."""
        answer = httpx.get(f"{self.url}/_sandbox/calls", params={"operation": operation}, trust_env=False)
        return list(answer.raise_for_status().json())

    def jobs(self) -> list[dict[str, Any]]:
        """Return the descriptions of all transform jobs, the oldest first."""
        sagemaker = client("sagemaker", self.url)
        found = sagemaker.list_transform_jobs(SortBy="CreationTime", SortOrder="Ascending", MaxResults=100)
        names = [job["TransformJobName"] for job in found["TransformJobSummaries"]]
        return [sagemaker.describe_transform_job(TransformJobName=name) for name in names]


@contextmanager
def emulated(folder: Path, environment: Mapping[str, str]) -> Iterator[SageMaker]:
    """Run an emulator over the session's S3."""
    s3_url = environment["AWS_ENDPOINT_URL_S3"]
    with serving(launch(folder, free_port(), s3_url)) as launched:
        yield SageMaker(launched.url, s3_url)
