"""
Every night the day's files in S3 go through a SageMaker model and are searchable in OpenSearch by morning.

Airflow looks for DAGs only in files that have the words "airflow" and "dag" in them; this sentence is the first.
"""

from __future__ import annotations

import json
from pathlib import Path

from overnight.templates.s3_sagemaker_to_index import S3SageMakerToIndexConfig, s3_sagemaker_to_index

MAPPING = Path(__file__).parents[1] / "include" / "mappings" / "documents.json"

dag = s3_sagemaker_to_index(
    "s3_sagemaker_to_index",
    S3SageMakerToIndexConfig(
        input_uri="s3://overnight/transform/{{ ds }}/",
        work_uri="s3://overnight/work",
        index_name="transformed",
        model_name="sandbox-embedding",
        dimension=384,
        create_index=True,
        index_body=json.loads(MAPPING.read_text()),
    ),
    # Give it a schedule when it is yours: a DAG with one starts a run of its own as soon as it is unpaused.
    schedule=None,
)
