"""How to reach Azure OpenAI's ingestion jobs, and the credentials that each job is created with."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Final

from overnight.errors import SpecError
from overnight.services.azure_ingestion.causes import CAUSES, FINAL_CODES, THROTTLED_CODES, read_azure_error
from overnight.services.azure_ingestion.choices import API_VERSION
from overnight.transport.errors import without
from overnight.transport.http import HttpTransport, check_headers

SERVICE: Final = "Azure OpenAI"
JOBS: Final = "openai/extensions/on-your-data/ingestion-jobs"

_KEYLESS = "resourceid="
_PUBLIC_PARTS = frozenset({"defaultendpointsprotocol", "accountname", "endpointsuffix", "resourceid"})
_SIGNATURE = re.compile(r"[?&;=]sig=([^&;]+)")
_SHORTEST_SECRET = 6


@dataclass(frozen=True)
class AzureIngestionConnection:
    """
    The facts of an ``overnight_azure_openai`` connection.

    :param endpoint: ``https://<resource>.openai.azure.com``.
    :param api_key: Azure OpenAI's key.
    :param search_service_endpoint: Where the index is made, ``https://<service>.search.windows.net``.
    :param storage_connection_string: Of the storage account that holds the documents; ``ResourceId=/subscriptions/…``
        for a managed identity.
    :param storage_container: The container of the documents, unless a job names another.
    :param search_service_admin_key: Not needed with a managed identity.
    :param storage_endpoint: Needed with ``ResourceId=…`` only.
    :param embedding_endpoint: The embeddings deployment's address, to have vectors in the index.
    :param embedding_key: Its key, unless there is a managed identity.
    :param embedding_deployment_name: Instead of the endpoint and its key, a deployment of this Azure OpenAI resource.
    :param verify: ``False`` or a CA bundle's path for a server with a certificate of its own.
    """

    endpoint: str
    api_key: str | None = field(default=None, repr=False)
    search_service_endpoint: str | None = None
    storage_connection_string: str | None = field(default=None, repr=False)
    storage_container: str | None = None
    search_service_admin_key: str | None = field(default=None, repr=False)
    storage_endpoint: str | None = None
    embedding_endpoint: str | None = None
    embedding_key: str | None = field(default=None, repr=False)
    embedding_deployment_name: str | None = None
    api_version: str = API_VERSION
    timeout: float = 60.0
    attempts: int = 6
    verify: bool | str = True

    def transport(self, *, backoff: float = 0.5) -> HttpTransport:
        """
        Return a transport for these facts. Does no I/O.

        Only the key goes with every call; what a job is created with goes with that one call (:meth:`job_headers`).

        :param backoff: Seconds before a call's second attempt, doubled for each one after it.
        :raises SpecError: something is missing, cannot be sent as it is, or is of another API version.
        """
        if self.api_version != API_VERSION:
            raise SpecError(
                f"{SERVICE}: the connection asks for api_version {self.api_version!r}; Overnight uses {API_VERSION} "
                "only. Later previews take other requests at another address (/openai/ingestion/jobs), with the "
                "credentials in the body and the status in a list of runs. Leave api_version out of the connection."
            )
        key = (self.api_key or "").strip()
        if not key:
            raise SpecError(f"{SERVICE}: the connection has no API key. Put it into the connection's password field.")
        return HttpTransport(
            service=SERVICE,
            base_url=self.endpoint.rstrip("/").removesuffix("/openai"),
            headers={"Accept": "application/json", "api-key": key},
            params={"api-version": self.api_version},
            verify=self.verify,
            timeout=self.timeout,
            attempts=self.attempts,
            backoff=backoff,
            error_reader=read_azure_error,
            remedies={
                401: CAUSES["unauthorized"].remedy,
                403: CAUSES["forbidden"].remedy,
                404: CAUSES["notfound"].remedy,
            },
            final_codes=FINAL_CODES,
            throttled_codes=THROTTLED_CODES,
            secrets=self.secrets(),
        )

    def job_headers(self, container: str | None = None, deployment: str | None = None) -> dict[str, str]:
        """
        Return the headers that a job is created with.

        :param container: Instead of the connection's.
        :param deployment: Of the embeddings, instead of the connection's.
        :raises SpecError: one that is required is missing, or cannot be sent; the text names the field, not the value.
        """
        values = {
            "searchServiceEndpoint": self.search_service_endpoint,
            "storageConnectionString": self.storage_connection_string,
            "storageContainer": container or self.storage_container,
            "searchServiceAdminKey": self.search_service_admin_key,
            "storageEndpoint": self.storage_endpoint,
            "embeddingEndpoint": self.embedding_endpoint,
            "embeddingKey": self.embedding_key,
            "embeddingDeploymentName": deployment or self.embedding_deployment_name,
        }
        headers = {name: value.strip() for name, value in values.items() if value and value.strip()}
        required = ["searchServiceEndpoint", "storageConnectionString", "storageContainer"]
        if headers.get("storageConnectionString", "").lower().startswith(_KEYLESS):
            required.append("storageEndpoint")
        missing = [_snake(name) for name in required if name not in headers]
        if missing:
            raise SpecError(
                f"{SERVICE}: the connection's extra has no {' and no '.join(missing)}, without which no ingestion job "
                "can be created."
            )
        check_headers(headers, SERVICE)
        return headers

    def secrets(self) -> frozenset[str]:
        """Return what no text may quote: each credential, and each credential inside a connection string."""
        whole = (self.api_key, self.search_service_admin_key, self.embedding_key)
        found = [secret.strip() for secret in whole if secret]
        found += _inside(self.storage_connection_string or "")
        return frozenset(secret for secret in found if len(secret) >= _SHORTEST_SECRET)

    def scrub(self, text: str) -> str:
        """Return the service's words without these credentials."""
        return without(self.secrets(), text)


def _inside(connection_string: str) -> Iterator[str]:
    """Yield a connection string, and the parts of it that are secret or may be."""
    text = connection_string.strip()
    if not text or text.lower().startswith(_KEYLESS):
        return
    yield text
    yield from _SIGNATURE.findall(text)
    for part in text.split(";"):
        name, _, value = part.partition("=")
        # Endpoints are public; one that has a signature in its query is caught by that.
        if name.strip().lower() not in _PUBLIC_PARTS and not name.strip().lower().endswith("endpoint"):
            yield value.strip()


def _snake(name: str) -> str:
    return re.sub(r"(?<=[a-z])(?=[A-Z])", "_", name).lower()
