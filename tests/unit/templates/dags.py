"""The project's own DAGs, read without an Airflow around them."""

from __future__ import annotations

import importlib.util
from functools import cache
from pathlib import Path

from airflow.sdk import DAG

from overnight.templates.azure_ingestion_job import AzureIngestionJobConfig
from overnight.templates.llamacloud_extract_to_index import LlamaCloudExtractToIndexConfig
from overnight.templates.llamacloud_parse_to_index import LlamaCloudParseToIndexConfig
from overnight.templates.openai_batch_extract_to_index import OpenAIBatchExtractToIndexConfig
from overnight.templates.openai_batch_to_index import OpenAIBatchToIndexConfig
from overnight.templates.params import TemplateConfig
from overnight.templates.s3_sagemaker_to_index import S3SageMakerToIndexConfig

DAGS = Path(__file__).parents[3] / "dags"
CONFIGS: dict[str, type[TemplateConfig]] = {
    "azure_ingestion_job": AzureIngestionJobConfig,
    "llamacloud_extract_to_index": LlamaCloudExtractToIndexConfig,
    "llamacloud_parse_to_index": LlamaCloudParseToIndexConfig,
    "mlcommons_batch_predict_to_index": S3SageMakerToIndexConfig,
    "openai_batch_extract_to_index": OpenAIBatchExtractToIndexConfig,
    "openai_batch_to_index": OpenAIBatchToIndexConfig,
    "s3_sagemaker_to_index": S3SageMakerToIndexConfig,
}
"""The config behind each of them."""


@cache
def project_dag(name: str) -> DAG:
    """Return the DAG of a file in ``dags/``."""
    spec = importlib.util.spec_from_file_location(f"project_dag_{name}", DAGS / f"{name}.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    dag = module.dag
    assert isinstance(dag, DAG)
    return dag


def project_config(name: str) -> TemplateConfig:
    """Return the config that the DAG of a file in ``dags/`` was made of."""
    params = project_dag(name).params
    return CONFIGS[name].model_validate({field: params.get_param(field).value for field in params})
