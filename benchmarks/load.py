"""
How fast the load is, and how much memory it takes.

.. code-block:: shell

    python benchmarks/load.py memory                       # peak memory by file size, into a sink
    python benchmarks/load.py join                         # memory and time of a join by number of rows, into a sink

How fast it is beside other loaders is in ``benchmarks/ingest.py``, which ``make bench`` carries out.
"""

from __future__ import annotations

import argparse
import json
import random
import re
import resource
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any, Self

import msgspec

from overnight.ingest import LoadOptions, OpenSearchTarget, load
from records import peak_kib

DIMENSION = 384
FIELDS = {"_id": "$.id", "text": "$.text", "embedding": "$.embedding"}
INDEX = "overnight-benchmark"
SETTINGS = {"index.number_of_replicas": 0}
PLAIN = {"type": "float", "index": False, "doc_values": False}
VECTOR = {"type": "knn_vector", "dimension": DIMENSION, "method": {"name": "hnsw", "engine": "lucene"}}


def lines(count: int, *, dimension: int = DIMENSION) -> Iterator[bytes]:
    """Yield documents of a text and a vector, as an embedding service writes them."""
    dice = random.Random(1)
    vectors = [json.dumps([round(dice.gauss(0, 1), 9) for _ in range(dimension)]).encode() for _ in range(500)]
    for number in range(count):
        text = b"a text of some length " * 8
        yield b'{"id":"doc-%08d","text":"%b","embedding":%b}\n' % (number, text, vectors[number * 7 % 500])


def write(path: Path, content: Iterator[bytes]) -> Path:
    """Write a file and return its path."""
    with path.open("wb") as file:
        file.writelines(content)
    return path


def build_index_body(*, is_vector: bool) -> dict[str, Any]:
    """Return settings and mappings for the documents."""
    properties = {"text": {"type": "text"}, "embedding": VECTOR if is_vector else PLAIN}
    return {"settings": {**SETTINGS, "index.knn": is_vector}, "mappings": {"properties": properties}}


def bulk_bodies(count: int, size: int) -> Iterator[bytes]:
    """Yield ready ``_bulk`` bodies: what a load of the lines sends."""
    decode = msgspec.json.Decoder(dict[str, msgspec.Raw]).decode
    parts: list[bytes] = []
    total = 0
    for line in lines(count):
        found = decode(line)
        part = b'{"index":{"_id":%b}}\n{"text":%b,"embedding":%b}\n' % tuple(
            bytes(found[name]) for name in ("id", "text", "embedding")
        )
        parts.append(part)
        total += len(part)
        if total >= size:
            yield b"".join(parts)
            parts, total = [], 0
    if parts:
        yield b"".join(parts)


