"""What an ingestion job is asked to do."""

from __future__ import annotations

from typing import Any

from pydantic import Field

from overnight.jobs.service import JobSpec
from overnight.services.azure_ingestion.choices import CompletionAction


class AzureIngestionSpec(JobSpec):
    """
    One ingestion job. Where documents and index are, and every credential, is the connection's.

    :param data_refresh_interval_minutes: 0 ingests once. More makes the service ingest again and again, for ever.
    :param chunk_size: Tokens in a chunk at most; the service's default is 1,024.
    :param completion_action: Whether the intermediate assets are kept; the service cleans up by default.
    :param storage_container: Another container than the connection's.
    :param embedding_deployment_name: Another deployment for the vectors than the connection's.
    """

    data_refresh_interval_minutes: int = Field(default=0, ge=0, le=2**31 - 1)
    chunk_size: int | None = Field(default=None, ge=1, le=2**31 - 1)
    completion_action: CompletionAction | None = None
    storage_container: str | None = Field(
        default=None, min_length=3, max_length=63, pattern=r"^(\$root|\$web|[a-z0-9]+(-[a-z0-9]+)*)$"
    )
    embedding_deployment_name: str | None = Field(default=None, min_length=1)

    def body(self) -> dict[str, Any]:
        """Return the request body; what is left out is the service's to choose."""
        values = {
            "dataRefreshIntervalInMinutes": self.data_refresh_interval_minutes,
            "chunkSize": self.chunk_size,
            "completionAction": self.completion_action,
        }
        return {name: value for name, value in values.items() if value is not None}
