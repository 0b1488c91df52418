"""A connection to Azure OpenAI's ingestion jobs, with the credentials that a job is created with."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, ClassVar

from airflow.sdk.log import mask_secret
from pydantic import AliasChoices, BaseModel, ConfigDict, Field

from overnight.hooks.connection import Timeout, Verify, read_address, read_extra
from overnight.hooks.job import JobHook
from overnight.services.azure_ingestion.choices import API_VERSION

if TYPE_CHECKING:
    from airflow.sdk import Connection

    from overnight.jobs.client import JobClient
    from overnight.services.azure_ingestion.service import AzureIngestionService
    from overnight.transport.flow import Flow


class AzureIngestionExtra(BaseModel):
    """
    What the connection's extra holds: the headers of a job's creation, in snake case.

    The credentials have names that Airflow masks; those of the first version, ``search_service_admin_key`` and
    ``embedding_key``, which it shows in clear, are still read.

    :param verify: ``false``, or the path of a CA bundle.
    """

    # An error's text must not quote what was entered.
    # Built with the first connection that is read: a DAG that is parsed reads none.
    model_config = ConfigDict(extra="ignore", hide_input_in_errors=True, defer_build=True)

    search_service_endpoint: str | None = None
    search_service_admin_key: str | None = Field(
        default=None, repr=False, validation_alias=AliasChoices("search_service_api_key", "search_service_admin_key")
    )
    storage_connection_string: str | None = Field(default=None, repr=False)
    storage_container: str | None = None
    storage_endpoint: str | None = None
    embedding_endpoint: str | None = None
    embedding_key: str | None = Field(
        default=None, repr=False, validation_alias=AliasChoices("embedding_api_key", "embedding_key")
    )
    embedding_deployment_name: str | None = None
    api_version: str = API_VERSION
    timeout: Timeout = 60.0
    verify: Verify = True


class AzureIngestionHook(JobHook["AzureIngestionService"]):
    """
    Reach the ingestion jobs of an Azure OpenAI resource.

    The password is the API key and the host the endpoint, ``https://<resource>.openai.azure.com``; the extra is an
    :class:`AzureIngestionExtra`. Its credentials are masked in Airflow's logs.

    :param conn_id: The connection.
    """

    default_conn_name: ClassVar[str] = "azure_openai_default"
    conn_type: ClassVar[str] = "overnight_azure_openai"
    hook_name: ClassVar[str] = "Azure OpenAI ingestion jobs (Overnight)"

    def client_from(self, connection: Connection, extra: Mapping[str, Any]) -> JobClient[AzureIngestionService]:
        """Return a client for the connection's resource."""
        from overnight.jobs.client import JobClient  # noqa: PLC0415 - not at parse
        from overnight.services.azure_ingestion.connection import SERVICE, AzureIngestionConnection  # noqa: PLC0415 - not at parse
        from overnight.services.azure_ingestion.service import AzureIngestionService  # noqa: PLC0415 - not at parse

        if isinstance(extra, Mapping):
            extra = {name: value for name, value in extra.items() if value is not None}
        facts = read_extra(AzureIngestionExtra, extra, SERVICE)
        account = AzureIngestionConnection(
            endpoint=read_address(connection, SERVICE), api_key=connection.password, **facts.model_dump()
        )
        for secret in account.secrets():
            mask_secret(secret)
        return JobClient(AzureIngestionService(self.conn_id, account), account.transport())

    def probe(self, service: AzureIngestionService) -> Flow[str]:
        """List the jobs, which costs nothing."""
        from overnight.services.azure_ingestion.answers import list_jobs  # noqa: PLC0415 - not at parse

        jobs = yield from list_jobs()
        return f"{service.conn_id} has {len(jobs)} ingestion jobs of the last 48 hours."
