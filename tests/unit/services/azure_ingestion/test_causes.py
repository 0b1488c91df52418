from __future__ import annotations

from typing import Any

import httpx
import pytest

from overnight.errors import CredentialsError, RateLimitedError, RequestRefusedError, ServiceError
from overnight.jobs import JobKey
from overnight.services.azure_ingestion.causes import CAUSES
from overnight.services.azure_ingestion.connection import AzureIngestionConnection
from overnight.services.azure_ingestion.service import AzureIngestionService
from overnight.services.azure_ingestion.spec import AzureIngestionSpec

KEY = JobKey(dag_id="d", task_id="t", run_id="r", fingerprint="0" * 16)
ACCOUNT = AzureIngestionConnection(
    endpoint="https://x.openai.azure.com",
    api_key="the-key-of-azure",
    search_service_endpoint="https://s.search.windows.net",
    storage_connection_string="AccountName=n;AccountKey=the-key-of-storage",
    storage_container="docs",
    attempts=2,
)


@pytest.fixture(autouse=True)
def no_waits(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("overnight.services.create.LOOKUP_WAITS", (0.0,))


def refuse(status: int, error: dict[str, Any]) -> tuple[ServiceError, int]:
    """Submit to a service that refuses the PUT; return the error, and how often the PUT was sent."""
    puts = 0

    def answer(request: httpx.Request) -> httpx.Response:
        nonlocal puts
        if request.method == "GET":
            return httpx.Response(404, json={"error": {"code": "notFound", "message": "no job"}})
        puts += 1
        return httpx.Response(status, json={"error": error})

    transport = ACCOUNT.transport(backoff=0.0)
    transport._client = httpx.Client(base_url=transport.base_url, transport=httpx.MockTransport(answer))
    with transport, pytest.raises(ServiceError) as caught:
        transport.run(AzureIngestionService("azure", ACCOUNT).submit(AzureIngestionSpec(), KEY))
    return caught.value, puts


def test_a_refused_job_says_which_parameter_is_at_fault() -> None:
    error = {
        "code": "invalidPayload",
        "message": "The request is invalid",
        "target": "chunkSize",
        "details": [
            {"code": "outOfRange", "target": "chunkSize", "message": "It must be at most 4096"},
            {"code": "missing", "message": "No storageEndpoint"},
        ],
    }
    refused, _ = refuse(400, error)
    assert isinstance(refused, RequestRefusedError)
    said = "The request is invalid; target 'chunkSize'; outOfRange: chunkSize: It must be at most 4096; missing: "
    assert f"{said}No storageEndpoint. {CAUSES['invalidpayload'].remedy}" in str(refused)


@pytest.mark.parametrize("code", sorted(CAUSES))
@pytest.mark.parametrize("message", ["no", "no.", "no!"])
def test_every_remedy_is_a_sentence_of_its_own(code: str, message: str) -> None:
    refused, _ = refuse(400, {"code": code, "message": message})
    ended = message if message.endswith("!") else "no."
    assert str(refused).count(CAUSES[code].remedy) == 1
    assert str(refused).endswith(f": {ended} {CAUSES[code].remedy}")


@pytest.mark.parametrize("code", ["tooManyRequests", "TooManyRequests"])
def test_throttling_is_tried_again_whatever_its_status(code: str) -> None:
    refused, puts = refuse(400, {"code": code, "message": "Slow down"})
    assert isinstance(refused, RateLimitedError)
    assert puts == 2


@pytest.mark.parametrize("code", ["quotaExceeded", "QuotaExceeded"])
def test_a_used_up_quota_is_not(code: str) -> None:
    refused, puts = refuse(429, {"code": code, "message": "No more"})
    assert isinstance(refused, RequestRefusedError)
    assert puts == 1


def test_the_gateways_status_is_a_code_as_well() -> None:
    refused, _ = refuse(401, {"code": "401", "message": "Access denied due to invalid subscription key"})
    assert isinstance(refused, CredentialsError)
    assert str(refused).count(CAUSES["unauthorized"].remedy) == 1
