"""Whatever Azure OpenAI answers, every verb ends in a result or in a ServiceError of bounded length."""

from __future__ import annotations

from collections.abc import Callable
from datetime import UTC, datetime
from typing import Any

import pytest

from overnight.errors import NotFoundError, SpecError, UnsupportedError
from overnight.jobs import JobKey
from overnight.services.azure_ingestion.connection import AzureIngestionConnection
from overnight.services.azure_ingestion.service import AzureIngestionService
from overnight.services.azure_ingestion.spec import AzureIngestionSpec
from overnight.transport.flow import Flow
from overnight.transport.http import HttpCall
from unit.services.answers import check

KEY = JobKey(dag_id="d", task_id="t", run_id="r", fingerprint="0" * 16)
ACCOUNT = AzureIngestionConnection(
    endpoint="https://x.openai.azure.com",
    api_key="the-key-of-azure",
    search_service_endpoint="https://s.search.windows.net",
    storage_connection_string="AccountName=n;AccountKey=the-key-of-storage",
    storage_container="docs",
)
SERVICE = AzureIngestionService("conn", ACCOUNT)
REF = SERVICE.ref(KEY.name)
ERROR = {
    "code": "fileImportFailed", "message": "no", "target": "a.pdf", "innererror": {"code": "x"},
    "details": [{"code": "forbidden", "message": "no"}],
}  # fmt: skip


def good(status: str, *, exists: bool = True) -> Callable[[], Callable[[HttpCall], Any]]:
    progress = {"stageProgress": [{"name": "Indexing", "totalItems": 3, "processedItems": 2, "state": status}]}
    job = {
        "id": KEY.name, "status": status, "dataRefreshIntervalInMinutes": 0, "chunkSize": 1024, "progress": progress,
        "error": ERROR if status == "failed" else None, "warnings": ["w"], "completionAction": "cleanUpAssets",
    }  # fmt: skip

    def answer(call: HttpCall) -> Any:
        if call.method == "GET" and call.path.endswith("ingestion-jobs"):
            return {"value": [job, {**job, "id": "other"}]}
        if call.method == "GET" and not exists:
            raise NotFoundError("no", status=404)
        return job

    return lambda: answer


@pytest.mark.parametrize("status", ["succeeded", "failed"])
def test_reading_verbs(status: str) -> None:
    since = datetime.now(UTC)
    verbs: dict[str, Callable[[], Flow[Any]]] = {
        "find": lambda: SERVICE.find(KEY, since),
        "status": lambda: SERVICE.status(REF),
        "cancel": lambda: SERVICE.cancel(REF),
        "results": lambda: SERVICE.results(REF),
        "list_statuses": lambda: SERVICE.list_statuses({KEY.name}),
        "list_queue": lambda: SERVICE.list_queue(""),
        "list_own": lambda: SERVICE.list_own(since),
    }
    check(verbs, good(status), also=(UnsupportedError,))


@pytest.mark.parametrize("exists", [True, False])
def test_submit(exists: bool) -> None:
    verbs = {"submit": lambda: SERVICE.submit(AzureIngestionSpec(), KEY)}
    check(verbs, good("running", exists=exists), also=(SpecError,))
