"""
Every night the fields of the day's invoices are extracted by LlamaCloud, and searchable in OpenSearch by morning.

Airflow looks for DAGs only in files that have the words "airflow" and "dag" in them; this sentence is the first.
"""

from __future__ import annotations

from typing import Any

from overnight.templates.llamacloud_extract_to_index import (
    LlamaCloudExtractToIndexConfig,
    llamacloud_extract_to_index,
)

SCHEMA: dict[str, Any] = {
    "type": "object",
    "title": "Invoice",
    "properties": {
        "invoice_number": {"type": "string"},
        "issued": {"type": "string", "format": "date"},
        "total": {"type": "number", "description": "With taxes, in the invoice's own currency."},
    },
}

dag = llamacloud_extract_to_index(
    "llamacloud_extract_to_index",
    LlamaCloudExtractToIndexConfig(
        sources="s3://overnight/invoices/{{ ds }}/",
        work_uri="s3://overnight/work",
        index_name="invoices",
        output_schema=SCHEMA,
        extract_options={"tier": "agentic", "cite_sources": True, "confidence_scores": True},
        create_index=True,
    ),
    # Give it a schedule when it is yours: a DAG with one starts a run of its own as soon as it is unpaused.
    schedule=None,
)
