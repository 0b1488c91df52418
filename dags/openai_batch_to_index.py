"""
A day's documents, embedded by OpenAI's batch API, searchable in OpenSearch by morning.

Airflow looks for DAGs only in files that have the words "airflow" and "dag" in them; this sentence is the first.
"""

from __future__ import annotations

import json
from pathlib import Path

from overnight.templates.openai_batch_to_index import OpenAIBatchToIndexConfig, openai_batch_to_index

MAPPING = Path(__file__).parents[1] / "include" / "mappings" / "documents.json"

dag = openai_batch_to_index(
    "openai_batch_to_index",
    OpenAIBatchToIndexConfig(
        input_uri="s3://overnight/documents/{{ ds }}/",
        work_uri="s3://overnight/work",
        index_name="documents",
        model="text-embedding-3-small",
        dimension=384,
        create_index=True,
        index_body=json.loads(MAPPING.read_text()),
    ),
    # Give it a schedule when it is yours: a DAG with one starts a run of its own as soon as it is unpaused.
    schedule=None,
)
