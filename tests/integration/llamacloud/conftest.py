"""The LlamaCloud emulator, the switches that make it misbehave, and a client of ours."""

from __future__ import annotations

import time
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import httpx
import orjson
import pytest

from overnight.jobs import JobKey, JobRef, JobStatus, ResultManifest
from overnight.jobs.client import JobClient
from overnight.sandbox.services import KEY, running
from overnight.services.llamacloud.connection import LlamaCloudConnection
from overnight.services.llamacloud.service import LlamaCloudService
from overnight.services.llamacloud.spec import Limits, LlamaCloudBatchSpec
from patience import PATIENCE

FAST = Limits(uploads_per_second=1_000_000, uploads_at_once=16)
RUN_START = datetime.now(UTC) - timedelta(minutes=5)


@dataclass
class Bench:
    """One connection to the emulator, and what goes on behind it."""

    url: str
    folder: Path

    def set(self, section: str, **values: Any) -> None:
        httpx.patch(f"{self.url}/_sandbox/{section}", json=values).raise_for_status()

    def reset(self) -> None:
        for section in ("faults", "limits", "pace"):
            httpx.put(f"{self.url}/_sandbox/{section}", json={}).raise_for_status()
        self.set("limits", uploads_per_window=1_000_000)
        self.set("pace", pending=0.0, cancelling=0.0)
        httpx.delete(f"{self.url}/_sandbox/requests").raise_for_status()

    def requests(self, method: str, path: str) -> list[dict[str, Any]]:
        asked = httpx.get(f"{self.url}/_sandbox/requests", params={"method": method}).json()["items"]
        return [one for one in asked if path in one["path"]]

    def get(self, path: str, **params: Any) -> Any:
        headers = {"Authorization": f"Bearer {KEY}"}
        answer = httpx.get(f"{self.url}{path}", params=params, headers=headers)
        answer.raise_for_status()
        return answer.json()

    def directories(self, key: JobKey) -> list[dict[str, Any]]:
        listed = self.get("/api/v1/beta/directories", page_size=1000)["items"]
        return [one for one in listed if one["name"].startswith(f"overnight-{key.tag}-")]

    def batches(self, key: JobKey) -> list[dict[str, Any]]:
        ours = {one["id"] for one in self.directories(key)}
        return [
            one for one in self.get("/api/v2/batches", page_size=1000)["items"] if one["source_directory_id"] in ours
        ]

    def client(self, **options: Any) -> JobClient[LlamaCloudService]:
        reach = LlamaCloudConnection(api_key=KEY, base_url=self.url, timeout=20.0)
        options.setdefault("limits", FAST)
        return JobClient(LlamaCloudService("llamacloud_default", **options), reach.transport(backoff=0.05))

    def files(self, count: int, prefix: str = "note") -> str:
        """Write files and return the pattern that names them."""
        folder = self.folder / "source"
        folder.mkdir(exist_ok=True)
        for number in range(count):
            (folder / f"{prefix}-{number:04}.md").write_text(f"# {prefix} {number}\n\nWords of {prefix} {number}.\n")
        return f"{folder}/{prefix}-*.md"

    def finish(self, client: JobClient[LlamaCloudService], ref: JobRef) -> JobStatus:
        until = time.monotonic() + PATIENCE
        while time.monotonic() < until:
            status = client.run(client.service.status(ref))
            if status.state.is_terminal:
                return status
            time.sleep(0.1)
        raise AssertionError(f"{ref} is still {status.describe()}")


@pytest.fixture(scope="session")
def llamacloud_url(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """The address of a LlamaCloud emulator with the key ``sandbox``."""
    with running("llamacloud", tmp_path_factory.mktemp("llamacloud")) as launch:
        yield launch.url


@pytest.fixture
def bench(llamacloud_url: str, tmp_path: Path) -> Bench:
    bench = Bench(llamacloud_url, tmp_path)
    bench.reset()
    return bench


@pytest.fixture
def key(request: pytest.FixtureRequest) -> JobKey:
    return a_key(request.node.name)


def a_key(task_id: str, generation: int = 0, fingerprint: str = "0123456789abcdef") -> JobKey:
    return JobKey(dag_id="dag", task_id=task_id, run_id="run", generation=generation, fingerprint=fingerprint)


def parsing(sources: str, **fields: Any) -> LlamaCloudBatchSpec:
    return LlamaCloudBatchSpec(
        **{"job_type": "parse_v2", "configuration_id": "cfg-PARSE_FAST", "sources": (sources,), **fields}
    )


def read_lines(manifest: ResultManifest, kind: str) -> list[dict[str, Any]]:
    (uri,) = manifest.uris(kind)
    return [orjson.loads(line) for line in Path(uri).read_bytes().splitlines()]
