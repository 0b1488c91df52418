"""
The same as s3_sagemaker_to_index, but all in the cluster: connector, remote model, batch predict, batch ingestion.

Airflow looks for DAGs only in files that have the words "airflow" and "dag" in them; this sentence is the first.
"""

from __future__ import annotations

import json
import os
from pathlib import Path

from overnight.templates.s3_sagemaker_to_index import S3SageMakerToIndexConfig, s3_sagemaker_to_index

INCLUDE = Path(__file__).parents[1] / "include"

dag = s3_sagemaker_to_index(
    "mlcommons_batch_predict_to_index",
    S3SageMakerToIndexConfig(
        input_uri="s3://overnight/transform/{{ ds }}/",
        work_uri="s3://overnight/work",
        index_name="predicted",
        model_name="sandbox-embedding",
        # AWS's own variable for an address that is not the region's, such as the sandbox's.
        sagemaker_url=os.environ.get("AWS_ENDPOINT_URL_SAGEMAKER"),
        dimension=384,
        create_index=True,
        index_body=json.loads((INCLUDE / "mappings" / "documents.json").read_text()),
        engine="server",
    ),
    via="ml_commons",
    blueprint=INCLUDE / "connectors" / "sagemaker_batch_transform.json",
    # Give it a schedule when it is yours: a DAG with one starts a run of its own as soon as it is unpaused.
    schedule=None,
)
