"""What a notebook has: embed documents without Airflow. Arguments: the emulator's URL, a folder, a mode."""

from __future__ import annotations

import json
import os
import signal
import sys
from pathlib import Path

from overnight.jobs import FileRecordStore, JobRecord, run
from overnight.jobs.client import JobClient
from overnight.services.openai.connection import OpenAIConnection
from overnight.services.openai.input import RequestTemplate, build
from overnight.services.openai.service import OpenAIBatchService, OpenAIBatchSpec


class DyingRecordStore(FileRecordStore):
    """Its process is killed when the service has answered and the reference is about to be written."""

    def set(self, record: JobRecord) -> None:
        if record.ref is not None:
            os.kill(os.getpid(), signal.SIGKILL)
        super().set(record)


url, folder, mode = sys.argv[1], Path(sys.argv[2]), sys.argv[3]
documents = [{"id": f"d{number}", "text": f"the text of document {number}"} for number in range(100)]
template = RequestTemplate.embeddings("text-embedding-3-small", dimensions=8)
part = build(iter(documents), template, str(folder / "input")).parts[0]
spec = OpenAIBatchSpec(input_uri=part.uri, endpoint="/v1/embeddings").measured()
kind = DyingRecordStore if mode == "dies" else FileRecordStore
with JobClient(OpenAIBatchService("openai_default"), OpenAIConnection("sandbox", base_url=url).transport()) as client:
    conclusion = run(
        spec,
        client=client,
        records=kind(folder / "job.json"),
        name=f"embed {folder}",
        again=mode == "again",
        poll_interval=0.1,
    )
assert "airflow" not in sys.modules
assert conclusion.status is not None
print(json.dumps({"id": conclusion.ref.id, "counts": conclusion.status.counts.model_dump()}))  # noqa: T201
