"""
Documents into bodies, bodies on their way, and their outcomes counted in the order of the lines.

Bodies are answered in any order; their outcomes are counted, their dead-letter records written and the checkpoint
moved in the order of the lines. So a checkpoint is always a line of the source with everything before it done, and
the dead-letter file follows the source.
"""

from __future__ import annotations

import random
import threading
import time
from bisect import bisect_right
from collections import Counter, deque
from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ThreadPoolExecutor, wait
from dataclasses import dataclass, field
from io import BytesIO

from overnight.ingest.map.documents import Cursor, DocumentPlace, Documents, Places, ReadItem
from overnight.ingest.report.dead_letters import DeadLetter, DeadLetterFile, Outcome, excerpt
from overnight.ingest.report.load_report import Progress
from overnight.ingest.request import LoadOptions
from overnight.ingest.write.body_memory import BodyMemory
from overnight.ingest.write.checkpoint import Checkpoint, CheckpointFile
from overnight.ingest.write.framing import Framed, frame
from overnight.ingest.write.preflight import Preflight
from overnight.ingest.write.sink import BodyOutcome, BodyWriter, Throttle
from overnight.rejection import Rejection

_MAX_DEAD_LETTERS = 1_000
# What is noted of each line (its place, its part of the answer) is many times as large as a small line, and waits for
# the bodies before it: behind a server that hung now and then a join peaked at 113 MiB with 20,000, 87 MiB with 5,000.
_MAX_ITEMS = 5_000
_MAX_SAMPLE = 200
_SAMPLE_OF_BODY = 8
_MAX_SAVING = 50
"""A checkpoint comes after so many times what the one before took, at the soonest: they are 2 % of a load."""
_DROPPED = Rejection("dropped_by_pipeline", "an ingest pipeline of the index dropped the document")


@dataclass(slots=True)
class DeliveryBatch:
    """A stretch of lines, and the body that their documents make."""

    items: int = 0
    cursor: Cursor | None = None
    lines: Counter[int] = field(default_factory=Counter)
    line_bytes: Counter[int] = field(default_factory=Counter)
    blank: Counter[int] = field(default_factory=Counter)
    lacking: Counter[int] = field(default_factory=Counter)
    dead_letters: list[DeadLetter] = field(default_factory=list)
    places: list[Places] = field(default_factory=list)
    ids: list[str] = field(default_factory=list)
    ends: list[int] = field(default_factory=list)
    body: BytesIO | None = None
    size: int = 0
    sent: Future[SentBatch] | None = None

    def read(self, item: ReadItem) -> None:
        """Note lines that give no document."""
        self.items += item.lines
        self.cursor = item.cursor
        if item.source is not None:
            self.lines[item.source] += item.lines
            self.line_bytes[item.source] += item.bytes
            self.blank[item.source] += item.is_blank
        if item.dead_letter is not None:
            self.dead_letters.append(item.dead_letter)
            self.lacking.update(item.lacking)

    def add(self, documents: Documents, start: int, end: int, framed: Framed) -> None:
        """Add some of the documents."""
        assert self.body is not None  # noqa: S101
        begin = framed.ends[start - 1] if start else 0
        framed.write(self.body, start, end)
        shift = self.size - begin
        self.ends += [place + shift for place in framed.ends[start:end]]
        self.size = self.ends[-1]
        self.places.append(documents.places.part(start, end))
        self.ids += documents.places.ids[start:end]
        self.items += end - start
        self.cursor = documents.cursor(end)
        if documents.ends:
            self.lines[documents.places.source] += end - start
            self.line_bytes[documents.places.source] += documents.line_bytes(start, end)

    def place(self, number: int) -> DocumentPlace:
        """Return the place of one of the documents."""
        for places in self.places:
            if number < len(places.ids):
                return places.get(number)
            number -= len(places.ids)
        raise IndexError(number)

    @property
    def is_over(self) -> bool:
        """Whether the outcome of each document is known, or the writer gave up."""
        return self.sent is None or self.sent.done()

    @property
    def has_failed(self) -> bool:
        """Whether the writer gave up."""
        return self.sent is not None and (self.sent.cancelled() or self.sent.exception() is not None)


@dataclass(slots=True)
class SentBatch:
    """
    What became of the documents of a body.

    :param dead_letters: Of those that are not in the index.
    :param elsewhere: How many were written into another index.
    :param unchanged: How many were there already.
    :param sample: The ids of some that are in the index, with their routing values.
    """

    dead_letters: list[DeadLetter] = field(default_factory=list)
    elsewhere: int = 0
    unchanged: int = 0
    sample: list[tuple[str, str | None]] = field(default_factory=list)


