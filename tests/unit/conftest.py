"""A print shop that is open, installed as a third party's package would be, and a task to run in."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from http_server import Server
from slowprint.server import Shop, connect, open_shop


class StateStore(dict[str, Any]):
    """Airflow's task state store, for one task instance."""

    def set(self, key: str, value: Any) -> None:
        self[key] = value


class TaskRun:
    """What an operator sees of Airflow in one task instance, whatever the try."""

    def __init__(self) -> None:
        self.state = StateStore()
        self.xcoms: dict[str, Any] = {}
        self.max_tries = 0

    @property
    def context(self) -> Any:
        ti = SimpleNamespace(
            dag_id="d",
            task_id="t",
            run_id="r",
            map_index=-1,
            max_tries=self.max_tries,
            xcom_push=lambda *, key, value: self.xcoms.update({key: value}),
            get_dr_count=lambda **_which: 0,
        )
        dag_run = SimpleNamespace(start_date=datetime.now(UTC))
        return {"ti": ti, "dag_run": dag_run, "task_state_store": self.state}


@pytest.fixture
def task_run() -> TaskRun:
    return TaskRun()


@pytest.fixture
def shop(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[Shop]:
    # The shop forgets at once what it forgets.
    monkeypatch.setattr("overnight.jobs.wait.CONFIRM_WAITS", (0.01, 0.01))
    installed = tmp_path / "site" / "overnight_slowprint-1.0.dist-info"
    installed.mkdir(parents=True)
    (installed / "METADATA").write_text("Metadata-Version: 2.1\nName: overnight-slowprint\nVersion: 1.0\n")
    (installed / "entry_points.txt").write_text("[overnight.job_hooks]\nslowprint = slowprint.hook:PrintHook\n")
    monkeypatch.syspath_prepend(str(installed.parent))
    with open_shop() as shop:
        connect(monkeypatch, shop.url)
        yield shop


@pytest.fixture
def server() -> Iterator[Server]:
    server = Server()
    yield server
    server.stop()


@pytest.fixture
def other_server() -> Iterator[Server]:
    server = Server()
    yield server
    server.stop()
