"""The worker behind the API: it moves batches on, a slice of lines at a time, and can be killed between any two."""

from __future__ import annotations

import logging
import os
import random
import time
from array import array
from pathlib import Path
from typing import BinaryIO, Literal

from overnight.sandbox.emulator.clock import Clock
from overnight.sandbox.emulator.worker import Worker
from overnight.sandbox.openai.batches import BatchError, BatchRecord, BatchStore, Outcome
from overnight.sandbox.openai.files import FileStore
from overnight.sandbox.openai.inputs import Checked, check, offsets
from overnight.sandbox.openai.lines import carry_out, undone
from overnight.sandbox.openai.quota import CODE, TokenQueue
from overnight.sandbox.openai.settings import Settings

log = logging.getLogger(__name__)

_SLICE = 0.05
"""Seconds of work between two commits, so that an answer over HTTP never waits long."""
_STICK_AT = 0.5

Kind = Literal["output", "error"]


class _Work:
    """What one process holds of a batch in progress: its lines' places, and the open files."""

    def __init__(self, store: BatchStore, batch: BatchRecord, lines_per_second: float | None) -> None:
        self.lines = offsets(store.part(batch.id, "input"))
        self.order = array("I", range(len(self.lines)))
        # Seeded with the batch's own id: a restarted process has to go through the lines in the same order.
        random.Random(batch.id).shuffle(self.order)  # noqa: S311 - not a secret
        self.input = store.part(batch.id, "input").open("rb")
        self.parts: dict[Kind, BinaryIO] = {
            "output": _reopen(store.part(batch.id, "output"), batch.output_bytes),
            "error": _reopen(store.part(batch.id, "error"), batch.error_bytes),
        }
        self.allowance = 1.0
        self.last = time.monotonic()
        self._bound = max(1.0, (lines_per_second or 0.0) * 0.5)

    def line(self, position: int) -> bytes:
        self.input.seek(self.lines[self.order[position]])
        return self.input.readline()

    def allowed(self, lines_per_second: float | None) -> float:
        """Return how many lines may be done now."""
        now = time.monotonic()
        if lines_per_second is None:
            self.last = now
            return float("inf")
        self._bound = max(1.0, lines_per_second * 0.5)
        self.allowance = min(self._bound, self.allowance + (now - self.last) * lines_per_second)
        self.last = now
        return self.allowance

    def close(self) -> None:
        for file in (self.input, *self.parts.values()):
            file.close()


