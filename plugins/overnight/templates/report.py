"""What became of all the documents of a pipeline: its parts' load reports, added up."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from typing import Self

from pydantic import BaseModel, ConfigDict

from overnight.ingest.report.load_report import LoadReport


class PartReport(BaseModel):
    """
    One part of a pipeline.

    :param submitted: Documents that were given to the service.
    :param load: ``None`` when the part never got to its load; all its documents are missing then.
    :param accepted: Whether its load was a success.
    """

    model_config = ConfigDict(frozen=True)

    submitted: int
    load: LoadReport | None = None
    accepted: bool = False

    @property
    def unaccounted(self) -> int:
        """Documents of this part that no report speaks of."""
        return max(self.submitted - (self.load.submitted if self.load is not None else 0), 0)


class Excluded(BaseModel):
    """
    Documents that no part has.

    :param uri: The file that names them.
    """

    model_config = ConfigDict(frozen=True, extra="ignore")

    count: int = 0
    uri: str | None = None


class PipelineReport(BaseModel):
    """
    The end of a pipeline. Always ``submitted = indexed + dropped + rejected + missing``.

    :param not_sent: Of ``rejected``, those that were not sent to the service.
    :param without_result: Of ``missing``, those of inputs that the service gave no output for.
    :param seconds: Time spent loading, all parts together.
    :param failed_parts: Parts (counted from 0) that did not get to their load, or whose load failed.
    """

    model_config = ConfigDict(frozen=True)

    submitted: int
    indexed: int
    dropped: int = 0
    rejected: int
    missing: int
    not_sent: int = 0
    without_result: int = 0
    bytes: int = 0
    seconds: float = 0.0
    reasons: dict[str, int] = {}
    dead_letter_uris: tuple[str, ...] = ()
    failed_parts: tuple[int, ...] = ()
    parts: tuple[PartReport, ...] = ()

    @classmethod
    def of(
        cls, parts: Sequence[PartReport], *, not_sent: Excluded | None = None, without_result: Excluded | None = None
    ) -> Self:
        """
        Add up the parts.

        :param not_sent: Documents that were rejected before the parts were made; they count as rejected.
        :param without_result: Documents that the service gave no output for; they count as missing.
        """
        unsent, absent = not_sent or Excluded(), without_result or Excluded()
        loads = [part.load for part in parts if part.load is not None]
        unaccounted = sum(part.unaccounted for part in parts)
        reasons = Counter({"not_sent": unsent.count, "without_result": absent.count})
        for load in loads:
            reasons.update(load.reasons)
        files = [unsent.uri, absent.uri, *(load.dead_letter_uri for load in loads)]
        return cls(
            submitted=unsent.count + absent.count + sum(load.submitted for load in loads) + unaccounted,
            indexed=sum(load.indexed for load in loads),
            dropped=sum(load.dropped for load in loads),
            rejected=unsent.count + sum(load.rejected for load in loads),
            missing=absent.count + sum(load.missing for load in loads) + unaccounted,
            not_sent=unsent.count,
            without_result=absent.count,
            bytes=sum(load.bytes for load in loads),
            seconds=round(sum(load.seconds for load in loads), 3),
            reasons=dict(+reasons),
            dead_letter_uris=tuple(uri for uri in files if uri is not None),
            failed_parts=tuple(number for number, part in enumerate(parts) if not part.accepted),
            parts=tuple(parts),
        )
