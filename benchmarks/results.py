"""
A batch's input joined with its results on one core, beside the same join written by hand.

    python benchmarks/results.py                  # 20,000 vectors of 384 dimensions
    python benchmarks/results.py --json

Each line of the output is read, the input line it belongs to is found by its id, and what has a usable result is
written. By hand nothing is checked: no count of the service's, no answer that is empty or sent twice, no retry file;
and of what failed only the ids are written. pyarrow reads both files into tables and joins these. Processor time
counts, and the bytes of the output.
"""

from __future__ import annotations

import json
import random
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import msgspec
import orjson
import pyarrow.json

from overnight.jobs import JobRef, ResultFile, ResultManifest
from overnight.services.openai.results import join_results
from records import OURS, Record, alternate, make_parser, make_speed_record, print_record

REQUESTS = 20_000
DIMENSIONS = 384
FAILED = 100
"""One request of so many failed."""
RUNS = 5


class _Response(msgspec.Struct):
    status_code: int
    body: msgspec.Raw


class _Result(msgspec.Struct):
    custom_id: str
    response: _Response


class _Request(msgspec.Struct):
    custom_id: str


def write_files(folder: Path, requests: int) -> int:
    """Write an input and its output, in another order; return the bytes of the output."""
    chance = random.Random(1)
    order = list(range(requests))
    with (folder / "input.jsonl").open("wb") as file:
        for number in order:
            body = {"model": "m", "input": f"Some text of a document, number {number}. " * 10}
            request = {"custom_id": f"doc-{number:08d}", "method": "POST", "url": "/v1/embeddings", "body": body}
            file.write(orjson.dumps(request) + b"\n")
    chance.shuffle(order)
    vectors = [[chance.uniform(-1, 1) for _ in range(DIMENSIONS)] for _ in range(100)]
    with (folder / "output.jsonl").open("wb") as file:
        for number in order:
            failed: dict[str, Any] = {"error": {"code": "invalid", "message": "no"}}
            good: dict[str, Any] = {"object": "list", "data": [{"index": 0, "embedding": vectors[number % 100]}]}
            response = (400, failed) if number % FAILED == 0 else (200, good)
            result = {"status_code": response[0], "request_id": f"r-{number}", "body": response[1]}
            line = {"id": f"b-{number}", "custom_id": f"doc-{number:08d}", "response": result, "error": None}
            file.write(orjson.dumps(line) + b"\n")
    return (folder / "output.jsonl").stat().st_size


def join_here(folder: Path) -> None:
    """Join with this package."""
    manifest = ResultManifest(
        ref=JobRef(service="openai", id="b", conn_id="c"),
        files=(
            ResultFile(kind="input", uri=f"{folder}/input.jsonl"),
            ResultFile(kind="output", uri=f"{folder}/output.jsonl"),
        ),
    )
    join_results(
        manifest,
        _read_chunks,
        outcomes_uri=f"{folder}/outcomes.jsonl",
        retry_uri=f"{folder}/retry.jsonl",
        succeeded_uri=f"{folder}/succeeded.jsonl",
    )


def _read_chunks(uri: str) -> Iterator[bytes]:
    with Path(uri).open("rb") as file:
        while chunk := file.read(1 << 20):
            yield chunk


def join_by_loop(folder: Path, load: Callable[[bytes], Any], dump: Callable[[Any], bytes]) -> None:
    """Join with dictionaries."""
    with (folder / "input.jsonl").open("rb") as file:
        waiting = {load(line)["custom_id"] for line in file}
    with (folder / "output.jsonl").open("rb") as file, (folder / "good.jsonl").open("wb") as good:
        for line in file:
            result = load(line)
            if result["response"]["status_code"] == 200 and result["custom_id"] in waiting:
                good.write(dump(result) + b"\n")
                waiting.discard(result["custom_id"])
    (folder / "bad.txt").write_text("\n".join(waiting))


def join_by_msgspec(folder: Path) -> None:
    """Join with types of msgspec, which leave the body as it is."""
    read_request, read_result = msgspec.json.Decoder(_Request).decode, msgspec.json.Decoder(_Result).decode
    with (folder / "input.jsonl").open("rb") as file:
        waiting = {read_request(line).custom_id for line in file}
    with (folder / "output.jsonl").open("rb") as file, (folder / "good.jsonl").open("wb") as good:
        for line in file:
            result = read_result(line)
            if result.response.status_code == 200 and result.custom_id in waiting:
                good.write(line)
                waiting.discard(result.custom_id)
    (folder / "bad.txt").write_text("\n".join(waiting))


def join_by_pyarrow(folder: Path) -> None:
    """Join with tables."""
    options = pyarrow.json.ReadOptions(block_size=8 << 20, use_threads=False)
    requests, results = (
        pyarrow.json.read_json(f"{folder}/{name}.jsonl", read_options=options).flatten() for name in ("input", "output")
    )
    columns = ["custom_id", "response.status_code", "response.body"]
    results = results.flatten() if "response.status_code" not in results.column_names else results
    ours = results.select(columns[:2]).append_column("row", pyarrow.array(range(len(results)), pyarrow.int64()))
    joined = requests.select(["custom_id"]).join(ours, "custom_id", use_threads=False)
    good = joined.filter(pyarrow.compute.equal(joined.column("response.status_code"), 200))
    with pyarrow.OSFile(f"{folder}/good.arrow", "wb") as file:
        table = results.take(good.column("row"))
        with pyarrow.ipc.new_file(file, table.schema) as writer:
            writer.write_table(table)


def run(requests: int = REQUESTS, runs: int = RUNS) -> Record:
    """Return the record."""
    with tempfile.TemporaryDirectory(prefix="overnight-benchmark-") as name:
        folder = Path(name)
        total = write_files(folder, requests)
        kinds: dict[str, Callable[[], object]] = {
            OURS: lambda: join_here(folder),
            "json": lambda: join_by_loop(folder, json.loads, lambda value: json.dumps(value).encode()),
            "orjson": lambda: join_by_loop(folder, orjson.loads, orjson.dumps),
            "msgspec": lambda: join_by_msgspec(folder),
            "pyarrow": lambda: join_by_pyarrow(folder),
        }
        unit = f"MB/s per core, result lines of {total // requests:,} bytes"
        return make_speed_record(alternate(kinds, runs), total / 1e6, unit)


def main() -> None:
    """Measure, and print the record."""
    parser = make_parser(__doc__)
    parser.add_argument("--requests", type=int, default=REQUESTS)
    given = parser.parse_args()
    print_record(run(given.requests, given.runs), as_json=given.json)


if __name__ == "__main__":
    main()
