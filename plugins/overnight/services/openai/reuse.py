"""Batch input of what is not in the cache: documents whose answers are there, or come anyway, are not sent."""

from __future__ import annotations

import tempfile
from array import array
from bisect import bisect_right
from collections.abc import Iterable, Mapping
from contextlib import ExitStack
from typing import IO, TYPE_CHECKING, Any, Final, NamedTuple

import orjson

from overnight.cache.digests import DIGEST_BYTES, DigestTable, compute_digest
from overnight.rejection import RejectedError, Rejection
from overnight.services.openai.cached_answers import CachedService, CacheMode, encode_place, encode_repetition
from overnight.services.openai.input import (
    BuiltInput,
    DocumentLine,
    InputBuilder,
    InputPart,
    Limits,
    OnBadDocument,
    Request,
    RequestTemplate,
    ReusedPart,
)
from overnight.services.openai.scan import MAX_REJECTIONS, id_digest
from overnight.services.openai.tokens import ESTIMATE, TokenCounter
from overnight.storage import Storage

if TYPE_CHECKING:
    from overnight.cache.answers import Place, Rendered

BLOCK_DOCUMENTS: Final = 1 << 15
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


class _Taken(NamedTuple):
    """One document of a block."""

    number: int
    line: DocumentLine
    data: bytes


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
        self._new: dict[bytes, Rendered] = {}
        self._block: list[_Taken] = []
        self._block_bytes = 0
        # Of each request that is sent: its key, the digest of its id, and the part it is in.
        self._sent = DigestTable()
        self._sent_ids = bytearray()
        self._part_starts = array("Q")
        self._repeats = _Repeats()
        self._reused: list[ReusedPart] = []
        self._reused_part: _ReusedFiles | None = None
        self._reused_files = ExitStack()

    def add(self, number: int, document: DocumentLine | bytes | Mapping[str, Any]) -> None:
        """Take a document; see :meth:`InputBuilder.add`."""
        line = self._begin(number, document)
        if line is None:
            return
        data = line.data.rstrip(b"\r\n")
        self._block.append(_Taken(number, line, data))
        self._block_bytes += len(data)
        if len(self._block) >= BLOCK_DOCUMENTS or self._block_bytes >= BLOCK_BYTES:
            self._take_block()

    def __exit__(self, *error: object) -> None:
        try:
            if error[0] is None:
                self._take_block()
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

    def _take_block(self) -> None:
        block, self._block, self._block_bytes = self._block, [], 0
        lines = [compute_digest(one.data) for one in block]
        known = self._rendered.find(set(lines))
        requests: dict[int, Request] = {}
        rejections: dict[int, Rejection] = {}
        for at, digest in enumerate(lines):
            if digest not in known:
                try:
                    known[digest], requests[at] = self._render_new(block[at].data)
                except RejectedError as error:
                    rejections[at] = error.rejection
                else:
                    self._new[digest] = known[digest]
        keys = {one.key for one in known.values()}
        places: dict[bytes, Place] = {} if self._mode == "refresh" else self._service.cache.find(keys)
        for at, one in enumerate(block):
            rejection = rejections.get(at)
            if rejection is None:
                rejection = self._place(one, known[lines[at]], places, requests.pop(at, None))
            if rejection is not None:
                self._reject(one.line, rejection)
        if len(self._new) >= BLOCK_DOCUMENTS:
            self._note_rendered()

    def _render_new(self, data: bytes) -> tuple[Rendered, Request]:
        from overnight.cache.answers import Rendered  # noqa: PLC0415 - an extra

        custom_id, request = self._render(data)
        key = self._service.compute_key(self._template.endpoint, request["body"])
        return Rendered(id_digest(custom_id), key), self._measure(custom_id, request)

    def _place(
        self, one: _Taken, rendered: Rendered, places: Mapping[bytes, Place], request: Request | None
    ) -> Rejection | None:
        """
        Write a document to where its answer comes from: the cache, a request of its own, or that of another one.

        :param request: Its request, where it was rendered.
        :return: Why it was not: its id was used already, or no batch takes it.
        """
        place = places.get(rendered.key)
        try:
            if place is None and request is None:
                request = self._measure(*self._render(one.data))
            self._take_id(rendered.id, one.number)
        except RejectedError as error:
            return error.rejection
        # Once the input is refused, only what else is wrong is still of interest.
        if self.refused.total:
            return None
        if place is not None:
            self._reuse(rendered.key, place, one.data)
        elif request is not None:
            self._send(rendered, request, one.data)
        return None

    def _send(self, rendered: Rendered, request: Request, data: bytes) -> None:
        number = len(self._sent)
        first = self._sent.setdefault(rendered.key, number)
        if first != number:
            start = first * DIGEST_BYTES
            line = encode_repetition(self._render(data)[0], bytes(self._sent_ids[start : start + DIGEST_BYTES]))
            self._repeats.add(bisect_right(self._part_starts, first) - 1, line, data + b"\n")
            return
        self._room_for(request).write(request, data)
        if len(self._parts) == len(self._part_starts):
            self._part_starts.append(number)
        self._sent_ids += rendered.id

    def _reuse(self, key: bytes, place: Place, data: bytes) -> None:
        part, limits = self._reused_part, self._limits
        if part is not None and (part.documents >= limits.requests or part.bytes >= limits.bytes):
            self._close_reused()
        if self._reused_part is None:
            stem = f"{self._target}/reused-{len(self._reused):05d}"
            files = [self._open(f"{stem}.{kind}.jsonl", self._reused_files) for kind in ("answers", "documents")]
            self._reused_part = _ReusedFiles(stem, files[0], files[1])
        self._reused_part.write(encode_place(key, place), data + b"\n")

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
            self._rendered.add(self._new)
        self._new = {}


class _ReusedFiles:
    """The files of one reused part."""

    def __init__(self, stem: str, places: IO[bytes], lines: IO[bytes]) -> None:
        self._stem = stem
        self._places_file = places
        self._documents_file = lines
        self.documents = self.bytes = 0

    def write(self, place: bytes, document: bytes) -> None:
        self._places_file.write(place)
        self._documents_file.write(document)
        self.documents += 1
        self.bytes += len(document)

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
