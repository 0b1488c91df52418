"""A load without downtime: into a new index, checked, then swapped in behind the alias."""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping
from typing import Any

from overnight.ingest.loading import load
from overnight.ingest.read.sources import Opener
from overnight.ingest.report.load_report import LoadReport, Progress
from overnight.ingest.request import IngestRequest, LoadOptions
from overnight.ingest.write.names import check_new_index_name
from overnight.ingest.write.opensearch_sink import to_sink
from overnight.ingest.write.sink import Sink, VerificationError
from overnight.ingest.write.target import OpenSearchTarget
from overnight.storage import Storage

log = logging.getLogger(__name__)


def replace_index(
    request: IngestRequest | Mapping[str, Any] | str,
    suffix: str,
    *,
    target: OpenSearchTarget | Sink,
    options: LoadOptions,
    sample_query: Mapping[str, Any] | None = None,
    drop_old: bool = False,
    storage: Storage | None = None,
    openers: Mapping[str, Opener] | None = None,
    on_progress: Callable[[Progress], None] | None = None,
) -> LoadReport:
    """
    Load into ``<alias>-<suffix>``, verify it, and point the alias there; who searches sees the old or the new,
    never a part.

    :param request: Its ``index_name`` is the alias.
    :param suffix: Names the new index. The same one for a retry (the run's date, say), so that it goes on with its
        index.
    :param options: ``create_index`` makes the new index.
    :param sample_query: A search body that must find something before the swap.
    :param drop_old: Delete what the alias stood for; otherwise it is kept, and can be swapped back.
    :return: The report of the load.
    :raises VerificationError: more was rejected or is missing than the options allow, the documents are not as many
        as the report says, or the sample query finds nothing. The alias stays where it was.
    """
    wanted = IngestRequest.of(request)
    alias, name = wanted.index_name, f"{wanted.index_name}-{suffix}"
    check_new_index_name(name)
    sink = to_sink(target)
    report = load(
        wanted.model_copy(update={"index_name": name}),
        target=sink,
        storage=storage,
        openers=openers,
        options=options,
        on_progress=on_progress,
    )
    excess = report.excess(options.allowed_failures)
    if excess is not None:
        raise VerificationError(f"{excess} The alias {alias!r} stays where it was, {name!r} is kept.")
    sink.check(name, count=report.in_index, query=sample_query)
    old = sink.swap(alias, name, drop_old=drop_old)
    log.info("%s is %s now, and was %s.", alias, name, ", ".join(old) or "nothing")
    return report
