"""Start the sandbox, run every pipeline through Airflow, search, and leave nothing running."""

from __future__ import annotations

import argparse
import shutil
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import msgspec
from rich.console import Console
from rich.table import Table

from overnight.cli.addresses import Addresses
from overnight.ingest import OpenSearchTarget
from overnight.ingest.search import Hit, find, search
from overnight.sandbox.airflow import Airflow, DagRun
from overnight.sandbox.demo.pipelines import PIPELINES, SERVICES, Counts, Pipeline
from overnight.sandbox.errors import SandboxError
from overnight.sandbox.services import select
from overnight.sandbox.store import Store
from overnight.sandbox.supervisor import Sandbox
from overnight.services.openai.embed import embed

MODEL = "text-embedding-3-small"
AT_ONCE = 2
"""Pipelines side by side: much of each one's time is Airflow starting tasks."""


def main() -> int:
    """Run the demo and return the exit status."""
    parser = argparse.ArgumentParser(prog="make demo", description=__doc__)
    parser.add_argument("--folder", type=Path, default=Path(".demo"))
    parser.add_argument("--project", type=Path, default=Path.cwd(), help="Where dags/ and plugins/ are.")
    arguments = parser.parse_args()
    console = Console(soft_wrap=True)
    folder: Path = arguments.folder.absolute()
    sandbox = Sandbox(folder / "sandbox", console=console)
    # Yesterday's documents would count as today's.
    sandbox.purge()
    shutil.rmtree(folder / "airflow", ignore_errors=True)
    (folder / "report.json").unlink(missing_ok=True)
    try:
        sandbox.up(select(SERVICES), ml_commons=True)
        failures = _run_all(console, sandbox.environment(), arguments.project.absolute(), folder)
    except SandboxError as error:
        console.print(str(error), markup=False, highlight=False)
        return 1
    finally:
        sandbox.down()
    for failure in failures:
        console.print(f"[red]{failure}[/red]")
    if not failures:
        console.print("[bold green]demo ok[/bold green]")
    return 1 if failures else 0


def _run_all(console: Console, environment: dict[str, str], project: Path, folder: Path) -> list[str]:
    airflow = Airflow(
        folder / "airflow" / "first", dags=project / "dags", plugins=project / "plugins", variables=environment
    )
    with console.status("Airflow makes its database"):
        airflow.migrate()
    store = Store(environment)
    pipelines = [make(store) for make in PIPELINES]

    def run(pipeline: Pipeline) -> DagRun:
        started = time.monotonic()
        ended = pipeline.run(airflow.copy(folder / "airflow" / pipeline.name))
        console.print(f"{pipeline.name}: {ended.state} in {time.monotonic() - started:.0f} s", highlight=False)
        return ended

    with console.status("The pipelines run"), ThreadPoolExecutor(max_workers=AT_ONCE) as pool:
        runs = list(pool.map(run, pipelines))
    rows = [
        (pipeline, ended, pipeline.counts(ended) if "report" in ended.xcoms else None)
        for pipeline, ended in zip(pipelines, runs, strict=True)
    ]
    report = {"pipelines": {pipeline.name: counts for pipeline, _, counts in rows if counts is not None}}
    (folder / "report.json").write_bytes(msgspec.json.format(msgspec.json.encode(report), indent=2))
    console.print(_table(rows))
    failures = [failure for row in rows for failure in _shortcomings(*row)]
    for pipeline in pipelines:
        failures += _search(console, pipeline, environment)
    return failures


def _shortcomings(pipeline: Pipeline, run: DagRun, counts: Counts | None) -> list[str]:
    name = pipeline.name
    if run.state != "success" or counts is None:
        failed = ", ".join(f"{task.task_id}: {task.state}" for task in run.tasks if task.state != "success")
        return [f"{name} ended as {run.state} ({failed})"]
    found = []
    if not counts.complete:
        found.append(f"{name} is not complete: {counts}")
    if counts.submitted < pipeline.at_least:
        found.append(f"{name} had {counts.submitted} documents; at least {pipeline.at_least} were to be had")
    return found


def _table(rows: list[tuple[Pipeline, DagRun, Counts | None]]) -> Table:
    table = Table("pipeline", "submitted", "indexed", "rejected", "missing", "seconds per step", box=None)
    for pipeline, run, counts in rows:
        steps = ", ".join(f"{step.rpartition('.')[2]} {run.get_seconds(step):.1f}" for step in pipeline.steps)
        numbers = msgspec.structs.astuple(counts) if counts is not None else ("?",) * 4
        table.add_row(pipeline.name, *map(str, numbers), steps)
    return table


def _search(console: Console, pipeline: Pipeline, environment: dict[str, str]) -> list[str]:
    addresses = Addresses(environment["OPENSEARCH_URL"], environment)

    def make_vector(text: str, dimension: int) -> list[float]:
        return addresses.run_openai(embed(text, MODEL, dimension))

    failures = []
    with OpenSearchTarget(addresses.opensearch_url) as target:
        found: list[tuple[str, str, list[Hit]]] = []
        for near in pipeline.searches:
            hits = search(target, pipeline.index, near.question, embed=make_vector, size=5)
            found.append((f"“{near.question}”", near.expected, hits))
        for by_field in pipeline.field_searches:
            hits = find(target, pipeline.index, by_field.query, size=5)
            found.append((by_field.words, by_field.expected, hits))
    for words, expected, hits in found:
        ids = [hit.id for hit in hits]
        console.print(f"{words} → {', '.join(ids)}", highlight=False)
        if expected not in ids:
            failures.append(f"{pipeline.name}: {expected} is not among the first five for {words}")
    return failures


if __name__ == "__main__":
    sys.exit(main())
