from __future__ import annotations

import gc
import hashlib
import pickle
import threading
import tracemalloc
from collections.abc import Iterator
from contextlib import closing
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from io import BytesIO
from mmap import mmap
from typing import Any

import httpx
import pytest
from botocore.auth import SigV4Auth as Signer
from botocore.awsrequest import AWSRequest
from botocore.credentials import Credentials

from overnight.errors import SpecError, UnavailableError
from overnight.ingest import OpenSearchTarget
from overnight.ingest.write.body_memory import BodyMemory
from overnight.ingest.write.index import create_index
from overnight.ingest.write.target import _Pieces
from overnight.transport.sigv4 import SigV4Auth
from unit.ingest.fake_opensearch import Answer, FakeOpenSearch

BODY_BYTES = 5_000_000
KEYS = Credentials("AKIDEXAMPLE", "secret")


@pytest.fixture
def sink() -> Iterator[dict[str, Any]]:
    """A server that reads bodies in small pieces and keeps what was said of them."""
    state: dict[str, Any] = {"seen": []}

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_POST(self) -> None:
            left, digest = int(self.headers["Content-Length"]), hashlib.sha256()
            while left:
                chunk = self.rfile.read(min(left, 1 << 14))
                left -= len(chunk)
                digest.update(chunk)
            state["seen"].append((self.path, digest.hexdigest(), dict(self.headers)))
            self.send_response(200)
            self.send_header("Content-Length", "2")
            self.end_headers()
            self.wfile.write(b"{}")

        def log_message(self, *_: Any) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    server.daemon_threads = True
    state["url"] = f"http://127.0.0.1:{server.server_address[1]}"
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    try:
        yield state
    finally:
        server.shutdown()
        server.server_close()
        thread.join()


@pytest.mark.parametrize("auth", [None, SigV4Auth(KEYS, "eu-west-1", "es")], ids=["unsigned", "signed"])
def test_bodies_are_never_held_in_the_heap(auth: SigV4Auth | None, sink: dict[str, Any]) -> None:
    with OpenSearchTarget(sink["url"], auth=auth) as target:
        body = mmap(-1, BODY_BYTES)  # not of the heap, as the load's own
        body.write(b"x" * BODY_BYTES)
        target.bulk("docs", memoryview(body), {})
        # httpx's cycles would keep what a request holds until the collector comes by.
        gc.collect()
        gc.disable()
        tracemalloc.start()
        try:
            for _ in range(10):
                target.bulk("docs", memoryview(body), {})
            peak = tracemalloc.get_traced_memory()[1]
        finally:
            tracemalloc.stop()
            gc.enable()
    assert peak < BODY_BYTES * 0.9
    assert len(sink["seen"]) == 11


def test_the_signature_of_a_body_is_the_one_of_its_bytes(sink: dict[str, Any]) -> None:
    body = b'{"index":{}}\n{"a":1}\n' * 200_000
    with OpenSearchTarget(sink["url"], auth=SigV4Auth(KEYS, "eu-west-1", "es")) as target:
        target.bulk("docs", body, {"filter_path": "errors,items.*.error"})
    ((path, digest, headers),) = sink["seen"]
    assert digest == hashlib.sha256(body).hexdigest()
    sent = {name.lower(): value for name, value in headers.items()}
    assert sent["x-amz-content-sha256"] == digest
    request = AWSRequest("POST", f"{sink['url']}{path}", data=body)
    request.headers["Host"] = sent["host"]
    request.headers["X-Amz-Content-SHA256"] = sent["x-amz-content-sha256"]
    request.context["timestamp"] = sent["x-amz-date"]
    request.headers["X-Amz-Date"] = sent["x-amz-date"]
    signer = Signer(KEYS, "es", "eu-west-1")
    text = signer.string_to_sign(request, signer.canonical_request(request))
    assert sent["authorization"].endswith(signer.signature(text, request))


