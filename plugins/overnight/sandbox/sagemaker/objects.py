"""The job's side of S3: what it lists, reads and writes there."""

from __future__ import annotations

import os
from typing import Any, Protocol

import boto3
from botocore.config import Config

from overnight.sandbox.sagemaker.settings import Settings
from overnight.services.sagemaker.locations import bucket_and_key
from overnight.services.sagemaker.results import SUFFIX, relative
from overnight.services.sagemaker.spec import read_manifest


class Objects(Protocol):
    """What of an S3 client is used here."""

    def get_object(self, **arguments: Any) -> Any: ...  # noqa: D102
    def put_object(self, **arguments: Any) -> Any: ...  # noqa: D102
    def get_paginator(self, operation: str) -> Any: ...  # noqa: D102


def connect(settings: Settings) -> Objects:
    """Return a client of the sandbox's S3."""
    key = settings.access_key or "sandbox"
    client: Objects = boto3.client(
        "s3",
        endpoint_url=settings.s3_endpoint or os.environ.get("AWS_ENDPOINT_URL_S3"),
        region_name="us-east-1",
        aws_access_key_id=key,
        aws_secret_access_key=key,
        config=Config(s3={"addressing_style": "path"}, retries={"mode": "standard", "total_max_attempts": 3}),
    )
    return client


def find(s3: Objects, kind: str, uri: str) -> tuple[str, list[str]]:
    """
    Return what outputs are named relative to, and the URIs of a job's inputs.

    :raises SpecError: the manifest is none.
    :raises ClientError: S3 refuses.
    """
    if kind == "ManifestFile":
        return read_manifest(uri, read(s3, uri))
    bucket, key = bucket_and_key(uri)
    pages = s3.get_paginator("list_objects_v2").paginate(Bucket=bucket, Prefix=key)
    keys = [item["Key"] for page in pages for item in page.get("Contents", ())]
    return uri, [f"s3://{bucket}/{name}" for name in keys if not name.endswith("/")]


def read(s3: Objects, uri: str) -> bytes:
    """Return an object."""
    bucket, key = bucket_and_key(uri)
    body: bytes = s3.get_object(Bucket=bucket, Key=key)["Body"].read()
    return body


def write(s3: Objects, uri: str, body: bytes) -> None:
    """Write an object."""
    bucket, key = bucket_and_key(uri)
    s3.put_object(Bucket=bucket, Key=key, Body=body)


def get_output_uri(prefix: str, uri: str, folder: str) -> str:
    """Return where an input's output goes."""
    return f"{folder.rstrip('/')}/{relative(prefix, uri)}{SUFFIX}"
