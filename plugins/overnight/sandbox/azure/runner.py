"""The worker behind the API: it moves jobs on, some items at a time, and can be killed between any two."""

from __future__ import annotations

import logging
from datetime import UTC, datetime
from hashlib import sha256
from pathlib import Path
from typing import Any

from overnight.sandbox.azure.containers import open_container
from overnight.sandbox.azure.documents import Document, read_document, split_text
from overnight.sandbox.azure.errors import ApiError
from overnight.sandbox.azure.index import IndexStore
from overnight.sandbox.azure.jobs import Job, JobStore, Stage
from overnight.sandbox.azure.settings import Settings
from overnight.sandbox.documents import UnreadableError
from overnight.sandbox.emulator.worker import Worker

log = logging.getLogger(__name__)

_SLICE = 100
"""Chunks that are indexed in one transaction."""
_MAX_WARNINGS = 100


class Runner(Worker):
    """
    A thread that carries out jobs.

    :param settings: Read anew for every step, so that they can be changed meanwhile.
    :param blobs: The folder of ``UseDevelopmentStorage=true``.
    """

    def __init__(self, settings: Settings, jobs: JobStore, indexes: IndexStore, blobs: Path) -> None:
        super().__init__("ingestion")
        self._settings = settings
        self._jobs = jobs
        self._indexes = indexes
        self._blobs = blobs

    def _turn(self) -> bool:
        due = self._jobs.due()
        for job in due:
            try:
                self._step(job)
            except ApiError as error:
                self._end(job, error)
            except Exception:
                # The message could quote a header.
                log.error("A step of the job %s broke.", job.id)  # noqa: TRY400
                self._end(job, ApiError("internalFailure"))
            if self._stopping.is_set():
                break
        return bool(due)

    def _step(self, job: Job) -> None:
        if job.status != "running":
            self._begin(job)
        elif job.preprocessing.processed < job.preprocessing.total:
            self._preprocess(job)
        elif job.fate is not None:
            raise ApiError(job.fate)  # type: ignore[arg-type] # due() leaves the stuck ones out
        elif job.indexing.processed < job.indexing.total:
            self._index(job)
        else:
            self._end(job)

    def _begin(self, job: Job) -> None:
        job.status = "running"
        job.run += 1
        job.error = job.ended_at = None
        job.warnings = []
        job.names = []
        job.preprocessing = job.indexing = Stage()
        self._jobs.save(job, drop_assets=True)
        key = job.headers.get("searchServiceAdminKey")
        if key is not None and key != self._settings.search_key.get_secret_value():
            raise ApiError("unauthorized", "The search service refuses the admin key.", target="searchServiceAdminKey")
        job.names = open_container(job.headers, self._blobs).names()
        job.preprocessing = Stage(total=len(job.names))
        if self._settings.faults.repeat_credentials:
            job.warnings.append(f"Ingesting with {job.headers}")
        self._jobs.save(job)

    def _preprocess(self, job: Job) -> None:
        name = job.names[job.preprocessing.processed]
        chunks: list[dict[str, Any]] = []
        try:
            document = read_document(name, open_container(job.headers, self._blobs).read(name))
        except UnreadableError as error:
            self._warn(job, f"{name} was left out: {error}.")
        except OSError:
            self._warn(job, f"{name} was left out: it could not be read.")
        else:
            chunks = _chunks(name, document, job)
        job.preprocessing.processed += 1
        job.indexing = Stage(total=job.indexing.total + len(chunks))
        self._jobs.save(job, add=chunks)
        self._rest(1, self._settings.pace.documents_per_second)

    def _index(self, job: Job) -> None:
        self._indexes.create(job.id)
        rate = self._settings.pace.chunks_per_second
        some = self._jobs.assets(job.id, job.indexing.processed, _SLICE if rate is None else max(1, int(rate / 10)))
        self._indexes.put(job.id, job.run, some)
        job.indexing.processed += len(some)
        self._jobs.save(job)
        self._rest(len(some), rate)

    def _end(self, job: Job, error: ApiError | None = None) -> None:
        now = self._jobs.now()
        if error is None:
            self._indexes.create(job.id)
            self._indexes.forget_before(job.id, job.run)
            job.status = "succeeded"
        else:
            if self._settings.faults.repeat_credentials:
                error.message += f" The job had {job.headers}"
            job.status = "failed"
            job.error = error.error
        job.ended_at = now
        job.run_at = now + 60 * job.interval
        self._jobs.save(job, drop_assets=job.settings["completionAction"] == "cleanUpAssets")

    @staticmethod
    def _warn(job: Job, text: str) -> None:
        if len(job.warnings) < _MAX_WARNINGS:
            job.warnings.append(text)

    def _rest(self, items: int, per_second: float | None) -> None:
        if per_second is not None:
            self._stopping.wait(items / per_second)


def _chunks(name: str, document: Document, job: Job) -> list[dict[str, Any]]:
    now = datetime.now(UTC).isoformat(timespec="seconds")
    return [
        {
            # The same document at the same place has the same id in every run.
            "id": sha256(f"{name}\x00{number}".encode()).hexdigest()[:32],
            "content": chunk,
            "title": document.title,
            "filepath": name,
            "url": f"{job.headers['storageContainer']}/{name}",
            "chunk_id": str(number),
            "last_updated": now,
        }
        for number, chunk in enumerate(split_text(document.text, job.settings["chunkSize"]))
    ]
