"""
What the result cache saves in `prepare`: a million short documents of which 99 % have an answer in it.

    python benchmarks/cache.py                         # 1,000,000 documents, three times off and on in turn
    python benchmarks/cache.py --documents 100000 --runs 1 --json

Each run is a process of its own, which reports its processor time and its highest memory above what it had when it
began; what is compared are the medians. Everything lies in a folder for temporary files, which is removed. Beside the
cache are `prepare` without one, and reading the same lines and taking the digest of each: what every look-up by lines
needs at least. With the model's vocabulary in `TIKTOKEN_CACHE_DIR`, or a network that it comes from, both are measured
again with tokens that are counted, as an installation with the extra `tokens` does.
"""

from __future__ import annotations

import json
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import orjson

from overnight.cache import open_cache
from overnight.cache.digests import compute_digests
from overnight.services.openai.cached_answers import CachedService
from overnight.services.openai.input import BuiltInput, RequestTemplate, build, read_documents
from overnight.services.openai.reuse import build_reusing
from overnight.services.openai.tokens import ESTIMATE, TokenCounter, find_counter
from overnight.storage import Storage
from records import OURS, Record, make_parser, make_speed_record, peak_kib, print_record

MODEL = "text-embedding-3-small"
TEMPLATE = RequestTemplate.embeddings(MODEL)
ESTIMATED, COUNTED = "", ", tokens counted"
BASE_URL = "https://api.openai.com/v1"
CHANGED = 100
"""One document of so many has no answer."""
FILL = 100_000
DOCUMENTS = 1_000_000
RUNS = 3


def make_document(number: int, edition: int) -> dict[str, str]:
    """Return a document; every hundredth is another one in another edition."""
    mark = edition if number % CHANGED == 0 else 0
    text = f"The quick brown fox {number} jumps over the lazy dog and runs {number * 7} yards, {mark} times."
    return {"id": f"doc-{number:08d}", "title": f"Title {number}", "text": text}


def write_documents(path: Path, documents: int, edition: int) -> None:
    """Write an edition of the corpus."""
    with path.open("wb") as file:
        for number in range(documents):
            file.write(orjson.dumps(make_document(number, edition)) + b"\n")


def open_service(folder: Path) -> CachedService:
    """Return the cache of a benchmark."""
    return CachedService(open_cache(f"{folder}/cache", Storage()), BASE_URL)


def prepare(folder: Path, edition: int, *, is_cached: bool, counter: TokenCounter = ESTIMATE) -> BuiltInput:
    """Build the batch input of an edition."""
    documents, target = read_documents([f"{folder}/{edition}.jsonl"]), f"{folder}/out"
    if is_cached:
        service = open_service(folder)
        return build_reusing(documents, TEMPLATE, target, service=service, mode="write", counter=counter)
    return build(documents, TEMPLATE, target, counter=counter)


def fill(folder: Path, documents: int) -> None:
    """Let the cache know the first edition, as a night with all of it would: its lines, and an answer to each."""
    prepare(folder, 0, is_cached=True)
    service = open_service(folder)
    for start in range(0, documents, FILL):
        with service.cache.open_writer() as writer:
            for number in range(start, min(start + FILL, documents)):
                body = TEMPLATE.render(make_document(number, 0))[1]["body"]
                answer = {"status_code": 200, "body": {"data": [{"embedding": [number / 7, 0.25]}]}}
                writer.add(service.compute_key(TEMPLATE.endpoint, body), orjson.dumps(answer))


def measure(folder: Path, kind: str) -> None:
    """Print one run's numbers."""
    # What is loaded when it is first used belongs to what is idle.
    open_service(folder).cache.find([bytes(16)])
    counter = find_counter(MODEL) if kind.endswith(COUNTED) else ESTIMATE
    if counter is not ESTIMATE:
        counter.count({"input": "x"})
    idle = peak_kib()
    start, clock = time.process_time(), time.perf_counter()
    reused = requests = 0
    if kind == "digests":
        for block in read_documents([f"{folder}/1.jsonl"]).read_blocks():
            compute_digests(block.lines)
    else:
        built = prepare(folder, 1, is_cached=kind.startswith(OURS), counter=counter)
        reused, requests = sum(part.documents for part in built.reused), built.requests
    seconds, wall = time.process_time() - start, time.perf_counter() - clock
    peak = peak_kib()
    numbers = {"seconds": seconds, "wall": wall, "mb": (peak - idle) / 1024, "requests": requests, "reused": reused}
    print(json.dumps(numbers))


def start(folder: Path, kind: str, *arguments: str) -> dict[str, float]:
    """Run a part of this file in a process of its own; return what it printed last."""
    command = [sys.executable, __file__, "--folder", str(folder), "--only", kind, *arguments]
    printed = subprocess.run(command, check=True, capture_output=True, text=True).stdout
    found: dict[str, float] = json.loads(printed) if printed else {}
    return found


def run(documents: int = DOCUMENTS, runs: int = RUNS) -> Record:
    """Return the record."""
    with tempfile.TemporaryDirectory(prefix="overnight-benchmark-") as name:
        folder = Path(name)
        for edition in (0, 1):
            write_documents(folder / f"{edition}.jsonl", documents, edition)
        start(folder, "fill", "--documents", str(documents))
        kinds = ["off", OURS, "digests"]
        if find_counter(MODEL) is not ESTIMATE:
            kinds += ["off" + COUNTED, OURS + COUNTED]
        found: dict[str, list[dict[str, float]]] = {kind: [] for kind in kinds}
        for _ in range(runs):
            for kind, numbers in found.items():
                numbers.append(start(folder, kind))
    seconds = {kind: get_median(numbers, "seconds") for kind, numbers in found.items()}
    record = make_speed_record(
        {kind: seconds[kind] for kind in (OURS, "off", "digests")},
        documents,
        f"documents/s per core, of {documents:,}, {CHANGED - 1} of {CHANGED} cached",
    )
    record["details"] = {
        "MB above idle": {kind: round(get_median(numbers, "mb")) for kind, numbers in found.items()},
        "processor seconds": {kind: round(one, 2) for kind, one in seconds.items()},
        "off to ours": {
            how: round(seconds["off" + how] / seconds[OURS + how], 2)
            for how in (ESTIMATED, COUNTED)
            if OURS + how in seconds
        },
    }
    return record


def get_median(numbers: list[dict[str, float]], name: str) -> float:
    """Return the median of one number of all runs."""
    return statistics.median(one[name] for one in numbers)


def main() -> None:
    """Measure, and print the record."""
    parser = make_parser(__doc__)
    parser.set_defaults(runs=RUNS)
    parser.add_argument("--documents", type=int, default=DOCUMENTS)
    parser.add_argument("--folder", type=Path, help="of a run that this file starts")
    parser.add_argument(
        "--only", choices=("fill", "off", OURS, "digests", "off" + COUNTED, OURS + COUNTED), help="the same"
    )
    given = parser.parse_args()
    if given.only == "fill":
        fill(given.folder, given.documents)
    elif given.only is not None:
        measure(given.folder, given.only)
    else:
        print_record(run(given.documents, given.runs), as_json=given.json)


if __name__ == "__main__":
    main()
