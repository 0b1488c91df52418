"""``overnight sandbox`` as a user runs it, against a node that was never there before."""

from __future__ import annotations

import json
import os
import shlex
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import boto3
import httpx
import psutil
import pytest

from patience import PATIENCE

SANDBOX = (sys.executable, "-c", "from overnight.sandbox.cli import app; app(prog_name='overnight sandbox')")


def sandbox(folder: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    command = [*SANDBOX, *arguments, "--dir", str(folder)]
    return subprocess.run(command, capture_output=True, text=True, check=False)


def processes_of(folder: Path) -> list[psutil.Process]:
    """Every process that works in the folder or in what it links to, whoever started it."""
    places = [folder, *(entry.resolve() for entry in folder.glob("*"))] if folder.exists() else [folder]
    found = []
    for process in psutil.process_iter():
        try:
            where = Path(process.cwd())
        except (psutil.Error, OSError):
            continue
        if any(where.is_relative_to(place) for place in places) and process.status() != psutil.STATUS_ZOMBIE:
            found.append(process)
    return found


@pytest.fixture
def folder(tmp_path: Path) -> Iterator[Path]:
    folder = tmp_path / "sandbox"
    yield folder
    sandbox(folder, "down", "--purge")


def environment(folder: Path) -> dict[str, str]:
    lines = sandbox(folder, "env").stdout
    script = (
        f"set -a; eval {shlex.quote(lines)}; {sys.executable} -c 'import json,os; print(json.dumps(dict(os.environ)))'"
    )
    done = subprocess.run(["sh", "-c", script], capture_output=True, text=True, check=True)
    return dict(json.loads(done.stdout))


def test_everything_goes_up_is_found_through_its_variables_and_goes_down(folder: Path) -> None:
    up = sandbox(folder, "up", "--only", "opensearch,s3,openai", "--detach")
    assert up.returncode == 0, up.stderr
    assert sandbox(folder, "status").returncode == 0
    rows = json.loads(sandbox(folder, "status", "--json").stdout)
    assert {(row["service"], row["state"]) for row in rows} == {(n, "running") for n in ("opensearch", "s3", "openai")}

    variables = environment(folder)
    version = httpx.get(variables["OPENSEARCH_URL"]).json()["version"]["number"]
    assert version == "2.19.6"
    key = {"Authorization": f"Bearer {variables['OPENAI_API_KEY']}"}
    batches = httpx.get(f"{variables['OPENAI_BASE_URL']}/batches", headers=key)
    assert batches.raise_for_status().json()["data"] == []
    s3 = boto3.client(
        "s3",
        endpoint_url=variables["AWS_ENDPOINT_URL_S3"],
        region_name=variables["AWS_DEFAULT_REGION"],
        aws_access_key_id=variables["AWS_ACCESS_KEY_ID"],
        aws_secret_access_key=variables["AWS_SECRET_ACCESS_KEY"],
    )
    assert s3.list_buckets()["Buckets"] == []
    for name in ("OPENAI", "OPENSEARCH", "AWS"):
        assert json.loads(variables[f"AIRFLOW_CONN_{name}_DEFAULT"])["conn_type"]

    assert len(processes_of(folder)) == 3
    down = sandbox(folder, "down")
    assert down.returncode == 0
    assert processes_of(folder) == []
    assert sandbox(folder, "status").returncode == 1
    assert sandbox(folder, "env").returncode == 1
    real = (folder / "opensearch-2.19.6").resolve()
    assert sandbox(folder, "down", "--purge").returncode == 0
    assert not folder.exists()
    assert not real.exists()


def test_ctrl_c_ends_a_foreground_sandbox_while_it_starts(folder: Path) -> None:
    command = [*SANDBOX, "up", "--only", "opensearch", "--dir", str(folder)]
    with subprocess.Popen(command, stderr=subprocess.PIPE, text=True, start_new_session=True) as up:
        while not (folder / "state.json").exists():
            assert up.poll() is None
        assert len(processes_of(folder)) == 1
        os.killpg(up.pid, signal.SIGINT)
        assert up.wait(PATIENCE) == 0
    assert processes_of(folder) == []
    assert not (folder / "state.json").exists()
