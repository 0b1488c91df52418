"""One try of a task, which may die on its way: ``worker.py <store> <where>``. The last line is the XCom."""

from __future__ import annotations

import json
import os
import signal
import sys
from datetime import UTC, datetime
from pathlib import Path
from types import SimpleNamespace
from typing import Any

from overnight.jobs import wait
from overnight.operators.azure_ingestion import AzureIngestionJobOperator
from overnight.transport.http import HttpCall, HttpTransport


class Store:
    """Airflow's task state store, in a file that outlives a worker."""

    def __init__(self, file: Path, die: str) -> None:
        self.file = file
        self.die = die

    def get(self, key: str) -> Any:
        return json.loads(self.file.read_text()).get(key) if self.file.exists() else None

    def set(self, key: str, value: Any) -> None:
        self.file.write_text(json.dumps({key: value}))
        if value["ref"] is not None and (
            self.die == "after the record" or (self.die == "after the answer" and value["answered"])
        ):
            os._exit(9)


def main(store: Path, die: str) -> None:
    send = HttpTransport.send

    def deadly(self: HttpTransport, call: HttpCall) -> Any:
        if call.method == "PUT" and die == "before the PUT":
            os._exit(9)
        answer = send(self, call)
        if call.method == "PUT" and die == "after the PUT":
            os._exit(9)
        return answer

    # What the emulator has no more it does not have later.
    wait.CONFIRM_WAITS = (0.01, 0.01)  # type: ignore[misc]
    HttpTransport.send = deadly  # type: ignore[method-assign]
    operator = AzureIngestionJobOperator(task_id="ingest", deferrable=False, poll_interval=0.1, chunk_size=8)
    context: Any = {
        "ti": SimpleNamespace(
            dag_id="d", task_id="ingest", run_id=str(store), map_index=-1, max_tries=0, xcom_push=lambda **_: None
        ),
        "dag_run": SimpleNamespace(start_date=datetime.now(UTC)),
        "task_state_store": Store(store, die),
    }
    if die == "on_kill":
        # As Airflow's task runner does on SIGTERM, while the operator waits.
        signal.signal(signal.SIGALRM, lambda *_: (operator.on_kill(), os._exit(9)))
        signal.alarm(3)
    sys.stdout.write(json.dumps(operator.execute(context)) + "\n")


if __name__ == "__main__":
    main(Path(sys.argv[1]), sys.argv[2])
