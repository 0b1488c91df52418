"""The emulator as a process of its own, with the official SDK in front of it."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import httpx
import openai
import pytest
from openai.types import Batch, FileObject

from patience import PATIENCE

KEY = "sk-of-this-test"
OVER = {"completed", "failed", "expired", "cancelled"}


class Emulator:
    """One data folder, and the process that serves it now."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.seen: set[str] = set()
        self._port = 0
        self._process: subprocess.Popen[str] | None = None
        self._clients: dict[str, openai.OpenAI] = {}

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self._port}"

    def start(self, **settings: Any) -> Emulator:
        command = [sys.executable, "-m", "overnight.sandbox.openai", "--data-dir", str(self.folder / "data")]
        command += ["--port", str(self._port), "--settings", json.dumps({"api_key": KEY, **settings})]
        self._process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
        if self._port == 0:
            assert self._process.stdout is not None
            self._port = int(self._process.stdout.readline())
        self.until(self._answers)
        return self

    def _answers(self) -> bool:
        try:
            return httpx.get(f"{self.url}/_sandbox/health").is_success
        except httpx.TransportError:
            return False

    def stop(self, how: signal.Signals = signal.SIGTERM) -> None:
        if self._process is not None:
            self._process.send_signal(how)
            self._process.wait(PATIENCE)
            if self._process.stdout is not None:
                self._process.stdout.close()
            self._process = None
        for client in self._clients.values():
            client.close()
        self._clients.clear()

    def client(self, **options: Any) -> openai.OpenAI:
        name = repr(options)
        if name not in self._clients:
            defaults = {"api_key": KEY, "base_url": f"{self.url}/v1", "max_retries": 0}
            self._clients[name] = openai.OpenAI(**{**defaults, **options})
        return self._clients[name]

    def put(self, section: str, **values: Any) -> dict[str, Any]:
        answer = httpx.put(f"{self.url}/_sandbox/{section}", json=values)
        assert answer.is_success, answer.text
        return answer.json()

    def configure(self, **sections: dict[str, Any]) -> None:
        for section, values in sections.items():
            self.put(section, **values)

    def advance(self, seconds: float) -> None:
        httpx.post(f"{self.url}/_sandbox/clock", json={"advance": seconds}).raise_for_status()

    def requests(self, **query: str) -> list[dict[str, Any]]:
        return httpx.get(f"{self.url}/_sandbox/requests", params=query).json()["data"]

    def queue(self, model: str = "text-embedding-3-small") -> dict[str, int]:
        return httpx.get(f"{self.url}/_sandbox/queue").raise_for_status().json()[model]

    def upload(self, lines: list[Any], **options: Any) -> FileObject:
        body = "".join((line if isinstance(line, str) else json.dumps(line)) + "\n" for line in lines)
        return self.client().files.create(file=("input.jsonl", body.encode()), purpose="batch", **options)

    def submit(self, lines: list[Any], endpoint: str = "/v1/embeddings", **options: Any) -> Batch:
        file = self.upload(lines)
        return self.client().batches.create(
            input_file_id=file.id, endpoint=endpoint, completion_window="24h", **options
        )

    def until(self, condition: Callable[[], Any]) -> Any:
        begun = time.monotonic()
        while time.monotonic() - begun < PATIENCE:
            result = condition()
            if result:
                return result
            time.sleep(0.02)
        raise AssertionError("it did not happen")

    def reaches(self, batch: Batch | str, *statuses: str) -> Batch:
        """Poll until the batch is in one of the statuses; it is an error when it is over before."""
        client, name = self.client(), batch if isinstance(batch, str) else batch.id

        def look() -> Batch | None:
            found = client.batches.retrieve(name)
            self.seen.add(found.status)
            if found.status in statuses:
                return found
            assert found.status not in OVER, f"{found.status} instead of {statuses}: {found.errors}"
            return None

        return self.until(look)

    def lines(self, file_id: str | None) -> list[dict[str, Any]]:
        assert file_id is not None
        return [json.loads(line) for line in self.client().files.content(file_id).text.splitlines()]


@pytest.fixture
def make_emulator(tmp_path: Path) -> Iterator[Callable[..., Emulator]]:
    """Start one with settings, and nothing in it: for what is listed, and for what survives a restart."""
    made: list[Emulator] = []

    def make(**settings: Any) -> Emulator:
        folder = tmp_path / f"emulator-{len(made)}"
        made.append(Emulator(folder))
        return made[-1].start(**settings)

    yield make
    for emulator in made:
        emulator.stop(signal.SIGKILL)


@pytest.fixture(scope="module")
def _shared_emulator(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Emulator]:
    emulator = Emulator(tmp_path_factory.mktemp("emulator"))
    emulator.start()
    yield emulator
    emulator.stop()


@pytest.fixture
def emulator(_shared_emulator: Emulator) -> Emulator:
    """One that other tests have used, as fast as it can be, without faults; its clock may be ahead."""
    for section in ("faults", "quirks", "limits"):
        _shared_emulator.put(section)
    _shared_emulator.put("pace", validating=0, finalizing=0, cancelling=0)
    httpx.delete(f"{_shared_emulator.url}/_sandbox/requests").raise_for_status()
    _shared_emulator.seen.clear()
    return _shared_emulator


@pytest.fixture
def embedding_lines() -> Callable[..., list[dict[str, Any]]]:
    def make(count: int, **body: Any) -> list[dict[str, Any]]:
        return [
            {
                "custom_id": f"doc-{number}",
                "method": "POST",
                "url": "/v1/embeddings",
                "body": {
                    "model": "text-embedding-3-small",
                    "input": f"document number {number}",
                    "dimensions": 16,
                    **body,
                },
            }
            for number in range(count)
        ]

    return make