class Runner(Worker):
    """
    A thread that carries out batches.

    :param settings: Read anew for every step, so that they can be changed meanwhile.
    """

    def __init__(
        self, settings: Settings, batches: BatchStore, files: FileStore, clock: Clock, queue: TokenQueue
    ) -> None:
        super().__init__("batches")
        self._queue = queue
        self._settings = settings
        self._batches = batches
        self._files = files
        self._clock = clock
        self._works: dict[str, _Work] = {}
        self._since: dict[tuple[str, str], float] = {}
        self._forgotten: set[str] = set()

    def start(self) -> None:
        """Begin, with the batches that an earlier process left."""
        if self._settings.quirks.stuck_after_restart:
            self._forgotten = {batch.id for batch in self._batches.unfinished()}
        super().start()

    def stop(self) -> None:
        """Stop after the current slice; what is unfinished is taken up by the next process."""
        super().stop()
        for work in self._works.values():
            work.close()

    def _turn(self) -> bool:
        busy = False
        for batch in self._batches.unfinished():
            if batch.id in self._forgotten or self._stopping.is_set():
                continue
            try:
                busy |= self._step(batch)
            except Exception:
                log.exception("Batch %s cannot be carried on; it stays as it is.", batch.id)
                self._forgotten.add(batch.id)
        return busy

    def _step(self, batch: BatchRecord) -> bool:
        """Move a batch on; say whether there is more to do at once."""
        if batch.status == "cancelling":
            if not self._waited(batch, self._settings.pace.cancelling):
                return False
            if batch.outcome is None:
                self._seal(batch, "cancelled")
                return True
            # Otherwise it was cancelled while finalizing: its files are complete, but it is cancelled.
            return self._end(batch, "cancelled")
        if batch.outcome is not None:
            return self._end(batch, batch.outcome)
        if self._clock.now() >= batch.expires_at:
            self._seal(batch, "expired")
            return True
        if batch.status == "validating":
            if self._waited(batch, self._settings.pace.validating):
                self._validate(batch)
            return False
        return self._work_on(batch)

    def _validate(self, batch: BatchRecord) -> None:
        if batch.fate == "fail":
            message = "The server had an error while validating the batch. Please try again."
            self._fail(batch, [BatchError(code="server_error", message=message)])
            return
        path = self._batches.part(batch.id, "input")
        checked = check(path, batch.endpoint, self._settings, by_deployment=batch.by_deployment)
        errors = checked.errors or self._check_quota(batch, checked)
        if errors:
            self._fail(batch, errors, model=checked.model)
            return
        with self._batches.change(batch.id) as record:
            record.total = checked.total
            record.model = checked.model
            record.enqueued_tokens = checked.tokens
            if record.status == "validating":
                record.status = "in_progress"
                record.in_progress_at = self._clock.now()

    def _check_quota(self, batch: BatchRecord, checked: Checked) -> list[BatchError]:
        if self._settings.limits.enqueued_check == "create":
            return []
        refusal = self._queue.find_refusal(batch, checked.model, checked.tokens)
        return [] if refusal is None else [BatchError(code=CODE, message=refusal)]

    def _fail(self, batch: BatchRecord, errors: list[BatchError], model: str | None = None) -> None:
        with self._batches.change(batch.id) as record:
            if record.status != "validating":
                return  # cancelled meanwhile: the runner sees to that next
            record.errors = errors
            record.model = model
            record.status = "failed"
            record.failed_at = self._clock.now()
        self._forget(batch.id)

    def _work_on(self, batch: BatchRecord) -> bool:
        settings = self._settings
        work = self._open(batch)
        stop = batch.total
        if batch.fate == "expire":
            stop = int(batch.total * settings.faults.batch_expired_after)
        elif batch.fate == "stick":
            stop = int(batch.total * _STICK_AT)
        done = self._slice(batch, work, stop)
        if batch.position < stop:
            return done and settings.pace.lines_per_second is None
        if batch.fate == "expire":
            self._seal(batch, "expired")
        elif batch.fate == "normal":
            self._seal(batch, "completed")
        return batch.fate != "stick"

    def _slice(self, batch: BatchRecord, work: _Work, stop: int) -> bool:
        """Carry out lines for a moment, and commit them; ``batch`` has the new position."""
        settings, now, begun = self._settings, self._clock.now(), time.monotonic()
        allowed = work.allowed(settings.pace.lines_per_second)
        start, counts = batch.position, {"output": 0, "error": 0}
        read = written = 0
        while batch.position < stop and batch.position - start + 1 <= allowed and time.monotonic() - begun < _SLICE:
            line = carry_out(work.line(batch.position), batch, settings, now=now)
            if line.file is not None:
                work.parts[line.file].write(line.text)
                counts[line.file] += 1
            read += line.input_tokens
            written += line.output_tokens
            batch.position += 1
        if batch.position == start:
            return False
        work.allowance -= batch.position - start
        for part in work.parts.values():
            part.flush()
        with self._batches.change(batch.id) as record:
            record.position = batch.position
            record.output_bytes = work.parts["output"].tell()
            record.error_bytes = work.parts["error"].tell()
            record.completed += counts["output"]
            record.failed += counts["error"]
            record.input_tokens += read
            record.output_tokens += written
        return True

    def _seal(self, batch: BatchRecord, outcome: Outcome) -> None:
        """Complete a batch's files; from then on only :meth:`_end` is left to do."""
        quirks = self._settings.quirks
        if batch.total:
            work = self._open(batch)
            if outcome != "completed":
                for position in range(batch.position, batch.total):
                    work.parts["error"].write(undone(work.line(position), batch, outcome, quirks))
            for part in work.parts.values():
                part.flush()
        with self._batches.change(batch.id) as record:
            if outcome == "completed" and record.status == "cancelling":
                return
            record.outcome = outcome
            if outcome == "completed":
                record.status = "finalizing"
                record.finalizing_at = self._clock.now()
                if quirks.no_finalizing:
                    record.status, record.finalizing_at = "in_progress", None
        self._close(batch.id)

    def _end(self, batch: BatchRecord, outcome: Outcome) -> bool:
        """Publish a sealed batch's files. Doing so again after a crash changes nothing."""
        quirks = self._settings.quirks
        if batch.status == "finalizing" and not self._waited(batch, self._settings.pace.finalizing):
            return False
        bare = (outcome == "cancelled" and quirks.cancel_without_output) or (
            outcome == "expired" and quirks.expire_without_output
        )
        output = None if bare else self._publish(batch, "output", always=False)
        errors = None if bare else self._publish(batch, "error", always=quirks.empty_error_file)
        now = self._clock.now()
        with self._batches.change(batch.id) as record:
            if outcome != "cancelled" and record.status == "cancelling":
                return False
            record.output_file_id, record.error_file_id = output, errors
            record.status = outcome
            if outcome == "completed":
                record.completed_at = now
            elif outcome == "expired":
                record.expired_at = now
            else:
                record.cancelled_at = now
        self._forget(batch.id)
        return True

    def _publish(self, batch: BatchRecord, kind: Kind, *, always: bool) -> str | None:
        part = self._batches.part(batch.id, kind)
        if part.exists():
            if self._settings.quirks.no_final_newline:
                _strip_newline(part)
            if part.stat().st_size == 0 and not always:
                part.unlink()
        return self._files.adopt(
            part,
            or_empty=always,
            name=f"{batch.id}.{kind}",
            purpose="batch_output",
            filename=f"{batch.id}_{kind}.jsonl",
            lifetime=batch.output_lifetime,
        )

    def _waited(self, batch: BatchRecord, seconds: float) -> bool:
        since = self._since.setdefault((batch.id, batch.status), time.monotonic())
        return time.monotonic() - since >= seconds

    def _open(self, batch: BatchRecord) -> _Work:
        if batch.id not in self._works:
            self._works[batch.id] = _Work(self._batches, batch, self._settings.pace.lines_per_second)
        return self._works[batch.id]

    def _close(self, batch_id: str) -> None:
        work = self._works.pop(batch_id, None)
        if work is not None:
            work.close()

    def _forget(self, batch_id: str) -> None:
        self._close(batch_id)
        for kind in ("input", "output", "error"):
            self._batches.part(batch_id, kind).unlink(missing_ok=True)
        self._since = {key: since for key, since in self._since.items() if key[0] != batch_id}


def _reopen(path: Path, size: int) -> BinaryIO:
    """Open a part for more lines, without what was written but not committed."""
    file = path.open("ab")
    file.truncate(size)
    file.seek(size)
    return file


def _strip_newline(path: Path) -> None:
    with path.open("r+b") as file:
        size = file.seek(0, os.SEEK_END)
        if size:
            file.seek(size - 1)
            if file.read(1) == b"\n":
                file.truncate(size - 1)
