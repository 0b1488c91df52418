"""
What one real triggerer process costs for many waiting jobs, beside the way before and beside Airflow alone.

.. code-block:: shell

    python benchmarks/triggerer.py                                 # 10,000 jobs; one table, in about 8 minutes
    python benchmarks/triggerer.py --jobs 1000 --interval 60 --ways ours
    python benchmarks/triggerer.py --ways ours --logging-level WARNING   # Airflow logs no line per trigger

Each way fills an Airflow database with deferred tasks and starts ``airflow triggerer`` on it, against the OpenAI
emulator:

* ``ours``: :class:`~overnight.triggers.job.JobTrigger`, whose triggers share one poller;
* ``base``: Airflow's own ``DateTimeTrigger``, which waits for tomorrow: what any trigger costs, whatever it does;
* ``a client each``: :class:`ClientEach`, which polls as every trigger did before, with a client and a call of its own.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import re
import sqlite3
import subprocess
import sys
import tempfile
import time
from collections.abc import AsyncIterator, Callable, Iterator, Mapping
from contextlib import closing, contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from functools import cache
from pathlib import Path
from typing import Any, Final

import httpx
import psutil
from airflow.triggers.base import TriggerEvent

from overnight.hooks.job import hook_for
from overnight.jobs import JobKey, JobRecord, JobRef
from overnight.jobs.shared_poller import SharedPoller
from overnight.jobs.wait import wait_for_end
from overnight.sandbox.airflow import Airflow
from overnight.sandbox.emulator.launch import launch
from overnight.sandbox.process import free_port, start, wait_ready
from overnight.triggers.job import JobTrigger, to_event
from records import Record, make_record

DAG: Final = """
from airflow.sdk import DAG
from overnight.sensors.job import BatchJobSensor

with DAG("waiting", schedule=None) as dag:
    BatchJobSensor(task_id="wait", job="{}", deferrable=True)
"""
AUTHORIZATION: Final = {"Authorization": "Bearer sandbox"}
OURS: Final = "ours"
BASE: Final = "base"
BEFORE: Final = "a client each"
CLASS_PATHS: Final = {
    OURS: "triggerer.Noted",
    BASE: "airflow.providers.standard.triggers.temporal.DateTimeTrigger",
    BEFORE: "triggerer.ClientEach",
}
FIRST_LOOKS: Final = "BENCHMARK_FIRST_LOOKS"
FEW: Final = {OURS: 1_000, BASE: 1_000, BEFORE: 200}
"""Jobs of each way in ``make bench``."""
EVENTS: Final = 100
"""So many jobs are ended at the service, to see how long their events take."""
IDLE_SECONDS: Final = 20.0
"""After so many seconds a triggerer without triggers has started, and rests."""


class ClientEach(JobTrigger):
    """One client and one call per job and poll."""

    async def run(self) -> AsyncIterator[TriggerEvent]:
        """Poll alone."""
        async with await hook_for(self.ref).aclient() as client:
            outcome = await client.arun(
                wait_for_end(
                    client.service,
                    self.ref,
                    poll_interval=self.poll_interval,
                    deadline=self.deadline,
                    patience=self.patience,
                    cancel_on_deadline=self.cancel_on_deadline,
                    log=self.log,
                )
            )
        event: dict[str, object] = {**to_event(outcome), "context": self.context}
        yield TriggerEvent(event)  # type: ignore[no-untyped-call]


class Noted(JobTrigger):
    """The trigger as it is; its process notes when each job was looked at first, which not every log line tells."""

    async def run(self) -> AsyncIterator[TriggerEvent]:
        """Wait as ever."""
        note_first_looks()
        async for event in super().run():
            yield event


@cache
def note_first_looks() -> None:
    """Have the shared poller write the time of each job's first answer to the file that the environment names."""
    looked: set[str] = set()
    file = Path(os.environ[FIRST_LOOKS]).open("a", buffering=1)  # noqa: SIM115 - it is open as long as the process runs
    go_on = SharedPoller._go_on

    def noting(self: SharedPoller, waiter: Any, step: Any, asked: float | None = None) -> None:
        if waiter.poller.ref.id not in looked:
            looked.add(waiter.poller.ref.id)
            file.write(f"{time.time()}\n")
        go_on(self, waiter, step, asked)

    SharedPoller._go_on = noting  # type: ignore[method-assign]


@dataclass(frozen=True)
class Setting:
    """Where and how all ways are measured."""

    airflow: Airflow
    url: str
    folder: Path
    interval: float


