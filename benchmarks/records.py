"""What a benchmark comes to, in one form: ours beside what a user would otherwise run, taken in turns."""

from __future__ import annotations

import argparse
import json
import os
import platform
import statistics
import time
from collections.abc import Callable, Mapping
from functools import cache
from pathlib import Path
from typing import Final, Literal, NotRequired, TypedDict

OURS: Final = "ours"


class Record(TypedDict):
    """
    One line of the table.

    :ivar ours: The median of what ours takes or gives.
    :ivar peers: The same of each peer.
    :ivar ratio: By peer, how many times ours is as good; above 1 ours is better.
    :ivar details: Further numbers of the same runs.
    """

    ours: float
    peers: dict[str, float]
    ratio: dict[str, float]
    unit: str
    machine: str
    details: NotRequired[dict[str, object]]


Better = Literal["less", "more"]


@cache
def describe_machine() -> str:
    """Return processors, memory, Python, and how busy the machine is now."""
    memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 2**30
    load = os.getloadavg()[0]
    return (
        f"{os.cpu_count()} cores, {memory:.0f} GiB, {platform.system()} {platform.machine()}, "
        f"Python {platform.python_version()}, load average {load:.1f} at the start"
    )


def make_record(unit: str, ours: float, peers: Mapping[str, float], better: Better) -> Record:
    """Return a record of numbers that were measured."""
    ratio = {name: (ours / value if better == "more" else value / ours) for name, value in peers.items()}
    return {
        "ours": round(ours, 2),
        "peers": {name: round(value, 2) for name, value in peers.items()},
        "ratio": {name: round(value, 2) for name, value in ratio.items()},
        "unit": unit,
        "machine": describe_machine(),
    }


def compare(
    unit: str,
    measure: Mapping[str, Callable[[], float]],
    *,
    better: Better,
    rounds: int = 3,
) -> Record:
    """
    Measure in turns, for the machine is not always the same, and return the medians.

    :param measure: What returns one number; the first is ours.
    """
    found: dict[str, list[float]] = {name: [] for name in measure}
    for _ in range(rounds):
        for name, take in measure.items():
            found[name].append(take())
    medians = {name: statistics.median(values) for name, values in found.items()}
    ours = medians.pop(next(iter(measure)))
    return make_record(unit, ours, medians, better)


def alternate(kinds: Mapping[str, Callable[[], object]], runs: int) -> dict[str, float]:
    """Run each kind in turn, once to warm up, and return the medians of the seconds of processor time."""
    taken: dict[str, list[float]] = {name: [] for name in kinds}
    for number in range(runs + 1):
        for name, kind in kinds.items():
            seconds = take_cpu(kind)
            if number:
                taken[name].append(seconds)
    return {name: statistics.median(seconds) for name, seconds in taken.items()}


def make_speed_record(seconds: Mapping[str, float], amount: float, unit: str) -> Record:
    """
    Return the record of speeds.

    :param seconds: Of each kind, one of which is :data:`OURS`.
    :param amount: What each kind did in that time.
    :param unit: Of the amount in a second.
    """
    speeds = {name: amount / one for name, one in seconds.items()}
    return make_record(unit, speeds.pop(OURS), speeds, "more")


def take_cpu(work: Callable[[], object]) -> float:
    """Return the seconds of processor time that this process spends on a piece of work, in all of its threads."""
    start = time.process_time()
    work()
    return time.process_time() - start


def take_time(work: Callable[[], object]) -> float:
    """Return the seconds that a piece of work takes."""
    start = time.perf_counter()
    work()
    return time.perf_counter() - start


def peak_kib() -> int:
    """
    Return the most memory that this program had.

    ``ru_maxrss`` would not do: a process inherits it, and so that of the program that made the files and started it.
    """
    status = Path("/proc/self/status").read_text()
    return int(status.partition("VmHWM:")[2].split()[0])


def make_parser(description: str | None) -> argparse.ArgumentParser:
    """Return a parser with what a benchmark takes that is run by itself."""
    parser = argparse.ArgumentParser(description=description, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--runs", type=int, default=5, help="of each kind, in turn; the medians count")
    parser.add_argument("--json", action="store_true", help="print the record as one line of JSON")
    return parser


def print_record(record: Record, *, as_json: bool) -> None:
    """Print a record."""
    if as_json:
        print(json.dumps(record))
        return
    print(f"ours: {record['ours']:,} {record['unit']}")
    for name, value in record["peers"].items():
        print(f"{name}: {value:,}; ours is {record['ratio'][name]:,} times as good")
    for name, detail in record.get("details", {}).items():
        print(f"{name}: {detail}")
