"""OpenSearch as the place that documents go to."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from contextlib import AbstractContextManager
from typing import Any

from overnight.ingest.write import index as indices
from overnight.ingest.write.bulk import BulkSender
from overnight.ingest.write.sink import BodyWriter, Expectation, IndexInfo, Sink, WriteOptions
from overnight.ingest.write.target import OpenSearchTarget
from overnight.ingest.write.unchanged import ChangedSender


def to_sink(target: OpenSearchTarget | Sink) -> Sink:
    """Return the sink for what a user gives as the target of a load."""
    return OpenSearchSink(target) if isinstance(target, OpenSearchTarget) else target


class OpenSearchSink:
    """
    An OpenSearch cluster, as a load sees it.

    :param target: How it is called.
    """

    def __init__(self, target: OpenSearchTarget) -> None:
        self.target = target
        self._senders: list[BulkSender] = []

    @property
    def has_written(self) -> bool:
        """Whether a document was acknowledged through this object."""
        return any(sender.has_written for sender in self._senders)

    @property
    def address(self) -> str:
        """The cluster's URL, without credentials."""
        return self.target.url

    def inspect(self, name: str) -> IndexInfo:
        """Look at an index, an alias or a data stream."""
        return indices.inspect_index(self.target, name)

    def create(self, name: str, body: Mapping[str, Any]) -> None:
        """Create an index, unless it is there."""
        indices.create_index(self.target, name, body)

    def is_empty(self, index: IndexInfo) -> bool | None:
        """Whether the index holds no document, those that no search sees yet included."""
        return indices.is_empty(self.target, index.name)

    def find_made_fields(self, index: IndexInfo, document: bytes) -> set[str]:
        """Simulate the ingest pipelines of the index on a document, and return the fields that it then has."""
        return indices.find_made_fields(self.target, index, document)

    def changed_settings(
        self, index: IndexInfo, settings: Mapping[str, Any], before: Mapping[str, Any] | None
    ) -> AbstractContextManager[None]:
        """Change index settings for a while."""
        return indices.changed_settings(self.target, index.name, settings, before)

    def read_settings(self, index: IndexInfo, names: Sequence[str]) -> dict[str, Any]:
        """Return index settings by name."""
        return indices.read_settings(self.target, index.name, names)

    def writer(self, index: IndexInfo, options: WriteOptions) -> BodyWriter:
        """
        Return what sends the ``_bulk`` bodies of one load.

        :raises SpecError: unchanged documents cannot be told in this index.
        """
        sender = BulkSender(self.target, index, options)
        self._senders.append(sender)
        return ChangedSender(sender, self.target, index, options) if options.skip_unchanged else sender

    def refresh(self, index: IndexInfo) -> str | None:
        """Refresh the index; return why it was not done."""
        return indices.try_refresh(self.target, index.requested or index.name)

    def verify(self, index: IndexInfo, expected: Expectation) -> list[str]:
        """Hold what a load has written against the index."""
        return indices.verify_load(self.target, index, expected)

    def check(self, name: str, *, count: int, query: Mapping[str, Any] | None = None) -> None:
        """Check how many documents an index has, and that a search finds something."""
        indices.verify(self.target, name, count=count, query=query)

    def swap(self, alias: str, index: str, *, drop_old: bool = False) -> list[str]:
        """Point an alias at an index."""
        return indices.swap_alias(self.target, alias, index, drop_old=drop_old)
