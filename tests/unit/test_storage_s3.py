"""The storage over s3fs and a server that speaks S3: keys that are no paths, and what goes wrong."""

from __future__ import annotations

import logging
import socket
import threading
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from unittest.mock import MagicMock

import boto3
import pytest
import s3fs
from moto.server import ThreadedMotoServer

from overnight.errors import CredentialsError, SpecError, UnavailableError
from overnight.ingest.read.sources import SourceReader
from overnight.operators import chunks, openai, transform_plan
from overnight.operators.chunks import ChunkDocumentsOperator
from overnight.operators.openai import OpenAIBatchInputOperator
from overnight.operators.transform_plan import ListTransformInputsOperator
from overnight.services.llamacloud.sources import stored_files
from overnight.services.llamacloud.spec import Limits
from overnight.services.openai.input import RequestTemplate
from overnight.storage import Storage
from overnight.storage_errors import ChangedFileError, MissingFileError

KEYS = ("docs/a.jsonl", "docs//b.jsonl", "docs/x::y.jsonl", "docs/q?x#y.jsonl", "docs/[1].jsonl", "docs/%41.jsonl")


def connect(endpoint: str, **options: Any) -> s3fs.S3FileSystem:
    return s3fs.S3FileSystem(
        key="test",
        secret="test",
        endpoint_url=endpoint,
        client_kwargs={"region_name": "us-east-1"},
        config_kwargs={"retries": {"max_attempts": 1}},
        skip_instance_cache=True,
        **options,
    )


@pytest.fixture(scope="module")
def endpoint() -> Iterator[str]:
    server = ThreadedMotoServer(port=0, verbose=False)
    server.start()
    host, port = server.get_host_and_port()
    try:
        yield f"http://{host}:{port}"
    finally:
        server.stop()


@pytest.fixture
def storage(endpoint: str) -> Storage:
    return Storage({"s3": lambda: connect(endpoint)}, conn_ids={"s3": "aws_docs"})


@pytest.fixture
def client(endpoint: str) -> Iterator[Any]:
    s3 = boto3.client(
        "s3", endpoint_url=endpoint, aws_access_key_id="test", aws_secret_access_key="test", region_name="us-east-1"
    )
    s3.create_bucket(Bucket="things")
    yield s3
    for item in s3.list_objects_v2(Bucket="things").get("Contents", ()):
        s3.delete_object(Bucket="things", Key=item["Key"])
    s3.delete_bucket(Bucket="things")


def test_every_key_is_listed_and_opened_by_the_uri_it_is_listed_with(storage: Storage, client: Any) -> None:
    for key in KEYS:
        client.put_object(Bucket="things", Key=key, Body=key.encode())
    listing = storage.list_files("s3://things/docs/")
    assert [file.uri for file in listing.files] == sorted(f"s3://things/{key}" for key in KEYS)
    assert listing.ignored == 0
    for file in listing.files:
        with storage.open(file.uri) as body:
            assert f"s3://things/{body.read().decode()}" == file.uri
        assert storage.list_files(file.uri).files == (file,)


def test_folder_markers_are_no_files_and_a_prefix_may_end_in_two_slashes(storage: Storage, client: Any) -> None:
    for key in ("docs/", "docs/sub/", "docs/a.jsonl", "docs//b.jsonl", "docs/sub/_SUCCESS"):
        client.put_object(Bucket="things", Key=key, Body=b"" if key.endswith("/") else b"{}")
    listing = storage.list_files("s3://things/docs/")
    assert [file.uri for file in listing.files] == ["s3://things/docs//b.jsonl", "s3://things/docs/a.jsonl"]
    assert listing.ignored == 3
    assert [file.uri for file in storage.list_files("s3://things/docs//").files] == ["s3://things/docs//b.jsonl"]
    assert storage.list_files("s3a://things/docs").files == listing.files
    assert storage.list_files("S3://things/").files == listing.files


def test_a_missing_bucket_is_named_with_the_connection_and_never_made(storage: Storage, client: Any) -> None:
    for call in (
        lambda: storage.list_files("s3://nothing-here/docs/"),
        lambda: storage.list_files("s3://nothing-here/docs/*"),
        lambda: storage.list_files("s3://nothing-here/docs/a.jsonl"),
        lambda: storage.open("s3://nothing-here/docs/a.jsonl").read(),
        lambda: write(storage, "s3://nothing-here/a.jsonl"),
    ):
        with pytest.raises(MissingFileError, match=r"there is no bucket 'nothing-here' for the connection 'aws_docs'"):
            call()
    assert "nothing-here" not in [bucket["Name"] for bucket in client.list_buckets()["Buckets"]]


