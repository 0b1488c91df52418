"""``overnight jobs`` as a process of its own, against the OpenAI emulator; the connection is Airflow's."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import httpx
import pytest

from overnight.jobs import JobKey, JobRef
from overnight.jobs.client import JobClient
from overnight.sandbox.airflow import Airflow
from overnight.services.openai.connection import OpenAIConnection
from overnight.services.openai.input import RequestTemplate, build
from overnight.services.openai.service import OpenAIBatchService, OpenAIBatchSpec
from patience import PATIENCE

COMMAND = (sys.executable, "-c", "from overnight.cli.app import app; app()", "jobs")
ITEMS = 20


@pytest.fixture
def admin(openai_url: str) -> Iterator[str]:
    admin = openai_url.removesuffix("/v1") + "/_sandbox"
    yield admin
    for section in ("faults", "quirks", "limits", "pace"):
        httpx.put(f"{admin}/{section}", json={}).raise_for_status()


@pytest.fixture
def environment(openai_url: str, tmp_path: Path) -> dict[str, str]:
    connection = {"conn_type": "overnight_openai", "host": openai_url, "password": "sandbox"}
    home = {"AIRFLOW_HOME": str(tmp_path / "airflow"), "NO_COLOR": "1"}
    return {**os.environ, **home, "AIRFLOW_CONN_OPENAI_DEFAULT": json.dumps(connection)}


def submit(openai_url: str, folder: Path, run_id: str) -> JobRef:
    documents = ({"id": f"d{number}", "text": f"text {number}"} for number in range(ITEMS))
    built = build(documents, RequestTemplate.embeddings("text-embedding-3-small", dimensions=8), str(folder / "in"))
    spec = OpenAIBatchSpec(input_uri=built.parts[0].uri, endpoint="/v1/embeddings").measured()
    key = JobKey(dag_id="nightly", task_id="embed", run_id=run_id, fingerprint="0" * 16)
    transport = OpenAIConnection("sandbox", base_url=openai_url).transport()
    with JobClient(OpenAIBatchService("openai_default"), transport) as client:
        return client.run(client.service.submit(spec, key))


def run(environment: Mapping[str, str], *arguments: str) -> subprocess.CompletedProcess[str]:
    found = subprocess.run(
        [*COMMAND, *arguments], env=dict(environment), capture_output=True, text=True, timeout=PATIENCE, check=False
    )
    assert "Traceback" not in found.stderr
    return found


def find(found: subprocess.CompletedProcess[str], ref: JobRef) -> dict[str, Any]:
    assert found.returncode == 0, found.stderr
    return next(job for job in json.loads(found.stdout) if job["ref"]["id"] == ref.id)


def test_a_job_is_listed_shown_and_waited_for(
    openai_url: str, admin: str, environment: dict[str, str], tmp_path: Path
) -> None:
    httpx.put(f"{admin}/pace", json={"validating": 0.1, "lines_per_second": 10}).raise_for_status()
    ref = submit(openai_url, tmp_path, "one")
    listed = find(run(environment, "list", "openai", "--json"), ref)
    assert listed["task"] == "nightly / embed / one"
    waited = run(environment, "wait", json.dumps(listed), "--interval", "0.2")
    assert (waited.returncode, waited.stdout) == (0, f"{ref} is succeeded (completed), 20/20 items.\n")
    shown = run(environment, "show", "openai", ref.id, "--json")
    view = json.loads(shown.stdout)
    assert view["status"]["counts"] == {"total": ITEMS, "succeeded": ITEMS, "failed": 0}
    assert {file["kind"] for file in view["files"]} == {"output", "input"}
    assert view["created_at"]
    assert ref.id not in run(environment, "list", "openai", "--unfinished", "--json").stdout


def test_ctrl_c_leaves_the_job_running_and_cancel_ends_it(
    openai_url: str, admin: str, environment: dict[str, str], tmp_path: Path
) -> None:
    httpx.put(f"{admin}/pace", json={"validating": 0, "lines_per_second": 0.1, "cancelling": 0.1}).raise_for_status()
    ref = submit(openai_url, tmp_path, "two")
    waiting = subprocess.Popen(
        [*COMMAND, "wait", "openai", ref.id, "--interval", "0.2"], env=environment, stderr=subprocess.PIPE, text=True
    )
    assert waiting.stderr is not None
    first = waiting.stderr.readline()  # it waits from here on
    waiting.send_signal(signal.SIGINT)
    _, rest = waiting.communicate(timeout=60)
    assert waiting.returncode == 130, first + rest
    assert "runs on at the service" in rest
    assert find(run(environment, "list", "openai", "--unfinished", "--json"), ref)
    assert run(environment, "cancel", "openai", ref.id, "--yes").returncode == 0
    waited = run(environment, "wait", "openai", ref.id, "--interval", "0.2")
    assert waited.returncode == 1
    assert "is cancelled" in waited.stdout


def test_a_connection_in_airflows_database_is_found(
    openai_url: str, environment: dict[str, str], migrated_airflow: Airflow, tmp_path: Path
) -> None:
    ref = submit(openai_url, tmp_path, "three")
    airflow = migrated_airflow.copy(tmp_path / "home")
    airflow.import_connections({"stored": {"conn_type": "overnight_openai", "host": openai_url, "password": "sandbox"}})
    found = run(airflow.environment(), "show", "openai", ref.id, "--conn-id", "stored")
    assert found.returncode == 0, found.stderr
    assert "connection: stored" in found.stdout
