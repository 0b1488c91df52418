"""What the sandbox's S3 holds is there again when it was stopped and started."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import boto3
import pytest

from overnight.sandbox import s3
from overnight.sandbox.process import LOCALHOST, free_port
from overnight.sandbox.services import serving


def client(port: int) -> Any:
    return boto3.client(
        "s3",
        endpoint_url=f"http://{LOCALHOST}:{port}",
        aws_access_key_id="sandbox",
        aws_secret_access_key="sandbox",
        region_name="us-east-1",
    )


def test_buckets_and_objects_are_there_after_a_restart(tmp_path: Path) -> None:
    port = free_port()
    with serving(s3.launch(tmp_path, port, keep=True)):
        store = client(port)
        store.create_bucket(Bucket="overnight")
        store.create_bucket(Bucket="empty")
        store.put_object(Bucket="overnight", Key="work/a run/manual__2026-01-05T00:00:00+00:00.jsonl", Body=b"lines\n")
        store.put_object(Bucket="overnight", Key="nothing", Body=b"")
        store.put_object(Bucket="overnight", Key="gone", Body=b"x")
        store.delete_object(Bucket="overnight", Key="gone")
        # Larger than what lies in memory.
        store.put_object(Bucket="overnight", Key="large", Body=b"x" * 20_000_000)
    with serving(s3.launch(tmp_path, port, keep=True)):
        store = client(port)
        assert {bucket["Name"] for bucket in store.list_buckets()["Buckets"]} == {"overnight", "empty"}
        found = {entry["Key"]: entry["Size"] for entry in store.list_objects_v2(Bucket="overnight")["Contents"]}
        assert found == {
            "large": 20_000_000,
            "nothing": 0,
            "work/a run/manual__2026-01-05T00:00:00+00:00.jsonl": 6,
        }


def test_without_it_nothing_is_left(tmp_path: Path) -> None:
    port = free_port()
    with serving(s3.launch(tmp_path, port)):
        client(port).create_bucket(Bucket="overnight")
    with serving(s3.launch(tmp_path, port)):
        assert client(port).list_buckets()["Buckets"] == []


def test_one_that_cannot_be_read_is_not_overwritten(tmp_path: Path) -> None:
    (tmp_path / s3.KEPT).write_bytes(b"no archive")
    with pytest.raises(Exception, match="s3"), serving(s3.launch(tmp_path, free_port(), keep=True)):
        pass
    assert (tmp_path / s3.KEPT).read_bytes() == b"no archive"
