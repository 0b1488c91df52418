"""Batch input, built from a stream of documents and validated before anything is uploaded."""

from __future__ import annotations

import hashlib
import re
from array import array
from bisect import bisect
from collections.abc import Iterable, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from itertools import compress
from typing import IO, Any, Self

import orjson
from pydantic import BaseModel, ConfigDict

from overnight.cache.digests import DigestTable
from overnight.costs.estimate import Workload
from overnight.rejection import RejectedError, Rejection
from overnight.services.openai.block_renderer import BlockRenderer, MadeRequests
from overnight.services.openai.choices import OnBadDocument
from overnight.services.openai.documents import DocumentLine, LineBlock, read_documents, take_blocks
from overnight.services.openai.endpoints import check_body
from overnight.services.openai.limits import Limits
from overnight.services.openai.request_columns import Request, RequestColumns
from overnight.services.openai.request_function import RequestFunction
from overnight.services.openai.scan import (
    MAX_REJECTIONS,
    InputError,
    InputScan,
    Rejections,
    count_embedding_inputs,
    estimate_tokens,
    id_digests,
    scan,
)
from overnight.services.openai.template import RequestTemplate
from overnight.services.openai.tokens import ESTIMATE, TokenCounter, limit_output
from overnight.storage import Storage

__all__ = [
    "BuiltInput",
    "DocumentLine",
    "InputError",
    "InputPart",
    "InputScan",
    "Limits",
    "RequestTemplate",
    "build",
    "read_documents",
    "scan",
]

LONGEST_TEXT = 64 << 10
"""Bytes of a rejected document that its record repeats."""


class InputPart(BaseModel):
    """
    One batch input file, and the documents that it was made of.

    :param uri: The requests.
    :param documents_uri: The source documents of these requests, in the same order: what a load joins with the results.
    :param tokens: What the requests put into the model's queue, by
        :func:`~overnight.services.openai.scan.estimate_tokens`.
    :param billed_input: What the requests are billed for, by the counter that :func:`build` was given.
    :param billed_output: What their answers are billed for at most; ``None`` when one has no limit.
    :param dead_letter_uri: Where the load of this part names the documents that it did not index.
    :param checkpoint_uri: Where the load of this part keeps its progress.
    :param repeated: Further documents whose request is the same as one of these but for its id, and is not sent again.
    :param repeated_uri: Whose result each of them gets, with ``repeated_documents_uri`` in the same order;
        ``None`` without any. (:func:`~overnight.services.openai.cached_answers.read_repeated`)
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    uri: str
    documents_uri: str
    dead_letter_uri: str
    checkpoint_uri: str
    requests: int
    bytes: int
    sha256: str
    embedding_inputs: int
    tokens: int
    billed_input: int
    billed_output: int | None
    repeated: int = 0
    repeated_uri: str | None = None
    repeated_documents_uri: str | None = None


class ReusedPart(BaseModel):
    """
    Documents whose answers are in the cache: nothing of them is sent.

    :param uri: Where the answer of each document is (:func:`~overnight.services.openai.cached_answers.read_reused`).
    :param documents_uri: The documents, in the same order.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    uri: str
    documents_uri: str
    dead_letter_uri: str
    checkpoint_uri: str
    documents: int


