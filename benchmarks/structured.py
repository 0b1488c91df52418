"""
How fast answers are read out of strings, what validating them costs, and that memory does not grow with their number.

.. code-block:: shell

    python benchmarks/structured.py decode           # MB/s of one core's time, without a server
    python benchmarks/structured.py memory           # peak memory of loads of 1,000 to 200,000 answers, into a sink
    python benchmarks/structured.py --json           # both, as one record: ours, peers, ratio
"""

from __future__ import annotations

import argparse
import json
import random
import re
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import orjson

from load import INDEX, Sink
from overnight.ingest import LoadOptions, OpenSearchTarget, load
from overnight.ingest.map.text_decoder import TextDecoder
from overnight.jsonpath import JsonPath
from overnight.output_schema import OutputSchema
from overnight.sandbox.demo.docstring import Docstring
from records import Record, make_record, peak_kib, print_record

ANSWER = "$.response.body.choices[0].message.content"
FIELDS = list(Docstring.model_fields)
TOPICS = ["file", "text", "time"]
COUNTS = (1_000, 20_000, 200_000)
WORDS = re.findall(r"\w+", str(__doc__))


def answers(count: int) -> Iterator[bytes]:
    """Yield result lines as the Batch API writes them, with answers of the demo's schema."""
    dice = random.Random(1)

    def say(words: int) -> str:
        return " ".join(dice.choices(WORDS, k=words))

    bodies = []
    for _ in range(500):
        names = [{"name": say(1), "role": "parameter"} for _ in range(dice.randrange(4))]
        answer = Docstring(
            topic=dice.choice(TOPICS),
            summary=f'{say(25)}, "{say(5)}"',
            keywords=[say(1) for _ in range(5)],
            names=names,
            returns=say(8),
        )
        message: dict[str, Any] = {
            "role": "assistant",
            "content": answer.model_dump_json(),
            "refusal": None,
            "annotations": [],
        }
        details = {"cached_tokens": 0, "audio_tokens": 0}
        usage = {"prompt_tokens": 640, "completion_tokens": 120, "total_tokens": 760, "prompt_tokens_details": details}
        choice = {"index": 0, "message": message, "logprobs": None, "finish_reason": "stop"}
        body = {"id": "chatcmpl-1", "object": "chat.completion", "created": 1_760_000_000, "model": "gpt-4.1-mini-2025"}
        bodies.append(orjson.dumps({**body, "choices": [choice], "usage": usage, "system_fingerprint": "fp_1"}))
    for number in range(count):
        yield (
            b'{"id":"batch_req_%08d","custom_id":"doc-%08d","response":{"status_code":200,"request_id":"r","body":%b},'
            b'"error":null}\n' % (number, number, bodies[number * 7 % 500])
        )


def measure(sample: list[bytes], work: Callable[[bytes], object], *, rounds: int = 3) -> float:
    """Return MB/s of one core: the best of some runs, by the processor's own time."""
    best = float("inf")
    for _ in range(rounds):
        start = time.process_time()
        for line in sample:
            work(line)
        best = min(best, time.process_time() - start)
    return sum(map(len, sample)) / 1e6 / best


def decode(count: int = 5_000) -> dict[str, float]:
    """Return MB/s of each way from a result line to the fields of its answer."""
    sample = [line.rstrip() for line in answers(count)]
    paths = [JsonPath.parse("$.custom_id"), *(JsonPath.parse(f"{ANSWER}.json().{name}") for name in FIELDS)]
    schema = OutputSchema.parse(Docstring.model_json_schema())
    pydantic_type = OutputSchema.parse(Docstring)

    def by_library(loads: Callable[[Any], Any], dumps: Callable[[Any], object]) -> Callable[[bytes], object]:
        def work(line: bytes) -> object:
            content = loads(line)["response"]["body"]["choices"][0]["message"]["content"]
            answer = loads(content)
            return dumps({name: answer[name] for name in FIELDS})

        return work

    def by_model(line: bytes) -> object:
        content = json.loads(line)["response"]["body"]["choices"][0]["message"]["content"]
        return Docstring.model_validate_json(content).model_dump_json()

    return {
        "overnight": measure(sample, TextDecoder(paths).decode),
        "overnight, validated by a pydantic model": measure(sample, TextDecoder(paths, pydantic_type.check).decode),
        "overnight, validated by a JSON Schema": measure(
            sample[:500], TextDecoder(paths, schema.check).decode, rounds=2
        ),
        "json": measure(sample, by_library(json.loads, json.dumps)),
        "orjson": measure(sample, by_library(orjson.loads, orjson.dumps)),
        "json and a pydantic model": measure(sample, by_model),
    }


def memory() -> dict[int, dict[str, float]]:
    """Return the peak memory in MiB of loads of growing numbers of answers, each in a process of its own."""
    peaks: dict[int, dict[str, float]] = {}
    with Sink() as sink, tempfile.TemporaryDirectory() as folder:
        for count in COUNTS:
            path = Path(folder, "results.jsonl")
            with path.open("wb") as file:
                file.writelines(answers(count))
            peaks[count] = {}
            for name, validates in (("plain", ""), ("validated", "--validate")):
                command = [sys.executable, __file__, "once", "--path", str(path), "--url", sink.url]
                done = subprocess.run(
                    [*command, *filter(None, [validates])], check=True, capture_output=True, text=True
                )
                peaks[count][name] = float(done.stdout)
    return peaks


def once(path: str, url: str, *, validates: bool) -> None:
    """Carry out one load and print its peak memory in MiB."""
    fields = {name: f"{ANSWER}.json().{name}" for name in FIELDS}
    request = {"index_name": INDEX, "field_map": {"_id": "$.custom_id", **fields}, "data_source": {"source": [path]}}
    given = "overnight.sandbox.demo.docstring.Docstring" if validates else None
    # The sink has nothing to be verified.
    options = LoadOptions(format="openai", output_schema=given, write="index", refresh=False, verify=False)
    with OpenSearchTarget(url) as target:
        report = load(request, target=target, options=options)
    if report.indexed != report.submitted:
        raise SystemExit(f"not everything was indexed: {report}")
    print(peak_kib() / 1024)


def run() -> Record:
    """Return the record of both measurements."""
    speeds, peaks = decode(), memory()
    peers = {name: speed for name, speed in speeds.items() if not name.startswith("overnight")}
    record = make_record("MB/s of one core", speeds["overnight"], peers, "more")
    validated = {name.partition(", ")[2]: round(speed, 1) for name, speed in speeds.items() if ", validated" in name}
    peak = {f"{count:,}": {name: round(mib, 1) for name, mib in row.items()} for count, row in peaks.items()}
    record["details"] = {**validated, "peak MiB by answers": peak}
    return record


def main() -> None:
    """Run what is asked for."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("what", nargs="?", default="all", choices=["all", "decode", "memory", "once"])
    parser.add_argument("--json", action="store_true", help="Print one record.")
    parser.add_argument("--url", default="")
    parser.add_argument("--path", default="")
    parser.add_argument("--validate", action="store_true")
    arguments = parser.parse_args()
    if arguments.what == "once":
        once(arguments.path, arguments.url, validates=arguments.validate)
        return
    if arguments.json:
        print_record(run(), as_json=True)
        return
    if arguments.what in ("all", "decode"):
        for name, speed in decode().items():
            print(f"{name:<44} {speed:>8,.0f} MB/s")
    if arguments.what in ("all", "memory"):
        for count, row in memory().items():
            print(f"{count:>8,} answers: " + ", ".join(f"{name} {mib:,.0f} MiB" for name, mib in row.items()))


if __name__ == "__main__":
    main()
