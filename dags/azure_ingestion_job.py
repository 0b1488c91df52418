"""
Azure OpenAI chunks the documents of a blob container and puts them into an Azure AI Search index.

The API behind it is being retired: for something new, take the DAG openai_batch_to_index. Airflow looks for DAGs only
in files that have the words "airflow" and "dag" in them; this sentence is one.
"""

from __future__ import annotations

from overnight.templates.azure_ingestion_job import AzureIngestionJobConfig, azure_ingestion_job

dag = azure_ingestion_job("azure_ingestion_job", AzureIngestionJobConfig(chunk_size=512), schedule=None)
