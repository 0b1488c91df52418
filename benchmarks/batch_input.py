"""
Documents to batch input on one core, beside the same lines written by hand.

    python benchmarks/batch_input.py                  # documents of about 1 KB
    python benchmarks/batch_input.py --size 5000 --json

What is by hand checks nothing: no ids that occur twice, no limits, no digest, no estimate of tokens, and no copy of the
documents for the load. Processor time counts, and the bytes of the documents.
"""

from __future__ import annotations

import json
import random
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import msgspec
import orjson

from overnight.services.openai.input import RequestTemplate, build, read_documents
from records import OURS, Record, alternate, make_parser, make_speed_record, print_record

MODEL = "text-embedding-3-small"
TEMPLATE = RequestTemplate.embeddings(MODEL)
URL = "/v1/embeddings"
CORPUS_BYTES = 40_000_000
SIZE = 1_000
RUNS = 5


class _Document(msgspec.Struct):
    id: str
    text: str


class _Body(msgspec.Struct):
    model: str
    input: str
    encoding_format: str


class _Request(msgspec.Struct):
    custom_id: str
    method: str
    url: str
    body: _Body


def write_documents(path: Path, size: int) -> int:
    """Write documents of about a size each; return the bytes of all."""
    chance = random.Random(1)
    words = [f"w{number}ord" for number in range(500)]
    with path.open("wb") as file:
        for number in range(CORPUS_BYTES // size):
            text = " ".join(chance.choices(words, k=max(1, size // 7)))
            file.write(orjson.dumps({"id": f"doc-{number:08d}", "title": f"Title {number}", "text": text}) + b"\n")
    return path.stat().st_size


def make_request(document: dict[str, Any]) -> dict[str, Any]:
    """Return the request of a document."""
    body = {"model": MODEL, "input": document["text"], "encoding_format": "float"}
    return {"custom_id": document["id"], "method": "POST", "url": URL, "body": body}


def convert(source: Path, target: Path, make_line: Callable[[bytes], bytes]) -> None:
    """Write a request for each line."""
    with source.open("rb") as documents, target.open("wb") as requests:
        for line in documents:
            requests.write(make_line(line))


def by_json(line: bytes) -> bytes:
    """Convert a line with Python's own parser."""
    return json.dumps(make_request(json.loads(line))).encode() + b"\n"


def by_orjson(line: bytes) -> bytes:
    """Convert a line with orjson."""
    return orjson.dumps(make_request(orjson.loads(line)), option=orjson.OPT_APPEND_NEWLINE)


_decode = msgspec.json.Decoder(_Document).decode
_encode = msgspec.json.Encoder().encode


def by_msgspec(line: bytes) -> bytes:
    """Convert a line with types of msgspec."""
    document = _decode(line)
    return _encode(_Request(document.id, "POST", URL, _Body(MODEL, document.text, "float"))) + b"\n"


def run(size: int = SIZE, runs: int = RUNS) -> Record:
    """Return the record."""
    with tempfile.TemporaryDirectory(prefix="overnight-benchmark-") as name:
        source, target = Path(name) / "documents.jsonl", Path(name) / "requests.jsonl"
        total = write_documents(source, size)
        kinds: dict[str, Callable[[], object]] = {
            OURS: lambda: build(read_documents([str(source)]), TEMPLATE, f"{name}/out"),
            "json": lambda: convert(source, target, by_json),
            "orjson": lambda: convert(source, target, by_orjson),
            "msgspec": lambda: convert(source, target, by_msgspec),
        }
        unit = f"MB/s per core, documents of {total * size // CORPUS_BYTES:,} bytes"
        return make_speed_record(alternate(kinds, runs), total / 1e6, unit)


def main() -> None:
    """Measure, and print the record."""
    parser = make_parser(__doc__)
    parser.add_argument("--size", type=int, default=SIZE, help="bytes of a document's text, about")
    given = parser.parse_args()
    print_record(run(given.size, given.runs), as_json=given.json)


if __name__ == "__main__":
    main()
