"""The OpenAI emulator, and the switches that make it misbehave."""

from __future__ import annotations

import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx
import pytest

from overnight.jobs import JobKey, JobRef, JobStatus
from overnight.jobs.client import JobClient
from overnight.services.openai.connection import OpenAIConnection
from overnight.services.openai.input import BuiltInput, RequestTemplate, build
from overnight.services.openai.service import OpenAIBatchService, OpenAIBatchSpec
from patience import PATIENCE


@dataclass
class Bench:
    """One connection to the emulator, and what goes on behind it."""

    url: str
    folder: Path
    client: JobClient[OpenAIBatchService]

    def set(self, section: str, **values: Any) -> None:
        httpx.put(f"{self.admin}/{section}", json=values).raise_for_status()

    @property
    def admin(self) -> str:
        return self.url.removesuffix("/v1") + "/_sandbox"

    def reset(self) -> None:
        for section in ("faults", "quirks", "limits", "pace"):
            self.set(section)
        httpx.delete(f"{self.admin}/requests").raise_for_status()

    def requests(self, method: str, path: str) -> list[dict[str, Any]]:
        answer = httpx.get(f"{self.admin}/requests", params={"method": method, "path": path})
        return list(answer.raise_for_status().json()["data"])

    def build(self, count: int = 20, name: str = "in") -> BuiltInput:
        documents = ({"id": f"d{number}", "text": f"the text of document {number}"} for number in range(count))
        template = RequestTemplate.embeddings("text-embedding-3-small", dimensions=8)
        return build(documents, template, str(self.folder / name))

    def spec(self, count: int = 20, **options: Any) -> OpenAIBatchSpec:
        uri = self.build(count).parts[0].uri
        return OpenAIBatchSpec(input_uri=uri, endpoint="/v1/embeddings", **options).measured()

    def submit(self, key: JobKey, count: int = 20, **options: Any) -> JobRef:
        return self.client.run(self.client.service.submit(self.spec(count, **options), key))

    def look(self, ref: JobRef) -> JobStatus:
        return self.client.run(self.client.service.status(ref))

    def wait(self, ref: JobRef) -> JobStatus:
        until = time.monotonic() + PATIENCE
        while not (status := self.look(ref)).state.is_terminal:
            assert time.monotonic() < until, status.describe()
            time.sleep(0.05)
        return status


@pytest.fixture
def bench(openai_url: str, tmp_path: Path) -> Iterator[Bench]:
    transport = OpenAIConnection("sandbox", base_url=openai_url, attempts=8, timeout=5).transport(backoff=0.01)
    with JobClient(OpenAIBatchService("openai_default"), transport) as client:
        bench = Bench(openai_url, tmp_path, client)
        bench.reset()
        yield bench
        bench.reset()


@pytest.fixture
def key(request: pytest.FixtureRequest, tmp_path: Path) -> JobKey:
    return JobKey(dag_id=request.node.name, task_id="t", run_id=str(tmp_path), fingerprint="0123456789abcdef")
