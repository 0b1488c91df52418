"""
What the result cache saves in `prepare`: a million short documents of which 99 % have an answer in it.

    python benchmarks/cache.py                         # 1,000,000 documents, three times off and on in turn
    python benchmarks/cache.py --documents 100000 --runs 1

Each run is a process of its own, which reports its time and its highest memory above what it had when it began; what
is compared are the medians. Everything lies in a folder for temporary files, which is removed.
"""

from __future__ import annotations

import argparse
import json
import resource
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import orjson

from overnight.cache import open_cache
from overnight.services.openai.cached_answers import CachedService
from overnight.services.openai.input import BuiltInput, RequestTemplate, build, read_documents
from overnight.services.openai.reuse import build_reusing
from overnight.storage import Storage

TEMPLATE = RequestTemplate.embeddings("text-embedding-3-small")
BASE_URL = "https://api.openai.com/v1"
CHANGED = 100
"""One document of so many has no answer."""
FILL = 100_000


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


def prepare(folder: Path, edition: int, *, is_cached: bool) -> BuiltInput:
    """Build the batch input of an edition."""
    documents, target = read_documents([f"{folder}/{edition}.jsonl"]), f"{folder}/out"
    if is_cached:
        return build_reusing(documents, TEMPLATE, target, service=open_service(folder), mode="write")
    return build(documents, TEMPLATE, target)


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


def measure(folder: Path, *, is_cached: bool) -> None:
    """Print one run's numbers."""
    # What is loaded when it is first used belongs to what is idle.
    open_service(folder).cache.find([bytes(16)])
    idle = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    start = time.perf_counter()
    built = prepare(folder, 1, is_cached=is_cached)
    seconds = time.perf_counter() - start
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    reused = sum(part.documents for part in built.reused)
    print(json.dumps({"seconds": seconds, "mb": (peak - idle) / 1024, "requests": built.requests, "reused": reused}))


def run(folder: Path, kind: str, *arguments: str) -> dict[str, float]:
    """Run a part of this file in a process of its own; return what it printed last."""
    command = [sys.executable, __file__, "--folder", str(folder), "--only", kind, *arguments]
    printed = subprocess.run(command, check=True, capture_output=True, text=True).stdout
    found: dict[str, float] = json.loads(printed) if printed else {}
    return found


def main() -> None:
    """Measure, and print the medians."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--documents", type=int, default=1_000_000)
    parser.add_argument("--runs", type=int, default=3)
    parser.add_argument("--folder", type=Path, help=argparse.SUPPRESS)
    parser.add_argument("--only", choices=("fill", "off", "on"), help=argparse.SUPPRESS)
    given = parser.parse_args()
    if given.only == "fill":
        fill(given.folder, given.documents)
        return
    if given.only is not None:
        measure(given.folder, is_cached=given.only == "on")
        return
    with tempfile.TemporaryDirectory(prefix="overnight-benchmark-") as name:
        folder = Path(name)
        for edition in (0, 1):
            write_documents(folder / f"{edition}.jsonl", given.documents, edition)
        run(folder, "fill", "--documents", str(given.documents))
        size = sum(path.stat().st_size for path in (folder / "cache").rglob("*.parquet"))
        print(f"{given.documents:,} documents; the cache has {size / 1e6:,.0f} MB")
        found: dict[str, list[dict[str, float]]] = {"off": [], "on": []}
        for _ in range(given.runs):
            for kind, numbers in found.items():
                numbers.append(run(folder, kind))
                print(kind, numbers[-1])
        for kind, numbers in found.items():
            seconds, mb = (statistics.median(one[name] for one in numbers) for name in ("seconds", "mb"))
            print(f"{kind}: {seconds:.1f} s, {mb:.0f} MB above idle")
        medians = [statistics.median(one["seconds"] for one in numbers) for numbers in found.values()]
        print(f"{medians[0] / medians[1]:.1f} times as fast")


if __name__ == "__main__":
    main()