def test_an_object_is_created_once(storage: Storage, client: Any) -> None:
    client.create_bucket(Bucket="created")
    assert storage.create("s3://created/spending/1.json", b"first")
    assert not storage.create("s3://created/spending/1.json", b"second")
    assert client.get_object(Bucket="created", Key="spending/1.json")["Body"].read() == b"first"


def write(storage: Storage, uri: str) -> None:
    with storage.open(uri, "wb") as file:
        file.write(b"{}")


def test_a_missing_object_is_named(storage: Storage, client: Any) -> None:
    with pytest.raises(MissingFileError, match="s3://things/none.jsonl"):
        storage.open("s3://things/none.jsonl").read()
    assert storage.list_files("s3://things/none/").files == ()


def test_a_name_that_is_no_bucket_is_refused(storage: Storage) -> None:
    with pytest.raises(SpecError, match="s3://not_a bucket/x"):
        storage.list_files("s3://not_a bucket/x/")


def test_a_server_that_is_not_there_is_worth_another_try() -> None:
    storage = Storage({"s3": lambda: connect("http://127.0.0.1:9")}, conn_ids={"s3": "aws_docs"})
    with pytest.raises(UnavailableError, match=r"s3://things/docs/.*'aws_docs'"):
        storage.list_files("s3://things/docs/")


