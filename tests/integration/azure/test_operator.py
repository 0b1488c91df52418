"""The operator in Airflow: one job whatever kills the worker, and what cannot be stopped is said."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

KILLED = 9
WORKER = Path(__file__).with_name("worker.py")


def attempt(azure: Any, store: Path, die: str = "") -> subprocess.CompletedProcess[str]:
    """Run one try of the task in a process of its own."""
    return subprocess.run(
        [sys.executable, str(WORKER), str(store), die],
        env={**os.environ, **azure.variables(), "AIRFLOW_HOME": str(store.parent / "airflow")},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        check=False,
    )


@pytest.mark.parametrize("die", ["before the PUT", "after the PUT", "after the record"])
def test_a_worker_that_dies_leaves_one_job(azure: Any, tmp_path: Path, die: str) -> None:
    store = tmp_path / "store.json"
    first = attempt(azure, store, die)
    assert first.returncode == KILLED, first.stdout
    assert len(azure.jobs()) == (0 if die == "before the PUT" else 1)
    second = attempt(azure, store)
    assert second.returncode == 0, second.stdout
    outcome = json.loads(second.stdout.splitlines()[-1])
    assert azure.jobs() == [outcome["ref"]["id"]]
    assert [request["status"] for request in azure.requests("PUT")] == [200]
    assert outcome["status"]["state"] == "succeeded"


def test_a_retry_after_48_hours_says_what_happened_and_starts_anew(azure: Any, tmp_path: Path) -> None:
    store = tmp_path / "store.json"
    assert attempt(azure, store, "after the answer").returncode == KILLED
    (job,) = azure.jobs()
    azure.wait(azure.client().service.ref(job))
    azure.advance(49 * 3_600)
    second = attempt(azure, store)
    assert second.returncode == 0, second.stdout
    assert "keeps a job for 48 hours after its end and then forgets it" in second.stdout
    assert f"job {job}, submitted at 20" in second.stdout
    assert "is gone from the service" in second.stdout
    assert json.loads(second.stdout.splitlines()[-1])["ref"]["id"] == job.replace("-g0-", "-g1-")


def test_a_killed_task_says_what_is_left_running(azure: Any, tmp_path: Path) -> None:
    azure.set("faults", job_stuck=1)
    killed = attempt(azure, tmp_path / "store.json", "on_kill")
    assert "has no call that ends an ingestion job" in killed.stdout
    assert "goes on until it ends by itself" in killed.stdout
    assert len(azure.jobs()) == 1
