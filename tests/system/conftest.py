"""
One Airflow for the whole session, with a scheduler, a triggerer and workers that can be killed.

A test that is marked ``@pytest.mark.dag_run("dag_id", conf)`` has its run triggered before the first test begins, and
so have the fixtures of ``EARLY`` theirs: while one run is looked at the others go on.
"""

from __future__ import annotations

import json
import signal
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path
from urllib.parse import urlsplit

import orjson
import psutil
import pytest

from overnight.sandbox.airflow import Airflow
from overnight.sandbox.opensearch import Node
from overnight.sandbox.process import Launch, ProcessId, free_port, start
from overnight.sandbox.services import SERVICES, running
from postgresql import postgresql

from .accounts import WRONG_KEY, Account, make_accounts
from .console import Console, Run
from .metrics import StatsD
from .other_services import World
from .pipeline import PIPELINE, Documents, Nights, start_budgeted, start_nights
from .sagemaker_runs import Pipeline, start_pipelines

PROJECT = Path(__file__).parents[2]
DAGS = Path(__file__).parent / "dags"
QUICK = {
    "AIRFLOW__CORE__PARALLELISM": "8",
    "AIRFLOW__CORE__MAX_ACTIVE_RUNS_PER_DAG": "4",
    "AIRFLOW__API__WORKERS": "1",
    "AIRFLOW__SCHEDULER__SCHEDULER_IDLE_SLEEP_TIME": "0.25",
    "AIRFLOW__SCHEDULER__SCHEDULER_HEARTBEAT_SEC": "1",
    "AIRFLOW__SCHEDULER__JOB_HEARTBEAT_SEC": "2",
    "AIRFLOW__WORKERS__MIN_HEARTBEAT_INTERVAL": "1",
    # How long a killed task is waited for.
    "AIRFLOW__WORKERS__SOCKET_CLEANUP_TIMEOUT": "1",
    # A machine that is busy with other things answers late; that is no failure.
    "AIRFLOW__WORKERS__EXECUTION_API_TIMEOUT": "60",
    "AIRFLOW__WORKERS__MAX_FAILED_HEARTBEATS": "30",
    "AIRFLOW__CORE__DAGBAG_IMPORT_TIMEOUT": "120",
    # Processes of a busy machine end late, and the executor reports it later.
    "AIRFLOW__OVERNIGHT__EVENT_HOLD_SECONDS": "20",
    # A dead triggerer's triggers are another one's after this.
    "AIRFLOW__TRIGGERER__JOB_HEARTBEAT_SEC": "1",
    "AIRFLOW__TRIGGERER__TRIGGERER_HEALTH_CHECK_THRESHOLD": "5",
    # Parsed once: nothing changes, and the processors are wanted elsewhere.
    "AIRFLOW__DAG_PROCESSOR__MIN_FILE_PROCESS_INTERVAL": "600",
    "AIRFLOW__DAG_PROCESSOR__PARSING_PROCESSES": "2",
}

EARLY = ("nights", "budgeted", "pipelines", "world")
"""Fixtures that start runs of their own."""


def pytest_configure(config: pytest.Config) -> None:
    config.addinivalue_line("markers", "dag_run(dag_id, conf): trigger this run before the first test begins")


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    here = Path(__file__).parent
    for item in items:
        if item.path.is_relative_to(here):
            # The first test also waits for every server to start.
            item.add_marker(pytest.mark.timeout(2400))
    # Runs that hold a job wait for their tests, and not for ever; those that wait for an approval do. What all the
    # others leave behind is looked at behind all the others.
    last = [here / name for name in ("test_approval.py", "test_secrets.py")]
    items.sort(key=lambda item: last.index(item.path) if item.path in last else -1)


def part(installation: Airflow, url: str, name: str) -> Launch:
    """Return how to start one more part of a standalone Airflow."""
    return Launch(
        name=name,
        argv=(str(installation.python), "-m", "airflow", name),
        url=url,
        health="",
        cwd=installation.home,
        log=installation.home / f"second-{name}.log",
        environ=installation.standalone_environment(urlsplit(url).port or 0),
    )


@dataclass
class Standalone:
    """
    A running ``airflow standalone``.

    :param installation: Its home and its environment.
    :param parts: What a test started beside it.
    """

    installation: Airflow
    url: str
    console: Console
    parts: list[ProcessId] = field(default_factory=list)

    def kill_triggerer(self) -> None:
        """Kill it with all it started, as the machine it runs on would."""
        for process in psutil.process_iter():
            try:
                ours = process.environ().get("AIRFLOW_HOME") == str(self.installation.home)
                if ours and process.cmdline()[-1:] == ["triggerer"]:
                    for victim in (process, *process.children(recursive=True)):
                        victim.send_signal(signal.SIGKILL)
            except psutil.Error:
                continue

    def start_triggerer(self) -> None:
        self.parts.append(start(part(self.installation, self.url, "triggerer")))


@dataclass(frozen=True)
class Services:
    """What runs beside Airflow."""

    accounts: dict[str, Account]
    environment: dict[str, str]
    documents: Documents


