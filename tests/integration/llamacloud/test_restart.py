"""An emulator that is killed goes on with its batches when it is started again."""

from __future__ import annotations

import subprocess
import sys
import time
from pathlib import Path

import httpx
import pytest

from overnight.jobs import JobKey, JobState
from overnight.sandbox.process import LOCALHOST, free_port
from patience import PATIENCE

from .conftest import FAST, Bench, parsing


def start(folder: Path, port: int) -> subprocess.Popen[bytes]:
    process = subprocess.Popen(
        [sys.executable, "-m", "overnight.sandbox.llamacloud", "--port", str(port), "--data-dir", str(folder)]
    )
    end = time.monotonic() + PATIENCE
    while time.monotonic() < end:
        try:
            httpx.get(f"http://{LOCALHOST}:{port}/_sandbox/health").raise_for_status()
        except httpx.TransportError:
            assert process.poll() is None
            time.sleep(0.1)
        else:
            return process
    process.kill()
    raise AssertionError("the emulator does not answer")


@pytest.mark.parametrize("stage", ["mapping", "working"])
def test_a_killed_emulator_goes_on_where_it_was(tmp_path: Path, key: JobKey, stage: str) -> None:
    port = free_port()
    bench = Bench(f"http://{LOCALHOST}:{port}", tmp_path)
    process = start(tmp_path / "data", port)
    try:
        bench.reset()
        bench.set("pace", **{"mapping_per_second" if stage == "mapping" else "jobs_per_second": 10.0})
        with bench.client(limits=FAST) as client:
            ref = client.run(client.service.submit(parsing(bench.files(20)), key))
            wanted = "RUNNING" if stage == "mapping" else "COMPLETED"
            while bench.batches(key)[0]["status"] != wanted:
                time.sleep(0.02)
            process.kill()
            process.wait()
            process = start(tmp_path / "data", port)
            status = bench.finish(client, ref)
        assert status.state is JobState.SUCCEEDED
        assert status.counts.succeeded == 20
    finally:
        process.kill()
        process.wait()
