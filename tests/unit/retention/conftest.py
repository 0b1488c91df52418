"""A work folder in which pipelines have run at different times."""

from __future__ import annotations

import os
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from overnight.jobs import JobKey, JobRecord, JobRef
from overnight.jobs.record import Ending

NOW = datetime(2026, 3, 31, 12, tzinfo=UTC)
REPORT = '{"submitted": 1, "indexed": 1, "missing": 0, "parts": [], "failed_parts": []}'
FAILED = '{"submitted": 1, "indexed": 0, "missing": 1, "parts": [], "failed_parts": [0]}'
FILES = (
    "part-00000.requests.jsonl", "part-00000.documents.jsonl", "part-00000.checkpoint.json",
    "part-00000.dead-letters.jsonl", "rejected.jsonl", "deletes.jsonl",
)  # fmt: skip

OWN_FILES = (
    ".lock", "run.json", "input.json", "jobs/part-00000.json", "part-00000.requests.jsonl",
    "part-00000.documents.jsonl", "part-00000.checkpoint.json", "reused-00000.answers.jsonl",
    "reused-00000.documents.jsonl", "report.json",
)  # fmt: skip
"""What an ``overnight run`` leaves."""

Write = Callable[..., Path]


@pytest.fixture
def work(tmp_path: Path) -> Path:
    return tmp_path / "work"


@pytest.fixture
def write(work: Path) -> Write:
    """Writes a file of some days ago."""

    def write_file(path: str, content: str = "{}", *, days: float = 60) -> Path:
        file = work / path
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(content)
        at = (NOW - timedelta(days=days)).timestamp()
        os.utime(file, (at, at))
        return file

    return write_file


@pytest.fixture
def write_run(write: Write) -> Callable[..., None]:
    """Writes the files of a run; its report is the last."""

    def write_files(name: str, *, days: float = 60, report: str | None = REPORT) -> None:
        for file in FILES:
            write(f"{name}/{file}", days=days)
        if report is not None:
            write(f"{name}/report.html", days=days)
            write(f"{name}/report.json", report, days=days)

    return write_files


@pytest.fixture
def write_own(write: Write) -> Callable[..., None]:
    """Writes the files of an ``overnight run``, whose folder the work folder is then."""

    def write_files(
        *,
        days: float = 60,
        report: str | None = REPORT,
        ending: Ending | None = Ending.ACCEPTED,
        job: str | None = None,
    ) -> None:
        records = {"run.json": '{"run_id": "0123456789abcdef"}', "jobs/part-00000.json": job or _job(ending)}
        for file in OWN_FILES:
            if file != "report.json":
                write(file, records.get(file, "{}"), days=days)
        if report is not None:
            write("report.json", report, days=days)

    return write_files


def _job(ending: Ending | None) -> str:
    key = JobKey(dag_id="script", task_id="t", run_id="", fingerprint="0" * 16)
    record = JobRecord.attached(JobRef(service="openai", id="batch_1", conn_id="c"), key, NOW)
    return (record.ended(ending, 0) if ending is not None else record).model_dump_json()
