"""Batch input of what is not in the cache: documents whose answers are there, or come anyway, are not sent."""

from __future__ import annotations

import tempfile
from array import array
from bisect import bisect_left, bisect_right
from collections.abc import Iterable, Mapping, Sequence
from contextlib import ExitStack
from itertools import accumulate, compress, islice
from typing import IO, TYPE_CHECKING, Any, Final

import orjson

from overnight.cache.digests import DIGEST_BYTES, DigestTable, compute_digest, compute_digests, take_digests
from overnight.rejection import Rejection
from overnight.services.openai.block_renderer import MadeRequests
from overnight.services.openai.cached_answers import CachedService, encode_repetition
from overnight.services.openai.choices import CacheMode, OnBadDocument
from overnight.services.openai.documents import DocumentLine, JoinedBlock, LineBlock
from overnight.services.openai.input import (
    BuiltInput,
    InputBuilder,
    InputPart,
    Limits,
    RequestTemplate,
    ReusedPart,
    join_lines,
)
from overnight.services.openai.request_columns import RequestColumns
from overnight.services.openai.scan import MAX_REJECTIONS, id_digests
from overnight.services.openai.tokens import ESTIMATE, TokenCounter
from overnight.storage import Storage

if TYPE_CHECKING:
    from overnight.cache.answers import RenderedLines
    from overnight.cache.places import Places

BLOCK_DOCUMENTS: Final = 1 << 16
BLOCK_BYTES: Final = 32 << 20
"""Of the documents that are looked up together."""
_RENDERING: Final = b"1"
"""Changes when the same template makes other requests than it did before."""


def build_reusing(
    documents: Iterable[DocumentLine | bytes | Mapping[str, Any]],
    template: RequestTemplate,
    target: str,
    *,
    service: CachedService,
    mode: CacheMode,
    storage: Storage | None = None,
    limits: Limits | None = None,
    on_bad: OnBadDocument = "fail",
    max_rejections: int = MAX_REJECTIONS,
    counter: TokenCounter = ESTIMATE,
) -> BuiltInput:
    """
    Do what :func:`~overnight.services.openai.input.build` does with what is not in the cache.

    :param service: The cache, and whose answers are looked up.
    :param mode: Anything but ``off``.
    :raises DamagedCacheError: a file of the cache is not what was written; nothing is left in the folder.
    """
    return ReusingBuilder(
        template,
        target.rstrip("/"),
        service=service,
        mode=mode,
        storage=storage or Storage(),
        limits=limits or Limits(),
        on_bad=on_bad,
        max_rejections=max_rejections,
        counter=counter,
    ).build(documents)