@dataclass(frozen=True)
class Figures:
    """One way of waiting for ``jobs`` jobs; seconds count from the start of the process. ``None``: it has none."""

    way: str
    jobs: int
    over_idle_mb: float
    running_seconds: float | None
    looked_seconds: float | None
    cpu_until_looked: float
    steady_cores: float
    calls_per_job_and_interval: float | None
    fired_p99: float | None
    event_p50: float | None
    event_p99: float | None


def fill(rows: Path, classpath: str) -> None:
    """Write one deferred task per line of trigger arguments. Runs in a process of the benchmark's own Airflow."""
    # Airflow's database modules, in the process whose environment names the database.
    # ruff: noqa: PLC0415
    from airflow.models.dag_version import DagVersion
    from airflow.models.dagrun import DagRun
    from airflow.models.serialized_dag import SerializedDagModel
    from airflow.models.taskinstance import TaskInstance
    from airflow.models.trigger import Trigger
    from airflow.utils.session import create_session
    from airflow.utils.state import DagRunState, TaskInstanceState
    from airflow.utils.types import DagRunTriggeredByType, DagRunType

    arguments = json.loads(rows.read_text())
    if classpath == CLASS_PATHS[BASE]:
        arguments = [{"moment": datetime.fromisoformat(one["moment"])} for one in arguments]
    with create_session() as session:
        dag = SerializedDagModel.get_dag("waiting", session=session)
        version = DagVersion.get_latest_version("waiting", session=session)
        assert dag is not None
        assert version is not None
        session.query(TaskInstance).delete()
        session.query(Trigger).delete()
        session.query(DagRun).delete()
        run = dag.create_dagrun(
            run_id="r", run_type=DagRunType.MANUAL, state=DagRunState.RUNNING, run_after=datetime.now(UTC),
            triggered_by=DagRunTriggeredByType.TEST, session=session,
        )  # fmt: skip
        session.query(TaskInstance).delete()
        task = dag.get_task("wait")
        triggers = [Trigger(classpath=classpath, kwargs=one) for one in arguments]
        session.add_all(triggers)
        session.flush()
        for number, trigger in enumerate(triggers):
            instance = TaskInstance(task, run_id=run.run_id, map_index=number, dag_version_id=version.id)
            instance.state, instance.trigger_id = TaskInstanceState.DEFERRED, trigger.id
            session.add(instance)


def build_arguments(way: str, ids: list[str], interval: float) -> list[dict[str, Any]]:
    """Return what the triggers are made with: for the jobs, all that an operator gives."""
    now = datetime.now(UTC)
    if way == BASE:
        return [{"moment": (now + timedelta(days=1)).isoformat()} for _ in ids]
    rows = []
    for number, job in enumerate(ids):
        ref = JobRef(service="openai", id=job, conn_id="openai_default")
        key = JobKey(dag_id="waiting", task_id="wait", run_id="r", map_index=number, fingerprint="0" * 16)
        record = JobRecord.attached(ref, key, now).with_answer().deferred(2)
        rows.append(
            {
                "ref": ref.model_dump(mode="json"),
                "poll_interval": interval,
                "deadline": now.timestamp() + 86_400,
                "context": record.model_dump(mode="json"),
            }
        )
    return rows


@contextmanager
def emulator(folder: Path) -> Iterator[str]:
    """Run the OpenAI emulator whose batches stay in validation."""
    starting = launch("openai", folder, free_port())
    process = start(starting)
    try:
        wait_ready(starting, process)
        httpx.put(f"{starting.url}/_sandbox/pace", json={"validating": 1e9}).raise_for_status()
        yield starting.url
    finally:
        process.stop()


async def create(url: str, count: int) -> list[str]:
    """Create batches over one file."""
    async with httpx.AsyncClient(base_url=f"{url}/v1", headers=AUTHORIZATION, timeout=60) as client:
        line = {"custom_id": "1", "method": "POST", "url": "/v1/embeddings",
                "body": {"model": "text-embedding-3-small", "input": "x"}}  # fmt: skip
        upload = await client.post(
            "/files", data={"purpose": "batch"}, files={"file": ("in.jsonl", json.dumps(line).encode() + b"\n")}
        )
        body = {"input_file_id": upload.raise_for_status().json()["id"], "endpoint": "/v1/embeddings",
                "completion_window": "24h"}  # fmt: skip
        ids: list[str] = []
        for _ in range(0, count, 50):
            answers = await asyncio.gather(
                *(client.post("/batches", json=body) for _ in range(min(50, count - len(ids))))
            )
            ids += [answer.raise_for_status().json()["id"] for answer in answers]
        return ids


