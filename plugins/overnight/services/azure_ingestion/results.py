"""What an ingestion job leaves: an index in the search service, and no file."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from overnight.jobs import JobRef, ResultManifest
from overnight.services.azure_ingestion.status import read_status, stages


def build_result_manifest(ref: JobRef, job: Mapping[str, Any]) -> ResultManifest:
    """Return a manifest without files; ``detail`` has the index's name, how often it is refreshed, and the stages."""
    minutes = job.get("dataRefreshIntervalInMinutes")
    return ResultManifest(
        ref=ref,
        counts=read_status(job).counts,
        detail={
            "index": ref.id,
            "refresh_minutes": minutes if type(minutes) is int else None,
            "stages": [
                {"name": stage.name, "total": stage.total, "processed": stage.processed} for stage in stages(job)
            ],
        },
    )
