"""The Azure emulator in a process of its own, and a client of it."""

from __future__ import annotations

import json
import time
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import httpx
import pytest

from overnight.jobs import JobKey, JobRef, JobStatus
from overnight.jobs.client import JobClient
from overnight.sandbox.emulator.launch import launch
from overnight.sandbox.process import free_port
from overnight.sandbox.services import serving
from overnight.services.azure_ingestion.connection import AzureIngestionConnection
from overnight.services.azure_ingestion.service import AzureIngestionService
from patience import PATIENCE

SECTIONS = ("faults", "quirks", "pace")

PLANTED = {
    "api_key": "planted-api-key",
    "search_service_admin_key": "planted-search-key",
    "embedding_key": "planted-embedding-key",
}
PUBLIC = {
    "search_service_endpoint": "https://unhidden-search.example",
    "storage_container": "unhidden-container",
    "storage_endpoint": "https://unhidden-storage.example",
    "embedding_endpoint": "https://unhidden-embedding.example",
    "embedding_deployment_name": "unhidden-deployment",
}


@dataclass
class Azure:
    """
    The emulator, with a folder for a storage account.

    :param former: The jobs of earlier tests.
    """

    url: str
    folder: Path
    former: frozenset[str] = frozenset()

    @property
    def facts(self) -> dict[str, Any]:
        storage = f"AccountName=unhidden-account;AccountKey=planted-account-key;BlobEndpoint={self.folder.as_uri()}"
        return {**PLANTED, **PUBLIC, "storage_connection_string": storage}

    def variables(self) -> dict[str, str]:
        """The connection, as Airflow reads it from the environment."""
        extra = {name: value for name, value in self.facts.items() if name != "api_key"}
        connection = {
            "conn_type": "overnight_azure_openai",
            "host": self.url,
            "password": self.facts["api_key"],
            "extra": extra,
        }
        return {"AIRFLOW_CONN_AZURE_OPENAI_DEFAULT": json.dumps(connection)}

    def client(self, **facts: Any) -> JobClient[AzureIngestionService]:
        account = AzureIngestionConnection(**{"endpoint": self.url, "timeout": 5, "attempts": 3, **self.facts, **facts})
        return JobClient(AzureIngestionService("azure_openai_default", account), account.transport(backoff=0.01))

    def document(self, name: str, text: str) -> None:
        target = self.folder / PUBLIC["storage_container"] / name
        target.parent.mkdir(parents=True, exist_ok=True)
        target.write_text(text)

    def set(self, section: str, **values: Any) -> None:
        httpx.put(f"{self.url}/_sandbox/{section}", json=values).raise_for_status()

    def advance(self, seconds: float) -> None:
        httpx.post(f"{self.url}/_sandbox/clock", json={"advance": seconds}).raise_for_status()

    def requests(self, method: str) -> list[dict[str, Any]]:
        answer = httpx.get(f"{self.url}/_sandbox/requests", params={"method": method})
        return list(answer.raise_for_status().json()["value"])

    def jobs(self) -> list[str]:
        answer = httpx.get(
            f"{self.url}/openai/extensions/on-your-data/ingestion-jobs",
            params={"api-version": "2023-10-01-preview"},
            headers={"api-key": PLANTED["api_key"]},
        )
        return [job["id"] for job in answer.raise_for_status().json()["value"] if job["id"] not in self.former]

    def search(self, index: str, text: str) -> list[dict[str, Any]]:
        answer = httpx.post(
            f"{self.url}/indexes/{index}/docs/search",
            params={"api-version": "2023-11-01"},
            headers={"api-key": PLANTED["search_service_admin_key"]},
            json={"search": text},
        )
        return list(answer.raise_for_status().json()["value"])

    def wait(self, ref: JobRef) -> JobStatus:
        until = time.monotonic() + PATIENCE
        with self.client() as client:
            while not (status := client.run(client.service.status(ref))).state.is_terminal:
                assert time.monotonic() < until, status.describe()
                time.sleep(0.05)
        return status


@pytest.fixture(scope="session")
def emulator(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """The address of an emulator with the planted keys."""
    settings = json.dumps({"api_key": PLANTED["api_key"], "search_key": PLANTED["search_service_admin_key"]})
    with serving(launch("azure", tmp_path_factory.mktemp("azure"), free_port(), "--settings", settings)) as launched:
        yield launched.url


@pytest.fixture
def azure(emulator: str, tmp_path: Path) -> Azure:
    """The emulator as if it were new, with one document in its container."""
    fresh = Azure(emulator, tmp_path / "storage")
    for section in SECTIONS:
        fresh.set(section)
    httpx.delete(f"{emulator}/_sandbox/requests").raise_for_status()
    fresh.document("whales.md", "# Whales\n\nThe blue whale eats krill.")
    return replace(fresh, former=frozenset(fresh.jobs()))


@pytest.fixture
def key(request: pytest.FixtureRequest, tmp_path: Path) -> JobKey:
    return JobKey(dag_id=request.node.name, task_id="t", run_id=str(tmp_path), fingerprint="0123456789abcdef")
