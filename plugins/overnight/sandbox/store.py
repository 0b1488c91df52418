"""The sandbox's object store, as the one who has the documents sees it."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

import boto3
import orjson

BUCKET: Final = "overnight"


@dataclass
class Store:
    """
    The bucket of the shipped DAGs, which is created when it is missing.

    :param environment: The variables of a sandbox that runs.
    """

    environment: Mapping[str, str]
    _client: Any = field(init=False)

    def __post_init__(self) -> None:
        self._client = boto3.client(
            "s3",
            endpoint_url=self.environment["AWS_ENDPOINT_URL_S3"],
            aws_access_key_id=self.environment["AWS_ACCESS_KEY_ID"],
            aws_secret_access_key=self.environment["AWS_SECRET_ACCESS_KEY"],
            region_name=self.environment["AWS_DEFAULT_REGION"],
        )
        # us-east-1 answers the same for a bucket that is there already.
        self._client.create_bucket(Bucket=BUCKET)

    def put_lines(self, key: str, lines: Iterable[Mapping[str, Any] | bytes]) -> None:
        """Write an object of JSON Lines; a line that is bytes is written as it is."""
        body = b"".join(
            line + b"\n" if isinstance(line, bytes) else orjson.dumps(line, option=orjson.OPT_APPEND_NEWLINE)
            for line in lines
        )
        self._client.put_object(Bucket=BUCKET, Key=key, Body=body)

    def put_files(self, prefix: str, named: Mapping[str, Path]) -> str:
        """Write files under their names and return the prefix as a URI."""
        for name, path in named.items():
            self._client.put_object(Bucket=BUCKET, Key=f"{prefix}/{name}", Body=path.read_bytes())
        return f"s3://{BUCKET}/{prefix}/"

    def list_keys(self, prefix: str) -> list[str]:
        """Return the keys below a prefix."""
        pages = self._client.get_paginator("list_objects_v2").paginate(Bucket=BUCKET, Prefix=prefix)
        return [found["Key"] for page in pages for found in page.get("Contents", ())]
