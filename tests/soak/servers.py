"""The services that a soak works with, and what a user of each sees at its console: jobs, requests, documents."""

from __future__ import annotations

import json
import signal
import sys
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import httpx

from overnight.jobs import JobKey
from overnight.sandbox.corpus import files
from overnight.sandbox.emulator.launch import launch
from overnight.sandbox.opensearch import Node
from overnight.sandbox.process import LOCALHOST, Launch, ProcessId, free_port, start, wait_ready
from overnight.sandbox.sagemaker.launch import launch as launch_sagemaker
from overnight.sandbox.services import KEY, SERVICES, running, serving
from system.bench.sagemaker import SageMaker
from system.bench.store import client

from .checks import FoundJob
from .plan import LINES

PACES: Final[Mapping[str, Mapping[str, float]]] = {
    "openai": {"validating": 3.0, "finalizing": 1.0, "lines_per_second": 10.0},
    "sagemaker": {"starting": 4.0, "per_file": 2.0},
    "llamacloud": {"pending": 3.0, "results": 1.0, "jobs_per_second": 2.0},
    "azure": {"queued": 4.0, "documents_per_second": 2.0},
}
"""Long enough for something to be killed while a job runs."""
TESTS: Final = Path(__file__).parents[1]
BLOBS: Final = 12
AZURE_JOBS: Final = "/openai/extensions/on-your-data/ingestion-jobs"
AZURE_VERSION: Final = {"api-version": "2023-10-01-preview"}
SEARCH_VERSION: Final = {"api-version": "2023-11-01"}
STOPPED: Final = {"cancelled", "CANCELLED", "Stopped"}


class Crashing:
    """An OpenSearch node that can be killed; its documents stay."""

    def __init__(self, home: Path, s3_url: str) -> None:
        self._node = Node(ml_commons=True, home=home, port=free_port(), java_options=(f"-Daws.endpointUrlS3={s3_url}",))
        self._process: ProcessId | None = None

    @property
    def url(self) -> str:
        return self._node.url

    @property
    def port(self) -> int:
        return self._node.port

    @property
    def runs(self) -> bool:
        return self._process is not None and self._process.find() is not None

    def assemble(self) -> None:
        self._node.assemble()

    def start(self) -> None:
        self._process = start(self._node.launch())

    def wait_ready(self) -> None:
        assert self._process is not None
        wait_ready(self._node.launch(), self._process)

    def kill(self) -> None:
        process = self._process.find() if self._process is not None else None
        if process is not None:
            process.send_signal(signal.SIGKILL)
            process.wait(20)

    def remove(self) -> None:
        if self._process is not None:
            self._process.stop()
        self._node.remove()


