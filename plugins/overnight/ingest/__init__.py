"""
JSON Lines into OpenSearch: the request of ML Commons' ``_batch_ingestion``, carried out here. No Airflow.

.. code-block:: python

    from overnight.ingest import OpenSearchTarget, load

    report = load(
        {
            "index_name": "docs",
            "field_map": {"_id": "$.id", "text": "$.text"},
            "data_source": {"source": ["s3://bucket/docs/"]},
        },
        target=OpenSearchTarget("http://localhost:9200"),
    )
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any, Final

if TYPE_CHECKING:
    from overnight.ingest.loading import load
    from overnight.ingest.read.shards import Shard, cut
    from overnight.ingest.read.sources import SourceError
    from overnight.ingest.report.dead_letters import DeadLetter, read_dead_letters
    from overnight.ingest.report.load_report import LoadReport, Progress, SourceReport
    from overnight.ingest.report.mirror_report import DeletesRefusedError, MirrorReport
    from overnight.ingest.request import DataSource, IngestRequest, LoadOptions
    from overnight.ingest.write.replace import replace_index
    from overnight.ingest.write.sink import Sink, VerificationError
    from overnight.ingest.write.target import OpenSearchTarget

__all__ = [
    "DataSource",
    "DeadLetter",
    "DeletesRefusedError",
    "IngestRequest",
    "LoadOptions",
    "LoadReport",
    "MirrorReport",
    "OpenSearchTarget",
    "Progress",
    "Shard",
    "Sink",
    "SourceError",
    "SourceReport",
    "VerificationError",
    "cut",
    "load",
    "read_dead_letters",
    "replace_index",
]

_HOMES: Final = {
    "DataSource": "request",
    "DeadLetter": "report.dead_letters",
    "DeletesRefusedError": "report.mirror_report",
    "IngestRequest": "request",
    "LoadOptions": "request",
    "LoadReport": "report.load_report",
    "MirrorReport": "report.mirror_report",
    "OpenSearchTarget": "write.target",
    "Progress": "report.load_report",
    "Shard": "read.shards",
    "Sink": "write.sink",
    "SourceError": "read.sources",
    "SourceReport": "report.load_report",
    "VerificationError": "write.sink",
    "cut": "read.shards",
    "load": "loading",
    "read_dead_letters": "report.dead_letters",
    "replace_index": "write.replace",
}


def __getattr__(name: str) -> Any:
    # A DAG that is parsed needs next to nothing of the load.
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    value = getattr(import_module(f"{__name__}.{_HOMES[name]}"), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return [*globals(), *_HOMES]
