"""Airflow as its users have it: runs are triggered, watched, marked and cleared through the REST API."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Any, TypeVar

import httpx

from patience import PATIENCE

PAUSES = (0.5, 1.0, 2.0, 4.0, 4.0, 4.0, None)
"""Seconds before a request is sent again whose transaction the database broke off, such as one of two that deadlock."""

T = TypeVar("T")


def eventually(look: Callable[[], T], *, why: str) -> T:
    """Look until there is something to see."""
    deadline = time.monotonic() + PATIENCE
    while not (seen := look()):
        if time.monotonic() > deadline:
            raise AssertionError(f"not in {PATIENCE:.0f} s: {why}")
        time.sleep(0.25)
    return seen


class Console:
    """
    The REST API of a standalone Airflow.

    :param url: Where it listens.
    :param login: A user's name and password. Without one, everybody has to be an admin.
    """

    def __init__(self, url: str, login: tuple[str, str] | None = None) -> None:
        self._client = httpx.Client(base_url=f"{url}/api/v2", timeout=60.0, trust_env=False)
        with httpx.Client(timeout=60.0, trust_env=False) as client:
            if login is None:
                # SimpleAuthManager, with everybody an admin, gives a token to whoever asks.
                answer = client.get(f"{url}/auth/token")
            else:
                answer = client.post(f"{url}/auth/token", json={"username": login[0], "password": login[1]})
        self._client.headers["Authorization"] = f"Bearer {answer.raise_for_status().json()['access_token']}"

    def get(self, path: str, **params: Any) -> Any:
        return self._send("GET", path, params=params)

    def post(self, path: str, body: Mapping[str, Any]) -> Any:
        return self._send("POST", path, json=body)

    def patch(self, path: str, body: Mapping[str, Any]) -> Any:
        return self._send("PATCH", path, json=body)

    def knows(self, dag_id: str) -> bool:
        return self._client.get(f"/dags/{dag_id}").is_success

    def unpause(self, dag_id: str) -> None:
        eventually(lambda: self.knows(dag_id), why=f"the DAG {dag_id} is parsed")
        self.patch(f"/dags/{dag_id}", {"is_paused": False})

    def trigger(
        self, dag_id: str, conf: Mapping[str, Any] | None = None, *, logical_date: datetime | None = None
    ) -> Run:
        self.unpause(dag_id)
        body = {"logical_date": logical_date and logical_date.isoformat(), "conf": dict(conf or {})}
        return Run(self, dag_id, self.post(f"/dags/{dag_id}/dagRuns", body)["dag_run_id"])

    def _send(self, method: str, path: str, **arguments: Any) -> Any:
        for pause in PAUSES:
            answer = self._client.request(method, path, **arguments)
            if not answer.is_server_error or pause is None:
                break
            time.sleep(pause)
        assert answer.is_success, f"{method} {path}: {answer.status_code} {answer.text[:2000]}"
        return answer.json()


@dataclass(frozen=True)
class Run:
    """One DAG run."""

    console: Console
    dag_id: str
    run_id: str

    @property
    def path(self) -> str:
        return f"/dags/{self.dag_id}/dagRuns/{self.run_id}"

    def facts(self) -> dict[str, Any]:
        return dict(self.console.get(self.path))

    def tasks(self) -> list[dict[str, Any]]:
        return list(self.console.get(f"{self.path}/taskInstances", limit=100)["task_instances"])

    def task(self, task_id: str = "job") -> dict[str, Any]:
        return dict(self.console.get(f"{self.path}/taskInstances/{task_id}"))

    def wait(self, *states: str, task_id: str = "job", beyond: int = 0) -> dict[str, Any]:
        """
        Wait until a task is in one of some states, and return it.

        :param beyond: The try that is over already; an older one's state does not count.
        """
        latest: dict[str, Any] = {}

        def look() -> bool:
            latest.update(self.task(task_id))
            return latest["state"] in states and latest["try_number"] > beyond

        try:
            eventually(look, why=f"{self.dag_id}.{task_id} is {' or '.join(states)}")
        except AssertionError as error:
            found = f"{latest['state']} in try {latest['try_number']}"
            raise AssertionError(f"{error}, but {found}:\n{self.logs(task_id)}") from error
        return latest

    def finish(self) -> str:
        """Wait for the end of the run and return its state."""
        return eventually(
            lambda: state if (state := str(self.facts()["state"])) in {"success", "failed"} else "",
            why=f"the run of {self.dag_id} ends; it has {[(ti['task_id'], ti['state']) for ti in self.tasks()]}",
        )

    def mark(self, state: str, task_id: str = "job") -> None:
        """Mark a task, as the button in the UI does."""
        self.console.patch(f"{self.path}/taskInstances/{task_id}", {"new_state": state})

    def clear(self, task_id: str = "job") -> None:
        """
        Clear one task, as the button in the UI does.

        When its last task is over, wait for the run's end as well: the scheduler that just ends the run does not see
        what is cleared meanwhile, and the task is never run.
        """
        body = {"dry_run": False, "only_failed": False, "dag_run_id": self.run_id, "task_ids": [task_id]}
        cleared = self.console.post(f"/dags/{self.dag_id}/clearTaskInstances", body)
        assert cleared["total_entries"] == 1

    def question(self, task_id: str) -> dict[str, Any]:
        """Return what a task asks a person, as the page of required actions shows it."""
        return dict(self.console.get(f"{self.path}/taskInstances/{task_id}/-1/hitlDetails"))

    def answer(self, task_id: str, choice: str) -> None:
        """Answer that, as the button in the UI does."""
        self.console.patch(f"{self.path}/taskInstances/{task_id}/-1/hitlDetails", {"chosen_options": [choice]})

    def xcom(self, task_id: str = "job", key: str = "return_value", map_index: int = -1) -> Any:
        return self.console.get(
            f"{self.path}/taskInstances/{task_id}/xcomEntries/{key}", deserialize="true", map_index=map_index
        )["value"]

    def record(self, task_id: str = "job") -> dict[str, Any]:
        """Return what the task remembers of its job in Airflow's task state store."""
        found = self.console.get(f"{self.path}/taskInstances/{task_id}/state-store/overnight_job")
        return dict(found["value"])

    def log(self, task_id: str = "job", number: int | None = None, map_index: int = -1) -> str:
        """Return the log of one try, the latest by default, with what the trigger wrote."""
        number = number or self.task(task_id)["try_number"]
        answer = self.console.get(
            f"{self.path}/taskInstances/{task_id}/logs/{number}", full_content="true", map_index=map_index
        )
        return "\n".join(str(line) for line in answer["content"])

    def logs(self, task_id: str = "job") -> str:
        """Return what Airflow noted about a task, such as a ``state mismatch``, and the logs of all its tries."""
        found = self.console.get("/eventLogs", dag_id=self.dag_id, run_id=self.run_id, task_id=task_id, limit=100)
        noted = found["event_logs"]
        events = [f"{one['when']} try {one['try_number']}: {one['event']} {one['extra']}" for one in noted]
        # A try that Airflow skipped has no log.
        tries = self.console.get(f"{self.path}/taskInstances/{task_id}/tries")["task_instances"]
        return "\n".join([*events, *(self.log(task_id, one["try_number"]) for one in tries)])
