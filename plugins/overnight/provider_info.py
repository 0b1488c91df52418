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
            {"integration-name": "OpenAI", "python-modules": ["overnight.hooks.openai"]},
            {"integration-name": "OpenSearch", "python-modules": ["overnight.hooks.opensearch"]},
        ],
        "operators": [
            {"integration-name": "OpenAI", "python-modules": ["overnight.operators.openai"]},
            {
                "integration-name": "OpenSearch",
                "python-modules": ["overnight.operators.load", "overnight.operators.index"],
            },
        ],
        "extra-links": ["overnight.links.job.JobLink"],
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
                },
            },
        ],
    }


def _text(label: str) -> dict[str, Any]:
    return {"label": label, "schema": {"type": ["string", "null"]}}
