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

from overnight.ingest.load import load
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
