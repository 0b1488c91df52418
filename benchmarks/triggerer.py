"""
What one real triggerer process costs for many waiting jobs: CPU, memory, calls, first look, and delay of the event.

``python benchmarks/triggerer.py --jobs 10000 --interval 60`` fills an Airflow database with deferred tasks, starts
``airflow triggerer`` on it against the OpenAI emulator, and then again with :class:`ClientEach`, which polls as every
trigger did before it shared a poller: with a client and a call of its own.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import sqlite3
import subprocess
import sys
import tempfile
import time
from collections.abc import AsyncIterator, Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from pathlib import Path

import httpx
import psutil
from airflow.triggers.base import TriggerEvent

from overnight.hooks.job import hook_for
from overnight.jobs.wait import wait_for_end
from overnight.sandbox.airflow import Airflow
from overnight.sandbox.emulator.launch import launch
from overnight.sandbox.process import free_port, start, wait_ready
from overnight.triggers.job import JobTrigger, to_event

DAG = """
from airflow.sdk import DAG
from overnight.sensors.job import BatchJobSensor

with DAG("waiting", schedule=None) as dag:
    BatchJobSensor(task_id="wait", job="{}", deferrable=True)
"""

AUTHORIZATION = {"Authorization": "Bearer sandbox"}


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


@dataclass
class Figures:
    """One way of waiting for ``jobs`` jobs."""

    jobs: int
    interval: float
    idle_mb: float
    over_idle_mb: float
    first_look_seconds: float
    cpu_until_first_look: float
    steady_cores: float
    calls_per_job_and_interval: float
    event_delay_p50: float
    event_delay_p99: float


def fill(jobs: Path, classpath: str, interval: float) -> None:
    """Write the rows of one deferred task per job. Runs in a process of the benchmark's own Airflow."""
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
        for number, job in enumerate(json.loads(jobs.read_text())):
            ref = {"service": "openai", "id": job, "conn_id": "openai_default"}
            arguments = {"ref": ref, "poll_interval": interval, "context": ref}
            trigger = Trigger(classpath=classpath, kwargs=arguments)
            session.add(trigger)
            session.flush()
            instance = TaskInstance(task, run_id=run.run_id, map_index=number, dag_version_id=version.id)
            instance.state, instance.trigger_id = TaskInstanceState.DEFERRED, trigger.id
            session.add(instance)


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

    def __init__(self, airflow: Airflow, logs: Path) -> None:
        self._output = logs.open("wb")
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
        self._process.terminate()
        _, alive = psutil.wait_procs(family, timeout=20)
        for process in alive:
            process.kill()
        self._output.close()


