"""
``python -m soak``: many runs over all services while processes are killed and a fifth of all calls fails.

At the end the faults stop, every run is seen through to its end, and what the services and the index hold is checked.
"""

from __future__ import annotations

import signal
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Annotated, Final

import typer

from distributed.deployment import deployed

from .checks import Violation, check_creations, check_jobs, check_log
from .kills import Killer
from .plan import PIPELINES, plan_faults, plan_kills, plan_runs
from .runs import PatientConsole, Runs, list_wanted
from .servers import Servers, served

DAGS: Final = Path(__file__).parent / "dags"
AT_ONCE: Final = 6
"""Runs that are not over at any time, while things are killed."""
PATIENCE: Final = 1_800.0
"""Seconds after the last kill in which every run must have ended. It takes five minutes until an ingestion in the
cluster is known to have died with its node."""
LOOK_SECONDS: Final = 2.0

CREATIONS: Final[dict[str, Callable[[dict[str, str]], bool]]] = {
    "openai": lambda one: (one["method"], one["path"]) == ("POST", "/v1/batches"),
    "sagemaker": lambda one: one["operation"] == "CreateTransformJob",
    "llamacloud": lambda one: (one["method"], one["path"]) == ("POST", "/api/v2/batches"),
}
"""Which requests create a job. Azure's are PUTs of an id that is ours: two of them make one job."""


class Timeline:
    """What happened, in seconds since the beginning."""

    def __init__(self) -> None:
        self._began = time.monotonic()
        self._lines: list[str] = []

    def note(self, text: str) -> None:
        line = f"{time.monotonic() - self._began:8.1f}  {text}"
        self._lines.append(line)
        print(line, flush=True)

    def about(self, run: str) -> list[str]:
        """Return the lines about a run, and what was killed meanwhile."""
        return [line for line in self._lines if run in line or "  kill " in line or "  start " in line]


def main(
    seconds: Annotated[int, typer.Option(help="How long runs are started and things killed.")] = 600,
    seed: Annotated[int, typer.Option(help="Decides all that is random, but for the timing of processes.")] = 1,
) -> None:
    """Soak, and exit with status 1 if anything was paid twice, lost, or miscounted."""
    # What was started is to be stopped however this ends.
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))
    timeline = Timeline()
    with ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="overnight-soak-")))
        servers = stack.enter_context(served(folder, seed))
        airflow = stack.enter_context(deployed(folder, servers.environment, dags=DAGS))
        servers.node.wait_ready()
        runs = Runs(servers, PatientConsole(airflow.url), timeline.note)
        killer = Killer(airflow, servers.node, plan_kills(seed), timeline.note)
        timeline.note(f"seed {seed}, {seconds} s, faults {plan_faults(seed)}")
        keeping = stack.enter_context(kept(killer))
        soak(servers, runs, seconds, seed)
        killer.is_done.set()
        servers.set_faults({})
        timeline.note(f"no more faults after {killer.count} kills and {len(runs.all)} runs")
        see_through(runs, keeping)
        violations = evaluate(servers, runs)
        report(violations, runs, timeline, seed)
    sys.exit(1 if violations else 0)


@contextmanager
def kept(killer: Killer) -> Iterator[Future[None]]:
    """Kill and keep everything running, in a thread of its own, while the ``with`` lasts."""
    is_over = threading.Event()
    with ThreadPoolExecutor(1) as pool:
        try:
            yield pool.submit(killer.run, is_over)
        finally:
            is_over.set()


def soak(servers: Servers, runs: Runs, seconds: int, seed: int) -> None:
    """Start runs for a while: each pipeline once at least, and as many as keep :data:`AT_ONCE` under way."""
    planned = plan_runs(seed)
    servers.set_faults(plan_faults(seed))
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        while len(runs.active) < AT_ONCE and (len(runs.all) < len(PIPELINES) or time.monotonic() < end):
            runs.trigger(next(planned))
        runs.look()
        time.sleep(LOOK_SECONDS)


def see_through(runs: Runs, keeping: Future[None]) -> None:
    """
    Wait for the end of every run, and clear what failed, as its operator would.

    :param keeping: The thread that starts again what ends by itself; its error is raised.
    """
    end = time.monotonic() + PATIENCE
    while runs.active and time.monotonic() < end:
        runs.look()
        if keeping.done():
            keeping.result()
        time.sleep(LOOK_SECONDS)


def evaluate(servers: Servers, runs: Runs) -> list[Violation]:
    """Hold what the services and the index have against what was wanted."""
    wanted = list_wanted(runs.all)
    found = servers.list_jobs()
    violations = check_jobs(wanted, found)
    for name in servers.urls:
        requests = servers.list_requests(name)
        violations += check_log(name, requests)
        if name in CREATIONS:
            creating = [one for one in requests if CREATIONS[name](one)]
            violations += check_creations(name, sum(job.service == name for job in wanted), creating)
    indexes = set(servers.list_indexes())
    jobs = {job.id for job in found if job.service == "azure"}
    violations += [Violation(f"azure: the index {name} is nobody's") for name in indexes - jobs]
    violations += [Violation(f"ml_commons: an ingestion still runs: {task}") for task in servers.list_ingest_tasks()]
    for run in runs.all:
        violations += runs.evaluate(run)
    return violations


def report(violations: list[Violation], runs: Runs, timeline: Timeline, seed: int) -> None:
    """Print the violations; for each run that a violation is about, its timeline."""
    clears = sum(run.clears for run in runs.all)
    jobs = len(list_wanted(runs.all))
    timeline.note(f"{len(runs.all)} runs, {jobs} jobs, {clears} clears, {len(violations)} violations")
    for violation in violations:
        print(f"VIOLATION with SEED={seed}: {violation.text}")
    for run in runs.all:
        if any(violation.run == run.name for violation in violations):
            print(f"\nTimeline of {run.name} ({run.run.dag_id}, {run.run.run_id}):")
            print("\n".join([*timeline.about(run.name), "", *runs.history(run)]))


if __name__ == "__main__":
    typer.run(main)
