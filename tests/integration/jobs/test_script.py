"""A script, or a notebook, pays once for its job as a task does: the process is real, and so is its end."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import httpx
import pytest

from overnight.jobs import FileRecordStore
from overnight.jobs.record import Ending
from patience import PATIENCE

SCRIPT = Path(__file__).parent / "embed_script.py"


def start(url: str, folder: Path, mode: str = "lives") -> subprocess.CompletedProcess[str]:
    command = [sys.executable, str(SCRIPT), url, str(folder), mode]
    return subprocess.run(command, capture_output=True, text=True, timeout=PATIENCE, check=False)


def finish(url: str, folder: Path, mode: str = "lives") -> dict[str, Any]:
    done = start(url, folder, mode)
    assert done.returncode == 0, done.stderr
    return dict(json.loads(done.stdout))


@pytest.fixture
def admin(openai_url: str) -> str:
    admin = openai_url.removesuffix("/v1") + "/_sandbox"
    for section in ("faults", "quirks", "limits", "pace"):
        httpx.put(f"{admin}/{section}", json={}).raise_for_status()
    httpx.delete(f"{admin}/requests").raise_for_status()
    return admin


def count_created(admin: str) -> int:
    answer = httpx.get(f"{admin}/requests", params={"method": "POST", "path": "/v1/batches"})
    return len(answer.raise_for_status().json()["data"])


def test_a_script_killed_between_the_answer_and_the_record_attaches_when_it_is_started_again(
    openai_url: str, admin: str, tmp_path: Path
) -> None:
    assert start(openai_url, tmp_path, "dies").returncode == -signal.SIGKILL
    assert count_created(admin) == 1
    intent = FileRecordStore(tmp_path / "job.json").get()
    assert intent is not None
    assert intent.ref is None
    result = finish(openai_url, tmp_path)
    assert result["counts"] == {"total": 100, "succeeded": 100, "failed": 0}
    assert count_created(admin) == 1
    record = FileRecordStore(tmp_path / "job.json").get()
    assert record is not None
    assert (record.job.id, record.ending) == (result["id"], Ending.ACCEPTED)


def test_a_script_that_lost_its_record_finds_its_job_in_the_list(openai_url: str, admin: str, tmp_path: Path) -> None:
    first = finish(openai_url, tmp_path)
    (tmp_path / "job.json").unlink()
    assert finish(openai_url, tmp_path) == first
    assert count_created(admin) == 1


def test_a_script_that_succeeded_pays_again_only_when_it_is_asked_to(
    openai_url: str, admin: str, tmp_path: Path
) -> None:
    first = finish(openai_url, tmp_path)
    assert finish(openai_url, tmp_path) == first
    assert count_created(admin) == 1
    assert finish(openai_url, tmp_path, "again")["id"] != first["id"]
    assert count_created(admin) == 2
