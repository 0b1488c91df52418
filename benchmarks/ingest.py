"""The load beside what a user would otherwise run: on one core, into a sink, and into a node."""

from __future__ import annotations

import json
import os
import random
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from functools import partial
from itertools import count
from pathlib import Path
from typing import Any, Final

import httpx
import msgspec
import orjson
import pandas
import polars
from jsonpath_ng.parser import parse
from opensearchpy import OpenSearch, helpers

import load
from overnight.ingest.map.field_map import compile_field_map
from overnight.ingest.map.row_block import BlockReader
from overnight.ingest.map.rows import RowReader, Splicer
from overnight.ingest.read.lines import split_blocks
from overnight.sandbox.opensearch import Node
from records import Record, compare, make_record, take_cpu, take_time

NODE: Final = "OVERNIGHT_BENCHMARK_OPENSEARCH_URL"
"""A node that runs already; without it one is started."""
VERSION: Final = "2.19.6"
DOCUMENTS: Final = 40_000
INDEXED: Final = 20_000
NIGHTLY: Final = 20_000
CHANGED: Final = 50
"""Of so many documents one is another one each night: 2 %."""
MICRO: Final = 1e6
MEGABYTE: Final = 1_000_000
RESUMED_BYTES: Final = 1_000_000_000
NODE_RATE: Final = 6_000
"""Documents a second that the sink takes of a load that is killed; so many as a node takes."""


class ByHand(msgspec.Struct):
    """The fields that are mapped, as bytes."""

    id: msgspec.Raw
    text: msgspec.Raw
    embedding: msgspec.Raw