def test_no_credentials_is_no_reason_to_try_again(endpoint: str, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY", "AWS_PROFILE"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("AWS_EC2_METADATA_DISABLED", "true")
    monkeypatch.setenv("AWS_CONFIG_FILE", "/none")
    monkeypatch.setenv("AWS_SHARED_CREDENTIALS_FILE", "/none")
    storage = Storage({"s3": lambda: s3fs.S3FileSystem(endpoint_url=endpoint, skip_instance_cache=True)})
    with pytest.raises(CredentialsError, match="credentials of the environment"):
        storage.list_files("s3://things/docs/")


@pytest.mark.parametrize("options", [{}, {"block_size": 1 << 20, "cache_type": "none"}])
def test_an_object_that_is_replaced_while_it_is_read_is_said(
    options: dict[str, Any], storage: Storage, client: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("overnight.storage.RANGE_BYTES", 1 << 20)
    client.put_object(Bucket="things", Key="big", Body=b"a" * 4_000_000)
    with storage.open("s3://things/big", **options) as file:
        assert file.read(1 << 20) == b"a" * (1 << 20)
        client.put_object(Bucket="things", Key="big", Body=b"b" * 4_000_000)
        with pytest.raises(ChangedFileError, match="s3://things/big was replaced while it was read"):
            file.read()


def test_lines_of_an_object_and_of_its_parts_are_cut_from_many_ranges(
    storage: Storage, client: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    for module in ("storage", "ingest.read.sources"):
        monkeypatch.setattr(f"overnight.{module}.RANGE_BYTES", 1_000)
    data = b"".join(b'{"number": %d}\n' % number for number in range(2_000))
    client.put_object(Bucket="things", Key="lines.jsonl", Body=data)
    middle = data.index(b"\n", 10_000) + 1
    reader = SourceReader(storage)

    def read(part: str) -> bytes:
        (file,) = reader.resolve(0, [f"s3://things/lines.jsonl{part}"]).files
        return b"".join(b"%b\n" % line.data for line in reader.lines(file) if line.data is not None)

    assert read("") == data
    assert read(f"#bytes=0-{middle}") == data[:middle]
    assert read(f"#bytes={middle}-") == data[middle:]
    with storage.open_plain("s3://things/lines.jsonl") as file:
        assert file.read() == data


# --- A store that breaks off --------------------------------------------------------------------------------------


class Breaking(BaseHTTPRequestHandler):
    """One object of 4,000 bytes, of which each answer has the first half."""

    def do_HEAD(self) -> None:
        self.send_response(200)
        self.send_header("Content-Length", "4000")
        self.send_header("ETag", '"1"')
        self.send_header("Last-Modified", "Mon, 23 Nov 2026 03:00:00 GMT")
        self.end_headers()

    def do_GET(self) -> None:
        self.do_HEAD()
        self.wfile.write(b"x" * 2_000)
        self.wfile.flush()
        self.connection.shutdown(socket.SHUT_RDWR)

    def log_message(self, *_: Any) -> None:
        pass


def test_an_object_that_is_cut_in_the_middle_is_an_outage_with_its_name(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("s3fs.core.S3FileSystem.retries", 2)
    server = ThreadingHTTPServer(("127.0.0.1", 0), Breaking)
    thread = threading.Thread(target=server.serve_forever, args=(0.01,), daemon=True)
    thread.start()
    storage = Storage({"s3": lambda: connect(f"http://127.0.0.1:{server.server_address[1]}")}, conn_ids={"s3": "aws"})
    try:
        with pytest.raises(UnavailableError, match=r"s3://things/a\.jsonl cannot be reached, or broke off, .*'aws'"):
            storage.open("s3://things/a.jsonl").read()
        reader = SourceReader(storage)
        (file,) = reader.resolve(0, ["s3://things/a.jsonl"]).files
        with pytest.raises(UnavailableError, match=r"s3://things/a\.jsonl cannot be reached, or broke off"):
            list(reader.lines(file))
    finally:
        server.shutdown()
        server.server_close()
        thread.join()


# --- Every reader of a prefix --------------------------------------------------------------------------------------

PREFIX = "s3://things/docs/"
READERS: dict[str, Callable[[Storage], int]] = {
    "load": lambda storage: len(SourceReader(storage).resolve(0, [PREFIX]).files),
    "LlamaCloud": lambda storage: len(
        stored_files([PREFIX], storage, job_type="parse_v2", limits=Limits(), metadata={})
    ),
    "OpenAI input": lambda _: OpenAIBatchInputOperator(
        task_id="t", documents=PREFIX, target="s3://things/run", template=RequestTemplate.embeddings("m")
    ).execute({"ti": MagicMock()})[0]["requests"],  # type: ignore[typeddict-item]
    "transform inputs": lambda _: ListTransformInputsOperator(
        task_id="t", input_uri=PREFIX, output_uri="s3://things/run/outputs"
    ).execute({})["inputs"],  # type: ignore[typeddict-item]
    "chunks": lambda _: ChunkDocumentsOperator(
        task_id="t",
        documents=PREFIX,
        target="s3://things/run/chunks.jsonl",
        config={"id_field": "id", "text_field": "text"},
    ).execute({})["documents"],  # type: ignore[typeddict-item]
}


@pytest.mark.parametrize("reader", READERS)
def test_every_reader_leaves_folder_markers_and_hidden_names_out_and_says_how_many(
    reader: str,
    storage: Storage,
    client: Any,
    caplog: pytest.LogCaptureFixture,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    for module in (openai, transform_plan, chunks):
        monkeypatch.setattr(module, "connected_storage", lambda conn_id: storage)
    caplog.set_level(logging.INFO)
    ignored = ("docs/", "docs/sub/", "docs/_temporary/x.jsonl", "docs/sub/.ipynb_checkpoints/x.jsonl")
    documents = ("docs/a.jsonl", "docs//b.jsonl", "docs/sub/c.jsonl")
    for key in ignored + documents:
        client.put_object(
            Bucket="things", Key=key, Body=b"" if key.endswith("/") else b'{"id":"%b","text":"x"}' % key.encode()
        )
    assert READERS[reader](storage) == len(documents)
    assert (
        f"{len(ignored)} whose names start with '_' or '.', or that mark a folder, were ignored."
        in caplog.text + capsys.readouterr().out
    )


def test_a_key_with_an_empty_name_and_its_output_belong_together(
    storage: Storage, client: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(transform_plan, "connected_storage", lambda conn_id: storage)
    for key in ("docs//b.jsonl", "docs/c//d.jsonl"):
        client.put_object(Bucket="things", Key=key, Body=b"{}")
    where: Any = {"input_uri": PREFIX, "output_uri": "s3://things/run"}
    assert ListTransformInputsOperator(task_id="t", **where).execute({})["todo"] == 2  # type: ignore[typeddict-item]
    # As a server that reads the key, and as one that leaves the empty name out writes it.
    for key in ("run//b.jsonl.out", "run/c/d.jsonl.out"):
        client.put_object(Bucket="things", Key=key, Body=b"{}")
    plan = transform_plan.PlanTransformLoadsOperator(task_id="t", request={}, **where)
    found = [part["request"]["data_source"]["source"] for part in plan.execute({"ti": MagicMock()})]  # type: ignore[typeddict-item]
    assert found == [["s3://things/run//b.jsonl.out"], ["s3://things/run/c/d.jsonl.out"]]
    assert ListTransformInputsOperator(task_id="t", **where).execute({})["todo"] == 0  # type: ignore[typeddict-item]