class Triggerer:
    """A real triggerer with all its processes."""

    def __init__(self, airflow: Airflow, output: Path) -> None:
        self._output = output.open("wb")
        self.began = time.time()
        self._process = subprocess.Popen(
            [sys.executable, "-m", "airflow", "triggerer", "--capacity", "50000", "--skip-serve-logs"],
            env=airflow.environment(), cwd=airflow.home, stdout=self._output, stderr=subprocess.STDOUT,
        )  # fmt: skip

    def _family(self) -> list[psutil.Process]:
        root = psutil.Process(self._process.pid)
        return [root, *root.children(recursive=True)]

    @property
    def memory(self) -> float:
        """Resident megabytes of all processes."""
        return sum(process.memory_info().rss for process in self._family()) / 1e6

    @property
    def cpu(self) -> float:
        """Seconds of CPU so far."""
        return sum(sum(process.cpu_times()[:2]) for process in self._family())

    def stop(self) -> None:
        """End it."""
        family = self._family()
        for process in family:
            # With thousands of triggers an orderly end takes longer than the figures are worth.
            process.kill()
        psutil.wait_procs(family, timeout=20)
        self._output.close()


class TriggerLogs:
    """
    The log files that Airflow writes for the triggers, one each.

    :param folder: Airflow's.
    :param sign: What is in a file once its trigger has got where it is waited for.
    """

    def __init__(self, folder: Path, sign: bytes) -> None:
        self._folder = folder
        self._sign = sign
        self._seen: set[Path] = set()
        self._before = set(folder.rglob("*.trigger.*.log"))

    def count(self) -> int:
        """Return how many triggers have got there."""
        for path in self._folder.rglob("*.trigger.*.log"):
            if path not in self._before and path not in self._seen and self._sign in path.read_bytes():
                self._seen.add(path)
        return len(self._seen)

    def read_times(self, sign: str) -> dict[int, float]:
        """Return when each trigger first wrote a line with ``sign`` in it, in epoch seconds by map index."""
        times: dict[int, float] = {}
        for path in self._seen:
            index = re.search(r"map_index=(\d+)", str(path))
            line = next((line for line in path.read_text().splitlines() if sign in line), None)
            if index is not None and line is not None:
                times[int(index[1])] = datetime.fromisoformat(json.loads(line)["timestamp"]).timestamp()
        return times


def measure_idle(setting: Setting) -> float:
    """Return the megabytes of a triggerer without triggers."""
    run_fill(setting, OURS, [])
    triggerer = Triggerer(setting.airflow, setting.folder / "idle.log")
    try:
        time.sleep(IDLE_SECONDS)
        return triggerer.memory
    finally:
        triggerer.stop()


def measure(setting: Setting, way: str, ids: list[str], idle_mb: float) -> Figures:
    """Run a triggerer with the jobs."""
    looks = setting.folder / "first-looks"
    looks.write_text("")
    run_fill(setting, way, ids)
    forget_calls(setting.url)
    logs = TriggerLogs(setting.airflow.home / "logs", b" is queued" if way == BEFORE else b" starting")
    triggerer = Triggerer(setting.airflow, setting.folder / f"{way}.log")
    try:
        if way == OURS:
            wait_until(lambda: len(looks.read_text().splitlines()) == len(ids), triggerer.began)
        else:
            wait_until(lambda: logs.count() == len(ids), triggerer.began)
        cpu_looked = triggerer.cpu
        forget_calls(setting.url)
        began, cpu = time.monotonic(), triggerer.cpu
        time.sleep(2 * setting.interval)
        steady = (triggerer.cpu - cpu) / (time.monotonic() - began)
        calls = count_calls(setting.url) / len(ids) / 2
        memory = triggerer.memory
        logs.count()
        started = logs.read_times("starting").values()
        delays = {} if way == BASE else measure_events(setting, ids)
        looked = [float(line) for line in looks.read_text().splitlines()]
        looked = list(logs.read_times(" is queued").values()) if way == BEFORE else looked
        fired = logs.read_times("Trigger fired event")
    finally:
        triggerer.stop()
    # Airflow drops a line that it reads after it has closed a finished trigger's file.
    own = sorted(fired[number] - ended for number, (ended, _) in delays.items() if number in fired)
    all_in_all = sorted(arrived - ended for ended, arrived in delays.values())
    running = max(started) - triggerer.began if started else None
    first_look = max(looked) - triggerer.began if looked else None
    return Figures(
        way, len(ids), memory - idle_mb, running, first_look, cpu_looked, steady, calls if looked else None,
        pick(own, 0.99), pick(all_in_all, 0.5), pick(all_in_all, 0.99),
    )  # fmt: skip


