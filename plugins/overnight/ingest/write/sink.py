"""
The seam between a load and where its documents go.

A load knows a :class:`Sink` only: what is there (:meth:`Sink.inspect`), a place made when it is missing
(:meth:`Sink.create`), bodies written with an outcome for each document (:meth:`BodyWriter.send`), what was written
checked (:meth:`Sink.verify`), and a new place put in for the old one (:meth:`Sink.swap`). OpenSearch is one
(:class:`~overnight.ingest.write.opensearch_sink.OpenSearchSink`).
"""

from __future__ import annotations

import threading
from collections.abc import Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass, field
from typing import Any, Literal, NamedTuple, Protocol, TypeAlias

from overnight.errors import OvernightError, SpecError
from overnight.rejection import Rejection

Body: TypeAlias = bytes | memoryview

WriteOperation: TypeAlias = Literal["index", "update", "create"]
"""``index`` replaces a document, ``update`` merges into it, ``create`` never touches one that is there."""

DataType: TypeAlias = Literal["float", "byte", "binary"]


class IndexMissingError(SpecError):
    """There is no index, alias or data stream of this name."""


class VerificationError(OvernightError):
    """
    The index does not hold what was loaded.

    :param ids: Some of the documents that are not there.
    :param report: The report of the load, as ``LoadReport.model_dump`` gives it, when there was one.
    """

    def __init__(self, message: str, *, ids: Sequence[str] = (), report: Mapping[str, Any] | None = None) -> None:
        super().__init__(message)
        self.ids = tuple(ids)
        self.report = report


class Frame(NamedTuple):
    """
    What stands around a document in a body: ``head id middle document tail``, or with a routing value
    ``head id routing value middle document tail``.
    """

    head: bytes
    middle: bytes
    tail: bytes
    routing: bytes = b""


@dataclass(slots=True)
class BodyOutcome:
    """
    What became of the documents of one body, by their numbers in it; all others were indexed.

    :param rejected: The sink will never take them, in its own words.
    :param dropped: An ingest pipeline dropped them.
    :param elsewhere: They were indexed, but not into the index that was inspected: an ingest pipeline or a data stream
        chose another one.
    :param unchanged: They were there already, as they are, and were not written.
    """

    rejected: dict[int, Rejection] = field(default_factory=dict)
    dropped: list[int] = field(default_factory=list)
    elsewhere: list[int] = field(default_factory=list)
    unchanged: list[int] = field(default_factory=list)


@dataclass(frozen=True)
class VectorField:
    """
    A field for vectors.

    :param dimension: Numbers in a vector; bits where ``data_type`` is ``binary``.
    """

    dimension: int
    data_type: str = "float"

    @property
    def length(self) -> int:
        """Numbers in the array that a document has for it: eight bits of a binary vector are one."""
        return self.dimension // 8 if self.data_type == "binary" else self.dimension

    @property
    def encoded_bytes(self) -> int:
        """Bytes that base64 stands for: little-endian float32, or one byte for each number."""
        return self.length * (4 if self.data_type == "float" else 1)

    def __str__(self) -> str:
        return str(self.dimension) if self.data_type == "float" else f"{self.dimension} ({self.data_type})"


@dataclass(frozen=True)
class IndexInfo:
    """
    What a load has to know of the place it writes to.

    :param name: The concrete index that is written to.
    :param uuid: Another one after the index was deleted and made again.
    :param is_alias: Whether it was named by an alias.
    :param requested: The name that was asked for.
    :param vectors: The vector fields, by dotted name.
    :param fields: The type of each field that the mapping knows, by dotted name; objects, too.
    :param dynamic: What the mapping does with fields that it does not know: ``true``, ``false``, ``strict`` …
    :param has_dynamic_vectors: Whether a dynamic template makes vectors of unknown fields.
    :param pipelines: The default and the final ingest pipeline of the index, where there are any.
    :param is_data_stream: Whether the name is a data stream's.
    :param timestamp: The field that each document of a data stream must have.
    :param source_enabled: Whether the documents are kept as they were sent.
    :param source_filters: Patterns of fields that are left out of what is kept.
    :param needs_routing: Whether each document needs a routing value.
    :param routing: The routing value that the alias gives each document.
    :param filter: The query that limits what the alias shows.
    """

    name: str
    uuid: str
    is_alias: bool = False
    requested: str = ""
    vectors: Mapping[str, VectorField] = field(default_factory=dict)
    fields: Mapping[str, str] = field(default_factory=dict)
    dynamic: str = "true"
    has_dynamic_vectors: bool = False
    pipelines: tuple[str, ...] = ()
    is_data_stream: bool = False
    timestamp: str = "@timestamp"
    source_enabled: bool = True
    source_filters: tuple[str, ...] = ()
    needs_routing: bool = False
    routing: str | None = None
    filter: Mapping[str, Any] | None = None

    @property
    def dimensions(self) -> Mapping[str, int]:
        """The dimensions of the vector fields, by name."""
        return {name: vector.dimension for name, vector in self.vectors.items()}


