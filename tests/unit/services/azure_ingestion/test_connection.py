from __future__ import annotations

from typing import Any

import pytest

from overnight.errors import SpecError
from overnight.services.azure_ingestion.connection import AzureIngestionConnection

STORAGE = (
    "DefaultEndpointsProtocol=https;AccountName=acc;AccountKey=s3cr3t-account-key==;EndpointSuffix=core.windows.net"
)
FACTS: dict[str, Any] = {
    "endpoint": "https://mine.openai.azure.com",
    "api_key": "s3cr3t-api-key",
    "search_service_endpoint": "https://mine.search.windows.net",
    "search_service_admin_key": "s3cr3t-search-key",
    "storage_connection_string": STORAGE,
    "storage_container": "docs",
    "embedding_key": "s3cr3t-embedding-key",
}


def connection(**changes: Any) -> AzureIngestionConnection:
    return AzureIngestionConnection(**{**FACTS, **changes})


def test_a_jobs_headers_are_those_of_the_reference() -> None:
    full = connection(
        storage_endpoint="https://acc.blob.core.windows.net",
        embedding_endpoint="https://mine.openai.azure.com/openai/deployments/ada/embeddings",
        embedding_deployment_name="ada",
    )
    assert full.job_headers() == {
        "searchServiceEndpoint": "https://mine.search.windows.net",
        "storageConnectionString": STORAGE,
        "storageContainer": "docs",
        "searchServiceAdminKey": "s3cr3t-search-key",
        "storageEndpoint": "https://acc.blob.core.windows.net",
        "embeddingEndpoint": "https://mine.openai.azure.com/openai/deployments/ada/embeddings",
        "embeddingKey": "s3cr3t-embedding-key",
        "embeddingDeploymentName": "ada",
    }


def test_a_job_may_name_another_container_and_deployment() -> None:
    headers = connection().job_headers("other", "small")
    assert (headers["storageContainer"], headers["embeddingDeploymentName"]) == ("other", "small")


def test_what_is_not_given_is_not_sent() -> None:
    headers = connection(search_service_admin_key=None, embedding_key=" ").job_headers()
    assert set(headers) == {"searchServiceEndpoint", "storageConnectionString", "storageContainer"}


@pytest.mark.parametrize("field", ["search_service_endpoint", "storage_connection_string", "storage_container"])
def test_a_missing_field_is_named(field: str) -> None:
    with pytest.raises(SpecError, match=field):
        connection(**{field: None}).job_headers()


def test_a_managed_identity_needs_the_storage_endpoint() -> None:
    keyless = {"storage_connection_string": "ResourceId=/subscriptions/1/storageAccounts/acc"}
    with pytest.raises(SpecError, match="storage_endpoint"):
        connection(**keyless).job_headers()
    assert connection(**keyless, storage_endpoint="https://acc.blob.core.windows.net").job_headers()


@pytest.mark.parametrize("bad", ["s3cr3t\nkey", "s3cr3t-“key”"])
def test_a_value_that_no_header_can_carry_is_refused_unquoted(bad: str) -> None:
    with pytest.raises(SpecError, match="searchServiceAdminKey") as caught:
        connection(search_service_admin_key=bad).job_headers()
    assert "s3cr3t" not in str(caught.value)


@pytest.mark.parametrize("key", [None, "", "  "])
def test_a_missing_key_is_refused(key: str | None) -> None:
    with pytest.raises(SpecError, match="password"):
        connection(api_key=key).transport()


def test_later_previews_are_refused_with_the_reason() -> None:
    with pytest.raises(SpecError, match=r"2024-05-01-preview.*2023-10-01-preview only.*runs"):
        connection(api_version="2024-05-01-preview").transport()


@pytest.mark.parametrize("suffix", ["", "/", "/openai", "/openai/"])
def test_the_endpoint_is_taken_with_and_without_its_path(suffix: str) -> None:
    assert connection(endpoint=f"https://x.azure.com{suffix}").transport().base_url == "https://x.azure.com/"


def test_no_credential_is_in_a_repr() -> None:
    assert "s3cr3t" not in repr(connection())


def test_the_parts_of_a_connection_string_are_secret_too() -> None:
    message = "AccountKey s3cr3t-account-key== of acc at https://mine.search.windows.net is wrong; so is s3cr3t-api-key"
    assert connection().scrub(message) == "AccountKey *** of acc at https://mine.search.windows.net is wrong; so is ***"


def test_a_shared_access_signature_is_secret_wherever_it_is() -> None:
    signed = "BlobEndpoint=https://acc.blob.core.windows.net;SharedAccessSignature=sv=2022&sig=s3cr3tsig%3D&se=2027"
    assert "s3cr3tsig" not in connection(storage_connection_string=signed).scrub("the signature s3cr3tsig%3D is wrong")
    assert "s3cr3tsig" not in connection(storage_connection_string=signed).scrub(f"{signed} is wrong")


def test_short_and_public_parts_are_left_alone() -> None:
    assert connection(api_key="k").scrub("https core.windows.net acc k") == "https core.windows.net acc k"
