"""
Documents into bodies, bodies on their way, and the books in order.

Bodies come back in any order; they are booked (counted, their dead letters written, the checkpoint moved) in the order
of the lines. So a checkpoint is always a line of the source with everything before it done, and the dead-letter file
goes through the source stretch by stretch.
"""

from __future__ import annotations

import threading
import time
from collections import Counter, deque
from collections.abc import Callable, Iterable, Mapping
from concurrent.futures import FIRST_COMPLETED, Future, ThreadPoolExecutor, wait
from dataclasses import dataclass, field
from mmap import mmap

from overnight.errors import SpecError
from overnight.ingest.map.documents import Cursor, Document, DocumentPlace, ReadItem
from overnight.ingest.map.rows import Splicer
from overnight.ingest.report.dead_letters import DeadLetter, DeadLetterFile, excerpt
from overnight.ingest.report.load_report import Progress
from overnight.ingest.request import LoadOptions
from overnight.ingest.write.bulk import BulkSender, ItemRejection, Throttle, span
from overnight.ingest.write.checkpoint import Checkpoint, CheckpointFile

_MAX_LETTERS = 1_000
# What is noted of each line (its place, its part of the answer) is many times as large as a small line, and waits for
# the bodies before it: behind a server that hung now and then a join peaked at 113 MiB with 20,000, 87 MiB with 5,000.
_MAX_ITEMS = 5_000
_FRAMES: dict[str, tuple[bytes, bytes, bytes]] = {
    "index": (b'{"index":{"_id":', b"}}\n", b"\n"),
    "update": (
        b'{"update":{"_id":',
        b',"retry_on_conflict":3}}\n{"doc":',
        b',"doc_as_upsert":true}\n',
    ),
}
"""What stands before the id, between id and document, and behind the document."""


@dataclass(slots=True)
class _Batch:
    """A stretch of lines, and the body that their documents make."""

    items: int = 0
    cursor: Cursor | None = None
    lines: Counter[int] = field(default_factory=Counter)
    line_bytes: Counter[int] = field(default_factory=Counter)
    lacking: Counter[int] = field(default_factory=Counter)
    letters: list[DeadLetter] = field(default_factory=list)
    places: list[DocumentPlace] = field(default_factory=list)
    ends: list[int] = field(default_factory=list)
    body: mmap | None = None
    size: int = 0
    sent: Future[list[DeadLetter]] | None = None

    def read(self, item: ReadItem) -> None:
        self.items += 1
        self.cursor = item.cursor
        if item.source is not None:
            self.lines[item.source] += 1
            self.line_bytes[item.source] += item.bytes
        if item.dead_letter is not None:
            self.letters.append(item.dead_letter)
            self.lacking.update(item.lacking)

    @property
    def is_over(self) -> bool:
        return self.sent is None or self.sent.done()

    @property
    def has_failed(self) -> bool:
        return self.sent is not None and (self.sent.cancelled() or self.sent.exception() is not None)