@dataclass(frozen=True)
class Servers:
    """
    Everything that runs beside Airflow.

    :param urls: Of the emulators.
    :param gateways: Through which Airflow, and nobody else, reaches S3 and the node.
    """

    urls: Mapping[str, str]
    gateways: Mapping[str, str]
    s3_url: str
    node: Crashing
    sagemaker: SageMaker
    environment: Mapping[str, str]

    def set_faults(self, faults: Mapping[str, Mapping[str, Any]]) -> None:
        """Set what goes wrong; nothing at a server that is not named, but for OpenAI's lines."""
        for name, url in {**self.urls, **self.gateways}.items():
            values = {**faults.get(name, {}), **(LINES if name == "openai" else {})}
            if name in self.gateways:
                values["server_error_status"] = 503 if name == "opensearch" else 500
            elif name != "sagemaker":
                values["retry_after"] = 0.5
            httpx.put(f"{url}/_sandbox/faults", json=values, trust_env=False).raise_for_status()

    def list_jobs(self) -> list[FoundJob]:
        """Return every job that any of the services has."""
        return [*self._batches(), *self._transforms(), *self._parses(), *self._ingestions()]

    def list_requests(self, name: str) -> list[dict[str, Any]]:
        """Return an emulator's log of requests, with each one's number, the API's status and the fault that hit it."""
        log = "calls" if name == "sagemaker" else "requests"
        answer = httpx.get(f"{self.urls[name]}/_sandbox/{log}", timeout=60, trust_env=False).raise_for_status().json()
        if isinstance(answer, list):
            return answer
        (requests,) = (value for value in answer.values() if isinstance(value, list))
        return list(requests)

    def list_indexes(self) -> list[str]:
        """Return the names of Azure's indexes."""
        found = self._azure("GET", "/indexes", SEARCH_VERSION)
        return [index["name"] for index in found["value"]]

    def list_chunks(self, index: str) -> list[tuple[str, int, int]]:
        """Return file and number of each chunk in one of Azure's indexes."""
        body = {"search": "*", "top": 1_000, "select": "filepath,chunk_id"}
        found = self._azure("POST", f"/indexes/{index}/docs/search", SEARCH_VERSION, json=body)
        return [(chunk["filepath"], int(chunk["chunk_id"]), -1) for chunk in found["value"]]

    def list_ingest_tasks(self) -> list[dict[str, Any]]:
        """Return the ingestion tasks of ML Commons that are not over, of those that did not die with a node."""
        with httpx.Client(base_url=self.node.url, timeout=60, trust_env=False) as node:
            answer = node.get("/_nodes/jvm").raise_for_status().json()
            booted = max(one["jvm"]["start_time_in_millis"] for one in answer["nodes"].values())
            terms = [{"term": {"task_type": "BATCH_INGEST"}}, {"terms": {"state": ["CREATED", "RUNNING"]}}]
            since = {"range": {"create_time": {"gte": booted}}}
            body = {"size": 1_000, "query": {"bool": {"filter": [*terms, since]}}}
            found = node.post("/_plugins/_ml/tasks/_search", json=body)
            return [hit["_source"] for hit in found.raise_for_status().json()["hits"]["hits"]]

    def _batches(self) -> Iterator[FoundJob]:
        params: dict[str, Any] = {"limit": 100}
        with httpx.Client(base_url=self.urls["openai"], headers=_bearer(), timeout=60, trust_env=False) as openai:
            while True:
                page = openai.get("/v1/batches", params=params).raise_for_status().json()
                for batch in page["data"]:
                    state = batch["status"]
                    over = state in {"completed", "failed", "expired", "cancelled"}
                    tag = _get_tag(batch["metadata"]["overnight_name"])
                    yield FoundJob("openai", batch["id"], tag, state, over, state == "completed")
                if not page["has_more"]:
                    return
                params["after"] = page["last_id"]

    def _transforms(self) -> Iterator[FoundJob]:
        for page in client("sagemaker", self.sagemaker.url).get_paginator("list_transform_jobs").paginate():
            for job in page["TransformJobSummaries"]:
                name, state = job["TransformJobName"], job["TransformJobStatus"]
                over = state in {"Completed", "Failed", "Stopped"}
                yield FoundJob("sagemaker", name, _get_tag(name), state, over, state == "Completed")

    def _parses(self) -> Iterator[FoundJob]:
        base = "/api/v1/beta/directories"
        names = {one["id"]: one["name"] for one in self._llamacloud(base, types=["ephemeral", "user"])}
        for batch in self._llamacloud("/api/v2/batches"):
            state = batch["status"]
            tag = _get_tag(names[batch["source_directory_id"]].partition(".")[0])
            over = state in {"COMPLETED", "FAILED", "CANCELLED"}
            yield FoundJob("llamacloud", batch["id"], tag, state, over, state == "COMPLETED")
        for job in self._llamacloud("/api/v2/parse"):
            if job["status"] in {"PENDING", "RUNNING"}:
                yield FoundJob("llamacloud", job["id"], None, job["status"], False, False)

    def _ingestions(self) -> Iterator[FoundJob]:
        for job in self._azure("GET", AZURE_JOBS, AZURE_VERSION)["value"]:
            state = job["status"].lower()
            over = state in {"succeeded", "failed"}
            yield FoundJob("azure", job["id"], _get_tag(job["id"]), state, over, state == "succeeded")

    def _llamacloud(self, path: str, **params: Any) -> Iterator[dict[str, Any]]:
        token: str | None = None
        with httpx.Client(base_url=self.urls["llamacloud"], headers=_bearer(), timeout=60, trust_env=False) as cloud:
            while True:
                asked = {**params, "page_size": 1_000, **({"page_token": token} if token else {})}
                page = cloud.get(path, params=asked).raise_for_status().json()
                yield from page["items"]
                token = page["next_page_token"]
                if not token:
                    return

    def _azure(self, method: str, path: str, params: Mapping[str, str], **arguments: Any) -> Any:
        headers = {"api-key": KEY}
        url = f"{self.urls['azure']}{path}"
        answer = httpx.request(method, url, params=params, headers=headers, timeout=60, trust_env=False, **arguments)
        return answer.raise_for_status().json()