def measure(airflow: Airflow, url: str, ids: list[str], *, classpath: str, interval: float, folder: Path) -> Figures:
    """Run a triggerer without and with the jobs."""
    jobs = folder / "jobs.json"
    jobs.write_text("[]")
    run_here(airflow, "fill", str(jobs), classpath, str(interval))
    idle = Triggerer(airflow, folder / "idle.log")
    time.sleep(25)
    idle_mb = idle.memory
    idle.stop()
    jobs.write_text(json.dumps(ids))
    run_here(airflow, "fill", str(jobs), classpath, str(interval))
    httpx.delete(f"{url}/_sandbox/requests").raise_for_status()
    triggerer = Triggerer(airflow, folder / "triggerer.log")
    try:
        first = wait_for_first_looks(airflow.home / "logs", len(ids), triggerer.began)
        cpu_first = triggerer.cpu
        httpx.delete(f"{url}/_sandbox/requests").raise_for_status()
        began, cpu = time.monotonic(), triggerer.cpu
        time.sleep(3 * interval)
        steady = (triggerer.cpu - cpu) / (time.monotonic() - began)
        calls = len(httpx.get(f"{url}/_sandbox/requests", params={"method": "GET"}, timeout=60).json()["data"])
        memory = triggerer.memory
        delays = sorted(event_delays(airflow, url, ids[:: max(1, len(ids) // 100)], interval))
    finally:
        triggerer.stop()
    return Figures(
        len(ids), interval, round(idle_mb), round(memory - idle_mb), round(first, 1), round(cpu_first, 1),
        round(steady, 3), round(calls / len(ids) / 3, 4), round(delays[len(delays) // 2], 1),
        round(delays[int(len(delays) * 0.99)], 1),
    )  # fmt: skip


def wait_for_first_looks(logs: Path, count: int, since: float) -> float:
    """Return the seconds until each trigger has logged its job's state."""
    seen: set[Path] = set()
    while len(seen) < count:
        for path in logs.rglob("*.trigger.*.log"):
            if path not in seen and path.stat().st_mtime > since and b" is queued" in path.read_bytes():
                seen.add(path)
        if time.time() - since > 900:
            raise TimeoutError(f"{len(seen)} of {count} jobs were looked at")
        time.sleep(0.5)
    return time.time() - since


def event_delays(airflow: Airflow, url: str, ids: list[str], interval: float) -> Iterator[float]:
    """Cancel jobs at the service, one after the other, and yield how long each event took to reach the database."""
    ended = {}
    with httpx.Client(base_url=f"{url}/v1", headers=AUTHORIZATION) as client:
        for job in ids:
            client.post(f"/batches/{job}/cancel").raise_for_status()
            ended[job] = time.time()
            time.sleep(interval / len(ids))
    waiting = set(ids)
    database = sqlite3.connect(f"file:{airflow.home / 'airflow.db'}?mode=ro", uri=True, timeout=60)
    numbers = dict(enumerate(json.loads((airflow.home.parent / "jobs.json").read_text())))
    while waiting:
        rows = database.execute("SELECT map_index, updated_at FROM task_instance WHERE state != 'deferred'").fetchall()
        for number, updated in rows:
            job = numbers[number]
            if job in waiting:
                waiting.discard(job)
                moment = datetime.fromisoformat(updated).replace(tzinfo=UTC).timestamp()
                yield moment - ended[job]
        time.sleep(1)


def run_here(airflow: Airflow, *arguments: str) -> None:
    """Run a step of this file in Airflow's environment."""
    environment = {**airflow.environment(), "PYTHONPATH": str(Path(__file__).parent)}
    subprocess.run([sys.executable, __file__, *arguments], env=environment, check=True)


def main() -> None:
    """Print both ways' figures as JSON."""
    if sys.argv[1:2] == ["fill"]:
        fill(Path(sys.argv[2]), sys.argv[3], float(sys.argv[4]))
        return
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--jobs", type=int, default=10_000)
    parser.add_argument("--peer-jobs", type=int, default=1_000, help="for the way before, which needs 0.8 MB a job")
    parser.add_argument("--interval", type=float, default=60.0)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as name, emulator(Path(name) / "openai") as url:
        folder = Path(name)
        (folder / "dags").mkdir()
        (folder / "dags" / "waiting.py").write_text(DAG)
        connection = json.dumps({"conn_type": "overnight_openai", "host": f"{url}/v1", "password": "sandbox"})
        variables = {"AIRFLOW_CONN_OPENAI_DEFAULT": connection, "PYTHONPATH": str(Path(__file__).parent)}
        airflow = Airflow(folder / "home", folder / "dags", variables=variables)
        airflow.migrate()
        subprocess.run([sys.executable, "-m", "airflow", "dags", "reserialize"], env=airflow.environment(), check=True,
                       stdout=subprocess.DEVNULL)  # fmt: skip
        ids = asyncio.run(create(url, options.jobs))
        ours = measure(
            airflow, url, ids, classpath="overnight.triggers.job.JobTrigger", interval=options.interval, folder=folder
        )
        peers = asyncio.run(create(url, options.peer_jobs))
        before = measure(
            airflow, url, peers, classpath="triggerer.ClientEach", interval=options.interval, folder=folder
        )
    json.dump(
        {"shared poller": asdict(ours), "a client each": asdict(before), "cpus": os.cpu_count()}, sys.stdout, indent=2
    )


if __name__ == "__main__":
    main()
