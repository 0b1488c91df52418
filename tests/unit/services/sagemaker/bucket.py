"""An S3 of one bucket, for the tests of what a transform job reads and writes."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime
from typing import Any

from overnight.transport.aws import AwsTransport
from overnight.transport.flow import Flow


class Bucket:
    """An S3 client of one bucket, ``b``, that lists two keys a page."""

    def __init__(self, objects: Mapping[str, datetime], bodies: Mapping[str, bytes] | None = None) -> None:
        self.objects = objects
        self.bodies = dict(bodies or {})

    def list_objects_v2(self, **asked: str) -> dict[str, Any]:
        assert asked["Bucket"] == "b"
        after = asked.get("ContinuationToken", "")
        keys = sorted(key for key in self.objects if key.startswith(asked["Prefix"]) and key > after)
        page = [{"Key": key, "Size": 1, "LastModified": self.objects[key]} for key in keys[:2]]
        if len(keys) <= 2:
            return {"Contents": page, "IsTruncated": False} if page else {"IsTruncated": False}
        return {"Contents": page, "IsTruncated": True, "NextContinuationToken": keys[1]}

    def put_object(self, **asked: Any) -> dict[str, Any]:
        self.bodies[asked["Key"]] = asked["Body"]
        return {}

    def get_object(self, **asked: str) -> dict[str, Any]:
        body = self.bodies[asked["Key"]]

        class Stream:
            def read(self) -> bytes:
                return body

        return {"Body": Stream()}


def run(flow: Flow[Any], bucket: Bucket) -> Any:
    return AwsTransport(lambda service: bucket).run(flow)
