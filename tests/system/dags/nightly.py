"""The project's first DAG with a schedule: its scheduled runs and its backfills, in this Airflow."""

from __future__ import annotations

import json
from datetime import datetime
from pathlib import Path

from overnight.templates.openai_batch_to_index import OpenAIBatchToIndexConfig, openai_batch_to_index

MAPPING = Path(__file__).parents[3] / "include" / "mappings" / "documents.json"

dag = openai_batch_to_index(
    "nightly",
    OpenAIBatchToIndexConfig(
        input_uri="s3://overnight/documents/{{ ds }}/",
        work_uri="s3://overnight/work",
        index_name="documents",
        dimension=384,
        create_index=True,
        index_body=json.loads(MAPPING.read_text()),
        poll_seconds=0.5,
    ),
    schedule="@daily",
    start_date=datetime(2026, 1, 1),
    catchup=False,
)
