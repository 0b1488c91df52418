"""What a comparison of an index with its source found, and what was deleted."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from pydantic import BaseModel, ConfigDict

from overnight.errors import OvernightError


class MirrorReport(BaseModel):
    """
    The end of a comparison. What the source lacks is ``extra``: ``deleted``, ``changed``, or still there.

    :param index: The index that was compared.
    :param in_source: Different ids in the source.
    :param in_index: Documents of the index (within the scope), before anything was deleted.
    :param not_indexed: Ids of the source that the index does not have.
    :param extra: Documents that the source does not have: they are deleted, or would be.
    :param deleted: Those that are gone now.
    :param changed: Those that somebody wrote again between the comparison and the delete; they are left.
    :param newer: Further documents that the source does not have and that were written after the run began; they are
        left.
    :param kept: Further ones that belong to something of which this run got no result; they are left.
    :param unreadable: Lines of the source whose id cannot be read.
    :param max_deletes: What was allowed, as the user wrote it.
    :param refusal: Why nothing was deleted although ``extra`` is not 0; ``None`` when it was, or none was to be.
    :param uri: The file with every extra document; ``None`` when there is none, or nowhere to write to.
    :param sample: The first of their ids.
    """

    model_config = ConfigDict(frozen=True)

    index: str
    in_source: int
    in_index: int
    not_indexed: int
    extra: int
    deleted: int = 0
    changed: int = 0
    newer: int = 0
    kept: int = 0
    unreadable: int = 0
    max_deletes: str = ""
    refusal: str | None = None
    uri: str | None = None
    sample: tuple[str, ...] = ()

    def describe(self) -> Iterator[str]:
        """Yield what was deleted and what was left, one number a line."""
        yield f"deleted: {self.deleted:,} of {self.in_index:,} in {self.index}"
        for count, why in (
            (self.extra - self.deleted - self.changed, "not in the source, and not deleted"),
            (self.changed, "written by somebody else as they were to be deleted, and left"),
            (self.newer, "not in the source, written after the run began, and left"),
            (self.kept, "of what this run has no result of, and left"),
        ):
            if count:
                yield f"  {count:,} {why}"
        if self.sample:
            named = f", all of them in {self.uri}" if self.uri is not None else ""
            yield f"  not in the source: {', '.join(self.sample)}{' …' if self.extra > len(self.sample) else ''}{named}"


class DeletesRefusedError(OvernightError):
    """
    Nothing was deleted: more than ``max_deletes``, or what the source has cannot be read to its end.

    :param mirror: What was found.
    :param report: The report of the load before it, as ``LoadReport.model_dump`` gives it, when there was one.
    """

    def __init__(self, message: str, mirror: MirrorReport, report: Mapping[str, Any] | None = None) -> None:
        super().__init__(message)
        self.mirror = mirror
        self.report = report
