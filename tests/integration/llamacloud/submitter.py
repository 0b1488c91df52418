"""A worker of its own, to be killed: submits a job as the operator does, find before submit, and prints its id."""

from __future__ import annotations

import sys
from datetime import UTC, datetime, timedelta

from overnight.jobs import JobKey
from overnight.jobs.client import JobClient
from overnight.services.llamacloud.connection import LlamaCloudConnection
from overnight.services.llamacloud.service import LlamaCloudService
from overnight.services.llamacloud.spec import Limits, LlamaCloudBatchSpec


def main(url: str, api_key: str, sources: str, key_json: str, files_per_batch: str) -> None:
    reach = LlamaCloudConnection(api_key=api_key, base_url=url, timeout=20.0)
    limits = Limits(files_per_batch=int(files_per_batch), uploads_per_second=1_000_000)
    spec = LlamaCloudBatchSpec(job_type="parse_v2", configuration_id="cfg-PARSE_FAST", sources=(sources,))
    with JobClient(LlamaCloudService("llamacloud_default", limits=limits), reach.transport(backoff=0.05)) as client:
        measured = client.run(client.service.measure(spec))
        fingerprint = measured.fingerprint("llamacloud_default")
        key = JobKey.model_validate_json(key_json).model_copy(update={"fingerprint": fingerprint})
        found = client.run(client.service.find(key, datetime.now(UTC) - timedelta(minutes=30)))
        ref = found.ref if found is not None else client.run(client.service.submit(measured, key))
    sys.stdout.write(ref.id)


if __name__ == "__main__":
    main(*sys.argv[1:])
