"""The worker behind the API: it moves batches and jobs on, a slice at a time, and can be killed between any two."""

from __future__ import annotations

import logging
import time
from datetime import datetime
from typing import Any

import orjson

from overnight.sandbox.documents import Page, UnreadableError, parse
from overnight.sandbox.emulator.worker import Worker
from overnight.sandbox.llamacloud.directories import discard
from overnight.sandbox.llamacloud.extractor import describe_fields, extract
from overnight.sandbox.llamacloud.faults import hits
from overnight.sandbox.llamacloud.jobs import job_record
from overnight.sandbox.llamacloud.page_ranges import chosen
from overnight.sandbox.llamacloud.state import State
from overnight.sandbox.llamacloud.store import OVER, Record

log = logging.getLogger(__name__)

_SLICE = 0.05
"""Seconds of work at one thing before the next gets its turn."""
_SWEEP = 1.0
"""Seconds between looks for directories that have expired."""
_JOBS = 50


class _Rate:
    """How many things may be done by now at a number per second."""

    def __init__(self) -> None:
        self._allowance = 1.0
        self._last = time.monotonic()

    def take(self, per_second: float | None) -> bool:
        """Take one, if it is time for it."""
        now = time.monotonic()
        if per_second is None:
            self._last = now
            return True
        self._allowance = min(max(1.0, per_second), self._allowance + (now - self._last) * per_second)
        self._last = now
        if self._allowance < 1.0:
            return False
        self._allowance -= 1.0
        return True


