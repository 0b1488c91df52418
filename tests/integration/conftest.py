"""
Real servers for the integration tests, started when the first test asks for one and stopped behind the last.

While developing, a server that already runs is used instead when its variable is set:
``OVERNIGHT_TEST_OPENSEARCH_URL``, ``OVERNIGHT_TEST_OPENSEARCH3_URL``, ``OVERNIGHT_TEST_S3_ENDPOINT``,
``OVERNIGHT_TEST_OPENAI_URL``.
"""

from __future__ import annotations

import fcntl
import os
import re
import uuid
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import httpx
import pytest
from xdist.remote import Producer
from xdist.scheduler import LoadScopeScheduling

from overnight.sandbox.airflow import Airflow
from overnight.sandbox.opensearch import Node
from overnight.sandbox.services import running

# What needs the node of `opensearch_url`. All else is kept together by its folder, whose servers start quickly.
_WITH_A_NODE = (
    "tests/integration/cli/test_run.py",
    "tests/integration/doctor/",
    "tests/integration/ingest/",
    "tests/integration/retention/test_result_cache.py",
    "tests/integration/sandbox/test_fixtures.py",
    "tests/integration/services/test_openai_endpoints_loaded.py",
    "tests/integration/services/test_openai_queue.py",
    "tests/integration/services/test_openai_rounds_loaded.py",
    "tests/integration/services/test_structured_loaded.py",
    "tests/integration/services/test_structured_models.py",
    "tests/integration/templates/test_cache.py",
    "tests/integration/templates/test_lineage.py",
)


class _ByArea(LoadScopeScheduling):
    """Keeps the tests of one area in one process: two would start an OpenSearch each."""

    def _split_scope(self, nodeid: str) -> str:
        if nodeid.startswith(_WITH_A_NODE):
            return "opensearch"
        parts = Path(nodeid.partition("::")[0]).parts
        return parts[2] if parts[:2] == ("tests", "integration") else nodeid


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_make_scheduler(config: pytest.Config, log: Producer) -> _ByArea:
    """Replace xdist's own scheduler; its groups (``--dist loadgroup``) have no effect under pytest 9.2."""
    return _ByArea(config, log)


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """
    Refuse a test that needs the node and that `_WITH_A_NODE` lacks: xdist knows a test by its name only.

    Raises:
        pytest.UsageError: names the tests.
    """
    missing = [
        item.nodeid
        for item in items
        if "opensearch_url" in getattr(item, "fixturenames", ()) and not item.nodeid.startswith(_WITH_A_NODE)
    ]
    if missing:
        raise pytest.UsageError(f"_WITH_A_NODE in {__file__} lacks {', '.join(missing)}")


@contextmanager
def _server(name: str, variable: str, folders: pytest.TempPathFactory) -> Iterator[str]:
    url = os.environ.get(variable)
    if url:
        yield url.rstrip("/")
        return
    with running(name, folders.mktemp(name)) as launch:
        yield launch.url


@contextmanager
def _node(version: str, variable: str, folders: pytest.TempPathFactory) -> Iterator[str]:
    url = os.environ.get(variable)
    if url:
        yield url.rstrip("/")
        return
    node = Node(version, home=folders.mktemp(f"opensearch-{version}") / "node", short_lived=True)
    try:
        with node:
            yield node.url
    finally:
        node.remove()


@pytest.fixture(scope="session")
def only_one(tmp_path_factory: pytest.TempPathFactory, testrun_uid: str) -> Callable[[str], None]:
    """Fails when two processes of one test run start the same server, which takes seconds of both cores."""

    def claim(server: str) -> None:
        claims = tmp_path_factory.getbasetemp().parent / f"servers-{testrun_uid}"
        claims.mkdir(exist_ok=True)
        try:
            (claims / server).touch(exist_ok=False)
        except FileExistsError:
            pytest.fail(f"another process of this test run has started {server}: see _ByArea")

    return claim


@pytest.fixture(scope="session")
def opensearch_url(tmp_path_factory: pytest.TempPathFactory, only_one: Callable[[str], None]) -> Iterator[str]:
    """The address of an OpenSearch 2.19 node with k-NN."""
    only_one("opensearch")
    with _node("2.19.6", "OVERNIGHT_TEST_OPENSEARCH_URL", tmp_path_factory) as url:
        yield url


@pytest.fixture(scope="session")
def opensearch3_url(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """The address of an OpenSearch 3.6 node with k-NN."""
    with _node("3.6.0", "OVERNIGHT_TEST_OPENSEARCH3_URL", tmp_path_factory) as url:
        yield url


@pytest.fixture(scope="session")
def s3_endpoint(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """The address of an S3 that takes any key; it has no buckets yet."""
    with _server("s3", "OVERNIGHT_TEST_S3_ENDPOINT", tmp_path_factory) as url:
        yield url


@pytest.fixture(scope="session")
def openai_url(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """The base URL, with ``/v1``, of an OpenAI emulator with the key ``sandbox``."""
    with _server("openai", "OVERNIGHT_TEST_OPENAI_URL", tmp_path_factory) as url:
        yield url.removesuffix("/v1") + "/v1"


@pytest.fixture(scope="session")
def migrated_airflow(tmp_path_factory: pytest.TempPathFactory, testrun_uid: str) -> Airflow:
    """
    An Airflow whose database was made once, for :meth:`~overnight.sandbox.airflow.Airflow.copy`.

    The processes of one test run share it: the first to ask makes it, while the others wait.
    """
    home = tmp_path_factory.getbasetemp().parent / f"migrated-airflow-{testrun_uid}"
    home.mkdir(exist_ok=True)
    made = Airflow(home, home / "dags")
    with (home / "lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not (home / "migrated").exists():
            made.migrate()
            (home / "migrated").touch()
    return made


@pytest.fixture
def index_name(opensearch_url: str, request: pytest.FixtureRequest) -> Iterator[str]:
    """A name for this test's index, and a prefix for more of them; all are deleted behind the test."""
    test = re.sub(r"[^a-z0-9]+", "-", request.node.name.lower()).strip("-")[:60]
    name = f"{test}-{uuid.uuid4().hex[:8]}"
    yield name
    httpx.delete(f"{opensearch_url}/{name}*", params={"ignore_unavailable": "true"}).raise_for_status()