def memory() -> None:
    """Load files of growing size, each in a process of its own."""
    with Sink() as sink, tempfile.TemporaryDirectory() as folder:
        for megabytes in (50, 250, 1_000):
            path = write(Path(folder, "lines.jsonl"), lines(megabytes * 1_000_000 // 4_700))
            size = path.stat().st_size / 1e6
            print(f"{size:>8,.0f} MB file: {in_a_process('once', str(path), sink.url)}")


def join() -> None:
    """Join growing numbers of small rows, each in a process of its own."""
    with Sink() as sink, tempfile.TemporaryDirectory() as folder:
        for count in (100_000, 500_000, 1_000_000):
            write(Path(folder, "texts"), (b'{"id":"doc-%08d","text":"a text"}\n' % n for n in range(count)))
            order = list(range(count))
            random.Random(1).shuffle(order)
            write(Path(folder, "vectors"), (b'{"custom_id":"doc-%08d","v":[1.5,2]}\n' % n for n in order))
            print(f"{count:>9,} rows: {in_a_process('join-once', folder, sink.url)}")


def in_a_process(what: str, path: str, url: str, *, rejected: int = 0) -> str:
    """Measure in a process of its own and return what it prints."""
    command = [sys.executable, __file__, what, "--path", path, "--url", url, "--rejected", str(rejected)]
    return subprocess.run(command, check=True, capture_output=True, text=True).stdout.strip()


def once(path: str, url: str, checkpoint: str = "", rejected: int = 0) -> None:
    """Carry out one load and print what it took."""
    start = time.perf_counter()
    if Path(path).is_dir():
        request = request_for(Path(path, "texts"), Path(path, "vectors"))
        ids = ["source[0].$.id", "source[1].$.custom_id"]
        request["field_map"] = {"_id": ids, "text": "source[0].$.text", "v": "source[1].$.v"}
    else:
        request = request_for(Path(path))
    report = carry_out(request, url, rejected, checkpoint_uri=checkpoint or None)
    seconds = time.perf_counter() - start
    used = resource.getrusage(resource.RUSAGE_SELF)
    print(
        f"peak {peak_kib() / 1024:,.0f} MiB, {seconds:,.1f} s, {report.indexed / seconds:,.0f} documents/s, "
        f"{used.ru_utime + used.ru_stime:,.1f} s of CPU"
    )


def request_for(*paths: Path) -> dict[str, Any]:
    """Return the request for a file, or for the two of a join."""
    return {"index_name": INDEX, "field_map": FIELDS, "data_source": {"source": [str(path) for path in paths]}}


def carry_out(request: dict[str, Any], url: str, rejected: int = 0, **options: Any) -> Any:
    """Carry out one load, and stop when anything is missing but so many lines that are no documents."""
    with OpenSearchTarget(url) as target:
        report = load(request, target=target, options=LoadOptions(**options))
    if report.in_index != report.submitted - rejected:
        raise SystemExit(f"not everything was indexed: {report}")
    return report


class Sink:
    """
    Takes bodies as fast as they come, and answers as OpenSearch does; a process of its own.

    :param rate: Documents a second, at most.
    """

    def __init__(self, rate: int | None = None) -> None:
        self._rate = rate or 0

    def __enter__(self) -> Self:
        command = [sys.executable, __file__, "sink", "--rate", str(self._rate)]
        self._process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
        if self._process.stdout is None:
            raise RuntimeError("no pipe")
        self.url = self._process.stdout.readline().strip()
        return self

    def __exit__(self, *_: object) -> None:
        self._process.terminate()
        self._process.wait()
        if self._process.stdout is not None:
            self._process.stdout.close()


ACTION = re.compile(rb'^{"(index|create|update)": ?{.*?"_id": ?("(?:[^"\\\\]|\\\\.)*")', re.MULTILINE)
WHOLE_ITEM = (
    b'{"%b":{"_index":"overnight-benchmark","_id":%b,"_version":1,"result":"created",'
    b'"_shards":{"total":1,"successful":1,"failed":0},"_seq_no":1,"_primary_term":1,"status":201}}'
)
FILTERED_ITEM = b'{"%b":{"_id":%b,"_version":1,"result":"created","status":201}}'


def answer_sink(path: str, body: bytes, rate: int) -> bytes:
    """Return what OpenSearch answers when all is well."""
    if path == "/seen":
        return b"%d" % counts["seen"]
    if "_bulk" in path:
        item = FILTERED_ITEM if "filter_path" in path else WHOLE_ITEM
        items = [item % found for found in ACTION.findall(body)]
        with taking:
            counts["seen"] += len(items)
            if rate:
                time.sleep(len(items) / rate)
        return b'{"took":1,"errors":false,"items":[%b]}' % b",".join(items)
    if "_mget" in path:
        wanted = json.loads(body)["docs"]
        return json.dumps({"docs": [{"_id": one["_id"], "found": True} for one in wanted]}).encode()
    if "_count" in path:
        # The first question is whether the index is empty, the second whether all is there.
        counts["asked"] += 1
        return b'{"count":%d}' % (0 if counts["asked"] % 2 else 1 << 40)
    return json.dumps({INDEX: {"aliases": {}, "mappings": {}, "settings": {"index": {"uuid": "sink"}}}}).encode()


counts = {"asked": 0, "seen": 0}
taking = threading.Lock()


def sink(rate: int) -> None:
    """Serve the sink."""

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def answer(self) -> None:
            content = answer_sink(self.path, self.rfile.read(int(self.headers.get("Content-Length") or 0)), rate)
            self.send_response(200)
            self.send_header("Content-Type", "application/json")
            self.send_header("Content-Length", str(len(content)))
            self.end_headers()
            self.wfile.write(content)

        do_GET = do_POST = do_PUT = answer  # noqa: N815

        def log_message(self, *_: Any) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    print(f"http://127.0.0.1:{server.server_address[1]}", flush=True)
    server.serve_forever()


def main() -> None:
    """Run what is asked for."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("what", choices=["memory", "join", "once", "join-once", "sink"])
    parser.add_argument("--url", default="http://localhost:9200")
    parser.add_argument("--path", default="")
    parser.add_argument("--checkpoint", default="")
    parser.add_argument("--rejected", type=int, default=0)
    parser.add_argument("--rate", type=int, default=0)
    arguments = parser.parse_args()
    if arguments.what in ("once", "join-once"):
        once(arguments.path, arguments.url, arguments.checkpoint, arguments.rejected)
    elif arguments.what == "sink":
        sink(arguments.rate)
    else:
        {"memory": memory, "join": join}[arguments.what]()


if __name__ == "__main__":
    main()