class Delivery:
    """
    Writes the documents of one load.

    :param checkpoint: Where the load stands; it is moved on.
    :param preflight: Looks at the documents of the first body before it is sent; ``None`` when that was done.
    :param ordered: Whether the same id can come again, and the later line must win.
    :param total_bytes: Of the sources, for the progress.
    :param stored_bytes: Returns how many of them were read.
    """

    def __init__(
        self,
        writer: BodyWriter,
        throttle: Throttle,
        stop: threading.Event,
        options: LoadOptions,
        *,
        checkpoint: Checkpoint,
        checkpoint_file: CheckpointFile,
        dead_letters: DeadLetterFile,
        preflight: Preflight | None,
        ordered: bool,
        total_bytes: int | None,
        stored_bytes: Callable[[], int],
        on_progress: Callable[[Progress], None] | None,
    ) -> None:
        self._writer = writer
        self._throttle = throttle
        self._stop = stop
        self._options = options
        self._checkpoint = checkpoint
        self._checkpoint_file = checkpoint_file
        self._dead_letters = dead_letters
        self._preflight = preflight
        self._total_bytes = total_bytes
        self._stored_bytes = stored_bytes
        self._on_progress = on_progress
        self._pool = ThreadPoolExecutor(options.max_in_flight, thread_name_prefix="overnight-bulk")
        self._batch = DeliveryBatch()
        self._open: deque[DeliveryBatch] = deque()
        self._memory = BodyMemory(options.bulk_bytes)
        self._pending_ids: set[str] | None = set() if ordered else None
        self._frame = writer.frame
        self._random = random.Random(0)  # noqa: S311 - which documents are looked up is no secret
        self._started = time.monotonic() - checkpoint.tally.seconds
        self._saved = self._reported = time.monotonic()
        self._saving = 0.0
        self._is_at_cursor = True
        self.elsewhere = 0
        self.sample: list[tuple[str, str | None]] = []
        """Ids and routing values of documents that are in the index by this object's account, a few of each body."""

    def run(self, items: Iterable[ReadItem | Documents]) -> None:
        """
        Carry out all items.

        :raises SpecError: the documents of the first body do not fit the index; nothing was written.
        :raises ServiceError: the sink refuses everything, or stayed away; what is done is in the checkpoint.
        """
        try:
            for item in items:
                if isinstance(item, Documents):
                    self._take(item)
                else:
                    self._batch.read(item)
                    self._send_if_full()
            self._send()
            self._drain()
        except BaseException:
            self._stop.set()
            self._pool.shutdown(cancel_futures=True)
            self._count_finished()
            self._save()
            raise
        self._pool.shutdown()
        self._dead_letters.commit()
        self._checkpoint.tally.seconds = time.monotonic() - self._started
        self._save()
        self._report_progress(force=True)

    def _take(self, documents: Documents) -> None:
        framed, done = frame(documents, self._frame), 0
        while done < len(documents):
            batch = self._batch
            begin = framed.ends[done - 1] if done else 0
            room = self._options.bulk_bytes - batch.size
            end = min(bisect_right(framed.ends, begin + room, done), done + _MAX_ITEMS - batch.items)
            if end == done:
                if batch.ends:
                    self._send()
                    continue
                end = done + 1  # larger than a body should be
            if self._pending_ids is not None:
                end = self._wait_for(documents.places.ids[done:end]) + done
                batch = self._batch
            if batch.body is None:
                # Copied at once, and into memory of its own: lines held until a body is full, and bodies of some
                # megabytes among them, would scatter the heap, and a process would grow with the file.
                batch.body = self._memory.take(framed.ends[end - 1] - begin)
            batch.add(documents, done, end, framed)
            if self._preflight is not None:
                routings = documents.places.routings
                for number in range(done, end):
                    self._preflight.add(documents.parts(number), routings[number] if routings is not None else None)
            done = end
            self._send_if_full()

    def _send_if_full(self) -> None:
        batch = self._batch
        if (
            batch.size >= self._options.bulk_bytes
            or len(batch.dead_letters) >= _MAX_DEAD_LETTERS
            or batch.items >= _MAX_ITEMS
        ):
            self._send()

    def _wait_for(self, ids: Sequence[str]) -> int:
        """
        Let an earlier document with the same id arrive first.

        :return: How many of the documents, from the first on, can be added.
        """
        assert self._pending_ids is not None  # noqa: S101
        if ids[0] in self._pending_ids:
            self._send()
            self._drain()
        for number, key in enumerate(ids):
            if key in self._pending_ids:
                return number
            self._pending_ids.add(key)
        return len(ids)

    def _send(self) -> None:
        batch, self._batch = self._batch, DeliveryBatch()
        if not batch.items:
            return
        if batch.ends:
            if self._preflight is not None:
                self._preflight.finish()
                self._preflight = None
            while True:
                running = [other.sent for other in self._open if other.sent is not None and not other.is_over]
                if len(running) < self._throttle.limit:
                    break
                wait(running, return_when=FIRST_COMPLETED)
                self._settle()
            batch.sent = self._pool.submit(self._deliver, batch)
        self._open.append(batch)
        self._settle()
        # One body that is sent again and again must not let the finished ones behind it pile up.
        while len(self._open) > 4 * self._options.max_in_flight:
            self._settle(wait_for_first=True)

    def _drain(self) -> None:
        while self._open:
            self._settle(wait_for_first=True)

    def _settle(self, *, wait_for_first: bool = False) -> None:
        """Count the batches that are over, up to the first that is not."""
        for batch in self._open:
            if batch.is_over and batch.has_failed and batch.sent is not None:
                batch.sent.result()  # raises at once, not after the batches before it
        while self._open and (wait_for_first or self._open[0].is_over):
            wait_for_first = False
            sent = self._open[0].sent.result() if self._open[0].sent is not None else SentBatch()
            self._count(self._open.popleft(), sent)
        # Where a checkpoint takes long, as in an object store, there are fewer. With 0 there is one after each body.
        every = self._options.checkpoint_seconds
        if every:
            every = max(every, _MAX_SAVING * self._saving)
        if time.monotonic() - self._saved >= every:
            self._save()
        self._report_progress()

    def _count_finished(self) -> None:
        while self._open and self._open[0].is_over and not self._open[0].has_failed:
            batch = self._open.popleft()
            self._count(batch, batch.sent.result() if batch.sent is not None else SentBatch())

    def _deliver(self, batch: DeliveryBatch) -> SentBatch:
        """Send a batch, in a thread of the pool, and let go of its body: it may wait long to be counted."""
        body, batch.body = batch.body, None
        assert body is not None  # noqa: S101
        with body.getbuffer() as memory, memory[: batch.size] as content:
            outcome = self._writer.send(content, batch.ends, batch.ids)
            failed = sorted([*outcome.rejected.items(), *((number, _DROPPED) for number in outcome.dropped)])
            records = []
            for number, rejection in failed:
                kind: Outcome = "rejected" if number in outcome.rejected else "dropped"
                start = batch.ends[number - 1] if number else 0
                framed = bytes(content[start : batch.ends[number]])
                records.append(self._to_dead_letter(batch, framed, number, kind, rejection))
        self._memory.give_back(body)
        return SentBatch(records, len(outcome.elsewhere), len(outcome.unchanged), _choose_sample(batch, outcome))

    def _count(self, batch: DeliveryBatch, sent: SentBatch) -> None:
        """Count a batch whose documents' outcomes are all known."""
        tally = self._checkpoint.tally
        tally.read(batch.lines, batch.blank, batch.line_bytes, batch.lacking)
        tally.unchanged += sent.unchanged
        tally.indexed += len(batch.ends) - len(sent.dead_letters) - sent.unchanged
        records = batch.dead_letters + sent.dead_letters
        for record in records:
            tally.add_dead_letter(record)
        self._dead_letters.write(records)
        self.elsewhere += sent.elsewhere
        for chosen in sent.sample:
            if len(self.sample) < _MAX_SAMPLE:
                self.sample.append(chosen)
            else:
                self.sample[self._random.randrange(_MAX_SAMPLE)] = chosen
        if self._pending_ids is not None:
            self._pending_ids.difference_update(batch.ids)
        # Items without a cursor come before the first line of the driving source, or after its last.
        self._is_at_cursor = batch.cursor is not None
        if batch.cursor is not None:
            self._checkpoint.cursor = batch.cursor

    def _to_dead_letter(
        self, batch: DeliveryBatch, framed: bytes, number: int, outcome: Outcome, rejection: Rejection
    ) -> DeadLetter:
        place = batch.place(number)
        document = framed.partition(self._frame.middle)[2].removesuffix(self._frame.tail)
        return DeadLetter(
            outcome,
            place.uri,
            place.source,
            place.line,
            place.offset,
            rejection.code,
            rejection.reason,
            id=place.id,
            routing=place.routing,
            text=excerpt(document),
            is_document=True,
        )

    def _save(self) -> None:
        self._saved = time.monotonic()
        if not self._is_at_cursor:
            return
        self._dead_letters.commit()
        self._checkpoint.dead_letter_bytes = self._dead_letters.size
        self._checkpoint.tally.seconds = self._saved - self._started
        self._checkpoint_file.save(self._checkpoint)
        self._saving = time.monotonic() - self._saved

    def _report_progress(self, *, force: bool = False) -> None:
        now = time.monotonic()
        if self._on_progress is None or (not force and now - self._reported < self._options.progress_seconds):
            return
        self._reported = now
        tally = self._checkpoint.tally
        self._on_progress(
            Progress(
                submitted=tally.submitted,
                indexed=tally.indexed,
                unchanged=tally.unchanged,
                dropped=tally.dropped,
                rejected=tally.rejected,
                missing=tally.missing,
                bytes=tally.bytes,
                stored_bytes=self._stored_bytes(),
                total_bytes=self._total_bytes,
            )
        )


def _choose_sample(batch: DeliveryBatch, outcome: BodyOutcome) -> list[tuple[str, str | None]]:
    """Return some of the ids that are in the index now: spread over the body, and the neighbours of what is not."""
    absent = {*outcome.rejected, *outcome.dropped, *outcome.elsewhere}
    count = len(batch.ids)
    step = max(1, count // _SAMPLE_OF_BODY)
    beside = [number + 1 for number in sorted(absent)[:_SAMPLE_OF_BODY]]
    chosen = {*range(0, count, step), *beside} - absent
    return [(batch.ids[number], batch.place(number).routing) for number in sorted(chosen) if number < count]