class ReusingBuilder(InputBuilder):
    """
    Builds batch input of the documents whose answers are not in the cache.

    Documents are taken in blocks. Of a line that was rendered by the same template before, the cache knows the key, so
    it is neither parsed nor rendered. Of documents with the same request the first is sent, and its result is given to
    all; so is one whose answer is in the cache, and nothing is sent.

    :param service: The cache, and whose answers are looked up.
    :param mode: Anything but ``off``.
    """

    def __init__(
        self, template: RequestTemplate, target: str, *, service: CachedService, mode: CacheMode, **others: Any
    ) -> None:
        super().__init__(template, target, **others)
        self._service = service
        self._mode = mode
        decisive = [service.base_url, template.endpoint, template.body, template.id_path]
        self._rendered = service.cache.rendered(compute_digest(_RENDERING + orjson.dumps(decisive)))
        # Of lines that the cache does not know yet, their digests and what they were rendered to, as it takes them.
        self._new = (bytearray(), bytearray(), bytearray())
        self._blocks: list[LineBlock] = []
        self._waiting = self._waiting_bytes = 0
        # Of each document that is sent or whose request is: its key, the digest of its id, and which request it is.
        self._sent = DigestTable()
        self._sent_ids = bytearray()
        self._sent_requests = array("I")
        self._repeats = _Repeats()
        self._reused: list[ReusedPart] = []
        self._reused_part: _ReusedFiles | None = None
        self._reused_files = ExitStack()

    def add(self, block: LineBlock) -> None:
        """Take a block of documents; see :meth:`InputBuilder.add`."""
        self._waiting += len(block.lines)
        self._waiting_bytes += len(block.data) if block.data is not None else sum(map(len, block.lines))
        # What waits is held once, by its lines.
        block.data = None
        self._blocks.append(block)
        if self._waiting >= BLOCK_DOCUMENTS or self._waiting_bytes >= BLOCK_BYTES:
            self._take_waiting()

    def __exit__(self, *error: object) -> None:
        try:
            if error[0] is None:
                self._take_waiting()
                self._note_rendered()
        finally:
            self._close_reused()
            super().__exit__(*error)

    def finish(self) -> BuiltInput:
        """Write who gets whose result, and return what was written."""
        self._parts = [self._write_repeats(number, part) for number, part in enumerate(self._parts)]
        self._repeats.close()
        return super().finish().model_copy(update={"reused": tuple(self._reused)})

    def discard(self) -> None:
        """Delete what was written."""
        self._repeats.close()
        super().discard()

    def _take_waiting(self) -> None:
        block, self._blocks = JoinedBlock(self._blocks), []
        self._waiting = self._waiting_bytes = 0
        if block.lines:
            self._begin(block)
            self._take(block)
        if len(self._new[0]) >= BLOCK_DOCUMENTS * DIGEST_BYTES:
            self._note_rendered()

    def _take(self, block: LineBlock) -> None:
        """Write each document to where its answer comes from: the cache, a request of its own, or that of another."""
        rendered, made, rejections = self._render_all(block)
        places = self._service.cache.look_up(b"" if self._mode == "refresh" else rendered.keys)
        without = list(range(len(block.lines))) if self._mode == "refresh" else places.list_missing()
        known = sorted({*without}.difference(made.places, rejections))
        others, refused = self._make_at(block, known)
        rejections |= refused
        taken: Sequence[int] = range(len(block.lines))
        if rejections:
            taken = [at for at in taken if at not in rejections]
        rejections |= self._take_ids(taken, take_digests(rendered.ids, taken))
        self._reject_all(block, rejections)
        # Once the input is refused, only what else is wrong is still of interest.
        if self.refused.total:
            return
        sent = [at for at in without if at not in rejections]
        self._send(block, sent, rendered.take(sent), _select(sent, made, others))
        answered = bytearray(b"\x01") * len(block.lines)
        for at in (*without, *rejections):
            answered[at] = 0
        self._reuse(list(compress(range(len(answered)), answered)), list(compress(block.lines, answered)), places)

    def _render_all(self, block: LineBlock) -> tuple[RenderedLines, MadeRequests, dict[int, Rejection]]:
        """
        Return what the lines of a block are rendered to, and, of those that were not known, the requests or what is
        wrong with them.
        """
        digests = compute_digests(block.lines)
        rendered = self._rendered.look_up(digests)
        made, rejections = self._make_at(block, rendered.unknown)
        bodies = [orjson.loads(line)["body"] for line in made.requests.lines]
        ids, keys = id_digests(made.ids), self._service.compute_keys(self._template.endpoint, bodies)
        rendered.set(made.places, ids, keys)
        for column, new in zip(self._new, (take_digests(digests, made.places), ids, keys), strict=True):
            column.extend(new)
        return rendered, made, rejections

    def _make_at(self, block: LineBlock, wanted: Sequence[int]) -> tuple[MadeRequests, dict[int, Rejection]]:
        """Make the requests of some documents of a block; return these, and why some documents have none."""
        made, rejections = self._make_all([block.lines[at] for at in wanted])
        places = [wanted[place] for place in made.places]
        return made._replace(places=places), {wanted[at]: rejection for at, rejection in rejections.items()}

    def _send(self, block: LineBlock, sent: Sequence[int], rendered: RenderedLines, requests: RequestColumns) -> None:
        """
        Write the requests of documents, each request once.

        :param sent: The documents' places in the block.
        :param rendered: Of these documents only.
        :param requests: The same.
        """
        first = len(self._sent)
        repeated = self._sent.add(rendered.keys)
        self._sent_ids += rendered.ids
        number = self._written_requests
        for place in range(len(sent)):
            if place in repeated:
                self._sent_requests.append(self._sent_requests[repeated[place]])
            else:
                self._sent_requests.append(number)
                number += 1
        lines = [block.lines[at] for at in sent]
        if repeated:
            is_new = [place not in repeated for place in range(len(sent))]
            requests, lines = requests.compress(is_new), list(compress(lines, is_new))
        self._write(requests, lines)
        starts = self._list_part_starts() if repeated else []
        for place in repeated:
            data = block.lines[sent[place]]
            start = repeated[place] * DIGEST_BYTES
            line = encode_repetition(self._render(data)[0], bytes(self._sent_ids[start : start + DIGEST_BYTES]))
            part = bisect_right(starts, self._sent_requests[first + place]) - 1
            self._repeats.add(part, line, data + b"\n")

    def _list_part_starts(self) -> list[int]:
        """Return the number of each part's first request."""
        return [0, *accumulate(part.requests for part in self._parts)]

    def _reuse(self, found: Sequence[int], lines: Sequence[bytes], places: Places) -> None:
        """
        Write documents whose answers are in the cache.

        :param found: The places of their keys among those that were looked up.
        :param lines: The documents.
        """
        start = 0
        while start < len(found):
            part = self._reused_part or self._begin_reused()
            end = start + part.count_fitting(lines, start, self._limits)
            if end > start:
                part.write(places.encode(found[start:end]), lines[start:end])
            if end < len(found):
                self._close_reused()
            start = end

    def _begin_reused(self) -> _ReusedFiles:
        stem = f"{self._target}/reused-{len(self._reused):05d}"
        files = [self._open(f"{stem}.{kind}.jsonl", self._reused_files) for kind in ("answers", "documents")]
        self._reused_part = _ReusedFiles(stem, files[0], files[1])
        return self._reused_part

    def _close_reused(self) -> None:
        self._reused_files.close()
        if self._reused_part is not None:
            self._reused.append(self._reused_part.done())
            self._reused_part = None

    def _write_repeats(self, number: int, part: InputPart) -> InputPart:
        count = self._repeats.count(number)
        if not count:
            return part
        stem = part.uri.removesuffix(".requests.jsonl")
        uris = {"repeated_uri": f"{stem}.repeated.jsonl", "repeated_documents_uri": f"{stem}.repeated.documents.jsonl"}
        with ExitStack() as files:
            repeated, documents = (self._open(uri, files) for uri in uris.values())
            for line, document in self._repeats.read(number):
                repeated.write(line)
                documents.write(document)
        return part.model_copy(update={"repeated": count, **uris})

    def _note_rendered(self) -> None:
        if self._mode != "read":
            self._rendered.add(*self._new)
        self._new = (bytearray(), bytearray(), bytearray())


