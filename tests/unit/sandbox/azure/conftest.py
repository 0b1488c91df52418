"""The emulator inside the test's own process."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import httpx
import pytest
from starlette.testclient import TestClient

from overnight.sandbox.azure import Settings, create_app
from patience import PATIENCE

JOBS = "/openai/extensions/on-your-data/ingestion-jobs"
HEADERS = {
    "searchServiceEndpoint": "https://s.search.windows.net",
    "storageConnectionString": "UseDevelopmentStorage=true",
    "storageContainer": "docs",
}


class Emulator:
    """A client with the right key and version, and a few calls by name."""

    def __init__(self, client: TestClient) -> None:
        self.client = client

    def blob(self, name: str, content: bytes | str, container: str = "docs") -> None:
        self.client.put(f"/_sandbox/blobs/{container}/{name}", content=content).raise_for_status()

    def put(self, job_id: str = "job", body: Any = None, **headers: str | None) -> httpx.Response:
        merged = {**HEADERS, **headers}
        return self.client.put(
            f"{JOBS}/{job_id}",
            json={"dataRefreshIntervalInMinutes": 0} if body is None else body,
            headers={name: value for name, value in merged.items() if value is not None},
        )

    def get(self, job_id: str = "job") -> httpx.Response:
        return self.client.get(f"{JOBS}/{job_id}")

    def set(self, section: str, **values: Any) -> None:
        self.client.put(f"/_sandbox/{section}", json=values).raise_for_status()

    def advance(self, seconds: float) -> None:
        self.client.post("/_sandbox/clock", json={"advance": seconds}).raise_for_status()

    def wait(self, until: Callable[[dict[str, Any]], bool], job_id: str = "job") -> dict[str, Any]:
        end = time.monotonic() + PATIENCE
        while not until(job := self.get(job_id).json()):
            assert time.monotonic() < end, job
            time.sleep(0.02)
        return dict(job)

    def over(self, job_id: str = "job") -> dict[str, Any]:
        return self.wait(lambda job: job["status"] in ("succeeded", "failed"), job_id)

    def count(self, index: str = "job") -> int:
        return int(self.client.get(f"/indexes/{index}/docs/$count", headers={"api-key": "sandbox"}).text)

    def search(self, text: str, index: str = "job", **body: Any) -> dict[str, Any]:
        answer = self.client.post(f"/indexes/{index}/docs/search", json={"search": text, **body})
        return dict(answer.raise_for_status().json())


@contextmanager
def running(folder: Path, **settings: Any) -> Iterator[Emulator]:
    app = create_app(Settings(data_dir=folder, pace={"queued": 0}, **settings))
    with TestClient(app, headers={"api-key": "sandbox"}) as client:
        client.params = {"api-version": "2023-10-01-preview"}
        yield Emulator(client)


@pytest.fixture
def azure(tmp_path: Path) -> Iterator[Emulator]:
    with running(tmp_path / "data") as emulator:
        yield emulator


@pytest.fixture
def restartable(tmp_path: Path) -> Callable[[], Any]:
    return lambda: running(tmp_path / "data")