@contextmanager
def served(folder: Path, seed: int) -> Iterator[Servers]:
    """Run every service while the ``with`` lasts; none of them fails yet, and the node is still booting."""
    s3_port, ports = free_port(), {name: free_port() for name in PACES}
    s3_url = SERVICES["s3"].environment(s3_port)["AWS_ENDPOINT_URL_S3"]
    node = Crashing(folder / "opensearch" / "node", s3_url)
    with ExitStack() as stack:
        stack.callback(node.remove)
        node.assemble()
        node.start()
        stack.enter_context(running("s3", folder, port=s3_port))
        launches = {name: _launch(name, folder / name, port, seed, s3_url) for name, port in ports.items()}
        for one in launches.values():
            stack.enter_context(serving(one))
        urls = {name: one.url for name, one in launches.items()}
        upstreams = {"s3": s3_url, "opensearch": node.url}
        gates = {name: _gateway(name, folder, upstream, seed) for name, upstream in upstreams.items()}
        gateways = {name: stack.enter_context(serving(gate)).url for name, gate in gates.items()}
        gate_ports = {name: int(url.rpartition(":")[2]) for name, url in gateways.items()}
        sagemaker = SageMaker(urls["sagemaker"], gateways["s3"])
        for name, path in files(BLOBS).items():
            blob = f"{urls['azure']}/_sandbox/blobs/documents/{name}"
            httpx.put(blob, content=path.read_bytes(), trust_env=False).raise_for_status()
        environment = {
            **SERVICES["s3"].environment(gate_ports["s3"]),
            **SERVICES["opensearch"].environment(gate_ports["opensearch"]),
            **{k: v for name in ("openai", "llamacloud", "azure") for k, v in _environment(name, ports[name]).items()},
            "AIRFLOW_CONN_AWS_DEFAULT": json.dumps(sagemaker.connection),
        }
        yield Servers(urls, gateways, s3_url, node, sagemaker, environment)


def _launch(name: str, folder: Path, port: int, seed: int, s3_url: str) -> Launch:
    settings = {"pace": dict(PACES[name]), "seed": seed}
    if name == "sagemaker":
        return launch_sagemaker(folder, port, s3_url, settings)
    return launch(name, folder, port, "--settings", json.dumps(settings))


def _gateway(name: str, folder: Path, upstream: str, seed: int) -> Launch:
    port = free_port()
    url = f"http://{LOCALHOST}:{port}"
    arguments = ("--kind", name, "--upstream", upstream, "--port", str(port), "--seed", str(seed))
    return Launch(
        name=f"{name}-gateway",
        argv=(sys.executable, "-m", "soak.gateway", *arguments),
        url=url,
        health=f"{url}/_sandbox/health",
        cwd=folder,
        log=folder / f"{name}-gateway.log",
        environ={"PYTHONPATH": str(TESTS)},
    )


def _environment(name: str, port: int) -> dict[str, str]:
    return {
        variable: value
        for variable, value in SERVICES[name].environment(port).items()
        if variable.startswith("AIRFLOW_CONN_")
    }


def _bearer() -> dict[str, str]:
    return {"Authorization": f"Bearer {KEY}"}


def _get_tag(name: str) -> str | None:
    parsed = JobKey.parse_name(name)
    return parsed.tag if parsed is not None else None