def _select(sent: Sequence[int], *made: MadeRequests) -> RequestColumns:
    """Return the requests of the documents at some places of a block."""
    for one in made:
        if one.places == sent:
            return one.requests
    rows = {at: row for one in made for at, row in zip(one.places, one.requests.rows(), strict=True)}
    return RequestColumns.of(rows[at] for at in sent)


class _ReusedFiles:
    """The files of one reused part."""

    def __init__(self, stem: str, places: IO[bytes], lines: IO[bytes]) -> None:
        self._stem = stem
        self._places_file = places
        self._documents_file = lines
        self.documents = self.bytes = 0

    def count_fitting(self, lines: Sequence[bytes], start: int, limits: Limits) -> int:
        """Return how many of some documents, from a first one on, still go into this part."""
        count = max(0, min(len(lines) - start, limits.requests - self.documents))
        if self.bytes + sum(map(len, lines)) + len(lines) <= limits.bytes:
            return count
        # A part is full with the document that reaches the limit.
        before = list(accumulate((len(line) + 1 for line in islice(lines, start, start + count)), initial=self.bytes))
        return min(count, bisect_left(before, limits.bytes))

    def write(self, places: memoryview, lines: Sequence[bytes]) -> None:
        """Take documents, and the lines about where their answers are."""
        self._places_file.write(places)
        data = join_lines(lines)
        self._documents_file.write(data)
        self.documents += len(lines)
        self.bytes += len(data)

    def done(self) -> ReusedPart:
        return ReusedPart(
            uri=f"{self._stem}.answers.jsonl",
            documents_uri=f"{self._stem}.documents.jsonl",
            dead_letter_uri=f"{self._stem}.dead-letters.jsonl",
            checkpoint_uri=f"{self._stem}.checkpoint.json",
            documents=self.documents,
        )


class _Repeats:
    """Lines of documents that are not sent, by the part that has their request; on the disk, 8 bytes each in memory."""

    def __init__(self) -> None:
        self._file: IO[bytes] | None = None
        self._offsets: dict[int, array[int]] = {}

    def add(self, part: int, *lines: bytes) -> None:
        if self._file is None:
            self._file = tempfile.TemporaryFile()  # noqa: SIM115 - closed by close()
        self._offsets.setdefault(part, array("Q")).append(self._file.tell())
        self._file.writelines(lines)

    def count(self, part: int) -> int:
        return len(self._offsets.get(part, ()))

    def read(self, part: int) -> Iterable[tuple[bytes, bytes]]:
        """Yield the two lines of each document of a part."""
        for offset in self._offsets.get(part, ()):
            if self._file is not None:
                self._file.seek(offset)
                yield self._file.readline(), self._file.readline()

    def close(self) -> None:
        if self._file is not None:
            self._file.close()