def test_a_targets_headers_go_with_every_call(sink: dict[str, Any]) -> None:
    with OpenSearchTarget(sink["url"], headers={"X-Tenant": "night"}) as target:
        target.bulk("docs", b"{}\n", {})
        target.post("docs/_refresh")
    assert [headers["X-Tenant"] for _, _, headers in sink["seen"]] == ["night", "night"]


@pytest.mark.parametrize(
    ("url", "auth"),
    [
        ("https://x1.eu-west-1.aoss.amazonaws.com", None),
        ("https://X1.EU-WEST-1.AOSS.amazonaws.com:443/", ("user", "secret-of-aoss")),
        ("https://x1.cn-north-1.aoss.amazonaws.com.cn", None),
        ("https://own.name", SigV4Auth(KEYS, "eu-west-1", "aoss")),
    ],
)
def test_a_serverless_collection_is_refused_before_any_call(url: str, auth: Any) -> None:
    with pytest.raises(SpecError, match=r"Serverless.*Load into a domain") as refusal:
        OpenSearchTarget(url, auth=auth)
    assert "secret-of-aoss" not in str(refusal.value)


@pytest.mark.parametrize("url", ["https://x1.eu-west-1.es.amazonaws.com", "http://aoss.amazonaws.com.example:9200"])
def test_a_domain_is_no_serverless_collection(url: str) -> None:
    OpenSearchTarget(url).close()


VECTOR = {"type": "knn_vector", "dimension": 3}


@pytest.mark.parametrize(
    ("field", "is_explained"),
    [
        (VECTOR, True),
        ({**VECTOR, "method": {"name": "hnsw"}}, True),
        ({**VECTOR, "method": {"name": "hnsw", "engine": "faiss"}}, True),
        ({**VECTOR, "method": {"name": "hnsw", "engine": "lucene"}}, False),
        ({"type": "float"}, False),
    ],
)
def test_a_node_that_dies_of_a_mapping_without_an_engine_is_told_with_the_engine_to_name(
    field: dict[str, Any], is_explained: bool, opensearch: FakeOpenSearch, target: OpenSearchTarget
) -> None:
    # Without the native library the node is gone in the middle of the call: "connection refused" alone says nothing.
    opensearch.on_request = lambda method, _path: Answer(0) if method == "PUT" else None
    target.transport._backoff = 0.0
    mappings = {"properties": {"meta": {"properties": {"v": field}}}}
    with pytest.raises(UnavailableError, match="gave no whole answer") as error:
        create_index(target, "vectors", {"mappings": mappings})
    assert ('give its method "engine": "lucene"' in str(error.value)) is is_explained


@pytest.fixture
def memory() -> BodyMemory:
    return BodyMemory(BODY_BYTES)


@pytest.fixture
def body(memory: BodyMemory) -> BytesIO:
    taken = memory.take(BODY_BYTES)
    taken.write(bytes(BODY_BYTES))
    return taken


def test_a_call_that_was_given_up_gets_no_more_of_a_body_whose_memory_is_used_again(
    memory: BodyMemory, body: BytesIO
) -> None:
    with body.getbuffer() as content, closing(_Pieces(content)) as pieces:
        sent = iter(pieces)
        piece = next(sent)
        assert len(piece) < BODY_BYTES
    memory.give_back(body)
    assert memory.take(BODY_BYTES) is body
    with pytest.raises(httpx.WriteError, match="given up"):
        next(sent)
    with pytest.raises(ValueError, match="released"):
        len(piece)


def test_a_piece_that_is_sent_while_its_call_is_given_up_keeps_its_memory(memory: BodyMemory, body: BytesIO) -> None:
    with body.getbuffer() as content, closing(_Pieces(content)) as pieces:
        # As a socket does.
        sent = pickle.PickleBuffer(next(iter(pieces)))
    memory.give_back(body)
    assert memory.take(BODY_BYTES) is not body
    assert len(sent.raw()) < BODY_BYTES