@pytest.fixture(scope="session")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with batch inputs, known to the DAGs."""
    folder = tmp_path_factory.mktemp("system")
    ids = [f"doc-{number}" for number in range(10)]

    def request(custom_id: str, model: str = "text-embedding-3-small") -> bytes:
        body = {"model": model, "input": f"the text of {custom_id}", "dimensions": 16}
        line = {"custom_id": custom_id, "method": "POST", "url": "/v1/embeddings", "body": body}
        return orjson.dumps(line, option=orjson.OPT_APPEND_NEWLINE)

    (folder / "good.jsonl").write_bytes(b"".join(map(request, ids)))
    (folder / "unknown-model.jsonl").write_bytes(b"".join(request(name, "text-embedding-9") for name in ids))
    (folder / "duplicates.jsonl").write_bytes(b"".join(map(request, [*ids, ids[3]])))
    return folder


@pytest.fixture(scope="session")
def services(folder: Path) -> Iterator[Services]:
    """The emulators, S3 and OpenSearch; all are started at once."""
    accounts = make_accounts(folder / "accounts")
    node = Node(home=folder / "opensearch" / "node", port=free_port(), short_lived=True)
    s3_port = free_port()
    environment = {
        **SERVICES["s3"].environment(s3_port),
        **SERVICES["opensearch"].environment(node.port),
        **{f"AIRFLOW_CONN_{name.upper()}": account.connection for name, account in accounts.items()},
        "AIRFLOW_CONN_OPENAI_DEFAULT": accounts["quick"].connection,
        f"AIRFLOW_CONN_{WRONG_KEY.upper()}": accounts["quick"].connection.replace(accounts["quick"].key, "sk-wrong"),
        "OVERNIGHT_TEST_FOLDER": str(folder),
    }

    with ExitStack() as stack, ThreadPoolExecutor(4) as pool:
        stack.callback(node.remove)
        for account in accounts.values():
            stack.callback(account.stop)
        starting = [pool.submit(node.__enter__), *(pool.submit(account.start) for account in accounts.values())]
        stack.enter_context(running("s3", folder, port=s3_port))
        for future in starting:
            future.result()
        yield Services(accounts, environment, Documents(environment))


@pytest.fixture(scope="session")
def statsd() -> Iterator[StatsD]:
    """What Airflow's processes report."""
    server = StatsD()
    yield server
    server.close()


@pytest.fixture(scope="session")
def database() -> Iterator[str]:
    """The address of Airflow's database. SQLite has one writer: what waits too long for its turn there fails."""
    with postgresql() as address:
        yield address


@pytest.fixture(scope="session")
def airflow(services: Services, folder: Path, statsd: StatsD, database: str) -> Iterator[Standalone]:
    """``airflow standalone`` with the DAGs of these tests and those of the project."""
    bundles = [
        {
            "name": name,
            "classpath": "airflow.dag_processing.bundles.local.LocalDagBundle",
            "kwargs": {"path": str(path)},
        }
        for name, path in {"tests": DAGS, "project": PROJECT / "dags"}.items()
    ]
    installation = Airflow(
        folder / "airflow",
        dags=DAGS,
        plugins=PROJECT / "plugins",
        variables={
            **services.environment,
            **QUICK,
            **statsd.environment(),
            "AIRFLOW__DATABASE__SQL_ALCHEMY_CONN": database,
            "PYTHONPATH": str(DAGS),
            "AIRFLOW__DAG_PROCESSOR__DAG_BUNDLE_CONFIG_LIST": json.dumps(bundles),
        },
    )
    with installation.standalone() as url:
        standalone = Standalone(installation, url, Console(url))
        try:
            yield standalone
            # One that is asked to end takes ten seconds over it.
            standalone.kill_triggerer()
        finally:
            for process in standalone.parts:
                process.stop()


@pytest.fixture(scope="session")
def nights(airflow: Standalone) -> Nights:
    """A scheduled run and a backfill."""
    return start_nights(airflow.console)


@pytest.fixture(scope="session")
def budgeted(airflow: Standalone) -> list[Run]:
    """A backfill of three days by a DAG with a budget."""
    return start_budgeted(airflow.console)


@pytest.fixture(scope="session")
def pipelines(services: Services, airflow: Standalone, folder: Path) -> Iterator[dict[str, Pipeline]]:
    """Runs of the S3 and SageMaker pipeline."""
    with ExitStack() as stack:
        yield start_pipelines(services.environment, airflow.console, folder, stack)


@pytest.fixture(scope="session")
def world(services: Services, airflow: Standalone, folder: Path) -> Iterator[World]:
    """Runs of the pipelines through ML Commons, LlamaCloud and Azure OpenAI."""
    with ExitStack() as stack:
        yield World(services.environment, airflow.console, folder, stack)


@pytest.fixture(scope="session")
def runs(request: pytest.FixtureRequest, airflow: Standalone, services: Services) -> dict[str, Run]:
    """The runs of all marked tests of this session by the id of the test, triggered at once and with those of EARLY."""
    marked = {item.nodeid: marker for item in request.session.items for marker in item.iter_markers("dag_run")}
    made = {}
    for node, marker in marked.items():
        dag_id, conf = marker.args[0], marker.args[1] if len(marker.args) > 1 else None
        if dag_id == PIPELINE:
            conf = services.documents.conf(**conf)
        made[node] = airflow.console.trigger(dag_id, conf)
    wanted = {name for item in request.session.items if isinstance(item, pytest.Function) for name in item.fixturenames}
    for name in EARLY:
        if name in wanted:
            request.getfixturevalue(name)
    return made


@pytest.fixture
def run(request: pytest.FixtureRequest, runs: dict[str, Run]) -> Run:
    """The run that this test's mark names."""
    return runs[request.node.nodeid]


@pytest.fixture
def account(services: Services) -> Callable[[str], Account]:
    """An account by its temper."""
    return services.accounts.__getitem__
