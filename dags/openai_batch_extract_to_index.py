"""
A day's documents, classified by a model in OpenAI's batch API, and searchable in OpenSearch by what it found.

Airflow looks for DAGs only in files that have the words "airflow" and "dag" in them; this sentence is the first.
"""

from __future__ import annotations

import json
from pathlib import Path

from overnight.templates.openai_batch_extract_to_index import (
    OpenAIBatchExtractToIndexConfig,
    openai_batch_extract_to_index,
)

SCHEMA = Path(__file__).parents[1] / "include" / "schemas" / "document.json"

dag = openai_batch_extract_to_index(
    "openai_batch_extract_to_index",
    OpenAIBatchExtractToIndexConfig(
        input_uri="s3://overnight/documents/{{ ds }}/",
        work_uri="s3://overnight/work",
        index_name="extracted",
        instruction="Classify the document, and find what the schema asks for. Where it does not say, answer null.",
        output_schema=json.loads(SCHEMA.read_text()),
        create_index=True,
    ),
    # Give it a schedule when it is yours: a DAG with one starts a run of its own as soon as it is unpaused.
    schedule=None,
)