def wait_until(is_over: Callable[[], bool], since: float) -> None:
    """Wait for something that the triggerer does."""
    while not is_over():
        if time.time() - since > 900:
            raise TimeoutError("The triggerer did not start all triggers.")
        time.sleep(2)


def measure_events(setting: Setting, ids: list[str]) -> Mapping[int, tuple[float, float]]:
    """
    Cancel jobs at the service, one after the other over one interval, and see when their tasks are no longer deferred.

    :return: For each job's map index, when it ended at the service and when that was in Airflow's database.
    """
    chosen = range(0, len(ids), max(1, len(ids) // EVENTS))
    ended: dict[int, float] = {}
    with httpx.Client(base_url=f"{setting.url}/v1", headers=AUTHORIZATION) as client:
        for number in chosen:
            client.post(f"/batches/{ids[number]}/cancel").raise_for_status()
            ended[number] = time.time()
            time.sleep(setting.interval / len(chosen))
    seen: dict[int, tuple[float, float]] = {}
    address = f"file:{setting.airflow.home / 'airflow.db'}?mode=ro"
    with closing(sqlite3.connect(address, uri=True, timeout=60)) as database:
        while len(seen) < len(ended):
            time.sleep(1)
            query = "SELECT map_index, updated_at FROM task_instance WHERE state != 'deferred'"
            for number, updated in database.execute(query).fetchall():
                seen[number] = (ended[number], datetime.fromisoformat(updated).replace(tzinfo=UTC).timestamp())
    return seen


def forget_calls(url: str) -> None:
    """Empty the emulator's list of requests."""
    httpx.delete(f"{url}/_sandbox/requests", timeout=60).raise_for_status()


def count_calls(url: str) -> int:
    """Return how many GETs the emulator answered since."""
    return len(httpx.get(f"{url}/_sandbox/requests", params={"method": "GET"}, timeout=60).json()["data"])


def pick(values: list[float], share: float) -> float | None:
    """Return a quantile of sorted values; ``None`` when there are none."""
    return values[min(len(values) - 1, int(len(values) * share))] if values else None


def run_fill(setting: Setting, way: str, ids: list[str]) -> None:
    """Run :func:`fill` in Airflow's environment."""
    rows = setting.folder / "rows.json"
    rows.write_text(json.dumps(build_arguments(way, ids, setting.interval)))
    command = [sys.executable, __file__, "fill", str(rows), CLASS_PATHS[way]]
    subprocess.run(command, env=setting.airflow.environment(), check=True, stdout=subprocess.DEVNULL)


def print_table(figures: list[Figures], idle_mb: float, setting: Setting, load: str) -> None:
    """Print one column per way."""
    cores = os.cpu_count()
    print(f"poll interval {setting.interval:.0f} s, idle triggerer {idle_mb:.0f} MB, {cores} cores, load {load}")
    table: list[tuple[str, list[str]]] = [
        ("", [one.way for one in figures]),
        ("jobs", [f"{one.jobs:,}" for one in figures]),
        ("MB over idle", [f"{one.over_idle_mb:.0f}" for one in figures]),
        ("KB per job", [f"{one.over_idle_mb / one.jobs * 1e3:.1f}" for one in figures]),
        ("all triggers run after s", [_text(one.running_seconds, ".1f") for one in figures]),
        ("first look of all after s", [_text(one.looked_seconds, ".1f") for one in figures]),
        ("CPU s until then", [f"{one.cpu_until_looked:.1f}" for one in figures]),
        ("steady cores", [f"{one.steady_cores:.3f}" for one in figures]),
        ("calls per job and interval", [_text(one.calls_per_job_and_interval, ".4f") for one in figures]),
        ("done → the trigger's event, p99 s", [_text(one.fired_p99, ".1f") for one in figures]),
        ("done → event in the database, p50 s", [_text(one.event_p50, ".1f") for one in figures]),
        ("done → event in the database, p99 s", [_text(one.event_p99, ".1f") for one in figures]),
    ]
    for name, cells in table:
        print(f"{name:<36}", *(f"{cell:>15}" for cell in cells))


def _text(value: float | None, form: str) -> str:
    return "-" if value is None else format(value, form)


@contextmanager
def open_setting(
    interval: float, select_per_loop: int = 1_000, *, has_portal: bool = True, logging_level: str = "INFO"
) -> Iterator[Setting]:
    """Run the emulator, and prepare an Airflow for it."""
    with tempfile.TemporaryDirectory() as name, emulator(Path(name) / "openai") as url:
        folder = Path(name)
        (folder / "dags").mkdir()
        (folder / "dags" / "waiting.py").write_text(DAG)
        variables = {
            "AIRFLOW_CONN_OPENAI_DEFAULT": json.dumps(
                {"conn_type": "overnight_openai", "host": f"{url}/v1", "password": "sandbox"}
            ),
            "PYTHONPATH": str(Path(__file__).parent),
            FIRST_LOOKS: str(folder / "first-looks"),
            "AIRFLOW__TRIGGERER__MAX_TRIGGER_TO_SELECT_PER_LOOP": str(select_per_loop),
            "AIRFLOW__LOGGING__LOGGING_LEVEL": logging_level,
            "AIRFLOW__LOGGING__NAMESPACE_LEVELS": "overnight=INFO",
            **({} if has_portal else {"AIRFLOW_DISABLE_GREENBACK_PORTAL": "true"}),
        }
        airflow = Airflow(folder / "home", folder / "dags", variables=variables)
        airflow.migrate()
        subprocess.run([sys.executable, "-m", "airflow", "dags", "reserialize"], env=airflow.environment(), check=True,
                       stdout=subprocess.DEVNULL)  # fmt: skip
        yield Setting(airflow, url, folder, interval)


def measure_way(setting: Setting, way: str, count: int, idle_mb: float) -> Figures:
    """Create so many jobs, and measure one way of waiting for them."""
    ids = asyncio.run(create(setting.url, count)) if way != BASE else [""] * count
    figures = measure(setting, way, ids, idle_mb)
    print(figures, file=sys.stderr)
    return figures


def run() -> dict[str, Record]:
    """Return the records of fewer jobs than the table is made of; one run each."""
    with open_setting(interval=10.0) as setting:
        idle_mb = measure_idle(setting)
        found = {way: measure_way(setting, way, count, idle_mb) for way, count in FEW.items()}
    memory = {way: one.over_idle_mb / one.jobs * 1e3 for way, one in found.items()}
    calls = {way: one.calls_per_job_and_interval for way, one in found.items() if one.calls_per_job_and_interval}
    return {
        "triggerer_memory": make_record("KB a waiting job", memory.pop(OURS), memory, "less"),
        "triggerer_calls": make_record("calls a job and poll interval", calls.pop(OURS), calls, "less"),
    }


def main() -> None:
    """Measure, and print one table."""
    if sys.argv[1:2] == ["fill"]:
        fill(Path(sys.argv[2]), sys.argv[3])
        return
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--jobs", type=int, default=10_000, help="for ours and the base")
    parser.add_argument("--jobs-before", type=int, default=1_000, help="for the way before, which needs 0.8 MB a job")
    parser.add_argument("--interval", type=float, default=30.0, help="seconds between polls")
    parser.add_argument("--select-per-loop", type=int, default=1_000, help="max_trigger_to_select_per_loop")
    parser.add_argument("--no-portal", action="store_true", help="set AIRFLOW_DISABLE_GREENBACK_PORTAL")
    parser.add_argument("--logging-level", default="INFO", help="of Airflow; ours stays at INFO")
    parser.add_argument("--ways", nargs="+", choices=list(CLASS_PATHS), default=list(CLASS_PATHS))
    options = parser.parse_args()
    load = ", ".join(f"{one:.1f}" for one in os.getloadavg())
    with open_setting(
        options.interval,
        options.select_per_loop,
        has_portal=not options.no_portal,
        logging_level=options.logging_level,
    ) as setting:
        idle_mb = measure_idle(setting)
        counts = {way: options.jobs_before if way == BEFORE else options.jobs for way in options.ways}
        figures = [measure_way(setting, way, count, idle_mb) for way, count in counts.items()]
    print_table(figures, idle_mb, setting, f"{load} before, {', '.join(f'{x:.1f}' for x in os.getloadavg())} after")


if __name__ == "__main__":
    main()
