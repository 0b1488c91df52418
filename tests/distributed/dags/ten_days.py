"""Ten days in the past that only a backfill fills, with less room in the queue than three days need. An Airflow DAG."""

from __future__ import annotations

from datetime import UTC, date, datetime, timedelta

from overnight.templates.openai_batch_to_index import OpenAIBatchToIndexConfig, openai_batch_to_index

DAG = "ten_days"
FIRST = date(2026, 2, 2)
DAYS = 10
INDEX = "ten-days"
TOKENS = 100
"""Of each document."""
BATCH = 10
"""Documents of a batch: a quarter of the budget."""
BUDGET = 4 * BATCH * TOKENS

_START = datetime(FIRST.year, FIRST.month, FIRST.day, tzinfo=UTC)

dag = openai_batch_to_index(
    DAG,
    OpenAIBatchToIndexConfig(
        input_uri="s3://overnight/documents/{{ ds }}/",
        work_uri="s3://overnight/work",
        index_name=INDEX,
        dimension=16,
        create_index=True,
        index_body={"mappings": {"properties": {"embedding": {"type": "float"}}}},
        budget={"tokens": BUDGET},
        poll_seconds=1.0,
    ),
    schedule="@daily",
    start_date=_START,
    end_date=_START + timedelta(days=DAYS - 1),
    catchup=False,
)
