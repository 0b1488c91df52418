"""The runs of the S3 and SageMaker pipeline, each with a service and inputs of its own."""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path

from .bench.connections import connect, trigger
from .bench.sagemaker import SageMaker, emulated
from .bench.store import Store, lines
from .console import Console, Run

BAD = 3
"""The input with a record that the model refuses."""
EACH = 8


@dataclass(frozen=True)
class Pipeline:
    """One run, what went into it, and the service that it alone uses."""

    run: Run
    store: Store
    inputs: list[list[dict[str, str]]]
    sagemaker: SageMaker

    @property
    def documents(self) -> dict[str, dict[str, str]]:
        return {document["id"]: document for part in self.inputs for document in part}


def start_pipelines(
    environment: Mapping[str, str], console: Console, folder: Path, stack: ExitStack
) -> dict[str, Pipeline]:
    """Start a run whose workers die and one with a bad record, side by side."""
    sagemakers = {name: stack.enter_context(emulated(folder / name, environment)) for name in ("dying", "mended")}
    stores = {name: Store(environment, name) for name in sagemakers}
    inputs = {
        "dying": stores["dying"].put_documents(files=3, each=20),
        "mended": stores["mended"].put_documents(files=5, each=EACH),
    }
    refused = [
        {**document, "text": None} if number == 2 else document for number, document in enumerate(inputs["mended"][BAD])
    ]
    stores["mended"].put(f"{BAD}.jsonl", lines(refused))
    for name, sagemaker in sagemakers.items():
        connect(console, f"aws_{name}", sagemaker.connection)
    conf = {
        "input_uri": stores["mended"].uri,
        "index_name": "mended",
        "ingest_fields": ["$.module"],
        "allowed_failures": 1,
        "files_per_load": 2,
        "poll_seconds": 0.5,
        "aws_conn_id": "aws_mended",
    }
    runs = {
        "dying": console.trigger("dying_transform"),
        "mended": trigger(console, "s3_sagemaker_to_index", conf),
    }
    return {name: Pipeline(runs[name], stores[name], inputs[name], sagemakers[name]) for name in runs}
