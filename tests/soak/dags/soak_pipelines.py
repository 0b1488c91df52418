"""The pipelines of the soak: the project's templates, with retries in seconds. Airflow looks for the word dag here."""

from __future__ import annotations

import json
from datetime import timedelta
from pathlib import Path
from typing import Any

from overnight.templates.azure_ingestion_job import AzureIngestionJobConfig, azure_ingestion_job
from overnight.templates.llamacloud_parse_to_index import LlamaCloudParseToIndexConfig, llamacloud_parse_to_index
from overnight.templates.openai_batch_to_index import OpenAIBatchToIndexConfig, openai_batch_to_index
from overnight.templates.s3_sagemaker_to_index import S3SageMakerToIndexConfig, s3_sagemaker_to_index

INCLUDE = Path(__file__).parents[3] / "include"
WORK = "s3://overnight/work"
INDEX: dict[str, Any] = {
    "dimension": 384,
    "create_index": True,
    "index_body": json.loads((INCLUDE / "mappings" / "documents.json").read_text()),
}
POLL_SECONDS = 2.0
ARGUMENTS: dict[str, Any] = {
    "default_args": {"retries": 3, "retry_delay": timedelta(seconds=1)},
    "schedule": None,
}


def embedding() -> OpenAIBatchToIndexConfig:
    return OpenAIBatchToIndexConfig(
        input_uri="s3://overnight/documents/",
        work_uri=WORK,
        index_name="documents",
        ingest_fields=["$.module"],
        allowed_failures="60%",
        poll_seconds=POLL_SECONDS,
        **INDEX,
    )


def transform(*, engine: str, **config: Any) -> S3SageMakerToIndexConfig:
    return S3SageMakerToIndexConfig(
        input_uri="s3://overnight/transform/",
        work_uri=WORK,
        index_name="transformed",
        model_name="sandbox-embedding",
        ingest_fields=["$.module"],
        poll_seconds=POLL_SECONDS,
        engine=engine,
        **INDEX,
        **config,
    )


openai = openai_batch_to_index("soak_openai", embedding(), **ARGUMENTS)
openai_on_worker = openai_batch_to_index("soak_openai_on_worker", embedding(), deferrable=False, **ARGUMENTS)
transformed = s3_sagemaker_to_index("soak_transform", transform(engine="client"), **ARGUMENTS)
predicted = s3_sagemaker_to_index(
    "soak_predict",
    transform(engine="server"),
    via="ml_commons",
    blueprint=INCLUDE / "connectors" / "sagemaker_batch_transform.json",
    **ARGUMENTS,
)
parsed = llamacloud_parse_to_index(
    "soak_llamacloud",
    LlamaCloudParseToIndexConfig(
        sources="s3://overnight/files/",
        work_uri=WORK,
        index_name="chunks",
        ingest_fields=["$.source_uri", "$.chunk", "$.chunks"],
        poll_seconds=POLL_SECONDS,
        **INDEX,
    ),
    **ARGUMENTS,
)
ingested = azure_ingestion_job("soak_azure", AzureIngestionJobConfig(poll_seconds=POLL_SECONDS), **ARGUMENTS)
