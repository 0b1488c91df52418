"""An Airflow on Celery whose parts are processes of their own, each of which can be killed and started again."""

from __future__ import annotations

import signal
from collections.abc import Collection, Iterator, Mapping
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path

import psutil

from overnight.sandbox.airflow import Airflow
from overnight.sandbox.process import LOCALHOST, Launch, ProcessId, free_port, start, wait_ready
from postgresql import postgresql
from system.console import Console

from .broker import redis_server
from .machine.machine import VARIABLE

PROJECT = Path(__file__).parents[2]
MACHINE = Path(__file__).parent / "machine"

SETTINGS = {
    "AIRFLOW__CORE__EXECUTOR": "CeleryExecutor",
    "AIRFLOW__CORE__HOSTNAME_CALLABLE": "machine.read_name",
    "AIRFLOW__CORE__PARALLELISM": "16",
    "AIRFLOW__CORE__MAX_ACTIVE_RUNS_PER_DAG": "8",
    "AIRFLOW__CORE__DAGBAG_IMPORT_TIMEOUT": "120",
    "AIRFLOW__API__WORKERS": "1",
    "AIRFLOW__CELERY__WORKER_PREFETCH_MULTIPLIER": "1",
    "AIRFLOW__CELERY__SYNC_PARALLELISM": "1",
    "AIRFLOW__DATABASE__SQL_ALCHEMY_POOL_SIZE": "5",
    "AIRFLOW__SCHEDULER__SCHEDULER_IDLE_SLEEP_TIME": "0.25",
    "AIRFLOW__SCHEDULER__SCHEDULER_HEARTBEAT_SEC": "1",
    "AIRFLOW__SCHEDULER__JOB_HEARTBEAT_SEC": "2",
    # What a dead machine leaves behind is found after this.
    "AIRFLOW__SCHEDULER__TASK_INSTANCE_HEARTBEAT_TIMEOUT": "30",
    "AIRFLOW__SCHEDULER__TASK_INSTANCE_HEARTBEAT_TIMEOUT_DETECTION_INTERVAL": "5",
    "AIRFLOW__SCHEDULER__SCHEDULER_HEALTH_CHECK_THRESHOLD": "15",
    "AIRFLOW__SCHEDULER__ORPHANED_TASKS_CHECK_INTERVAL": "10",
    # A task whose message died with a worker is sent again after this.
    "AIRFLOW__SCHEDULER__TASK_QUEUED_TIMEOUT": "60",
    "AIRFLOW__SCHEDULER__TASK_QUEUED_TIMEOUT_CHECK_INTERVAL": "10",
    "AIRFLOW__SCHEDULER__NUM_STUCK_IN_QUEUED_RETRIES": "20",
    "AIRFLOW__WORKERS__MIN_HEARTBEAT_INTERVAL": "1",
    "AIRFLOW__WORKERS__SOCKET_CLEANUP_TIMEOUT": "1",
    "AIRFLOW__WORKERS__EXECUTION_API_TIMEOUT": "60",
    "AIRFLOW__WORKERS__MAX_FAILED_HEARTBEATS": "30",
    # Processes of a busy machine end late, and the executor reports it later.
    "AIRFLOW__OVERNIGHT__EVENT_HOLD_SECONDS": "20",
    "AIRFLOW__TRIGGERER__JOB_HEARTBEAT_SEC": "1",
    "AIRFLOW__TRIGGERER__TRIGGERER_HEALTH_CHECK_THRESHOLD": "10",
    "AIRFLOW__DAG_PROCESSOR__MIN_FILE_PROCESS_INTERVAL": "600",
    "AIRFLOW__DAG_PROCESSOR__PARSING_PROCESSES": "1",
}
"""Dead parts are noticed in seconds instead of minutes, and each server takes one process; the rest is Airflow's."""

PARTS: Mapping[str, tuple[str, ...]] = {
    "scheduler": ("scheduler", "--skip-serve-logs"),
    "dag-processor": ("dag-processor",),
    "triggerer-1": ("triggerer", "--skip-serve-logs"),
    "triggerer-2": ("triggerer", "--skip-serve-logs"),
    **{
        f"worker-{number}": (
            *("celery", "worker", "--celery-hostname", f"worker-{number}@%h", "--concurrency", "2"),
            *("--skip-serve-logs", "--without-gossip", "--without-mingle"),
        )
        for number in (1, 2)
    },
}
"""By name, which is also the name of its machine, the arguments of ``airflow``."""


