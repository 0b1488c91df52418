"""A real Airflow in one folder: its environment, its database, single DAG runs, and all of it standing alone."""

from __future__ import annotations

import json
import os
import secrets
import shutil
import signal
import subprocess
import sys
from base64 import urlsafe_b64encode
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import msgspec
import psutil
import yaml

from overnight.sandbox.errors import SandboxError
from overnight.sandbox.process import LOCALHOST, Launch, free_port, start, wait_ready

READY_SECONDS = 600.0
KEYS = "keys.json"
CONNECTION = "AIRFLOW_CONN_"


class TaskRun(msgspec.Struct, frozen=True):
    """One task instance of a finished DAG run; ``seconds`` it ran for."""

    task_id: str
    map_index: int
    state: str
    seconds: float


class DagRun(msgspec.Struct, frozen=True):
    """
    A finished DAG run: its state, its task instances, and the XComs asked for.

    :param seconds: From the start of its first task to the end of its last.
    """

    run_id: str
    state: str
    seconds: float
    tasks: tuple[TaskRun, ...]
    xcoms: dict[str, Any]

    def get_seconds(self, task_id: str) -> float:
        """Return how long a task ran, all its mapped instances together."""
        return sum(task.seconds for task in self.tasks if task.task_id == task_id)


@dataclass(frozen=True)
class Airflow:
    """
    One Airflow installation.

    :param home: ``AIRFLOW_HOME``.
    :param dags: The DAGs folder.
    :param plugins: The plugins folder.
    :param variables: More environment: connections, endpoints.
    :param python: The interpreter it is installed for; this one when left out.
    """

    home: Path
    dags: Path
    plugins: Path | None = None
    variables: Mapping[str, str] | None = None
    python: Path = Path(sys.executable)

    def environment(self) -> dict[str, str]:
        """Return the environment that every process of this installation needs, and nothing of another one."""
        inherited = {name: value for name, value in os.environ.items() if not name.startswith("AIRFLOW_")}
        keys = self._keys()
        return {
            **inherited,
            # Airflow starts its parts by name.
            "PATH": f"{self.python.parent}{os.pathsep}{os.environ.get('PATH', '')}",
            "AIRFLOW_HOME": str(self.home),
            "AIRFLOW__CORE__DAGS_FOLDER": str(self.dags),
            "AIRFLOW__CORE__PLUGINS_FOLDER": str(self.plugins or self.home / "plugins"),
            "AIRFLOW__CORE__LOAD_EXAMPLES": "False",
            "AIRFLOW__DATABASE__LOAD_DEFAULT_CONNECTIONS": "False",
            # A scheduler that waits longer than this for another writer ends; SQLite's own 5 s pass on a busy machine.
            "AIRFLOW__DATABASE__SQL_ALCHEMY_CONN": f"sqlite:///{self.home / 'airflow.db'}?timeout=20",
            "AIRFLOW__CORE__FERNET_KEY": keys["fernet"],
            "AIRFLOW__API_AUTH__JWT_SECRET": keys["jwt"],
            "AIRFLOW__CORE__SIMPLE_AUTH_MANAGER_ALL_ADMINS": "True",
            "AIRFLOW__USAGE_DATA_COLLECTION__ENABLED": "False",
            **(self.variables or {}),
        }

    def migrate(self) -> None:
        """
        Create the database, or bring it up to date.

        :raises SandboxError: it failed; the text is Airflow's own.
        """
        done = self._run("-m", "airflow", "db", "migrate")
        if done.returncode:
            raise SandboxError(f"airflow db migrate failed:\n{done.stdout[-4000:]}")

    def import_connections(self, connections: Mapping[str, Mapping[str, Any]]) -> None:
        """
        Write connections into the database, in place of those of the same id, so that its UI shows them.

        :param connections: By id, the fields of each; ``extra`` is an object.
        :raises SandboxError: it failed; the text is Airflow's own.
        """
        self.home.mkdir(parents=True, exist_ok=True)
        file = self.home / "connections.json"
        file.touch(mode=0o600)
        texts = {
            conn_id: {**fields, "extra": json.dumps(fields["extra"])} if "extra" in fields else dict(fields)
            for conn_id, fields in connections.items()
        }
        file.write_text(json.dumps(texts))
        try:
            done = self._run("-m", "airflow", "connections", "import", str(file), "--overwrite")
        finally:
            file.unlink()
        if done.returncode:
            raise SandboxError(f"airflow connections import failed:\n{done.stdout[-4000:]}")

    def copy(self, home: Path) -> Airflow:
        """Return an installation with a copy of this one's database: DAG runs side by side need one each on SQLite."""
        home.mkdir(parents=True)
        for name in ("airflow.db", KEYS):
            shutil.copy2(self.home / name, home / name)
        return replace(self, home=home)

    def run_dag(
        self, dag_id: str, conf: Mapping[str, Any], *, xcoms: Mapping[str, str] | None = None, log: Path | None = None
    ) -> DagRun:
        """
        Run a DAG once, in a process of its own, as ``dag.test()`` does: real tasks, the triggers inline.

        :param conf: The run's conf, which overrides the DAG's params.
        :param xcoms: By task id, the key of an XCom to bring back.
        :param log: Gets everything that the run prints.
        :raises SandboxError: the run could not even be started.
        """
        outcome = self.home / f"{dag_id}-{secrets.token_hex(4)}.json"
        done = self._run(
            *("-m", "overnight.sandbox.dag_run", str(self.dags), dag_id),
            *("--conf", json.dumps(conf), "--xcoms", json.dumps(xcoms or {}), "--outcome", str(outcome)),
        )
        if log is not None:
            log.write_text(done.stdout)
        if not outcome.exists():
            raise SandboxError(f"The DAG {dag_id} could not be run:\n{done.stdout[-4000:]}")
        try:
            return msgspec.json.decode(outcome.read_bytes(), type=DagRun)
        finally:
            outcome.unlink()

    @contextmanager
    def standalone(self, port: int = 0) -> Iterator[str]:
        """
        Run ``airflow standalone`` while the ``with`` lasts, and stop it with all its children.

        :param port: Of the UI and API; a free one when 0.
        :return: The address.
        """
        port = free_port(port)
        url = f"http://{LOCALHOST}:{port}"
        launch = Launch(
            name="airflow",
            argv=(str(self.python), "-m", "airflow", "standalone"),
            url=url,
            health=f"{url}/api/v2/monitor/health",
            cwd=self.home,
            log=self.home / "standalone.log",
            environ=self.standalone_environment(port),
            ready_within=READY_SECONDS,
        )
        process = start(launch)
        try:
            wait_ready(launch, process)
            yield url
        finally:
            # It stops its parts on Ctrl-C only; they do not notice when it alone is gone.
            running = process.find()
            if running is not None:
                family = running.children(recursive=True)
                running.send_signal(signal.SIGINT)
                psutil.wait_procs([running, *family], timeout=20)
                process.stop()
                for child in family:
                    if child.is_running():
                        child.kill()

    def standalone_environment(self, port: int) -> dict[str, str]:
        """Return the environment of a standalone Airflow on a port, for its parts started one by one, too."""
        return {
            **self.environment(),
            "AIRFLOW__API__PORT": str(port),
            "AIRFLOW__API__HOST": LOCALHOST,
            "AIRFLOW__CORE__EXECUTION_API_SERVER_URL": f"http://{LOCALHOST}:{port}/execution/",
            # The server that hands out a task's log.
            "AIRFLOW__LOGGING__WORKER_LOG_SERVER_PORT": str(free_port()),
            "AIRFLOW__LOGGING__TRIGGER_LOG_SERVER_PORT": str(free_port()),
        }

    def _run(self, *arguments: str) -> subprocess.CompletedProcess[str]:
        self.home.mkdir(parents=True, exist_ok=True)
        return subprocess.run(  # noqa: S603 - the command is ours
            [str(self.python), *arguments],
            env=self.environment(),
            cwd=self.home,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            check=False,
        )

    def _keys(self) -> dict[str, str]:
        """Return the keys that all parts must share, made once per home."""
        file = self.home / KEYS
        if not file.exists():
            self.home.mkdir(parents=True, exist_ok=True)
            keys = {"fernet": urlsafe_b64encode(secrets.token_bytes(32)).decode(), "jwt": secrets.token_hex(32)}
            file.touch(mode=0o600)
            file.write_text(json.dumps(keys))
        stored: dict[str, str] = json.loads(file.read_text())
        return stored


def split_connections(variables: Mapping[str, str]) -> tuple[dict[str, dict[str, Any]], dict[str, str]]:
    """Return the connections among environment variables, by id, and the other variables."""
    connections, others = {}, {}
    for name, value in variables.items():
        if name.startswith(CONNECTION):
            connections[name.removeprefix(CONNECTION).lower()] = json.loads(value)
        else:
            others[name] = value
    return connections, others


def read_airflow_settings(path: Path) -> dict[str, str]:
    """
    Return the connections and variables of an ``airflow_settings.yaml`` as environment variables.

    https://www.astronomer.io/docs/astro/cli/develop-project#configure-airflow_settingsyaml-local-development-only
    """
    settings = yaml.safe_load(path.read_text())["airflow"]
    environment = {}
    for connection in settings.get("connections") or ():
        fields = {
            name.removeprefix("conn_") if name != "conn_type" else name: value
            for name, value in connection.items()
            if name != "conn_id" and value not in (None, "")
        }
        environment[f"{CONNECTION}{connection['conn_id'].upper()}"] = json.dumps(fields)
    for variable in settings.get("variables") or ():
        environment[f"AIRFLOW_VAR_{variable['variable_name'].upper()}"] = str(variable["variable_value"])
    return environment