def run() -> dict[str, Record]:
    """Return all records of the load."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        documents = load.write(folder / "documents.jsonl", load.lines(DOCUMENTS))
        return {
            "field_map": measure_field_map(documents),
            "client_cpu": measure_client_cpu(documents),
            "join": measure_join(documents, folder),
            "memory": measure_memory(folder),
            "resume": measure_resume(folder),
            **measure_load(folder),
            **measure_unchanged(folder),
        }


def measure_field_map(documents: Path) -> Record:
    """From lines to documents, on one core: megabytes a second."""
    data = documents.read_bytes()
    lines = data.splitlines()[:4_000]
    data = b"\n".join(lines)
    (source_map,) = maps = compile_field_map(load.FIELDS, [], 1)
    paths = {name: parse(path) for name, path in load.FIELDS.items()}
    decode = msgspec.json.Decoder(ByHand).decode

    def ours() -> None:
        reader, splicer = BlockReader(RowReader(source_map)), Splicer(maps)
        for block in split_blocks([data], 1 << 25):
            rows = reader.read(block)
            for piece in splicer.join_columns([rows.columns]):
                b"".join(piece) if isinstance(piece, list) else piece

    def with_msgspec() -> None:
        for line in lines:
            found = decode(line)
            b"".join((b'{"text":', found.text, b',"embedding":', found.embedding, b"}"))

    def with_orjson() -> None:
        for line in lines:
            document = orjson.loads(line)
            orjson.dumps({"text": document["text"], "embedding": document["embedding"]})

    def with_jsonpath() -> None:
        for line in lines[:400]:
            document = json.loads(line)
            json.dumps({name: path.find(document)[0].value for name, path in paths.items()})

    megabytes = len(data) / MICRO
    return compare(
        "MB/s of one core",
        {
            "ours": lambda: megabytes / take_cpu(ours),
            "msgspec by hand, without checks": lambda: megabytes / take_cpu(with_msgspec),
            "orjson by hand": lambda: megabytes / take_cpu(with_orjson),
            "json and jsonpath-ng": lambda: megabytes / 10 / take_cpu(with_jsonpath),
        },
        better="more",
    )


def measure_client_cpu(documents: Path) -> Record:
    """What a document costs the client into a sink that takes all at once."""
    bodies = list(load.bulk_bodies(DOCUMENTS, 5_000_000))
    with load.Sink() as sink:
        work: dict[str, Callable[[], object]] = {
            "ours": lambda: load.carry_out(load.request_for(documents), sink.url),
            "replay of ready bodies (httpx)": lambda: replay(sink.url, bodies),
            "opensearch-py bulk": lambda: load_with_opensearch_py(sink.url, documents, "bulk"),
        }
        return compare(
            "µs of CPU for a document of 4.7 KB",
            {name: _per_document(one) for name, one in work.items()},
            better="less",
        )


def measure_join(documents: Path, folder: Path) -> Record:
    """A join of texts and vectors beside the load of one file with both."""
    vectors: list[bytes] = []
    with documents.open("rb") as file, (folder / "texts").open("wb") as texts:
        for line in file:
            row = msgspec.json.decode(line, type=dict[str, msgspec.Raw])
            texts.write(b'{"id":%b,"text":%b}\n' % (bytes(row["id"]), bytes(row["text"])))
            vectors.append(b'{"custom_id":%b,"embedding":%b}\n' % (bytes(row["id"]), bytes(row["embedding"])))
    load.write(folder / "vectors", iter(vectors))
    random.Random(1).shuffle(vectors)
    load.write(folder / "shuffled", iter(vectors))

    def request(name: str) -> dict[str, Any]:
        found = load.request_for(folder / "texts", folder / name)
        found["field_map"] = {
            "_id": ["source[0].$.id", "source[1].$.custom_id"],
            "text": "source[0].$.text",
            "embedding": "source[1].$.embedding",
        }
        return found

    with load.Sink() as sink:
        work: dict[str, Callable[[], object]] = {
            "ours": lambda: load.carry_out(request("vectors"), sink.url),
            "the same, in another order": lambda: load.carry_out(request("shuffled"), sink.url),
            "polars": lambda: join_with_polars(sink.url, folder / "texts", folder / "vectors"),
            "polars, in another order": lambda: join_with_polars(sink.url, folder / "texts", folder / "shuffled"),
            "pandas": lambda: join_with_pandas(sink.url, folder / "texts", folder / "vectors"),
            "one source": lambda: load.carry_out(load.request_for(documents), sink.url),
        }
        return compare(
            "µs of CPU for a document", {name: _per_document(one) for name, one in work.items()}, better="less"
        )


def _per_document(work: Callable[[], object]) -> Callable[[], float]:
    return lambda: take_cpu(work) / DOCUMENTS * MICRO


def measure_memory(folder: Path) -> Record:
    """The highest memory of a process that loads a file of 1 GB, beside other files and one line of 10 GB."""
    peaks = {}
    path = folder / "memory.jsonl"
    with load.Sink() as sink:
        for name, megabytes, hole in (
            ("1 GB", 1_000, 0),
            ("a file of 100 MB", 100, 0),
            ("a file of 10 GB", 10_000, 0),
            ("100 MB and a line of 10 GB", 100, 10_000),
        ):
            load.write(path, load.lines(megabytes * MEGABYTE // 4_700))
            if hole:
                # Zeros that take no room on the disk, and are read as one line.
                os.truncate(path, path.stat().st_size + hole * MEGABYTE)
            printed = load.in_a_process("once", str(path), sink.url, rejected=int(hole > 0))
            peaks[name] = float(printed.split()[1].replace(",", ""))
            path.unlink()
    return make_record("MiB at most, a file of 1 GB", peaks.pop("1 GB"), peaks, "less")


def measure_resume(folder: Path) -> Record:
    """How much of a load of 1 GB that was killed in the middle is done again, in percent of its time."""
    path = load.write(folder / "resumed.jsonl", load.lines(RESUMED_BYTES // 4_700))
    count = RESUMED_BYTES // 4_700
    checkpoint = folder / "resumed.checkpoint"
    with load.Sink(rate=NODE_RATE) as sink, httpx.Client(base_url=sink.url) as client:
        command = [sys.executable, load.__file__, "once", "--path", str(path), "--url", sink.url]
        command += ["--checkpoint", str(checkpoint)]
        first = subprocess.Popen(command, stdout=subprocess.DEVNULL)
        while client.get("/seen").json() < count // 2:
            time.sleep(0.05)
        first.send_signal(signal.SIGKILL)
        first.wait()
        sent = client.get("/seen").json()
        began = time.perf_counter()
        second = subprocess.Popen(command, stdout=subprocess.DEVNULL)
        while client.get("/seen").json() <= sent:
            time.sleep(0.01)
        reading = time.perf_counter() - began
        if second.wait() != 0:
            raise SystemExit("the load that went on failed")
        again = client.get("/seen").json() - count
    path.unlink()
    share = 100 * (again + reading * NODE_RATE) / count
    return make_record(f"% of its time at {NODE_RATE:,} documents a second", share, {}, "less")


@contextmanager
def node() -> Iterator[str]:
    """Give the address of a node."""
    if url := os.environ.get(NODE):
        yield url.rstrip("/")
        return
    with tempfile.TemporaryDirectory() as folder:
        started = Node(VERSION, home=Path(folder, "node"))
        try:
            with started:
                yield started.url
        finally:
            started.remove()


def measure_load(folder: Path) -> dict[str, Record]:
    """Documents a second into a node, each loader with an index of its own."""
    documents = load.write(folder / "indexed.jsonl", load.lines(INDEXED))
    bodies = list(load.bulk_bodies(INDEXED, 5_000_000))
    records = {}
    with node() as url, httpx.Client(base_url=url, timeout=120) as client:
        for name, is_vector, write in (
            ("load, no k-NN", False, "index"),
            ("load, k-NN", True, "index"),
            ("load, updates", False, "update"),
        ):
            body = load.build_index_body(is_vector=is_vector)

            def measure(work: Callable[[], object], body: dict[str, Any] = body) -> Callable[[], float]:
                def take() -> float:
                    client.delete(f"/{load.INDEX}", params={"ignore_unavailable": "true"})
                    client.put(f"/{load.INDEX}", json=body).raise_for_status()
                    return INDEXED / take_time(work)

                return take

            def ours(write: str = write) -> object:
                return load.carry_out(load.request_for(documents), url, write=write)

            records[name] = compare(
                "documents/s",
                {
                    "ours": measure(ours),
                    "replay of ready bodies": measure(lambda: replay(url, bodies)),
                    "opensearch-py bulk": measure(lambda: load_with_opensearch_py(url, documents, "bulk")),
                    "opensearch-py parallel_bulk": measure(
                        lambda: load_with_opensearch_py(url, documents, "parallel_bulk")
                    ),
                },
                better="more",
            )
        client.delete(f"/{load.INDEX}")
    return records


def measure_unchanged(folder: Path) -> dict[str, Record]:
    """Documents a second of a corpus of which 2 % changed since it was loaded, beside a load that writes all of it."""
    path = folder / "nightly.jsonl"
    records = {}
    with node() as url, httpx.Client(base_url=url, timeout=120) as client:

        def prepare(*, is_vector: bool, skips: bool) -> Callable[[], float]:
            index = f"{load.INDEX}-{'skipping' if skips else 'whole'}"
            client.delete(f"/{index}", params={"ignore_unavailable": "true"})
            client.put(f"/{index}", json=load.build_index_body(is_vector=is_vector)).raise_for_status()
            nights = count()

            def take() -> float:
                load.write(path, change(load.lines(NIGHTLY), next(nights)))
                wanted = {**load.request_for(path), "index_name": index}
                work = partial(load.carry_out, wanted, url, write="index", skip_unchanged=skips)
                return NIGHTLY / take_time(work)

            take()
            return take

        for name, is_vector in (("load, 2 % changed, no k-NN", False), ("load, 2 % changed, k-NN", True)):
            records[name] = compare(
                "documents/s",
                {
                    "ours": prepare(is_vector=is_vector, skips=True),
                    "without skip_unchanged": prepare(is_vector=is_vector, skips=False),
                },
                better="more",
            )
        client.delete(f"/{load.INDEX}-*")
    return records


def change(lines: Iterator[bytes], night: int) -> Iterator[bytes]:
    """Yield documents of which one in :data:`CHANGED` has another text than the night before."""
    for number, line in enumerate(lines):
        # Those of the night before have their own text again, and are half of the change.
        is_changed = number % (2 * CHANGED) == night % (2 * CHANGED)
        yield line.replace(b"a text", b"text %d" % night, 1) if is_changed else line


def replay(url: str, bodies: list[bytes]) -> None:
    """Send bodies that are ready: nothing can be faster than this."""
    headers = {"Content-Type": "application/x-ndjson"}
    path = f"/{load.INDEX}/_bulk?filter_path=errors"
    with httpx.Client(base_url=url, timeout=120) as client, ThreadPoolExecutor(2) as pool:
        for answer in pool.map(lambda content: client.post(path, content=content, headers=headers), bodies):
            if answer.raise_for_status().json()["errors"]:
                raise SystemExit("the node refuses documents")


def load_with_opensearch_py(url: str, documents: Path, method: str) -> None:
    """Load a file as OpenSearch's own client has it in its guide."""
    client = OpenSearch(url, timeout=120)
    with documents.open("rb") as file:
        actions = (
            {"_index": load.INDEX, "_id": document.pop("id"), "_source": document} for document in map(json.loads, file)
        )
        if method == "bulk":
            helpers.bulk(client, actions, chunk_size=1_000)
        else:
            for _ in helpers.parallel_bulk(client, actions, thread_count=2, chunk_size=1_000):
                pass


