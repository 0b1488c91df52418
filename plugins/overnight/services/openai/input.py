"""Batch input, built from a stream of documents and validated before anything is uploaded."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Iterable, Iterator, Mapping
from contextlib import ExitStack
from dataclasses import dataclass
from typing import IO, Any, Literal, Self, TypeAlias

import orjson
from pydantic import BaseModel, ConfigDict

from overnight.services.openai.scan import (
    MAX_PROBLEMS,
    InputError,
    InputProblem,
    InputScan,
    Limits,
    ProblemList,
    count_embedding_inputs,
    id_digest,
    read_lines,
    scan,
)
from overnight.services.openai.template import RejectedDocumentError, RequestTemplate
from overnight.storage import Storage

__all__ = [
    "BuiltInput",
    "InputError",
    "InputPart",
    "InputProblem",
    "InputScan",
    "Limits",
    "OnBadDocument",
    "RejectedDocumentError",
    "RequestTemplate",
    "build",
    "read_documents",
    "scan",
]

OnBadDocument: TypeAlias = Literal["fail", "reject"]
"""Fail for the whole input, naming every bad line, or write the rejected documents to a file of their own."""

LONGEST_DOCUMENT = 64 << 20
"""Bytes of one line; a longer one is no document but a file that is not JSONL."""


class InputPart(BaseModel):
    """
    One batch input file, and the documents that it was made of.

    :param uri: The requests.
    :param documents_uri: The source documents of these requests, in the same order: what a load joins with the results.
    :param dead_letter_uri: Where the load of this part names the documents that it did not index.
    :param checkpoint_uri: Where the load of this part keeps its progress.
    :param first_line: Of the source, counted from 1; with ``last_line``, where this part's documents were.
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
    first_line: int
    last_line: int


