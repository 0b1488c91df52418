"""The inputs of the pipelines, in the session's S3."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from itertools import islice
from typing import Any

import boto3
import httpx
import orjson

from ..pipeline import BUCKET, first

REGION = "us-east-1"


def client(service: str, url: str) -> Any:
    """Return boto3's client of one of AWS's services on this machine."""
    keys = {"aws_access_key_id": "sandbox", "aws_secret_access_key": "sandbox"}
    return boto3.client(service, endpoint_url=url, region_name=REGION, **keys)


def lines(documents: Iterable[Mapping[str, Any]]) -> bytes:
    """Return documents as JSON Lines."""
    return b"".join(orjson.dumps(document, option=orjson.OPT_APPEND_NEWLINE) for document in documents)


class Store:
    """
    A folder of the bucket.

    :param environment: Says where S3 is.
    """

    def __init__(self, environment: Mapping[str, str], folder: str) -> None:
        self._s3 = client("s3", environment["AWS_ENDPOINT_URL_S3"])
        self._folder = folder
        self.uri = f"s3://{BUCKET}/{folder}/"

    def put(self, name: str, body: bytes) -> str:
        self._s3.put_object(Bucket=BUCKET, Key=f"{self._folder}/{name}", Body=body)
        return f"{self.uri}{name}"

    def put_documents(self, *, files: int, each: int) -> list[list[dict[str, str]]]:
        """Write the first documents of the corpus as ``0.jsonl``, ``1.jsonl`` …, and return what is in each."""
        documents = first(files * each)
        parts = [list(islice(documents, each)) for _ in range(files)]
        for number, part in enumerate(parts):
            self.put(f"{number}.jsonl", lines(part))
        return parts


def indexed(url: str, index: str) -> dict[str, dict[str, Any]]:
    """Return every document of an index by its id."""
    with httpx.Client(base_url=url, timeout=60.0, trust_env=False) as node:
        node.post(f"/{index}/_refresh").raise_for_status()
        answer = node.post(f"/{index}/_search", json={"size": 10_000, "query": {"match_all": {}}}).raise_for_status()
        return {hit["_id"]: hit["_source"] for hit in answer.json()["hits"]["hits"]}
