"""Ingestion jobs: what is kept of one, and what the API shows of it."""

from __future__ import annotations

import time
from typing import Any, Literal

import orjson
from pydantic import BaseModel, Field

from overnight.sandbox.azure.errors import ApiError
from overnight.sandbox.azure.settings import Quirks
from overnight.sandbox.emulator.clock import Clock
from overnight.sandbox.emulator.database import Database

SCHEMA = """
CREATE TABLE IF NOT EXISTS jobs (
    seq INTEGER PRIMARY KEY AUTOINCREMENT,
    id TEXT NOT NULL UNIQUE,
    record TEXT NOT NULL
);
CREATE TABLE IF NOT EXISTS assets (
    number INTEGER PRIMARY KEY AUTOINCREMENT,
    job TEXT NOT NULL,
    record TEXT NOT NULL
);
CREATE INDEX IF NOT EXISTS assets_by_job ON assets (job);
"""

Status = Literal["notRunning", "running", "succeeded", "failed"]


class Stage(BaseModel):
    """How far one stage is."""

    total: int = 0
    processed: int = 0


class Job(BaseModel):
    """
    One job.

    :param settings: The request's body.
    :param headers: With the credentials: a job goes on after a restart.
    :param fate: An error code, or ``stuck``.
    :param run_at: When the next run begins, in the emulator's time.
    :param run: Which run it is, from 1.
    :param names: The documents of the run.
    """

    id: str
    settings: dict[str, Any]
    headers: dict[str, str]
    fate: str | None = None
    status: Status = "notRunning"
    error: dict[str, Any] | None = None
    warnings: list[str] = Field(default_factory=list)
    run_at: float
    run: int = 0
    ended_at: float | None = None
    names: list[str] = Field(default_factory=list)
    preprocessing: Stage = Stage()
    indexing: Stage = Stage()

    @property
    def interval(self) -> int:
        """Minutes between two runs; 0 for a single one."""
        return int(self.settings["dataRefreshIntervalInMinutes"])

    @property
    def is_over(self) -> bool:
        """Whether the run has ended."""
        return self.status in ("succeeded", "failed")

    def public(self, quirks: Quirks) -> dict[str, Any]:
        """Return the ``IngestionJob``."""
        status = self.status[0].upper() + self.status[1:] if quirks.capitalised else self.status
        shown: dict[str, Any] = {"id": self.id, **self.settings, "status": status, "warnings": self.warnings}
        if self.error is not None:
            shown["error"] = self.error
        if not (self.is_over and quirks.no_progress_at_end):
            stages = {"Preprocessing": self.preprocessing, "Indexing": self.indexing}
            shown["progress"] = {
                "stageProgress": [
                    {"name": name, "totalItems": stage.total, "processedItems": stage.processed}
                    for name, stage in stages.items()
                ]
            }
        return shown


class JobStore:
    """
    All jobs, and the chunks that lie between their two stages.

    :param kept: Seconds that a job is known after its end.
    """

    def __init__(self, database: Database, clock: Clock, kept: int) -> None:
        self._database = database
        self._clock = clock
        self._kept = kept

    def now(self) -> float:
        """Return the emulator's time."""
        return time.time() + self._clock.offset

    def create(self, job: Job) -> Job:
        """
        Keep a new job, or return the one that has its id and was asked for with the same words.

        :raises ApiError: The id is taken by another one.
        """
        self._expire()
        with self._database.transaction() as connection:
            found = connection.execute("SELECT record FROM jobs WHERE id = ?", (job.id,)).fetchone()
            if found is None:
                connection.execute("INSERT INTO jobs (id, record) VALUES (?, ?)", (job.id, job.model_dump_json()))
                return job
        existing = Job.model_validate_json(found[0])
        if (existing.settings, existing.headers) != (job.settings, job.headers):
            raise ApiError("conflict", f"The job '{job.id}' does already exist with other settings.", target="jobId")
        return existing

    def get(self, job_id: str) -> Job:
        """
        Return one job.

        :raises ApiError: There is none, or it ended too long ago.
        """
        self._expire()
        rows = self._database.query("SELECT record FROM jobs WHERE id = ?", (job_id,))
        if not rows:
            raise ApiError("notFound", f"The job '{job_id}' is not found.", target="jobId")
        return Job.model_validate_json(str(rows[0][0]))

    def all(self) -> list[Job]:
        """Return all jobs, the oldest first."""
        self._expire()
        rows = self._database.query("SELECT record FROM jobs ORDER BY seq")
        return [Job.model_validate_json(str(record)) for (record,) in rows]

    def due(self) -> list[Job]:
        """Return the jobs that have something to do now."""
        now = self.now()
        jobs = [job for job in self.all() if job.fate != "stuck" or job.status == "notRunning"]
        return [job for job in jobs if job.status == "running" or (job.run_at <= now and _may_begin(job))]

    def save(self, job: Job, *, add: list[dict[str, Any]] | None = None, drop_assets: bool = False) -> None:
        """Keep what has become of a job, and of its chunks, in one transaction."""
        with self._database.transaction() as connection:
            connection.execute("UPDATE jobs SET record = ? WHERE id = ?", (job.model_dump_json(), job.id))
            if drop_assets:
                connection.execute("DELETE FROM assets WHERE job = ?", (job.id,))
            connection.executemany(
                "INSERT INTO assets (job, record) VALUES (?, ?)",
                [(job.id, orjson.dumps(chunk).decode()) for chunk in add or []],
            )

    def assets(self, job_id: str, skip: int, count: int) -> list[dict[str, Any]]:
        """Return some of the chunks that a job has made."""
        rows = self._database.query(
            "SELECT record FROM assets WHERE job = ? ORDER BY number LIMIT ? OFFSET ?", (job_id, count, skip)
        )
        return [orjson.loads(str(record)) for (record,) in rows]

    def count_assets(self, job_id: str) -> int:
        """Return how many chunks a job has made."""
        ((count,),) = self._database.query("SELECT count(*) FROM assets WHERE job = ?", (job_id,))
        return int(str(count))

    def _expire(self) -> None:
        limit = self.now() - self._kept
        rows = self._database.query("SELECT record FROM jobs")
        jobs = [Job.model_validate_json(str(record)) for (record,) in rows]
        gone = [job.id for job in jobs if not job.interval and job.ended_at is not None and job.ended_at <= limit]
        if gone:
            with self._database.transaction() as connection:
                connection.executemany("DELETE FROM jobs WHERE id = ?", [(job_id,) for job_id in gone])
                connection.executemany("DELETE FROM assets WHERE job = ?", [(job_id,) for job_id in gone])


def _may_begin(job: Job) -> bool:
    return job.status == "notRunning" or (job.is_over and job.interval > 0)