def join_with_polars(url: str, texts: Path, vectors: Path) -> None:
    """Join two files in memory and send what comes of it, a thousand documents at once."""
    joined = polars.read_ndjson(texts).join(
        polars.read_ndjson(vectors), left_on="id", right_on="custom_id", how="left", maintain_order="left"
    )
    lines = joined.select(
        polars.concat_str(
            polars.lit('{"index":{"_id":"'),
            "id",
            polars.lit('"}}\n'),
            polars.struct("text", "embedding").struct.json_encode(),
            polars.lit("\n"),
        )
    ).to_series()
    replay(url, ["".join(lines[start : start + 1_000]).encode() for start in range(0, len(lines), 1_000)])


def join_with_pandas(url: str, texts: Path, vectors: Path) -> None:
    """Join two files in memory and send what comes of it, a thousand documents at once; it rounds to ten decimals."""
    joined = pandas.read_json(texts, lines=True).merge(
        pandas.read_json(vectors, lines=True), left_on="id", right_on="custom_id", how="left"
    )
    documents = joined[["text", "embedding"]].to_json(orient="records", lines=True).splitlines()
    lines = [f'{{"index":{{"_id":"{key}"}}}}\n{line}\n' for key, line in zip(joined["id"], documents, strict=True)]
    replay(url, ["".join(lines[start : start + 1_000]).encode() for start in range(0, len(lines), 1_000)])