class BuiltInput(BaseModel):
    """
    What :func:`build` wrote.

    :param documents: Lines that were read, good and bad: ``requests`` of all parts plus ``rejected``.
    :param rejected_uri: A JSONL file of ``{"line", "reason", "message", "document"}``, if any was rejected.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    parts: tuple[InputPart, ...]
    documents: int
    rejected: int
    rejected_uri: str | None = None

    @property
    def requests(self) -> int:
        """How many requests there are in all parts."""
        return sum(part.requests for part in self.parts)


def build(
    documents: Iterable[bytes | Mapping[str, Any]],
    template: RequestTemplate,
    target: str,
    *,
    storage: Storage | None = None,
    limits: Limits | None = None,
    on_bad: OnBadDocument = "fail",
    max_problems: int = MAX_PROBLEMS,
) -> BuiltInput:
    """
    Write the requests for a stream of documents, in as many parts as the service's limits ask for.

    Memory grows by some 100 bytes per document, for finding ids that occur twice. The same documents, template and
    limits give the same bytes. Former parts in the same folder are replaced, and removed when there are fewer now.
    No documents at all give no parts.

    :param documents: JSON lines, or objects.
    :param target: The folder, as a URI, for ``part-00000.requests.jsonl``, ``part-00000.documents.jsonl`` …
        and ``rejected.jsonl``.
    :param limits: What the service takes in one batch.
    :param on_bad: What happens to documents that cannot become requests.
    :param max_problems: How many of them an error lists.
    :raises InputError: with ``on_bad="fail"``, some document is bad; nothing is left in the folder.
    """
    builder = _Builder(
        template,
        target.rstrip("/"),
        storage=storage or Storage(),
        limits=limits or Limits(),
        on_bad=on_bad,
        max_problems=max_problems,
    )
    try:
        with builder:
            for number, document in enumerate(documents, 1):
                builder.add(number, document)
        builder.problems.raise_for("The documents")
    except BaseException:
        builder.discard()
        raise
    return builder.finish()


def read_documents(uris: Iterable[str], storage: Storage | None = None) -> Iterator[bytes]:
    """
    Yield the lines of JSONL files, one file after the other, plain or compressed (``.gz``, ``.zst`` … by name).

    :raises InputError: a line is longer than :data:`LONGEST_DOCUMENT`.
    """
    for uri in uris:
        with (storage or Storage()).open_plain(uri) as file:
            for number, line in enumerate(read_lines(file, LONGEST_DOCUMENT), 1):
                if len(line) > LONGEST_DOCUMENT:
                    text = f"the line is longer than {LONGEST_DOCUMENT:,} bytes; is this JSONL?"
                    raise InputError(uri, [InputProblem(number, "too_long", text)])
                yield line


@dataclass
class _Part:
    stem: str
    requests_file: IO[bytes]
    documents_file: IO[bytes]
    first_line: int

    def __post_init__(self) -> None:
        self.digest = hashlib.sha256()
        self.requests = self.bytes = self.embedding_inputs = 0
        self.last_line = self.first_line

    def write(self, number: int, request: bytes, inputs: int, document: bytes) -> None:
        self.requests_file.write(request)
        self.documents_file.write(document + b"\n")
        self.digest.update(request)
        self.requests += 1
        self.bytes += len(request)
        self.embedding_inputs += inputs
        self.last_line = number

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
            first_line=self.first_line,
            last_line=self.last_line,
        )


class _Builder:
    def __init__(
        self,
        template: RequestTemplate,
        target: str,
        *,
        storage: Storage,
        limits: Limits,
        on_bad: OnBadDocument,
        max_problems: int,
    ) -> None:
        self._template = template
        self._target = target
        self._storage = storage
        self._limits = limits
        self._on_bad = on_bad
        self._embeds = template.endpoint.endswith("/embeddings")
        self._seen: dict[bytes, int] = {}
        self._part: _Part | None = None
        self._files = ExitStack()
        self._rejected_file: IO[bytes] | None = None
        self._rejected_files = ExitStack()
        self._written: list[str] = []
        self._parts: list[InputPart] = []
        self._documents = 0
        self.problems = ProblemList(max_problems)
        self._rejected = 0

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *error: object) -> None:
        self._rejected_files.close()
        self._close_part()

    def add(self, number: int, document: bytes | Mapping[str, Any]) -> None:
        self._documents = number
        raw = document.rstrip(b"\r\n") if isinstance(document, bytes) else orjson.dumps(document)
        try:
            request, inputs = self._render(number, raw)
        except RejectedDocumentError as error:
            self._reject(number, raw, error)
            return
        # Once the input is refused, only its other problems are still of interest.
        if not self.problems.total:
            self._room_for(number, len(request), inputs).write(number, request, inputs, raw)

    def discard(self) -> None:
        for uri in self._written:
            self._storage.delete(uri)

    def finish(self) -> BuiltInput:
        self._remove_former()
        return BuiltInput(
            parts=tuple(self._parts),
            documents=self._documents,
            rejected=self._rejected,
            rejected_uri=self._rejected_uri if self._rejected else None,
        )

    @property
    def _rejected_uri(self) -> str:
        return f"{self._target}/rejected.jsonl"

    def _render(self, number: int, raw: bytes) -> tuple[bytes, int]:
        if not raw.strip():
            raise RejectedDocumentError("blank", "the line is blank")
        try:
            document = orjson.loads(raw)
        except orjson.JSONDecodeError as error:
            raise RejectedDocumentError("not_json", f"the line is not JSON: {error}") from None
        if not isinstance(document, dict):
            raise RejectedDocumentError("not_an_object", "the line is JSON, but not an object")
        custom_id, request = self._template.render(document)
        limits = self._limits
        if len(custom_id) > limits.custom_id_chars:
            raise RejectedDocumentError("id_too_long", f"the id is longer than {limits.custom_id_chars} characters")
        line = orjson.dumps(request) + b"\n"
        inputs = count_embedding_inputs(request["body"]) if self._embeds else 0
        if len(line) > limits.bytes or inputs > limits.embedding_inputs:
            raise RejectedDocumentError(
                "too_large",
                f"its request alone ({len(line):,} bytes, {inputs} embedding inputs) is over a batch's limit",
            )
        # Last, so that an id is taken by a document that is used.
        first = self._seen.setdefault(id_digest(custom_id), number)
        if first != number:
            raise RejectedDocumentError("duplicate", f"its id was used in line {first} already")
        return line, inputs

    def _reject(self, number: int, raw: bytes, error: RejectedDocumentError) -> None:
        if self._on_bad == "fail":
            self.problems.add(number, error.reason, f"{error}.")
            return
        if self._rejected_file is None:
            self._rejected_file = self._open(self._rejected_uri, self._rejected_files)
        self._rejected += 1
        try:
            orjson.loads(raw)
            document: Any = orjson.Fragment(raw)
        except orjson.JSONDecodeError:
            document = raw.decode("utf-8", "backslashreplace")
        record = {"line": number, "reason": error.reason, "message": str(error), "document": document}
        self._rejected_file.write(orjson.dumps(record) + b"\n")

    def _room_for(self, number: int, size: int, inputs: int) -> _Part:
        part, limits = self._part, self._limits
        if part is not None and (
            part.requests >= limits.requests
            or part.bytes + size > limits.bytes
            or part.embedding_inputs + inputs > limits.embedding_inputs
        ):
            self._close_part()
        if self._part is None:
            stem = f"{self._target}/part-{len(self._parts):05d}"
            files = [self._open(f"{stem}.{kind}.jsonl", self._files) for kind in ("requests", "documents")]
            self._part = _Part(stem, files[0], files[1], number)
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


_OURS = re.compile(r"part-\d{5,}\.(requests|documents)\.jsonl|rejected\.jsonl")
