"""What Airflow's providers manager reads."""

from __future__ import annotations

from typing import Any

from overnight import __version__


def get_provider_info() -> dict[str, Any]:
    """Describe this package to Airflow: its connection types and their forms, its links."""
    return {
        "package-name": "airflow-provider-overnight",
        "name": "Overnight",
        "description": "Offline AI batch jobs, landed in an OpenSearch index.",
        "versions": [__version__],
        "hooks": [
            {"integration-name": "Overnight", "python-modules": ["overnight.hooks.job"]},
            {"integration-name": "Azure OpenAI", "python-modules": ["overnight.hooks.azure_ingestion"]},
            {"integration-name": "LlamaCloud", "python-modules": ["overnight.hooks.llamacloud"]},
            {"integration-name": "OpenAI", "python-modules": ["overnight.hooks.openai"]},
            {
                "integration-name": "OpenSearch",
                "python-modules": ["overnight.hooks.opensearch", "overnight.hooks.ml_commons"],
            },
            {"integration-name": "Amazon SageMaker", "python-modules": ["overnight.hooks.sagemaker"]},
        ],
        "operators": [
            {"integration-name": "Azure OpenAI", "python-modules": ["overnight.operators.azure_ingestion"]},
            {"integration-name": "LlamaCloud", "python-modules": ["overnight.operators.llamacloud"]},
            {
                "integration-name": "OpenAI",
                "python-modules": [
                    "overnight.operators.openai",
                    "overnight.operators.openai_decorator",
                    "overnight.operators.cleanup",
                ],
            },
            {"integration-name": "Amazon SageMaker", "python-modules": ["overnight.operators.sagemaker"]},
            {
                "integration-name": "Overnight",
                "python-modules": [
                    "overnight.operators.job",
                    "overnight.operators.cancel",
                    "overnight.operators.clean",
                    "overnight.operators.approval",
                    "overnight.operators.transform_plan",
                    "overnight.templates.report_operator",
                ],
            },
            {
                "integration-name": "OpenSearch",
                "python-modules": [
                    "overnight.operators.load",
                    "overnight.operators.index",
                    "overnight.operators.ml_commons",
                    "overnight.operators.ml_commons_ingest",
                    "overnight.operators.mirror",
                    "overnight.operators.shards",
                    "overnight.operators.chunks",
                ],
            },
        ],
        "sensors": [{"integration-name": "Overnight", "python-modules": ["overnight.sensors.job"]}],
        "triggers": [
            {"integration-name": "Overnight", "python-modules": ["overnight.triggers.job", "overnight.triggers.room"]}
        ],
        "task-decorators": [
            {"class-name": "overnight.operators.openai_decorator.openai_batch_input", "name": "openai_batch_input"}
        ],
        "extra-links": ["overnight.links.job.JobLink", "overnight.links.page.PageLink"],
        "connection-types": [
            {
                "hook-class-name": "overnight.hooks.openai.OpenAIHook",
                "connection-type": "overnight_openai",
                "hook-name": "OpenAI batches (Overnight)",
                "ui-field-behaviour": {
                    "hidden-fields": ["login", "schema", "port"],
                    "relabeling": {"password": "API key", "host": "Base URL"},
                    "placeholders": {"host": "https://api.openai.com/v1"},
                },
                "conn-fields": {
                    "organization": _text("Organization"),
                    "project": _text("Project"),
                    "auth_style": {
                        "label": "Authentication",
                        "schema": {"type": "string", "enum": ["bearer", "api-key", "none"], "default": "bearer"},
                        "description": "bearer for OpenAI, api-key for Azure OpenAI",
                    },
                    "api_version": _text("API version (Azure OpenAI)"),
                },
            },
            {
                "hook-class-name": "overnight.hooks.azure_ingestion.AzureIngestionHook",
                "connection-type": "overnight_azure_openai",
                "hook-name": "Azure OpenAI ingestion jobs (Overnight)",
                "ui-field-behaviour": {
                    "hidden-fields": ["login", "schema", "port"],
                    "relabeling": {"password": "API key", "host": "Endpoint"},
                    "placeholders": {"host": "https://<resource>.openai.azure.com"},
                },
                "conn-fields": {
                    "search_service_endpoint": _text("Search service endpoint"),
                    "search_service_api_key": _secret("Search service admin key"),
                    "storage_connection_string": _secret("Storage connection string"),
                    "storage_container": _text("Storage container"),
                    "storage_endpoint": _text("Storage endpoint (ResourceId only)"),
                    "embedding_deployment_name": _text("Embedding deployment"),
                    "embedding_endpoint": _text("Embedding endpoint"),
                    "embedding_api_key": _secret("Embedding key"),
                },
            },
            {
                "hook-class-name": "overnight.hooks.llamacloud.LlamaCloudHook",
                "connection-type": "overnight_llamacloud",
                "hook-name": "LlamaCloud batches (Overnight)",
                "ui-field-behaviour": {
                    "hidden-fields": ["login", "schema", "port"],
                    "relabeling": {"password": "API key", "host": "Base URL (instead of a region)"},
                    "placeholders": {"host": "https://api.cloud.llamaindex.ai"},
                },
                "conn-fields": {
                    "region": {
                        "label": "Region",
                        "schema": {"type": "string", "enum": ["na", "eu"], "default": "na"},
                        "description": "A key of one region is unknown in the other",
                    },
                    "project_id": _text("Project id"),
                    "organization_id": _text("Organization id"),
                },
            },
            {
                "hook-class-name": "overnight.hooks.opensearch.OpenSearchHook",
                "connection-type": "overnight_opensearch",
                "hook-name": "OpenSearch (Overnight)",
                "ui-field-behaviour": {
                    "hidden-fields": ["schema"],
                    "relabeling": {},
                    "placeholders": {"host": "search.example.com", "port": "9200"},
                },
                "conn-fields": {
                    "scheme": {
                        "label": "Scheme",
                        "schema": {"type": "string", "enum": ["https", "http"], "default": "https"},
                    },
                    "verify_certs": {
                        "label": "Verify the certificate",
                        "schema": {"type": "boolean", "default": True},
                    },
                    "ca_certs": _text("CA bundle (path)"),
                    "url_prefix": _text("Path prefix"),
                    "aws_conn_id": _text("AWS connection that signs the requests"),
                    "aws_service": {
                        "label": "Amazon service",
                        "schema": {"type": ["string", "null"], "enum": ["es", None]},
                        "description": "es, for a domain",
                    },
                    "region_name": _text("AWS region"),
                },
            },
        ],
    }


def _text(label: str) -> dict[str, Any]:
    return {"label": label, "schema": {"type": ["string", "null"]}}


def _secret(label: str) -> dict[str, Any]:
    return {"label": label, "schema": {"type": ["string", "null"], "format": "password"}}