class Runner(Worker):
    """A thread that carries out batches and jobs; the settings are read anew for every step."""

    def __init__(self, state: State) -> None:
        super().__init__("llamacloud")
        self._state = state
        self._store = state.store
        self._mapping = _Rate()
        self._working = _Rate()
        self._swept = 0.0

    def _turn(self) -> bool:
        try:
            self._sweep()
            busy = self._move_batches()
            return self._do_jobs() or busy
        except Exception:
            log.exception("The emulator's runner stumbled; it goes on.")
            return False

    def _sweep(self) -> None:
        if time.monotonic() - self._swept < _SWEEP:
            return
        self._swept = time.monotonic()
        now = self._store.now()
        for directory in self._store.all("directory"):
            if directory["expires_at"] and datetime.fromisoformat(directory["expires_at"]) <= now:
                discard(self._store, directory["id"])

    def _move_batches(self) -> bool:
        busy = False
        running = 0
        for batch in self._store.unfinished("batch", 1_000):
            running += batch["status"] == "RUNNING"
            busy |= self._move(batch, may_run=running < self._state.settings.limits.running_batches)
        return busy

    def _move(self, batch: Record, *, may_run: bool) -> bool:
        pace, faults = self._state.settings.pace, self._state.settings.faults
        waited = time.time() - batch["since"]
        if batch["cancel_asked"]:
            if waited >= pace.cancelling:
                self._cancel(batch)
            return False
        if batch["status"] in ("PENDING", "THROTTLED"):
            held = batch["fate"] == "batch_throttled" and waited < pace.pending + faults.throttled_seconds
            if waited >= pace.pending:
                self._set(batch, "THROTTLED" if held or not may_run else "RUNNING")
            return False
        if batch["fate"] == "batch_failed":
            self._set(batch, "FAILED")
            return False
        return self._map(batch)

    def _set(self, batch: Record, status: str) -> None:
        if batch["status"] == status:
            return
        with self._store.change("batch", batch["id"]) as record:
            if not record["cancel_asked"]:
                record["status"] = status

    def _map(self, batch: Record) -> bool:
        """Give the next files a job each; a job is kept before the batch knows of it."""
        began = time.monotonic()
        results, mapped, files = [], batch["mapped"], batch["files"]
        stuck = batch["fate"] == "batch_stuck" and mapped >= len(files) // 2
        while not stuck and mapped < len(files) and time.monotonic() - began < _SLICE:
            if not self._mapping.take(self._state.settings.pace.mapping_per_second):
                break
            result = self._give_job(batch, files[mapped])
            results += [result] if result is not None else []
            mapped += 1
        is_done = mapped == len(files)
        with self._store.change("batch", batch["id"]) as record:
            record["results"] += results
            record["mapped"] = mapped
            if is_done and not record["cancel_asked"]:
                record.update(status="COMPLETED", since=time.time())
        return bool(results) and not is_done

    def _give_job(self, batch: Record, directory_file_id: str) -> Record | None:
        faults, seed = self._state.settings.faults, self._state.settings.seed
        file = self._store.get("directory_file", directory_file_id, deleted=True)
        name = file["display_name"]
        if hits(faults.files_missing, seed, "missing", name):
            return None
        result: Record = {"source_directory_file_id": file["id"], "job_reference": None, "error_message": None}
        if file["deleted_at"] or hits(faults.files_unmapped, seed, "unmapped", name):
            return result | {"error_message": "The source file could not be associated with a job"}
        job_type = batch["config"]["job"]["type"]
        fate = "fail" if hits(faults.files_failed, seed, "failed", name) else None
        if fate is None and hits(faults.pages_failed, seed, "pages", name):
            fate = "page"
        record = job_record(
            job_type,
            batch["project_id"],
            name=name,
            parameters=batch["parameters"],
            file_id=file["file_id"],
            file_input=file["id"],
            parse_job_id=None,
            configuration_id=batch["config"]["job"]["configuration_id"],
            batch_id=batch["id"],
            fate=fate,
        )
        job = self._store.add("job", record, parent=batch["project_id"])
        return result | {"job_reference": {"id": job["id"], "type": job_type}}

    def _cancel(self, batch: Record) -> None:
        for result in batch["results"]:
            if result["job_reference"]:
                self._end(result["job_reference"]["id"], "CANCELLED")
        with self._store.change("batch", batch["id"]) as record:
            record["status"] = "CANCELLED"

    def _do_jobs(self) -> bool:
        began = time.monotonic()
        jobs = self._store.unfinished("job", _JOBS)
        for job in jobs:
            if time.monotonic() - began >= _SLICE or self._stopping.is_set():
                return True
            if not self._working.take(self._state.settings.pace.jobs_per_second):
                return False
            self._do(job)
        return len(jobs) == _JOBS

    def _do(self, job: Record) -> None:
        if job["fate"] == "fail":
            self._end(job["id"], "FAILED", "The file could not be processed (injected by the sandbox)")
            return
        try:
            result = self._result(job)
        except UnreadableError as error:
            self._end(job["id"], "FAILED", str(error))
            return
        except OSError:
            self._end(job["id"], "FAILED", "The file's content is gone")
            return
        self._store.content(f"{job['id']}.json").write_bytes(orjson.dumps(result))
        self._end(job["id"], "COMPLETED")

    def _result(self, job: Record) -> Any:
        content = self._store.content(job["file_id"]).read_bytes()
        parameters = job["parameters"]
        if job["type"] == "parse_v2":
            pages = chosen(parse(job["name"], content), parameters.get("page_ranges") or {})
            if job["fate"] == "page" and pages:
                pages[0] = (pages[0][0], Page(error="The page could not be processed (injected by the sandbox)"))
            return [
                {"page_number": number, "text": page.text, "markdown": page.markdown, "error": page.error}
                for number, page in pages
            ]
        limit = self._state.settings.limits.extract_file_bytes
        if len(content) > limit:
            raise UnreadableError(f"The file is larger than the {limit} bytes that can be extracted from")
        ranges = {name: parameters.get(name) for name in ("target_pages", "max_pages")}
        pages = chosen(parse(job["name"], content), ranges)
        texts = [(number, page.markdown) for number, page in pages]
        schema = parameters["data_schema"]
        asked = {"cite": bool(parameters.get("cite_sources")), "score": bool(parameters.get("confidence_scores"))}
        if parameters.get("extraction_target") == "per_page":
            results = [extract(text, schema) for _, text in texts]
            fields = [
                describe_fields([page], result, schema, **asked) for page, result in zip(texts, results, strict=True)
            ]
            return {"result": results, "fields": {"page_metadata": fields} if any(asked.values()) else None}
        result = extract("\n".join(text for _, text in texts), schema)
        described = describe_fields(texts, result, schema, **asked) if texts and any(asked.values()) else None
        return {"result": result, "fields": {"document_metadata": described} if described is not None else None}

    def _end(self, job_id: str, status: str, error: str | None = None) -> None:
        with self._store.change("job", job_id) as record:
            if record["status"] not in OVER:
                record.update(status=status, error_message=error)
