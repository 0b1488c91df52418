"""
From parsed documents to chunks that fit an embedding: JSONL to JSONL, one line of output for each chunk.

The cutting is semantic-text-splitter's (the ``chunking`` extra), which keeps headings, paragraphs and sentences whole
where they fit.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Iterable, Iterator, Mapping
from typing import IO, TYPE_CHECKING, Any, Final, Literal, Self, TypeAlias

import orjson
from pydantic import BaseModel, ConfigDict, Field, model_validator

from overnight.errors import SpecError
from overnight.storage import Storage, redact

if TYPE_CHECKING:
    from semantic_text_splitter import MarkdownSplitter, TextSplitter

    Splitter: TypeAlias = MarkdownSplitter | TextSplitter

LONGEST_DOCUMENT: Final = 256 << 20
"""Bytes of one line; a longer one is no document but a file that is not JSONL."""
NAMED: Final = 20
"""How many documents without text a report names."""

_PLAIN_ID = re.compile(r"[A-Za-z0-9._-]{1,200}")


class ChunkConfig(BaseModel):
    """
    How documents are cut.

    :param max_size: The largest chunk, in characters or, with ``model``, in tokens.
    :param min_size: A chunk is filled up to at least this before the next one begins, where the text's own boundaries
        allow it.
    :param overlap: How much of the end of a chunk is repeated at the start of the next.
    :param model: An OpenAI model (``text-embedding-3-small``), whose tokens are counted instead of characters.
    :param format: ``markdown`` cuts at headings first.
    :param text_field: The field of a document that is cut.
    :param id_field: The field that a chunk's id starts with. ``file_id`` is new whenever a file is sent anew; for ids
        that a second run of the pipeline finds again, take a field that stays the same, such as ``source_uri``.
    :param keep: Fields of a document that each of its chunks has, too.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    max_size: int = Field(default=2_000, ge=1)
    min_size: int | None = Field(default=None, ge=1)
    overlap: int = Field(default=0, ge=0)
    model: str | None = None
    format: Literal["markdown", "text"] = "markdown"
    text_field: str = Field(default="markdown", min_length=1)
    id_field: str = Field(default="file_id", min_length=1)
    keep: tuple[str, ...] = ("file_id", "name", "source_uri", "metadata")

    @model_validator(mode="after")
    def _in_order(self) -> Self:
        if self.min_size is not None and self.min_size > self.max_size:
            raise ValueError("min_size is more than max_size")
        if self.overlap >= (self.min_size or self.max_size):
            raise ValueError("overlap must be less than the smallest chunk (min_size, or max_size without one)")
        ours = {"id", "text", "chunk", "chunks"} & set(self.keep)
        if ours:
            raise ValueError(f"keep names fields that a chunk has of its own: {sorted(ours)}")
        return self

    def splitter(self) -> Splitter:
        """
        Return what cuts.

        :raises SpecError: the ``chunking`` extra is not installed, or nobody knows the model's tokens.
        """
        try:
            from semantic_text_splitter import MarkdownSplitter, TextSplitter  # noqa: PLC0415 - an extra
        except ImportError as error:
            raise SpecError(
                "Cutting into chunks needs the extra: pip install 'airflow-provider-overnight[chunking]'."
            ) from error
        kind = MarkdownSplitter if self.format == "markdown" else TextSplitter
        size = self.max_size if self.min_size is None else (self.min_size, self.max_size)
        if self.model is None:
            return kind(size, overlap=self.overlap)
        try:
            return kind.from_tiktoken_model(self.model, size, overlap=self.overlap)
        except Exception as error:
            raise SpecError(f"The tokens of {self.model!r} are unknown here: {error}") from error


class ChunkReport(BaseModel):
    """
    What :func:`cut` did.

    :param uri: The chunks.
    :param documents: Lines that were read.
    :param chunks: Lines that were written.
    :param empty: Documents that gave no chunk, for they have no text.
    :param empty_ids: The first of these, as the documents have it in the field that names them.
    """

    model_config = ConfigDict(frozen=True)

    uri: str
    documents: int
    chunks: int
    empty: int
    empty_ids: tuple[str, ...] = ()


def cut(
    uris: Iterable[str], target_uri: str, config: ChunkConfig | None = None, storage: Storage | None = None
) -> ChunkReport:
    """
    Cut documents and write the chunks to one JSONL file, holding one document at a time.

    A chunk is ``{"id": "<document's id>-<n>", "text", "chunk": n, "chunks": how many}`` and the fields it keeps. The
    same documents give the same chunks with the same ids.

    :param uris: JSONL files, one document a line.
    :raises SpecError: a line is not a JSON object, or has not the fields; the text says which.
    """
    config, storage = config or ChunkConfig(), storage or Storage()
    splitter = config.splitter()
    documents = chunks = 0
    empty: list[str] = []
    empties = 0
    with storage.open(target_uri, "wb") as target:
        for uri in uris:
            for place, document in _documents(uri, storage):
                documents += 1
                identity, text = _fields(document, config, place)
                parts = splitter.chunks(text)
                chunks += len(parts)
                if not parts:
                    empties += 1
                    empty = [*empty, redact(identity)] if len(empty) < NAMED else empty
                _write(
                    target, build_stem(identity), parts, {key: document[key] for key in config.keep if key in document}
                )
    return ChunkReport(uri=target_uri, documents=documents, chunks=chunks, empty=empties, empty_ids=tuple(empty))


def _documents(uri: str, storage: Storage) -> Iterator[tuple[str, dict[str, Any]]]:
    with storage.open(uri) as file:
        number = 0
        while line := file.readline(LONGEST_DOCUMENT + 1):
            number += 1
            place = f"{uri}, line {number}"
            if len(line) > LONGEST_DOCUMENT:
                raise SpecError(f"{place}: longer than {LONGEST_DOCUMENT:,} bytes; is this a JSONL file?")
            if not line.strip():
                continue
            try:
                document = orjson.loads(line)
            except orjson.JSONDecodeError as error:
                raise SpecError(f"{place}: not JSON: {error}") from error
            if not isinstance(document, dict):
                raise SpecError(f"{place}: not a JSON object")
            yield place, document


def _fields(document: Mapping[str, Any], config: ChunkConfig, place: str) -> tuple[str, str]:
    identity, text = document.get(config.id_field), document.get(config.text_field)
    if not isinstance(identity, str | int) or identity == "":
        raise SpecError(f"{place}: no {config.id_field!r} to make an id of; it has {sorted(document)}")
    if not isinstance(text, str):
        raise SpecError(f"{place}: no text in {config.text_field!r}; it has {sorted(document)}")
    return str(identity), text


def build_stem(identity: str) -> str:
    """Return what the ids of a document's chunks begin with; behind it are a hyphen and the chunk's number."""
    # An address may be longer than an ``_id``, and may look different in an URL; its digest does neither.
    if _PLAIN_ID.fullmatch(identity):
        return identity
    return hashlib.sha256(identity.encode("utf-8", "surrogatepass")).hexdigest()[:32]


def _write(target: IO[bytes], identity: str, parts: list[str], kept: Mapping[str, Any]) -> None:
    for number, text in enumerate(parts):
        chunk = {"id": f"{identity}-{number}", "text": text, "chunk": number, "chunks": len(parts), **kept}
        target.write(orjson.dumps(chunk, option=orjson.OPT_APPEND_NEWLINE))
