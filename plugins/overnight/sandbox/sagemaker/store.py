"""Models, jobs and tags, kept across restarts."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field

from overnight.sandbox.emulator.database import Database
from overnight.sandbox.sagemaker.errors import AwsError

State = Literal["InProgress", "Completed", "Failed", "Stopping", "Stopped"]
OVER: frozenset[State] = frozenset({"Completed", "Failed", "Stopped"})
Fate = Literal["normal", "lost", "stuck"]

_SCHEMA = """
CREATE TABLE IF NOT EXISTS transform_jobs (
    seq INTEGER PRIMARY KEY AUTOINCREMENT,
    arn TEXT NOT NULL UNIQUE,
    is_over INTEGER NOT NULL,
    record TEXT NOT NULL
);
CREATE TABLE IF NOT EXISTS models (
    seq INTEGER PRIMARY KEY AUTOINCREMENT,
    arn TEXT NOT NULL UNIQUE,
    record TEXT NOT NULL
);
CREATE TABLE IF NOT EXISTS tags (arn TEXT NOT NULL, key TEXT NOT NULL, value TEXT NOT NULL, PRIMARY KEY (arn, key));
"""


class ModelRecord(BaseModel):
    """A model: the request that made it, and when."""

    arn: str
    name: str
    request: dict[str, Any]
    created_at: float

    @property
    def environment(self) -> dict[str, str]:
        """The first container's."""
        containers = [self.request.get("PrimaryContainer"), *self.request.get("Containers", ())]
        return next((given.get("Environment", {}) for given in containers if given), {})


class JobRecord(BaseModel):
    """
    A transform job. Times are seconds since the epoch.

    :param request: As CreateTransformJob had it, without the tags.
    :param inputs: The URIs that were found at the start.
    :param position: How many of them are done.
    :param refused: Those whose output was not written.
    """

    model_config = ConfigDict(validate_assignment=True)

    arn: str
    name: str
    region: str
    request: dict[str, Any]
    status: State = "InProgress"
    created_at: float
    modified_at: float
    started_at: float | None = None
    ended_at: float | None = None
    stopping_at: float | None = None
    failure_reason: str | None = None
    fate: Fate = "normal"
    prefix: str = ""
    inputs: list[str] = Field(default_factory=list)
    position: int = 0
    refused: list[str] = Field(default_factory=list)
    log: list[str] = Field(default_factory=list)

    @property
    def is_over(self) -> bool:
        """Whether nothing more happens to it."""
        return self.status in OVER

    def summary(self) -> dict[str, Any]:
        """Return the job as a listing shows it."""
        shown = {
            "TransformJobName": self.name,
            "TransformJobArn": self.arn,
            "CreationTime": self.created_at,
            "TransformEndTime": self.ended_at,
            "LastModifiedTime": self.modified_at,
            "TransformJobStatus": self.status,
            "FailureReason": self.failure_reason,
        }
        return {name: value for name, value in shown.items() if value is not None}

    def description(self) -> dict[str, Any]:
        """Return the job as DescribeTransformJob shows it."""
        times = {"TransformStartTime": self.started_at, "TransformEndTime": self.ended_at}
        facts = {**self.request, **self.summary(), **times}
        del facts["LastModifiedTime"]
        return {name: value for name, value in facts.items() if value is not None}


class Store:
    """The state of one emulated account."""

    def __init__(self, path: Path) -> None:
        self._database = Database(path, _SCHEMA)

    def add_job(self, record: JobRecord) -> bool:
        """Keep a new job; say whether its name was free."""
        with self._database.transaction() as connection:
            added = connection.execute(
                "INSERT OR IGNORE INTO transform_jobs (arn, is_over, record) VALUES (?, 0, ?)",
                (record.arn, record.model_dump_json()),
            )
        return added.rowcount == 1

    def job(self, arn: str) -> JobRecord | None:
        """Return one job."""
        rows = self._database.query("SELECT record FROM transform_jobs WHERE arn = ?", (arn,))
        return JobRecord.model_validate_json(str(rows[0][0])) if rows else None

    def jobs(self, *, unfinished: bool = False) -> list[JobRecord]:
        """Return jobs in the order of their creation."""
        where = " WHERE is_over = 0" if unfinished else ""
        rows = self._database.query(f"SELECT record FROM transform_jobs{where} ORDER BY seq")  # noqa: S608 - ours
        return [JobRecord.model_validate_json(str(row[0])) for row in rows]

    @contextmanager
    def change(self, arn: str) -> Iterator[JobRecord]:
        """Change one job alone; what the block leaves is kept when it ends well."""
        with self._database.transaction() as connection:
            row = connection.execute("SELECT record FROM transform_jobs WHERE arn = ?", (arn,)).fetchone()
            record = JobRecord.model_validate_json(row[0])
            yield record
            record.modified_at = time.time()
            connection.execute(
                "UPDATE transform_jobs SET is_over = ?, record = ? WHERE arn = ?",
                (record.is_over, record.model_dump_json(), arn),
            )

    def add_model(self, record: ModelRecord) -> bool:
        """Keep a new model; say whether its name was free."""
        with self._database.transaction() as connection:
            added = connection.execute(
                "INSERT OR IGNORE INTO models (arn, record) VALUES (?, ?)",
                (record.arn, record.model_dump_json()),
            )
        return added.rowcount == 1

    def model(self, arn: str) -> ModelRecord | None:
        """Return one model."""
        rows = self._database.query("SELECT record FROM models WHERE arn = ?", (arn,))
        return ModelRecord.model_validate_json(str(rows[0][0])) if rows else None

    def models(self) -> list[ModelRecord]:
        """Return all models in the order of their creation."""
        rows = self._database.query("SELECT record FROM models ORDER BY seq")
        return [ModelRecord.model_validate_json(str(row[0])) for row in rows]

    def delete_model(self, arn: str) -> bool:
        """Forget a model; say whether there was one."""
        with self._database.transaction() as connection:
            return connection.execute("DELETE FROM models WHERE arn = ?", (arn,)).rowcount == 1

    def tag(self, arn: str, tags: list[dict[str, str]]) -> None:
        """
        Add tags to a resource, or change them.

        :raises AwsError: there would be more than 50.
        """
        with self._database.transaction() as connection:
            for tag in tags:
                connection.execute("INSERT OR REPLACE INTO tags VALUES (?, ?, ?)", (arn, tag["Key"], tag["Value"]))
            (count,) = connection.execute("SELECT COUNT(*) FROM tags WHERE arn = ?", (arn,)).fetchone()
            if count > 50:
                raise AwsError("ResourceLimitExceeded", "The number of tags of a resource cannot be more than 50.")

    def tags(self, arn: str) -> list[dict[str, str]]:
        """Return a resource's tags."""
        rows = self._database.query("SELECT key, value FROM tags WHERE arn = ? ORDER BY key", (arn,))
        return [{"Key": str(key), "Value": str(value)} for key, value in rows]

    def close(self) -> None:
        """Close the database."""
        self._database.close()