@dataclass
class Deployment:
    """
    A running Airflow.

    :param installation: Its home and its environment.
    :param url: Of the API server.
    """

    installation: Airflow
    url: str
    console: Console
    _running: dict[str, ProcessId] = field(default_factory=dict)

    def start(self, name: str) -> None:
        """Start a part."""
        self._running[name] = start(_launch(self.installation, name, int(self.url.rpartition(":")[2])))

    def kill(self, name: str) -> None:
        """Kill a part with all it started, as the machine it runs on would."""
        self._signal(name, signal.SIGKILL)
        del self._running[name]

    def freeze(self, name: str) -> None:
        """Let nothing that a part started run on."""
        self._signal(name, signal.SIGSTOP)

    def thaw(self, name: str) -> None:
        self._signal(name, signal.SIGCONT)

    def stop(self) -> None:
        """Stop everything."""
        for name in list(self._running):
            self.kill(name)

    def descendants(self, name: str) -> set[int]:
        """Return the numbers of the processes that a part has started."""
        process = self._running[name].find() if name in self._running else None
        return {child.pid for child in process.children(recursive=True)} if process is not None else set()

    def tasks(self, name: str) -> list[psutil.Process]:
        """Return the processes of the tasks that a worker runs; the parent of each is one of the worker's pool."""
        worker = self._running[name].find() if name in self._running else None
        found = []
        for pooled in worker.children() if worker is not None else ():
            with suppress(psutil.NoSuchProcess):
                found += [task for task in pooled.children() if task.status() != psutil.STATUS_ZOMBIE]
        return sorted(found, key=lambda process: process.pid)

    def ended(self) -> list[str]:
        """Return the parts that ended by themselves."""
        return [name for name, process in self._running.items() if process.find() is None]

    def _signal(self, name: str, number: signal.Signals) -> None:
        process = self._running[name].find()
        if process is None:
            return
        victims = [process, *process.children(recursive=True)]
        for victim in victims:
            with suppress(psutil.NoSuchProcess):
                victim.send_signal(number)
        if number == signal.SIGKILL:
            psutil.wait_procs(victims, timeout=20)


@contextmanager
def deployed(
    folder: Path,
    variables: Mapping[str, str],
    *,
    dags: Path = PROJECT / "dags",
    parts: Collection[str] = tuple(PARTS),
) -> Iterator[Deployment]:
    """
    Run DAGs on PostgreSQL, Redis, two triggerers and two workers while the ``with`` lasts.

    :param dags: The DAGs folder; the project's own unless another is given.
    :param parts: Which of :data:`PARTS` are started; all unless said otherwise.
    """
    with ExitStack() as stack:
        database = stack.enter_context(postgresql())
        broker = stack.enter_context(redis_server(folder / "redis"))
        installation = Airflow(
            folder / "airflow",
            dags=dags,
            plugins=PROJECT / "plugins",
            variables={
                **SETTINGS,
                "PYTHONPATH": str(MACHINE),
                "AIRFLOW__DATABASE__SQL_ALCHEMY_CONN": database,
                "AIRFLOW__CELERY__BROKER_URL": broker,
                "AIRFLOW__CELERY__RESULT_BACKEND": f"db+{database}",
                **variables,
            },
        )
        installation.migrate()
        port = free_port()
        server = _launch(installation, "api-server", port)
        process = start(server)
        stack.callback(process.stop)
        wait_ready(server, process)
        deployment = Deployment(installation, server.url, Console(server.url))
        stack.callback(deployment.stop)
        for name in parts:
            deployment.start(name)
        yield deployment


def _launch(installation: Airflow, name: str, port: int) -> Launch:
    arguments = PARTS.get(name, ("api-server", "--port", str(port)))
    url = f"http://{LOCALHOST}:{port}"
    return Launch(
        name=name,
        argv=(str(installation.python), "-m", "airflow", *arguments),
        url=url,
        health=f"{url}/api/v2/monitor/health",
        cwd=installation.home,
        log=installation.home / f"{name}.log",
        environ={**installation.standalone_environment(port), VARIABLE: name},
        ready_within=300.0,
    )
