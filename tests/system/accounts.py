"""OpenAI emulators with faults of their own: a fault belongs to one of them, so that scenarios can run side by side."""

from __future__ import annotations

import json
import os
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import httpx

from overnight.sandbox.openai.__main__ import KEY_VARIABLE
from overnight.sandbox.process import LOCALHOST, Launch, ProcessId, free_port, start, wait_ready
from overnight.sandbox.services import SERVICES, Plan

HELD = {"pace": {"lines_per_second": 0.001}}
"""Batches get as far as ``in_progress`` and stay there, until they are cancelled or let go."""

FAILED = "(^doc-7|e)$"
MISSING = "(^doc-3|s)$"
"""What the lossy account does to lines, by their ``custom_id``."""

SETTINGS: dict[str, dict[str, Any]] = {
    "quick": {},
    # Those whose logs are read for what was not sent.
    "approved": {},
    "rejected": {},
    "frugal": {},
    # Batches that nobody ever lets go.
    "stuck": HELD,
    "held": HELD,
    # Servers that are stopped and started again under a running job.
    "silent": HELD,
    "rotated": HELD,
    "forgetful": HELD,
    "expiring": {"faults": {"batch_expired": {"share": 1, "times": 1}, "batch_expired_after": 0.0}},
    "broken": {"faults": {"batch_failed": {"share": 1, "times": 1}}},
    "aging": {},
    "lossy": {
        "faults": {
            "lines_failed": {"share": 1, "custom_id": FAILED},
            "lines_missing": {"share": 1, "custom_id": MISSING},
        }
    },
    "faulty": {
        "faults": {
            "rate_limited": 0.05,
            "server_error": 0.05,
            "cut_body": 0.05,
            "timeout": 0.05,
            # Longer than the client waits, so that it is the client who gives up.
            "timeout_seconds": 12,
            "retry_after": 0.5,
        }
    },
}
CLIENT_TIMEOUT = {"faulty": 6.0}
WRONG_KEY = "wrong_key"
"""A connection to the quick account with a key that it does not take."""
PACE = {"validating": 2.0, "finalizing": 0.0, "cancelling": 0.5}
"""Quick, but not over before Airflow knows that the task was deferred, which confuses its scheduler."""


@dataclass
class Account:
    """
    One emulator, and what a user of the service sees at its console.

    :param key: What requests must carry. It is a secret of these tests: nobody but the connection may know it.
    """

    name: str
    folder: Path
    key: str
    port: int = field(default_factory=free_port)
    _process: ProcessId | None = None

    @property
    def url(self) -> str:
        return f"http://{LOCALHOST}:{self.port}"

    @property
    def connection(self) -> str:
        """The Airflow connection, as a variable of the environment holds it."""
        extra = {"timeout": CLIENT_TIMEOUT.get(self.name, 60.0)}
        return json.dumps(
            {"conn_type": "overnight_openai", "host": f"{self.url}/v1", "password": self.key, "extra": extra}
        )

    def start(self, *, key: str | None = None, data: str = "data") -> None:
        """Start the server; another ``key`` is one that was rotated, another ``data`` one that forgot everything."""
        settings = SETTINGS[self.name]
        settings = {**settings, "pace": {**PACE, **settings.get("pace", {})}}
        plan = Plan(self.folder / data, {"openai": self.port})
        launch: Launch = SERVICES["openai"].prepare(plan)
        launch = replace(
            launch,
            argv=(*launch.argv, "--settings", json.dumps(settings)),
            environ={KEY_VARIABLE: key or self.key},
            ready_within=180.0,
        )
        self._process = start(launch)
        wait_ready(launch, self._process)

    def stop(self) -> None:
        if self._process is not None:
            self._process.stop()
            self._process = None

    def batches(self, dag_id: str) -> list[dict[str, Any]]:
        """Return all batches of a DAG, the oldest first, as the service lists them."""
        found: list[dict[str, Any]] = []
        params: dict[str, Any] = {"limit": 100}
        while True:
            page = self._call("GET", "/v1/batches", params=params)
            found += page["data"]
            if not page["has_more"]:
                return [batch for batch in reversed(found) if batch["metadata"]["overnight_dag"] == dag_id]
            params["after"] = page["last_id"]

    def cancel(self, batch_id: str) -> None:
        """Cancel a batch at the service's console."""
        self._call("POST", f"/v1/batches/{batch_id}/cancel")

    def delete_file(self, file_id: str) -> None:
        """Delete a file at the service's console."""
        self._call("DELETE", f"/v1/files/{file_id}")

    def requests(self) -> list[dict[str, Any]]:
        """Return the requests that the server received, each with the fault that hit it."""
        return list(self._call("GET", "/_sandbox/requests")["data"])

    def queue(self, model: str = "text-embedding-3-small") -> dict[str, int]:
        """Return the tokens in a model's queue: ``enqueued`` now, and their ``peak``."""
        return dict(self._call("GET", "/_sandbox/queue")[model])

    def let_go(self) -> None:
        """Let batches that are held go on to their end."""
        self._call("PATCH", "/_sandbox/pace", json={"lines_per_second": None})

    def advance(self, seconds: float) -> None:
        """Put the service's clock forward."""
        self._call("POST", "/_sandbox/clock", json={"advance": seconds})

    def _call(self, method: str, path: str, **arguments: Any) -> Any:
        headers = {"Authorization": f"Bearer {self.key}"}
        with httpx.Client(base_url=self.url, headers=headers, timeout=60.0, trust_env=False) as client:
            return client.request(method, path, **arguments).raise_for_status().json()


def make_accounts(folder: Path) -> dict[str, Account]:
    """Return one account of each temper; none is started."""
    return {name: Account(name, folder / name, f"sk-planted-{os.urandom(12).hex()}") for name in SETTINGS}
