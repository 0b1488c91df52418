from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

import boto3
import pytest
from moto.server import ThreadedMotoServer

from overnight.errors import SpecError
from overnight.hooks.storage import connected_storage
from overnight.storage_errors import MissingFileError

SECRET = "very-secret-key"


@pytest.fixture
def endpoint(monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    """A server that speaks S3, with a bucket; ``docs_store`` is a connection to it, ``aws_default`` is not."""
    server = ThreadedMotoServer(port=0, verbose=False)
    server.start()
    host, port = server.get_host_and_port()
    url = f"http://{host}:{port}"
    for conn_id, target in (("docs_store", url), ("aws_default", "http://127.0.0.1:9")):
        connection = {
            "conn_type": "aws",
            "login": "AKID",
            "password": SECRET,
            "extra": {"region_name": "us-east-1", "service_config": {"s3": {"endpoint_url": target}}},
        }
        monkeypatch.setenv(f"AIRFLOW_CONN_{conn_id.upper()}", json.dumps(connection))
    s3: Any = boto3.client(
        "s3", endpoint_url=url, aws_access_key_id="AKID", aws_secret_access_key=SECRET, region_name="us-east-1"
    )
    s3.create_bucket(Bucket="things")
    s3.put_object(Bucket="things", Key="docs/a.jsonl", Body=b"{}\n")
    yield url
    server.stop()


def test_the_connection_of_a_uri_goes_before_the_default_one(endpoint: str) -> None:
    storage = connected_storage()
    (file,) = storage.list_files("s3://docs_store@things/docs/").files
    assert file.uri == "s3://docs_store@things/docs/a.jsonl"
    with storage.open(file.uri) as body:
        assert body.read() == b"{}\n"
    assert [found.uri for found in connected_storage("docs_store").list_files("s3://things/docs/").files] == [
        "s3://things/docs/a.jsonl"
    ]


def test_an_error_names_bucket_and_connection_and_never_the_key(endpoint: str) -> None:
    with pytest.raises(MissingFileError, match="no bucket 'nothing' for the connection 'docs_store'") as caught:
        connected_storage().list_files("s3://docs_store@nothing/docs/")
    assert SECRET not in str(caught.value)
    with pytest.raises(MissingFileError, match="connection 'docs_store'"):
        connected_storage("docs_store").list_files("s3://nothing/docs/")


def test_a_connection_that_is_not_there_is_named() -> None:
    with pytest.raises(SpecError, match="no Airflow connection 'nobody'"):
        connected_storage().list_files("s3://nobody@things/docs/")


@pytest.mark.parametrize(("scheme", "extra"), [("gs", "gs"), ("abfs", "azure"), ("az", "azure")])
def test_a_store_whose_provider_is_not_installed_names_the_extra(
    scheme: str, extra: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    from airflow.sdk.io import fs

    monkeypatch.setenv("AIRFLOW_CONN_A_CONNECTION", json.dumps({"conn_type": "generic"}))
    # As it is without the provider, whatever is installed here.
    monkeypatch.setattr(fs, "_register_filesystems", dict)
    with pytest.raises(SpecError, match=rf"airflow-provider-overnight\[{extra}\]"):
        connected_storage().list_files(f"{scheme}://a_connection@bucket/docs/")
