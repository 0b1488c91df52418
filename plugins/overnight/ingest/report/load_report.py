"""What became of a load."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Self

from pydantic import BaseModel, ConfigDict, Field, computed_field, model_validator

from overnight.ingest.report.mirror_report import MirrorReport
from overnight.ingest.request import Allowed
from overnight.jobs.allowance import Allowance

_SHOWN = 3
"""Rejected documents that the description quotes."""
SAMPLE = 20
"""How many ids or lines a report names at most; the dead-letter file has them all."""


class _Frozen(BaseModel):
    model_config = ConfigDict(frozen=True)


class SourceReport(_Frozen):
    """
    One source.

    :param lines: Lines read, blank and broken ones too.
    :param blank: Lines among them with nothing but white space, which are no documents.
    :param bytes: Bytes read, uncompressed.
    :param rejected: Lines that gave no document for what is wrong with them themselves.
    :param missing: Ids of documents that this source lacks the row of.
    """

    uri: str
    lines: int = 0
    blank: int = 0
    bytes: int = 0
    rejected: int = 0
    missing: int = 0


class SampleRejection(_Frozen):
    """
    One of the first rejected documents.

    :param uri: The file that its line is counted in.
    """

    uri: str = ""
    source: int
    line: int
    id: str | None = None
    code: str
    reason: str


class LoadReport(_Frozen):
    """
    The end of a load. Always ``submitted = indexed + unchanged + dropped + rejected + missing``.

    :param submitted: Documents. Without a join: the lines that are not blank. With one it is the number of
        different ids in all the sources, and each line whose id cannot be read or that repeats one counts as a document
        of its own.
    :param indexed: Documents that OpenSearch acknowledged.
    :param unchanged: Documents that the index had already, as they are, and that were not written
        (``skip_unchanged``).
    :param dropped: Documents that an ingest pipeline of the index dropped. They are no failures: the pipeline's author
        wanted it so.
    :param rejected: Documents refused by us (a bad line), by the AI service (an error line), or by OpenSearch.
    :param missing: Documents of a join that were not written because a source lacks their row.
    :param bytes: Bytes read from the sources, uncompressed.
    :param seconds: Time spent loading, over all attempts.
    :param reasons: How many documents were rejected or are missing, by code.
    :param dead_letter_uri: Where each of them is named; ``None`` when there are none, or nowhere to write to.
    :param resumed: Whether an earlier attempt had done a part.
    :param mirror: What the comparison with the index found, where there was one.
    :param notes: What was left out because the OpenSearch user has no right for it: a refresh, a count, a check.
    """

    index: str
    submitted: int = 0
    indexed: int = 0
    unchanged: int = 0
    dropped: int = 0
    rejected: int = 0
    missing: int = 0
    bytes: int = 0
    seconds: float = 0.0
    sources: tuple[SourceReport, ...] = ()
    reasons: dict[str, int] = Field(default_factory=dict)
    rejected_sample: tuple[SampleRejection, ...] = ()
    missing_sample: tuple[str, ...] = ()
    dropped_sample: tuple[str, ...] = ()
    dead_letter_uri: str | None = None
    resumed: bool = False
    notes: tuple[str, ...] = ()
    mirror: MirrorReport | None = None

    @computed_field  # type: ignore[prop-decorator]
    @property
    def deleted(self) -> int:
        """Documents that the source no longer has and that were deleted (``sync="mirror"``); none of ``submitted``."""
        return self.mirror.deleted if self.mirror is not None else 0

    @model_validator(mode="after")
    def _adds_up(self) -> Self:
        outcomes = (self.indexed, self.unchanged, self.dropped, self.rejected, self.missing)
        if self.submitted != sum(outcomes):
            raise ValueError(f"{self.submitted} submitted is not {' + '.join(map(str, outcomes))}")
        return self

    @property
    def in_index(self) -> int:
        """Documents that the index has by this report: indexed, or unchanged."""
        return self.indexed + self.unchanged

    @property
    def failed(self) -> int:
        """Documents that were rejected or are missing."""
        return self.rejected + self.missing

    def describe(self) -> Iterator[str]:
        """Yield the report in words, one number a line."""
        yield f"index: {self.index}"
        for name in ("submitted", "indexed", "unchanged", "dropped", "rejected", "missing"):
            yield f"{name}: {getattr(self, name):,}"
        for reason, count in sorted(self.reasons.items(), key=lambda item: -item[1]):
            yield f"  {reason}: {count:,}"
        for sample in self.rejected_sample[:_SHOWN]:
            yield f"  {sample.uri or f'source[{sample.source}]'}, line {sample.line}: {sample.code}: {sample.reason}"
        if self.mirror is not None:
            yield from self.mirror.describe()
        yield f"bytes read: {self.bytes:,}"
        yield f"seconds: {self.seconds:,.1f}{', over several attempts' if self.resumed else ''}"
        if self.dead_letter_uri is not None:
            yield f"dead letters: {self.dead_letter_uri}"
        yield from self.notes

    def excess(self, allowed_failures: Allowed) -> str | None:
        """
        Say what goes beyond the allowance; ``None`` when the load is a success.

        :raises SpecError: it is no allowance.
        """
        allowed = Allowance.parse(allowed_failures)
        if allowed.allows(self.failed, self.submitted):
            return None
        reasons = ", ".join(f"{count} {code}" for code, count in self.reasons.items())
        named = f" Each is named in {self.dead_letter_uri}." if self.dead_letter_uri else ""
        return (
            f"{self.failed} of {self.submitted} documents were not indexed ({self.rejected} rejected, {self.missing} "
            f"missing{f': {reasons}' if reasons else ''}), more than allowed_failures={allowed} lets pass.{named}"
        )


class Progress(_Frozen):
    """
    How far a load is.

    :param bytes: Of the lines that came to an end so far, uncompressed.
    :param stored_bytes: Read so far, as they are stored.
    :param total_bytes: Of the sources, as they are stored; ``None`` when a server does not say.
    """

    submitted: int
    indexed: int
    unchanged: int = 0
    dropped: int = 0
    rejected: int
    missing: int
    bytes: int
    stored_bytes: int = 0
    total_bytes: int | None

    def __str__(self) -> str:
        dropped = f"{self.dropped:,} dropped, " if self.dropped else ""
        unchanged = f"{self.unchanged:,} unchanged, " if self.unchanged else ""
        counts = f"{self.indexed:,} indexed, {unchanged}{dropped}{self.rejected:,} rejected, {self.missing:,} missing"
        if not self.total_bytes:
            return f"{counts}, {self.bytes / 1e6:,.{0 if self.bytes >= 10_000_000 else 2}f} MB read"
        return f"{counts}, {min(self.stored_bytes / self.total_bytes, 1):.0%} read"
