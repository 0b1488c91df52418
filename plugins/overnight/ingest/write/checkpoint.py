"""How far a load is, kept so that a killed one goes on there and still counts the whole."""

from __future__ import annotations

import logging
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import msgspec

from overnight.errors import SpecError
from overnight.ingest.map.documents import Cursor
from overnight.ingest.report.dead_letters import DeadLetter
from overnight.ingest.report.load_report import SAMPLE, LoadReport, SampleRejection, SourceReport
from overnight.ingest.write.sink import WriteOperation
from overnight.ingest.write.stored import Baseline
from overnight.storage import Storage, get_scheme, redact

log = logging.getLogger(__name__)

VERSION = 1
MAX_BYTES = 16 << 20
"""A checkpoint is far smaller; what is larger is no checkpoint, or has no end."""
_MAX_CODES = 100
_OTHER = "other"


class SourceTally(msgspec.Struct):
    """The counts of one source."""

    uri: str
    lines: int = 0
    blank: int = 0
    bytes: int = 0
    rejected: int = 0
    missing: int = 0


class Tally(msgspec.Struct):
    """The counts of a load so far."""

    sources: list[SourceTally]
    indexed: int = 0
    unchanged: int = 0
    dropped: int = 0
    rejected: int = 0
    missing: int = 0
    seconds: float = 0.0
    reasons: dict[str, int] = {}
    rejected_sample: list[DeadLetter] = []
    missing_sample: list[str] = []
    dropped_sample: list[str] = []

    @property
    def submitted(self) -> int:
        """All documents that have come to an end."""
        return self.indexed + self.unchanged + self.dropped + self.rejected + self.missing

    @property
    def bytes(self) -> int:
        """Bytes read, of all sources."""
        return sum(source.bytes for source in self.sources)

    def read(
        self,
        lines: Mapping[int, int],
        blank: Mapping[int, int],
        sizes: Mapping[int, int],
        lacking: Mapping[int, int],
    ) -> None:
        """Count what was read, by source: lines, the blank ones, bytes, and ids that were looked for in vain."""
        for number, source in enumerate(self.sources):
            source.lines += lines.get(number, 0)
            source.blank += blank.get(number, 0)
            source.bytes += sizes.get(number, 0)
            source.missing += lacking.get(number, 0)

    def add_dead_letter(self, record: DeadLetter) -> None:
        """Count a document that is not in the index."""
        if record.outcome == "dropped":
            self.dropped += 1
            _sample_id(self.dropped_sample, record)
            return
        # A service could put something unique into its codes; a report must stay small.
        code = record.code if record.code in self.reasons or len(self.reasons) < _MAX_CODES else _OTHER
        self.reasons[code] = self.reasons.get(code, 0) + 1
        if record.outcome == "missing":
            self.missing += 1
            _sample_id(self.missing_sample, record)
            return
        self.rejected += 1
        self.sources[record.source].rejected += 1
        if len(self.rejected_sample) < SAMPLE:
            self.rejected_sample.append(msgspec.structs.replace(record, text=None))

    def report(self, index: str, dead_letter_uri: str | None, *, resumed: bool) -> LoadReport:
        """Return the counts as the report."""
        return LoadReport(
            index=index,
            submitted=self.submitted,
            indexed=self.indexed,
            unchanged=self.unchanged,
            dropped=self.dropped,
            rejected=self.rejected,
            missing=self.missing,
            bytes=self.bytes,
            seconds=round(self.seconds, 3),
            sources=tuple(SourceReport(**msgspec.structs.asdict(source)) for source in self.sources),
            reasons=self.reasons,
            rejected_sample=tuple(
                SampleRejection(
                    uri=record.uri,
                    source=record.source,
                    line=record.line,
                    id=record.id,
                    code=record.code,
                    reason=record.reason,
                )
                for record in self.rejected_sample
            ),
            missing_sample=tuple(self.missing_sample),
            dropped_sample=tuple(self.dropped_sample),
            dead_letter_uri=dead_letter_uri if self.rejected or self.missing or self.dropped else None,
            resumed=resumed,
        )


def _sample_id(sample: list[str], record: DeadLetter) -> None:
    if record.id is not None and len(sample) < SAMPLE:
        sample.append(record.id)


class Checkpoint(msgspec.Struct):
    """
    One state of a load.

    :param fingerprint: Of the request, the files' identities and the index; with another one nothing here is of use.
    :param cursor: ``None`` when the driving source was not begun.
    :param dead_letter_bytes: What is in the dead-letter file at this point.
    :param write: Decided at the first start: by now the index is not empty any more.
    :param settings: What index settings were before the load changed them, to be restored at its end.
    :param baseline: What the index had when the load was begun, where its end deletes.
    """

    fingerprint: str
    tally: Tally
    write: WriteOperation
    cursor: Cursor | None = None
    dead_letter_bytes: int = 0
    settings: dict[str, Any] | None = None
    version: int = VERSION
    baseline: Baseline | None = None


_encode = msgspec.json.Encoder().encode
_decode = msgspec.json.Decoder(Checkpoint).decode


def _is_of_another_version(content: bytes) -> bool:
    """Whether a file that cannot be read as a checkpoint is one all the same, or what is left of one: nothing."""
    if not content.strip():
        return True
    try:
        value = msgspec.json.decode(content)
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError):
        return False
    return isinstance(value, dict) and value.keys() >= {"fingerprint", "version"}


class CheckpointFile:
    """Keeps one checkpoint; ``None`` as URI keeps none."""

    def __init__(self, uri: str | None, storage: Storage) -> None:
        self._uri = uri
        self._storage = storage

    def load(self, fingerprint: str) -> Checkpoint | None:
        """
        Return what an earlier attempt at the same load has left.

        :raises SpecError: the file is something else, which a checkpoint would replace.
        """
        if self._uri is None or not self._storage.exists(self._uri):
            return None
        with self._storage.open(self._uri, "rb") as file:
            content = file.read(MAX_BYTES + 1)
        try:
            found = _decode(content)
        except (msgspec.MsgspecError, UnicodeDecodeError):
            if len(content) > MAX_BYTES or not _is_of_another_version(content):
                raise SpecError(
                    f"{redact(self._uri)} is there and is no checkpoint; it would be overwritten. Give the checkpoint "
                    "a file of its own."
                ) from None
            found = None
        if found is None or found.fingerprint != fingerprint or found.version != VERSION:
            log.warning(
                "The checkpoint %s is of another load (request, source files or index differ); starting from the "
                "first line.",
                self._uri,
            )
            return None
        return found

    def save(self, checkpoint: Checkpoint) -> None:
        """Replace the checkpoint; whoever reads sees the old one or the new one."""
        if self._uri is None:
            return
        content = _encode(checkpoint)
        if get_scheme(self._uri) != "file":
            with self._storage.open(self._uri, "wb") as file:  # object stores replace at once
                file.write(content)
            return
        path = Path(self._storage.resolve(self._uri)[1])
        path.parent.mkdir(parents=True, exist_ok=True)
        draft = path.with_name(f"{path.name}.{os.getpid()}.tmp")
        draft.write_bytes(content)
        draft.replace(path)

    def delete(self) -> None:
        """Forget the checkpoint: the load is complete."""
        if self._uri is not None:
            self._storage.delete(self._uri)
