"""The project's first DAG with a budget over a month, of which a day costs less than a half, for this Airflow."""

from __future__ import annotations

import json
from datetime import datetime
from pathlib import Path

from overnight.templates.openai_batch_to_index import OpenAIBatchToIndexConfig, openai_batch_to_index

MAPPING = Path(__file__).parents[3] / "include" / "mappings" / "documents.json"

dag = openai_batch_to_index(
    "budgeted",
    OpenAIBatchToIndexConfig(
        input_uri="s3://overnight/documents/{{ ds }}/",
        work_uri="s3://overnight/work",
        index_name="budgeted",
        dimension=384,
        create_index=True,
        index_body=json.loads(MAPPING.read_text()),
        # A token is a cent, and a day has some 2,100.
        prices={"models": {"text-embedding-3-small": {"input": 20_000}}},
        cost_budget="50 USD/month",
        openai_conn_id="frugal",
        poll_seconds=0.5,
    ),
    schedule="@daily",
    # Filled in by hand alone: a schedule would spend of the same budget.
    start_date=datetime(2026, 1, 1),
    end_date=datetime(2026, 1, 31),
    catchup=False,
)
