from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import boto3
import pytest
from moto.server import ThreadedMotoServer

from overnight.doctor.finding import State
from overnight.doctor.object_store import check_folder, cut_template
from overnight.errors import OvernightError, SpecError
from overnight.storage import Storage
from overnight.storage_errors import MissingFileError
from unit.doctor.conftest import SECRET


@pytest.fixture
def s3(connect: Callable[..., str]) -> Iterator[Any]:
    """A client of an S3 with the bucket ``lake``, which ``aws_default`` is a connection to."""
    server = ThreadedMotoServer(port=0, verbose=False)
    server.start()
    host, port = server.get_host_and_port()
    endpoint = f"http://{host}:{port}"
    extra = {"region_name": "us-east-1", "service_config": {"s3": {"endpoint_url": endpoint}}}
    connect("aws_default", "aws", login="AKIA", extra=extra)
    client: Any = boto3.client(
        "s3", endpoint_url=endpoint, aws_access_key_id="AKIA", aws_secret_access_key=SECRET, region_name="us-east-1"
    )
    client.create_bucket(Bucket="lake")
    yield client
    server.stop()


def test_a_folder_of_a_bucket_is_written_read_and_left_as_it_was(s3: Any) -> None:
    found = check_folder("s3://lake/work/{{ ds }}/", "aws_default")
    assert (found.state, found.text) == (State.OK, "s3://lake/work can be written, read and deleted from.")
    assert "Contents" not in s3.list_objects_v2(Bucket="lake")


def test_a_bucket_that_is_missing_is_named(s3: Any) -> None:
    with pytest.raises(MissingFileError, match="there is no bucket 'swamp' for the connection 'aws_default'"):
        check_folder("s3://swamp/work", "aws_default")


def test_a_store_that_does_not_answer_is_a_failure_with_a_remedy(connect: Callable[..., str]) -> None:
    extra = {
        "region_name": "us-east-1",
        "config_kwargs": {"retries": {"total_max_attempts": 1}},
        "service_config": {"s3": {"endpoint_url": "http://127.0.0.1:9"}},
    }
    connect("aws_default", "aws", login="AKIA", extra=extra)
    found = check_folder("s3://lake/work", "aws_default")
    assert found.state == State.FAILURE
    assert "Correct endpoint_url and region_name" in found.text
    assert SECRET not in found.text


def test_a_local_folder_is_refused_where_tasks_run_on_several_machines(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("AIRFLOW__CORE__EXECUTOR", "CeleryExecutor")
    with pytest.raises(SpecError, match="Set work_uri to an object store"):
        check_folder(str(tmp_path), "aws_default")
    monkeypatch.setenv("AIRFLOW__CORE__EXECUTOR", "LocalExecutor")
    assert check_folder(str(tmp_path / "work"), "aws_default").state == State.OK
    assert list((tmp_path / "work").iterdir()) == []


def test_a_folder_that_cannot_be_written_is_refused(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("AIRFLOW__CORE__EXECUTOR", "LocalExecutor")
    (tmp_path / "file").touch()
    with pytest.raises(OvernightError, match="lies below one"):
        check_folder(str(tmp_path / "file" / "work"), "aws_default")


def test_a_store_that_changes_files_or_keeps_them_is_found(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("AIRFLOW__CORE__EXECUTOR", "LocalExecutor")
    monkeypatch.setattr(Storage, "delete", lambda self, uri: None)
    assert "is still there" in check_folder(str(tmp_path), "aws_default").text
    monkeypatch.setattr(Storage, "put", lambda self, uri, data: Path(uri).write_bytes(data + os.linesep.encode()))
    assert "other bytes" in check_folder(str(tmp_path), "aws_default").text


@pytest.mark.parametrize(
    ("uri", "fixed"),
    [
        ("s3://lake/work", "s3://lake/work"),
        ("s3://lake/work/{{ ds }}/x", "s3://lake/work/"),
        ("s3://lake/work-{{ ds }}", "s3://lake/"),
    ],
)
def test_the_part_of_a_folder_that_is_the_same_for_every_run(uri: str, fixed: str) -> None:
    assert cut_template(uri) == fixed
