"""
The batches that an account has at work, and what is done when one more is refused.

The service holds batches back by itself (THROTTLED) and answers 429 where calls or uploads come too fast:
https://developers.llamaindex.ai/llamaparse/general/rate_limits/. A batch that it holds back is queued there; one that
it refuses waits here.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from datetime import UTC, datetime, timedelta
from typing import Final

from overnight.jobs.governor import SHOWN_SECONDS
from overnight.jobs.queue import NOTHING, Amount, ListedJob
from overnight.services.llamacloud.answers import BATCHES, Record, list_all
from overnight.services.llamacloud.spec import LlamaCloudBatchSpec, parse_part_name
from overnight.services.llamacloud.status import is_over, parse_moment
from overnight.transport.flow import Flow

OLDEST: Final = timedelta(days=2)
"""Batches that were created before are not looked at; the service keeps the files of a batch of ours as long."""
ReadNames = Callable[[Sequence[Record]], Flow[Mapping[str, str]]]
"""Returns the names of batches' directories, by the directory's id."""


def get_queue(spec: LlamaCloudBatchSpec, files_per_batch: int) -> tuple[str, Amount]:
    """Return how many batches a job is; one queue is all that the account has."""
    files = spec.files_count or 1
    return "", Amount(jobs=-(-files // (spec.files_per_batch or files_per_batch)), records=files)


def list_queue(read_names: ReadNames) -> Flow[list[ListedJob]]:
    """List the batches that are not over, whoever created them; a batch counts as one job."""
    now = datetime.now(UTC)
    batches = yield from list_all(BATCHES, {"created_at_on_or_after": (now - OLDEST).isoformat()})
    # Names are asked for only where somebody may wait to see one: of what was created since it was admitted.
    since = now - timedelta(seconds=SHOWN_SECONDS)
    fresh = [batch for batch in batches if (parse_moment(batch.get("created_at")) or now) >= since]
    names = yield from read_names(fresh)
    return [
        ListedJob(
            str(batch["id"]),
            NOTHING if is_over(batch) else Amount(),
            part.name if (part := parse_part_name(names.get(str(batch.get("source_directory_id"))))) else None,
        )
        for batch in batches
    ]
