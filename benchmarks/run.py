"""
Carry out the benchmarks, print one table, and write ``benchmarks/results/latest.json``.

.. code-block:: shell

    python benchmarks/run.py                   # all of them
    python benchmarks/run.py load imports      # these modules only; the results of the others stay as they were

A benchmark is a module in this folder with ``run()``, which needs no argument and returns one
:class:`~records.Record`, or several by name.
"""

from __future__ import annotations

import argparse
import inspect
import json
import sys
import time
from collections.abc import Callable
from importlib import import_module
from pathlib import Path

from rich.console import Console
from rich.table import Table

from records import Record

FOLDER = Path(__file__).parent
RESULTS = FOLDER / "results" / "latest.json"
Benchmark = Callable[[], Record | dict[str, Record]]


def find_benchmarks() -> dict[str, Benchmark]:
    """Return what each module of this folder offers as ``run()``, by the module's name."""
    found: dict[str, Benchmark] = {}
    for path in sorted(FOLDER.glob("*.py")):
        if path.stem in ("run", "records") or "def run(" not in path.read_text():
            continue
        work = getattr(import_module(path.stem), "run", None)
        if callable(work) and all(one.default is not one.empty for one in inspect.signature(work).parameters.values()):
            found[path.stem] = work
    return found


def show(results: dict[str, Record]) -> None:
    """Print one table."""
    table = Table("benchmark", "ours", "unit", "beside it", "times as good")
    for name, record in sorted(results.items()):
        peers = record["peers"]
        table.add_row(
            name,
            f"{record['ours']:,.1f}",
            record["unit"],
            "\n".join(f"{peer}: {value:,.1f}" for peer, value in peers.items()),
            "\n".join(f"{record['ratio'][peer]:.2f}" for peer in peers),
        )
    Console(width=150).print(table)


def main() -> None:
    """Measure, show and write."""
    sys.path.insert(0, str(FOLDER))
    benchmarks = find_benchmarks()
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("modules", nargs="*", help=f"of {', '.join(benchmarks)}; all when none is named")
    chosen = parser.parse_args().modules or list(benchmarks)
    unknown = sorted(set(chosen) - benchmarks.keys())
    if unknown:
        parser.error(f"there is no benchmark {', '.join(unknown)}; there are {', '.join(benchmarks)}")
    results: dict[str, Record] = json.loads(RESULTS.read_text()) if RESULTS.exists() else {}
    for name in chosen:
        start = time.monotonic()
        print(f"{name} …", file=sys.stderr, flush=True)
        found = benchmarks[name]()
        results.update({name: found} if "ours" in found else found)
        print(f"{name}: {time.monotonic() - start:.0f} s", file=sys.stderr, flush=True)
        # After each: what was measured is not lost when a later one fails.
        RESULTS.parent.mkdir(exist_ok=True)
        RESULTS.write_text(json.dumps(dict(sorted(results.items())), indent=2) + "\n")
    show(results)


if __name__ == "__main__":
    main()
