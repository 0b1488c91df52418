"""What all benchmarks share: runs in turn, and the record of what came out."""

from __future__ import annotations

import argparse
import json
import os
import platform
import statistics
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

OURS = "ours"


def describe_machine() -> dict[str, Any]:
    """Return what a figure depends on beside the code."""
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        lines = []
    names = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return {
        "processor": names[0] if names else platform.processor(),
        "cores": os.cpu_count(),
        "load": round(os.getloadavg()[0], 1),
        "python": platform.python_version(),
    }


def alternate(kinds: Mapping[str, Callable[[], object]], runs: int) -> dict[str, float]:
    """Run each kind in turn, once to warm up, and return the medians of the seconds of processor time."""
    taken: dict[str, list[float]] = {name: [] for name in kinds}
    for number in range(runs + 1):
        for name, kind in kinds.items():
            start = time.process_time()
            kind()
            if number:
                taken[name].append(time.process_time() - start)
    return {name: statistics.median(seconds) for name, seconds in taken.items()}


def make_record(seconds: Mapping[str, float], amount: float, unit: str) -> dict[str, Any]:
    """
    Return the record of a benchmark.

    :param seconds: Of each kind, one of which is :data:`OURS`.
    :param amount: What each kind did in that time.
    :param unit: Of the amount in a second.
    """
    speeds = {name: amount / one for name, one in seconds.items()}
    ours = speeds.pop(OURS)
    return {
        "ours": round(ours, 1),
        "peers": {name: round(speed, 1) for name, speed in speeds.items()},
        "ratio": {name: round(ours / speed, 2) for name, speed in speeds.items()},
        "unit": unit,
        "machine": describe_machine(),
    }


def make_parser(description: str | None) -> argparse.ArgumentParser:
    """Return a parser with what every benchmark takes."""
    parser = argparse.ArgumentParser(description=description, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--runs", type=int, default=5, help="of each kind, in turn; the medians count")
    parser.add_argument("--json", action="store_true", help="print the record as one line of JSON")
    return parser


def print_record(record: Mapping[str, Any], *, as_json: bool) -> None:
    """Print a record."""
    if as_json:
        print(json.dumps(record))
        return
    print(f"ours: {record['ours']:,} {record['unit']}")
    for name, value in record["peers"].items():
        print(f"{name}: {value:,}; ours is {record['ratio'][name]:,} times that")