class Throttle:
    """
    How many bodies may be on their way: fewer at once when the sink pushes back, slowly more when it does not.

    Additive increase, multiplicative decrease, as TCP does it. Thread-safe.
    """

    def __init__(self, most: int) -> None:
        self._most = most
        self._allowed = float(most)
        self._lock = threading.Lock()

    @property
    def limit(self) -> int:
        """Bodies in flight at most, from 1."""
        return int(self._allowed)

    def relax(self) -> None:
        """A body went through."""
        with self._lock:
            self._allowed = min(self._most, self._allowed + 1.0 / self._allowed)

    def push_back(self) -> None:
        """The sink is too busy."""
        with self._lock:
            self._allowed = max(1.0, self._allowed / 2)


class StoppedError(Exception):
    """The load is ending; a body on its way was given up."""


class BodyWriter(Protocol):
    """Writes the bodies of one load. Thread-safe."""

    @property
    def frame(self) -> Frame:
        """What stands around each document in a body."""

    def send(self, body: Body, ends: Sequence[int], ids: Sequence[str]) -> BodyOutcome:
        """
        Write one body, and return when the outcome of every document in it is known.

        :param body: Its memory is used again for another one as soon as this returns.
        :param ends: Where each document (with its frame) ends in the body.
        :param ids: The id of each document; all different.
        :raises StoppedError: the load is ending.
        :raises TransientError: the sink stayed busy or away.
        :raises ServiceError: the sink takes no document at all.
        """


@dataclass(frozen=True)
class WriteOptions:
    """
    How the bodies of one load are written.

    :param operation: What is done with each document.
    :param patience: Seconds to go on with one body that makes no headway.
    :param stop: Ends all waiting when set.
    :param throttle: Is lowered and raised.
    :param was_sent: Whether an earlier attempt at the load may have written documents already.
    :param skip_unchanged: Whether documents that are there already, as they are, are not written.
    :param has_routing: Whether documents may have routing values of their own.
    """

    operation: WriteOperation
    patience: float
    stop: threading.Event
    throttle: Throttle
    was_sent: bool = False
    skip_unchanged: bool = False
    has_routing: bool = False


@dataclass(frozen=True)
class Expectation:
    """
    What the index must have behind a load.

    :param ids: A sample of the documents that were indexed or are unchanged, with their routing values.
    :param at_least: How many documents a search must see; ``None`` when that cannot be said.
    """

    ids: Mapping[str, str | None]
    at_least: int | None


class Sink(Protocol):
    """Where documents go. One object serves many threads and many loads."""

    @property
    def address(self) -> str:
        """What tells this place from others; no credential is in it."""

    def inspect(self, name: str) -> IndexInfo:
        """
        Look at the place of this name.

        :raises IndexMissingError: there is none.
        :raises SpecError: nothing can be written there.
        """

    def create(self, name: str, body: Mapping[str, Any]) -> None:
        """
        Create the place, unless it is there.

        :raises ServiceError: the body is refused.
        """

    def is_empty(self, index: IndexInfo) -> bool | None:
        """Whether no document is there, those that no search sees yet included; ``None``: that cannot be found out."""

    def find_made_fields(self, index: IndexInfo, document: bytes) -> set[str]:
        """Return the fields that the ingest pipelines of the index make of a document; none when it cannot be seen."""

    def changed_settings(
        self, index: IndexInfo, settings: Mapping[str, Any], before: Mapping[str, Any] | None
    ) -> AbstractContextManager[None]:
        """Change settings for a while, and restore what they were (``before``) whatever happens."""

    def read_settings(self, index: IndexInfo, names: Sequence[str]) -> dict[str, Any]:
        """Return settings by name; ``None`` for one that has its default."""

    def writer(self, index: IndexInfo, options: WriteOptions) -> BodyWriter:
        """Return what writes the bodies of one load."""

    def refresh(self, index: IndexInfo) -> str | None:
        """Make everything written so far searchable; return why it was not done, if it was not."""

    def verify(self, index: IndexInfo, expected: Expectation) -> list[str]:
        """
        Hold what a load has written against what is there.

        :return: What could not be checked, in words.
        :raises VerificationError: it is not all there.
        """

    def check(self, name: str, *, count: int, query: Mapping[str, Any] | None = None) -> None:
        """
        Check a place before it is put in for another.

        :param count: How many documents it must have.
        :param query: A search that must find something, in the sink's own language.
        :raises VerificationError: it is otherwise.
        """

    def swap(self, alias: str, index: str, *, drop_old: bool = False) -> list[str]:
        """
        Point an alias at a place, in one step for everybody who searches.

        :return: The places that it stood for.
        :raises SpecError: the alias is the name of a place.
        """