class Delivery:
    """
    Writes the documents of one load.

    :param checkpoint: Where the load stands; it is moved on.
    :param dimensions: Of the index's vector fields. When no document of the first body has the right length, the load
        is refused before anything was sent; later ones OpenSearch refuses one by one.
    :param ordered: Whether the same id can come again, and the later line must win.
    :param total_bytes: Of the sources, for the progress.
    """

    def __init__(
        self,
        sender: BulkSender,
        throttle: Throttle,
        stop: threading.Event,
        options: LoadOptions,
        *,
        checkpoint: Checkpoint,
        checkpoint_file: CheckpointFile,
        letters: DeadLetterFile,
        splicer: Splicer,
        dimensions: Mapping[str, int],
        ordered: bool,
        total_bytes: int | None,
        on_progress: Callable[[Progress], None] | None,
    ) -> None:
        self._sender = sender
        self._throttle = throttle
        self._stop = stop
        self._options = options
        self._checkpoint = checkpoint
        self._checkpoint_file = checkpoint_file
        self._letters = letters
        self._splicer = splicer
        self._dimensions = dimensions
        self._total_bytes = total_bytes
        self._on_progress = on_progress
        self._pool = ThreadPoolExecutor(options.max_in_flight, thread_name_prefix="overnight-bulk")
        self._batch = _Batch()
        self._open: deque[_Batch] = deque()
        self._pending_ids: set[str] | None = set() if ordered else None
        self._is_first = checkpoint.cursor is None
        self._lengths: dict[str, set[int]] = {}
        self._head, self._middle, self._tail = _FRAMES[checkpoint.write]
        self._overhead = len(self._head) + len(self._middle) + len(self._tail)
        self._started = time.monotonic() - checkpoint.tally.seconds
        self._saved = self._reported = time.monotonic()
        self._is_at_cursor = True

    def run(self, items: Iterable[ReadItem]) -> None:
        """
        Carry out all items.

        :raises ServiceError: OpenSearch refuses everything, or stayed away; what is done is in the checkpoint.
        """
        try:
            for item in items:
                self._take(item)
            self._send()
            self._drain()
        except BaseException:
            self._stop.set()
            self._pool.shutdown(cancel_futures=True)
            self._book_what_is_done()
            self._save()
            raise
        self._pool.shutdown()
        self._letters.commit()
        self._checkpoint.tally.seconds = time.monotonic() - self._started
        self._save()
        self._tell(force=True)

    def _take(self, item: ReadItem) -> None:
        document = item.document
        if document is not None:
            size = len(document.id) + sum(map(len, document.parts)) + self._overhead
            if self._batch.ends and self._batch.size + size > self._options.bulk_bytes:
                self._send()
            if self._pending_ids is not None:
                self._wait_for(document.place.id)
            self._add(document, size)
        batch = self._batch
        batch.read(item)
        if batch.size >= self._options.bulk_bytes or len(batch.letters) >= _MAX_LETTERS or batch.items >= _MAX_ITEMS:
            self._send()

    def _add(self, document: Document, size: int) -> None:
        batch = self._batch
        # Copied at once, and into memory of its own: lines held until a body is full, and bodies of some megabytes
        # among them, would scatter the heap, and a process would grow with the file.
        body = batch.body = batch.body or mmap(-1, max(self._options.bulk_bytes, size))
        for part in (self._head, document.id, self._middle, *document.parts, self._tail):
            body.write(part)
        batch.size += size
        batch.ends.append(batch.size)
        batch.places.append(document.place)
        if self._is_first:
            for name, length in self._splicer.vectors(self._dimensions.keys(), document.rows):
                self._lengths.setdefault(name, set()).add(length)

    def _wait_for(self, key: str) -> None:
        """Let an earlier document with the same id arrive first."""
        assert self._pending_ids is not None  # noqa: S101
        if key in self._pending_ids:
            self._send()
            self._drain()
        self._pending_ids.add(key)

    def _send(self) -> None:
        batch, self._batch = self._batch, _Batch()
        if not batch.items:
            return
        if batch.ends:
            if self._is_first:
                self._refuse_wrong_vectors()
            while True:
                running = [other.sent for other in self._open if other.sent is not None and not other.is_over]
                if len(running) < self._throttle.limit:
                    break
                wait(running, return_when=FIRST_COMPLETED)
                self._book()
            batch.sent = self._pool.submit(self._deliver, batch)
        self._open.append(batch)
        self._book()
        # One body that is sent again and again must not let the finished ones behind it pile up.
        while len(self._open) > 4 * self._options.max_in_flight:
            self._book(wait_for_head=True)

    def _drain(self) -> None:
        while self._open:
            self._book(wait_for_head=True)

    def _book(self, *, wait_for_head: bool = False) -> None:
        """Enter the batches that are over, up to the first that is not."""
        for batch in self._open:
            if batch.is_over and batch.has_failed and batch.sent is not None:
                batch.sent.result()  # raises at once, not after the batches before it
        while self._open and (wait_for_head or self._open[0].is_over):
            wait_for_head = False
            refused = self._open[0].sent.result() if self._open[0].sent is not None else []
            self._enter(self._open.popleft(), refused)
        if time.monotonic() - self._saved >= self._options.checkpoint_seconds:
            self._save()
        self._tell()

    def _book_what_is_done(self) -> None:
        while self._open and self._open[0].is_over and not self._open[0].has_failed:
            batch = self._open.popleft()
            self._enter(batch, batch.sent.result() if batch.sent is not None else [])

    def _deliver(self, batch: _Batch) -> list[DeadLetter]:
        """Send a batch, in a thread of the pool, and let go of its body: it may wait long to be booked."""
        body, batch.body = batch.body or b"", None
        refused = self._sender.send(memoryview(body)[: batch.size], batch.ends)
        return [self._letter(batch, body[slice(*span(batch.ends, bad.number))], bad) for bad in refused]

    def _enter(self, batch: _Batch, refused: list[DeadLetter]) -> None:
        """Count a batch whose documents have all come to an end."""
        tally = self._checkpoint.tally
        tally.read(batch.lines, batch.line_bytes, batch.lacking)
        letters = batch.letters + refused
        tally.indexed += len(batch.ends) - len(refused)
        for letter in letters:
            tally.refuse(letter)
        self._letters.write(letters)
        if self._pending_ids is not None:
            self._pending_ids.difference_update(place.id for place in batch.places)
        # Steps without a cursor come before the first line of the driving source, or after its last.
        self._is_at_cursor = batch.cursor is not None
        if batch.cursor is not None:
            self._checkpoint.cursor = batch.cursor

    def _letter(self, batch: _Batch, item: bytes, bad: ItemRejection) -> DeadLetter:
        place = batch.places[bad.number]
        # What the frame has on the document's own line does not belong to it.
        before = self._middle.partition(b"\n")[2]
        document = item.partition(b"\n")[2].removeprefix(before).removesuffix(self._tail)
        return DeadLetter(
            "rejected",
            place.uri,
            place.source,
            place.line,
            place.offset,
            bad.code,
            bad.reason,
            id=place.id,
            text=excerpt(document),
        )

    def _save(self) -> None:
        self._saved = time.monotonic()
        if not self._is_at_cursor:
            return
        self._letters.commit()
        self._checkpoint.dead_letter_bytes = self._letters.size
        self._checkpoint.tally.seconds = self._saved - self._started
        self._checkpoint_file.save(self._checkpoint)

    def _tell(self, *, force: bool = False) -> None:
        now = time.monotonic()
        if self._on_progress is None or (not force and now - self._reported < self._options.progress_seconds):
            return
        self._reported = now
        tally = self._checkpoint.tally
        self._on_progress(
            Progress(
                submitted=tally.submitted,
                indexed=tally.indexed,
                rejected=tally.rejected,
                missing=tally.missing,
                bytes=tally.bytes,
                total_bytes=self._total_bytes,
            )
        )

    def _refuse_wrong_vectors(self) -> None:
        self._is_first = False
        for name, lengths in self._lengths.items():
            if self._dimensions[name] not in lengths:
                found = ", ".join(map(str, sorted(lengths)[:5]))
                raise SpecError(
                    f"The field {name!r} is a vector of {self._dimensions[name]} in the index, but the first documents "
                    f"have {found}. Nothing was written. Use the model that the index was made for, or an index for "
                    "this model."
                )
