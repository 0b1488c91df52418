"""
How fast the load is, and how much memory it takes.

.. code-block:: shell

    python benchmarks/load.py decode                       # MB/s of one core, no server
    python benchmarks/load.py index --url http://localhost:9200  # documents/s against a node, beside other loaders
    python benchmarks/load.py memory                       # peak memory by file size, into a sink
    python benchmarks/load.py join                         # memory and time of a join by number of rows, into a sink
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
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any, Self

import httpx
import orjson
from jsonpath_ng.parser import parse

from overnight.ingest import LoadOptions, OpenSearchTarget, load
from overnight.ingest.map.decoder import LineDecoder
from overnight.jsonpath import JsonPath

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


def per_second(name: str, unit: str, amount: float, work: Callable[[], object]) -> None:
    """Print how fast a piece of work is, the best of three runs."""
    best = min(timed(work) for _ in range(3))
    print(f"{name:<44} {amount / best:>10,.0f} {unit}")


def timed(work: Callable[[], object]) -> float:
    """Return the seconds a piece of work takes."""
    start = time.perf_counter()
    work()
    return time.perf_counter() - start


def decode() -> None:
    """Compare ways from a line to the JSON of a document."""
    sample = [line.rstrip() for line in lines(5_000)]
    megabytes = sum(map(len, sample)) / 1e6
    paths = {name: parse(path) for name, path in FIELDS.items()}

    def library() -> None:
        for line in sample[:500]:
            document = json.loads(line)
            json.dumps({name: path.find(document)[0].value for name, path in paths.items()})

    def by_hand() -> None:
        for line in sample:
            document = orjson.loads(line)
            orjson.dumps({"text": document["text"], "embedding": document["embedding"]})

    decoder = LineDecoder([JsonPath.parse(path) for path in FIELDS.values()])

    def splice() -> None:
        for line in sample:
            _, text, vector = decoder.decode(line)
            b"".join((b'{"text":', text or b"", b',"embedding":', vector or b"", b"}"))

    def copy() -> None:
        for line in sample:
            bytes(bytearray(line))

    per_second("json + jsonpath-ng", "MB/s", megabytes / 10, library)
    per_second("orjson, fields by hand", "MB/s", megabytes, by_hand)
    per_second("overnight: LineDecoder and splice", "MB/s", megabytes, splice)
    per_second("copying the line twice", "MB/s", megabytes, copy)
    with Sink() as sink, tempfile.TemporaryDirectory() as folder:
        path = write(Path(folder, "lines.jsonl"), lines(40_000))
        request = request_for(path)
        size = path.stat().st_size / 1e6
        per_second("overnight: a whole load into a sink", "MB/s", size, lambda: run(request, sink.url))


def index(url: str, count: int, *, is_vector: bool) -> None:
    """Compare loaders against one node, each with an index of its own."""
    properties = {"text": {"type": "text"}, "embedding": VECTOR if is_vector else PLAIN}
    body = {"settings": {**SETTINGS, "index.knn": is_vector}, "mappings": {"properties": properties}}
    bodies = list(bulk_bodies(count, 5_000_000))

    def replay() -> None:
        with httpx.Client(base_url=url, timeout=120) as client, ThreadPoolExecutor(2) as pool:
            headers = {"Content-Type": "application/x-ndjson"}
            path = f"/{INDEX}/_bulk?filter_path=errors"
            for answer in pool.map(lambda content: client.post(path, content=content, headers=headers), bodies):
                if answer.raise_for_status().json()["errors"]:
                    raise SystemExit("the node refuses documents")

    def opensearch_py(method: str) -> Callable[[], None]:
        from opensearchpy import OpenSearch, helpers  # noqa: PLC0415 - comes with Airflow's provider

        def work() -> None:
            client = OpenSearch(url, timeout=120)
            actions = (
                {"_index": INDEX, "_id": document.pop("id"), "_source": document}
                for document in map(json.loads, lines(count))
            )
            if method == "bulk":
                helpers.bulk(client, actions, chunk_size=1_000)
            else:
                for _ in helpers.parallel_bulk(client, actions, thread_count=2, chunk_size=1_000):
                    pass

        return work

    with tempfile.TemporaryDirectory() as folder, httpx.Client(base_url=url, timeout=120) as client:
        request = request_for(write(Path(folder, "lines.jsonl"), lines(count)))
        loaders: dict[str, Callable[[], object]] = {
            "replay of ready bodies, 5 MB x 2": replay,
            "overnight load, write=index": lambda: run(request, url, write="index"),
            "overnight load, write=update": lambda: run(request, url, write="update"),
            "overnight load, 1 MB x 2": lambda: run(request, url, write="index", bulk_bytes=1_000_000),
            "opensearch-py bulk": opensearch_py("bulk"),
            "opensearch-py parallel_bulk": opensearch_py("parallel_bulk"),
        }
        best = dict.fromkeys(loaders, float("inf"))
        for _ in range(3):  # in turns, as the machine's mood changes
            for name, work in loaders.items():
                client.delete(f"/{INDEX}", params={"ignore_unavailable": "true"})
                client.put(f"/{INDEX}", json=body).raise_for_status()
                best[name] = min(best[name], timed(work))
        client.delete(f"/{INDEX}")
    for name, seconds in best.items():
        print(f"{name + (', k-NN' if is_vector else ''):<44} {count / seconds:>10,.0f} documents/s")


def bulk_bodies(count: int, size: int) -> Iterator[bytes]:
    """Yield ready ``_bulk`` bodies, as a replay sends them."""
    parts: list[bytes] = []
    total = 0
    for line in lines(count):
        document = orjson.loads(line)
        parts += (
            orjson.dumps({"index": {"_id": document.pop("id")}}),
            b"\n",
            orjson.dumps(document),
            b"\n",
        )
        total += len(line)
        if total >= size:
            yield b"".join(parts)
            parts, total = [], 0
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


def in_a_process(what: str, path: str, url: str) -> str:
    """Measure in a process of its own and return what it prints."""
    command = [sys.executable, __file__, what, "--path", path, "--url", url]
    return subprocess.run(command, check=True, capture_output=True, text=True).stdout.strip()


def once(path: str, url: str) -> None:
    """Carry out one load and print what it took."""
    start = time.perf_counter()
    if Path(path).is_dir():
        request = request_for(Path(path, "texts"), Path(path, "vectors"))
        ids = ["source[0].$.id", "source[1].$.custom_id"]
        request["field_map"] = {"_id": ids, "text": "source[0].$.text", "v": "source[1].$.v"}
    else:
        request = request_for(Path(path))
    report = run(request, url)
    seconds = time.perf_counter() - start
    used = resource.getrusage(resource.RUSAGE_SELF)
    print(
        f"peak {peak_kib() / 1024:,.0f} MiB, {seconds:,.1f} s, {report.indexed / seconds:,.0f} documents/s, "
        f"{used.ru_utime + used.ru_stime:,.1f} s of CPU"
    )


def peak_kib() -> int:
    """
    Return the most memory that this program had.

    ``ru_maxrss`` would not do: a process inherits it, and so that of the program that made the files and started it.
    """
    status = Path("/proc/self/status").read_text()
    return int(status.partition("VmHWM:")[2].split()[0])


def request_for(*paths: Path) -> dict[str, Any]:
    """Return the request for a file, or for the two of a join."""
    return {"index_name": INDEX, "field_map": FIELDS, "data_source": {"source": [str(path) for path in paths]}}


def run(request: dict[str, Any], url: str, **options: Any) -> Any:
    """Carry out one load, and stop when anything is missing."""
    with OpenSearchTarget(url) as target:
        report = load(request, target=target, options=LoadOptions(**options))
    if report.indexed != report.submitted:
        raise SystemExit(f"not everything was indexed: {report}")
    return report


class Sink:
    """Takes bodies as fast as they come, and answers as OpenSearch does; a process of its own."""

    def __enter__(self) -> Self:
        self._process = subprocess.Popen([sys.executable, __file__, "sink"], stdout=subprocess.PIPE, text=True)
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


def answer_sink(path: str, body: bytes) -> bytes:
    """Return what OpenSearch answers when all is well."""
    if "_bulk" in path:
        item = FILTERED_ITEM if "filter_path" in path else WHOLE_ITEM
        return b'{"took":1,"errors":false,"items":[%b]}' % b",".join(item % found for found in ACTION.findall(body))
    if "_mget" in path:
        wanted = json.loads(body)["docs"]
        return json.dumps({"docs": [{"_id": one["_id"], "found": True} for one in wanted]}).encode()
    if "_count" in path:
        # The first question is whether the index is empty, the second whether all is there.
        counts["asked"] += 1
        return b'{"count":%d}' % (0 if counts["asked"] % 2 else 1 << 40)
    return json.dumps({INDEX: {"aliases": {}, "mappings": {}, "settings": {"index": {"uuid": "sink"}}}}).encode()


counts = {"asked": 0}


def sink() -> None:
    """Serve the sink."""

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def answer(self) -> None:
            content = answer_sink(self.path, self.rfile.read(int(self.headers.get("Content-Length") or 0)))
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
    parser.add_argument("what", choices=["decode", "index", "memory", "join", "once", "join-once", "sink"])
    parser.add_argument("--url", default="http://localhost:9200")
    parser.add_argument("--count", type=int, default=20_000)
    parser.add_argument("--path", default="")
    arguments = parser.parse_args()
    if arguments.what == "index":
        index(arguments.url, arguments.count, is_vector=False)
        index(arguments.url, arguments.count, is_vector=True)
    elif arguments.what in ("once", "join-once"):
        once(arguments.path, arguments.url)
    else:
        {"decode": decode, "memory": memory, "join": join, "sink": sink}[arguments.what]()


if __name__ == "__main__":
    main()