class BuiltInput(BaseModel):
    """
    What :func:`build` wrote.

    :param documents: Lines that were read, good and bad: ``requests`` and ``repeated`` of all parts, ``documents`` of
        all reused ones, and ``rejected``.
    :param reused: Those whose answers are in the cache.
    :param rejected_uri: A JSONL file of dead-letter records, as a load writes them
        (:func:`overnight.ingest.report.dead_letters.read_dead_letters`), if any was rejected.
    :param blank_lines: Lines without anything in them: they were skipped, and are no documents.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    parts: tuple[InputPart, ...]
    reused: tuple[ReusedPart, ...] = ()
    documents: int
    rejected: int
    rejected_uri: str | None = None
    blank_lines: int = 0

    @property
    def requests(self) -> int:
        """How many requests there are in all parts."""
        return sum(part.requests for part in self.parts)

    def measure(self, model: str | None, counted: str) -> Workload:
        """
        Return what all parts together are.

        :param model: The one that the requests name.
        :param counted: How the tokens were counted.
        """
        output: int | None = 0
        for part in self.parts:
            output = add_bounds(output, part.billed_output)
        return Workload(
            requests=self.requests,
            bytes=sum(part.bytes for part in self.parts),
            parts=len(self.parts),
            model=model,
            input=sum(part.billed_input for part in self.parts),
            output=output,
            counted=counted,
        )


def build(
    documents: Iterable[DocumentLine | bytes | Mapping[str, Any]],
    template: RequestTemplate | RequestFunction,
    target: str,
    *,
    storage: Storage | None = None,
    limits: Limits | None = None,
    on_bad: OnBadDocument = "fail",
    max_rejections: int = MAX_REJECTIONS,
    counter: TokenCounter = ESTIMATE,
) -> BuiltInput:
    """
    Write the requests for a stream of documents, in as many parts as the service's limits ask for.

    Memory grows by some 50 bytes per document, for finding ids that occur twice. The same documents, template and
    limits give the same bytes. Former parts in the same folder are replaced, and removed when there are fewer now.
    No documents at all give no parts. Blank lines are skipped and counted.

    :param documents: Lines of files (:func:`read_documents`), JSON lines, or objects.
    :param target: The folder, as a URI, for ``part-00000.requests.jsonl``, ``part-00000.documents.jsonl`` …
        and ``rejected.jsonl``.
    :param limits: What the service takes in one batch.
    :param on_bad: What happens to documents that cannot become requests.
    :param max_rejections: How many of them an error lists.
    :param counter: Counts what is billed; what the model's queue holds is always estimated, as the service does.
    :raises InputError: with ``on_bad="fail"``, some document is bad; nothing is left in the folder.
    """
    return InputBuilder(
        template,
        target.rstrip("/"),
        storage=storage or Storage(),
        limits=limits or Limits(),
        on_bad=on_bad,
        max_rejections=max_rejections,
        counter=counter,
    ).build(documents)


@dataclass
class _Part:
    stem: str
    requests_file: IO[bytes]
    documents_file: IO[bytes]

    def __post_init__(self) -> None:
        self.digest = hashlib.sha256()
        self.requests = self.bytes = self.embedding_inputs = self.tokens = self.billed_input = 0
        self.billed_output: int | None = 0

    def count_fitting(self, requests: RequestColumns, limits: Limits) -> int:
        """Return how many of some requests, from the first one on, still go into this part."""
        count, size, inputs, tokens = self.requests, self.bytes, self.embedding_inputs, self.tokens
        if (
            count + len(requests.lines) <= limits.requests
            and size + sum(map(len, requests.lines)) <= limits.bytes
            and inputs + sum(requests.inputs) <= limits.embedding_inputs
            and (limits.tokens is None or tokens + sum(requests.tokens) <= limits.tokens)
        ):
            return len(requests.lines)
        for at, request in enumerate(requests.rows()):
            size += len(request.line)
            inputs += request.inputs
            tokens += request.tokens
            if (
                count + at >= limits.requests
                or size > limits.bytes
                or inputs > limits.embedding_inputs
                # A request that is over it alone has a part of its own.
                or (limits.tokens is not None and tokens > limits.tokens and count + at > 0)
            ):
                return at
        return len(requests.lines)

    def write(self, requests: RequestColumns, documents: bytes | memoryview) -> None:
        """Take requests, and the lines of the documents that they are of."""
        data = b"".join(requests.lines)
        self.requests_file.write(data)
        self.digest.update(data)
        self.documents_file.write(documents)
        self.requests += len(requests.lines)
        self.bytes += len(data)
        self.embedding_inputs += sum(requests.inputs)
        self.tokens += sum(requests.tokens)
        self.billed_input += sum(requests.billed_input)
        bounds = [bound for bound in requests.billed_output if bound is not None]
        bound = sum(bounds) if len(bounds) == len(requests.lines) else None
        self.billed_output = add_bounds(self.billed_output, bound)

    def done(self) -> InputPart:
        return InputPart(
            uri=f"{self.stem}.requests.jsonl",
            documents_uri=f"{self.stem}.documents.jsonl",
            dead_letter_uri=f"{self.stem}.dead-letters.jsonl",
            checkpoint_uri=f"{self.stem}.checkpoint.json",
            requests=self.requests,
            bytes=self.bytes,
            sha256=self.digest.hexdigest(),
            embedding_inputs=self.embedding_inputs,
            tokens=self.tokens,
            billed_input=self.billed_input,
            billed_output=self.billed_output,
        )


class InputBuilder:
    """Writes the requests for a stream of documents; see :func:`build`."""

    def __init__(
        self,
        template: RequestTemplate | RequestFunction,
        target: str,
        *,
        storage: Storage,
        limits: Limits,
        on_bad: OnBadDocument,
        max_rejections: int,
        counter: TokenCounter,
    ) -> None:
        self._counter = counter
        self._template = template
        self._render_document = template.compile()
        # Another counter looks at each request.
        self._renderer = None
        if isinstance(template, RequestTemplate) and counter.count is estimate_tokens:
            self._renderer = BlockRenderer.compile(template, limits)
        self._target = target
        self._storage = storage
        self._limits = limits
        self._on_bad = on_bad
        self._endpoint = template.endpoint
        self._embeds = template.endpoint.endswith("/embeddings")
        self._lines = 0
        self._first = 1
        self._ids = DigestTable()
        # Of each id that was taken, in the order of the table: the number of its line.
        self._id_lines = array("I")
        self._part: _Part | None = None
        self._files = ExitStack()
        self._rejected_file: IO[bytes] | None = None
        self._rejected_files = ExitStack()
        self._written: list[str] = []
        self._parts: list[InputPart] = []
        self._documents = self._blank_lines = self._rejected = 0
        self._files_begun: list[tuple[int, str]] = []
        self.refused = Rejections(max_rejections)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *error: object) -> None:
        self._rejected_files.close()
        self._close_part()

    def build(self, documents: Iterable[DocumentLine | bytes | Mapping[str, Any]]) -> BuiltInput:
        """Take all documents, and return what was written; see :func:`build`."""
        try:
            with self:
                for block in take_blocks(documents):
                    self.add(block)
            self.refused.raise_for("The documents")
        except BaseException:
            self.discard()
            raise
        return self.finish()

    def add(self, block: LineBlock) -> None:
        """Take a block of documents."""
        self._begin(block)
        lines = block.lines
        (places, ids, requests), rejections = self._make_all(lines)
        repeated = self._take_ids(places, id_digests(ids))
        self._reject_all(block, {**rejections, **repeated})
        # Once the input is refused, only what else is wrong is still of interest.
        if self.refused.total:
            return
        if repeated:
            is_new = [at not in repeated for at in places]
            places = list(compress(places, is_new))
            requests = requests.compress(is_new)
        if len(places) == len(lines):
            self._write(requests, lines, block.data)
        else:
            self._write(requests, [lines[at] for at in places])

    def discard(self) -> None:
        """Delete what was written."""
        for uri in self._written:
            self._storage.delete(uri)

    def finish(self) -> BuiltInput:
        """Remove what a former run wrote, and return what was written."""
        self._remove_former()
        return BuiltInput(
            parts=tuple(self._parts),
            documents=self._documents,
            rejected=self._rejected,
            rejected_uri=self._rejected_uri if self._rejected else None,
            blank_lines=self._blank_lines,
        )

    @property
    def _rejected_uri(self) -> str:
        return f"{self._target}/rejected.jsonl"

    def _begin(self, block: LineBlock) -> None:
        """Give the lines of a block their numbers, which go on through all files."""
        self._first = self._lines + 1
        self._files_begun += [(self._first + at, uri) for at, uri in block.begun]
        self._lines += len(block.lines)

    def _make_all(self, lines: Sequence[bytes]) -> tuple[MadeRequests, dict[int, Rejection]]:
        """Make the requests of documents; return these, and why some documents have none."""
        made = self._renderer.render(lines) if self._renderer is not None else MadeRequests()
        return (made, {}) if len(made.places) == len(lines) else self._make_others(lines, made)

    def _make_others(self, lines: Sequence[bytes], made: MadeRequests) -> tuple[MadeRequests, dict[int, Rejection]]:
        """
        Make the requests of those documents that have none yet, one by one; return the same.

        :param made: Those that there are.
        """
        found = dict(zip(made.places, zip(made.ids, made.requests.rows(), strict=True), strict=True))
        rejections: dict[int, Rejection] = {}
        for at, data in enumerate(lines):
            if at not in found:
                try:
                    found[at] = self._make(data)
                except RejectedError as error:
                    rejections[at] = error.rejection
        places = sorted(found)
        ids = [found[at][0] for at in places]
        return MadeRequests(places, ids, RequestColumns.of(found[at][1] for at in places)), rejections

    def _make(self, data: bytes) -> tuple[str, Request]:
        """
        Return the id and the request of a document.

        :raises RejectedError: it cannot become one.
        """
        custom_id, request = self._render(data)
        return custom_id, self._measure(custom_id, request)

    def _render(self, raw: bytes) -> tuple[str, dict[str, Any]]:
        """
        Return the id and the request of a document.

        :raises RejectedError: it cannot become one.
        """
        try:
            document = orjson.loads(raw)
        except orjson.JSONDecodeError as error:
            raise RejectedError("not_json", f"the line is not JSON: {error}") from None
        if not isinstance(document, dict):
            raise RejectedError("not_an_object", "the line is JSON, but not an object")
        return self._render_document(document)

    def _measure(self, custom_id: str, request: dict[str, Any]) -> Request:
        """
        Return the line of a request with what it takes.

        :raises RejectedError: no batch takes it.
        """
        limits = self._limits
        if len(custom_id) > limits.custom_id_chars:
            raise RejectedError("id_too_long", f"the id is longer than {limits.custom_id_chars} characters")
        line = orjson.dumps(request, option=orjson.OPT_APPEND_NEWLINE)
        inputs = count_embedding_inputs(request["body"]) if self._embeds else 0
        if len(line) > limits.bytes or inputs > limits.embedding_inputs:
            raise RejectedError(
                "too_large",
                f"its request alone ({len(line):,} bytes, {inputs} embedding inputs) is over a batch's limit",
            )
        body = request["body"]
        for rejection in check_body(self._endpoint, body, limits):
            raise RejectedError(rejection.code, rejection.reason)
        tokens = estimate_tokens(body)
        billed = tokens if self._counter.count is estimate_tokens else self._counter.count(body)
        return Request(line, inputs, tokens, billed, limit_output(body, self._endpoint))

    def _take_ids(self, places: Sequence[int], digests: bytes | bytearray) -> dict[int, Rejection]:
        """
        Take the ids of documents of a block; return why some were not: an earlier document has the id.

        :param places: Of the documents in the block.
        :param digests: Of their ids.
        """
        self._id_lines.extend(map(self._first.__add__, places))
        return {
            places[at]: Rejection(
                "duplicate",
                f"its id was used in {self._describe_place(self._id_lines[number], self._first + places[at])} already",
            )
            for at, number in self._ids.add(digests).items()
        }

    def _describe_place(self, number: int, other: int) -> str:
        """
        Return where in the files the document of a number was.

        :param other: Of a later document: its file needs no name.
        """
        at, last = (bisect(self._files_begun, (one, "\U0010ffff")) - 1 for one in (number, other))
        if at < 0:
            return f"line {number}"
        first, uri = self._files_begun[at]
        line = f"line {number - first + 1}"
        return line if at == last else f"{line} of {uri}"

    def _reject_all(self, block: LineBlock, rejections: Mapping[int, Rejection]) -> None:
        """Write down which lines of a block cannot be sent, and count the documents in it: blank lines are none."""
        self._documents += len(block.lines)
        for at in sorted(rejections):
            if block.lines[at] and not block.lines[at].isspace():
                self._reject(block.get(at), rejections[at])
            else:
                self._documents -= 1
                self._blank_lines += 1

    def _reject(self, line: DocumentLine, rejection: Rejection) -> None:
        if self._on_bad == "fail":
            self.refused.add(line.number, rejection.code, f"{rejection.reason}.", line.uri or None)
            return
        if self._rejected_file is None:
            self._rejected_file = self._open(self._rejected_uri, self._rejected_files)
        self._rejected += 1
        record: dict[str, Any] = {
            "outcome": "rejected",
            "uri": line.uri,
            "source": 0,
            "line": line.number,
            "offset": line.offset,
            "code": rejection.code,
            "reason": rejection.reason,
        }
        text = _get_text(line.data)
        if text is not None:
            record["text"] = text
        self._rejected_file.write(orjson.dumps(record) + b"\n")

    def _write(self, requests: RequestColumns, documents: Sequence[bytes], data: memoryview | None = None) -> None:
        """
        Write requests, and the documents that they are of, into as many parts as it takes.

        :param data: The documents with their line feeds, where they are at hand.
        """
        while documents:
            part = self._part or self._begin_part()
            count = part.count_fitting(requests, self._limits)
            data = data if count == len(documents) else None
            if count:
                part.write(requests.cut(0, count), join_lines(documents[:count]) if data is None else data)
                requests, documents = requests.cut(count, None), documents[count:]
            if documents:
                self._close_part()

    @property
    def _written_requests(self) -> int:
        """How many requests were written, in all parts."""
        return sum(part.requests for part in self._parts) + (self._part.requests if self._part is not None else 0)

    def _begin_part(self) -> _Part:
        stem = f"{self._target}/part-{len(self._parts):05d}"
        files = [self._open(f"{stem}.{kind}.jsonl", self._files) for kind in ("requests", "documents")]
        self._part = _Part(stem, files[0], files[1])
        return self._part

    def _open(self, uri: str, files: ExitStack) -> IO[bytes]:
        self._written.append(uri)
        return files.enter_context(self._storage.open(uri, "wb"))

    def _close_part(self) -> None:
        self._files.close()
        if self._part is not None:
            self._parts.append(self._part.done())
            self._part = None

    def _remove_former(self) -> None:
        written = {uri.rpartition("/")[2] for uri in self._written}
        for uri in [file.uri for file in self._storage.list_files(f"{self._target}/*.jsonl").files]:
            name = uri.rpartition("/")[2]
            if name not in written and _OURS.fullmatch(name):
                self._storage.delete(uri)


def join_lines(lines: Sequence[bytes]) -> bytes:
    """Return lines, which have no ends, with a line feed behind each."""
    return b"\n".join([*lines, b""])


def add_bounds(first: int | None, second: int | None) -> int | None:
    """Return the bound of a sum; ``None`` is none."""
    return None if first is None or second is None else first + second


def _get_text(line: bytes) -> str | None:
    """Return a line as text, if it is one and not too long to be repeated."""
    data = line.rstrip(b"\r\n")
    if len(data) > LONGEST_TEXT:
        return None
    try:
        return data.decode()
    except UnicodeDecodeError:
        return None


_OURS = re.compile(
    r"part-\d{5,}\.(requests|documents|repeated|repeated\.documents)\.jsonl|"
    r"reused-\d{5,}\.(answers|documents)\.jsonl|rejected\.jsonl"
)
