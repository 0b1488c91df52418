"""
Every night the day's files are parsed by LlamaCloud, cut, embedded by OpenAI, and searchable in OpenSearch by morning.

Airflow looks for DAGs only in files that have the words "airflow" and "dag" in them; this sentence is the first.
"""

from __future__ import annotations

import json
from pathlib import Path

from overnight.templates.llamacloud_parse_to_index import LlamaCloudParseToIndexConfig, llamacloud_parse_to_index

MAPPING = Path(__file__).parents[1] / "include" / "mappings" / "documents.json"

dag = llamacloud_parse_to_index(
    "llamacloud_parse_to_index",
    LlamaCloudParseToIndexConfig(
        sources="s3://overnight/files/{{ ds }}/",
        work_uri="s3://overnight/work",
        index_name="chunks",
        ingest_fields=["$.name", "$.source_uri", "$.chunk", "$.chunks"],
        model="text-embedding-3-small",
        dimension=384,
        create_index=True,
        index_body=json.loads(MAPPING.read_text()),
    ),
    # Give it a schedule when it is yours: a DAG with one starts a run of its own as soon as it is unpaused.
    schedule=None,
)
