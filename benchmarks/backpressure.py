"""
What a queue smaller than the night's work costs: many small documents through a real Airflow, a few batches at a time.

``python benchmarks/backpressure.py`` writes 130,000 documents of 200 tokens, starts OpenSearch, the OpenAI emulator
with a queue of 3 M tokens, and ``airflow standalone``; triggers the project's DAG once; touches nothing until it has
ended; and prints a table. What was in flight is the emulator's account, not ours: it refuses a batch that its queue has
no room for when it is created, and its log of requests shows each creation with its answer.
"""

from __future__ import annotations

import argparse
import json
import statistics
import tempfile
import threading
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any, Final, Self

import httpx
import psutil

from overnight.sandbox.airflow import Airflow
from overnight.sandbox.emulator.launch import launch
from overnight.sandbox.opensearch import Node
from overnight.sandbox.process import free_port
from overnight.sandbox.services import SERVICES, serving

PROJECT: Final = Path(__file__).parents[1]
PIPELINE: Final = "openai_batch_to_index"
MODEL: Final = "text-embedding-3-small"
INDEX: Final = "night"
SAMPLE_SECONDS: Final = 0.5


class Memory:
    """
    Resident memory of the processes of one Airflow while the ``with`` lasts.

    A process is one of the tasks' when it began as a task: Airflow calls it ``airflow worker -- <id>``.
    """

    def __init__(self) -> None:
        self._over = threading.Event()
        self._thread = threading.Thread(target=self._watch)
        self._tasks: dict[int, int] = {}
        self.triggerer: list[float] = []

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._over.set()
        self._thread.join()

    @property
    def largest_tasks(self) -> list[float]:
        """The peak of each task's process, in MB, the largest last."""
        return sorted(peak / 1e6 for peak in self._tasks.values())

    def tenths(self) -> list[int]:
        """Return the triggerer's memory in MB, the mean of each tenth of the time."""
        count = len(self.triggerer)
        cuts = [self.triggerer[count * tenth // 10 : count * (tenth + 1) // 10] for tenth in range(10)]
        return [round(sum(cut) / len(cut)) for cut in cuts if cut]

    def _watch(self) -> None:
        standalone = self._find()
        while not self._over.wait(SAMPLE_SECONDS):
            triggerer = 0.0
            for process in standalone.children(recursive=True):
                try:
                    command, memory = " ".join(process.cmdline()), process.memory_info().rss
                except psutil.Error:
                    continue
                if command.startswith("airflow worker -- ") and "LocalExecutor" not in command:
                    self._tasks[process.pid] = max(memory, self._tasks.get(process.pid, 0))
                if command.endswith("airflow triggerer"):
                    triggerer = max(triggerer, memory / 1e6)
            if triggerer:
                self.triggerer.append(triggerer)

    def _find(self) -> psutil.Process:
        """Return the process whose descendants are this Airflow: their own environment is behind their titles."""
        for process in psutil.Process().children():
            if process.cmdline()[-2:] == ["airflow", "standalone"]:
                return process
        raise RuntimeError("airflow standalone does not run")


class Console:
    """Airflow's REST API."""

    def __init__(self, url: str) -> None:
        token = httpx.get(f"{url}/auth/token", timeout=60, trust_env=False).raise_for_status().json()["access_token"]
        self._client = httpx.Client(
            base_url=f"{url}/api/v2", timeout=120, trust_env=False, headers={"Authorization": f"Bearer {token}"}
        )

    def call(self, method: str, path: str, **arguments: Any) -> Any:
        """Return an answer. SQLite has one writer; a busy server says so with a 5xx, and is asked again."""
        while True:
            answer = self._client.request(method, path, **arguments)
            if not answer.is_server_error:
                return answer.raise_for_status().json()
            time.sleep(2)

    def trigger(self, conf: dict[str, Any]) -> str:
        """Trigger the DAG as soon as it is known, and return the path of the run."""
        while not self._client.get(f"/dags/{PIPELINE}").is_success:
            time.sleep(1)
        self.call("PATCH", f"/dags/{PIPELINE}", json={"is_paused": False})
        run = self.call("POST", f"/dags/{PIPELINE}/dagRuns", json={"logical_date": None, "conf": conf})
        return f"/dags/{PIPELINE}/dagRuns/{run['dag_run_id']}"

    def wait(self, run: str) -> str:
        """Return the state in which a run ends."""
        while (state := str(self.call("GET", run)["state"])) not in {"success", "failed"}:
            time.sleep(2)
        return state


def write_documents(path: Path, count: int, tokens: int) -> None:
    """Write documents whose texts are so many tokens, as Overnight estimates them: 4 characters each."""
    with path.open("w") as file:
        for number in range(count):
            text = f"{number} {'word ' * tokens}"[: 4 * tokens]
            file.write(json.dumps({"id": f"d{number}", "text": text}) + "\n")


@contextmanager
def emulated(folder: Path, queue: int, lines_per_second: float) -> Iterator[str]:
    """Run the OpenAI emulator with a queue that refuses what it has no room for at the creation."""
    settings = {
        "limits": {"enqueued_tokens": queue, "enqueued_check": "create"},
        "pace": {"lines_per_second": lines_per_second},
    }
    with serving(launch("openai", folder, free_port(), "--settings", json.dumps(settings))) as emulator:
        yield emulator.url


def measure(options: argparse.Namespace, folder: Path) -> dict[str, Any]:
    """Run the night and return its figures, by what they are of."""
    documents = folder / "documents.jsonl"
    write_documents(documents, options.documents, options.tokens)
    node = Node(home=folder / "opensearch", port=free_port())
    with ExitStack() as stack:
        stack.callback(node.remove)
        stack.enter_context(node)
        url = stack.enter_context(emulated(folder / "openai", options.queue, options.pace))
        connection = {"conn_type": "overnight_openai", "host": f"{url}/v1", "password": "sandbox"}
        airflow = Airflow(
            folder / "airflow",
            dags=PROJECT / "dags",
            plugins=PROJECT / "plugins",
            variables={
                **SERVICES["opensearch"].environment(node.port),
                "AIRFLOW_CONN_OPENAI_DEFAULT": json.dumps(connection),
                "AIRFLOW__CORE__PARALLELISM": "4",
                "AIRFLOW__API__WORKERS": "1",
                # A machine that is busy with other things answers late; that is no failure.
                "AIRFLOW__WORKERS__EXECUTION_API_TIMEOUT": "60",
                "AIRFLOW__WORKERS__MAX_FAILED_HEARTBEATS": "30",
                "AIRFLOW__CORE__DAGBAG_IMPORT_TIMEOUT": "120",
                "AIRFLOW__DAG_PROCESSOR__MIN_FILE_PROCESS_INTERVAL": "600",
            },
        )
        console = Console(stack.enter_context(airflow.standalone()))
        memory = stack.enter_context(Memory())
        began = time.monotonic()
        run = console.trigger(
            {
                "input_uri": str(documents),
                "work_uri": str(folder / "work"),
                "index_name": INDEX,
                "dimension": options.dimension,
                "index_body": {"settings": {"number_of_replicas": 0}},
                "budget": {"tokens": options.queue},
                "poll_seconds": options.poll,
                "aws_conn_id": None,
            }
        )
        state = console.wait(run)
        seconds = time.monotonic() - began
        return {
            "documents": f"{options.documents:,} of {options.tokens} tokens",
            "state of the run": state,
            **read_airflow(console, run),
            **read_emulator(url, options.queue),
            "documents in the index": count_documents(node.url),
            "seconds from the trigger to the end": round(seconds),
            "largest processes of a task, MB": [round(peak) for peak in memory.largest_tasks[-5:]],
            "median of all, MB": round(statistics.median(memory.largest_tasks)),
            "triggerer, MB, mean of each tenth": memory.tenths(),
        }


def read_airflow(console: Console, run: str) -> dict[str, Any]:
    """Return how many tasks there were, how many were tried again, and the report."""
    tasks: list[dict[str, Any]] = []
    while page := console.call("GET", f"{run}/taskInstances", params={"limit": 100, "offset": len(tasks)})[
        "task_instances"
    ]:
        tasks += page
    # A report is the XCom of its key also when the run failed.
    entry = f"{run}/taskInstances/report/xcomEntries/report"
    report = console.call("GET", entry, params={"deserialize": "true"})["value"]
    sums = {name: report[name] for name in ("submitted", "indexed", "dropped", "rejected", "missing")}
    return {
        "tasks": len(tasks),
        "tasks tried more than once": sum(task["try_number"] > 1 for task in tasks),
        "report": sums,
        "failed parts": report["failed_parts"],
    }


def read_emulator(url: str, queue: int) -> dict[str, Any]:
    """Return what the service saw."""
    wanted = {"method": "POST", "path": "/v1/batches"}
    log = httpx.get(f"{url}/_sandbox/requests", params=wanted, timeout=60).raise_for_status().json()["data"]
    refused = [seen for seen in log if seen["status"] != 200]
    enqueued = httpx.get(f"{url}/_sandbox/queue", timeout=60).raise_for_status().json()[MODEL]
    return {
        "batches created, and creations refused": (len(log) - len(refused), len(refused)),
        "most tokens in the queue": f"{enqueued['peak']:,} of {queue:,}",
        "tokens in the queue at the end": enqueued["enqueued"],
    }


def count_documents(url: str) -> int:
    """Return how many documents the index has."""
    httpx.post(f"{url}/{INDEX}/_refresh", timeout=60).raise_for_status()
    return int(httpx.get(f"{url}/{INDEX}/_count", timeout=60).raise_for_status().json()["count"])


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--documents", type=int, default=130_000)
    parser.add_argument("--tokens", type=int, default=200, help="of each document")
    parser.add_argument("--queue", type=int, default=3_000_000, help="tokens that the service's queue holds")
    parser.add_argument("--pace", type=float, default=200, help="lines that the emulator does in a second, per batch")
    parser.add_argument("--dimension", type=int, default=64)
    parser.add_argument("--poll", type=float, default=5.0, help="seconds between two looks")
    parser.add_argument("--folder", type=Path, help="an empty one that everything is left in, logs too")
    options = parser.parse_args()
    with ExitStack() as stack:
        folder = options.folder or Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="overnight-")))
        figures = measure(options, folder)
    for what, figure in figures.items():
        print(f"| {what} | {figure} |")


if __name__ == "__main__":
    main()
