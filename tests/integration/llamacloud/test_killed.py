"""2,500 files are three batches and one result, and a killed worker costs no second directory and no second batch."""

from __future__ import annotations

import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from overnight.jobs import JobKey, JobState
from overnight.sandbox.services import KEY
from overnight.services.llamacloud.results import batch_ids
from patience import PATIENCE

from .conftest import Bench, read_lines

FILES = 2_500
SUBMITTER = Path(__file__).with_name("submitter.py")


Worker = Callable[..., subprocess.Popen[str]]


@pytest.fixture
def worker(bench: Bench, key: JobKey) -> Iterator[Worker]:
    """What starts a worker on some sources; none outlives its test."""
    started: list[subprocess.Popen[str]] = []

    def start(sources: str, files_per_batch: int = 1_000) -> subprocess.Popen[str]:
        argv = [sys.executable, str(SUBMITTER), bench.url, KEY, sources, key.model_dump_json(), str(files_per_batch)]
        started.append(subprocess.Popen(argv, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True))
        return started[-1]

    yield start
    for process in started:
        process.kill()
        process.communicate()


def job_id_of(process: subprocess.Popen[str]) -> str:
    output, errors = process.communicate(timeout=PATIENCE)
    assert process.returncode == 0, errors
    return output


def kill_once(process: subprocess.Popen[str], is_time: Callable[[], object]) -> None:
    end = time.monotonic() + PATIENCE
    while not is_time():
        assert process.poll() is None, process.communicate()[1]
        assert time.monotonic() < end, "it was never time to kill"
        time.sleep(0.01)
    process.kill()
    process.wait()


def names(bench: Bench, key: JobKey) -> list[str]:
    return sorted(directory["name"].rpartition(".")[2] for directory in bench.directories(key))


def test_2500_files_survive_a_worker_killed_while_uploading(bench: Bench, key: JobKey, worker: Worker) -> None:
    sources = bench.files(FILES)
    bench.set("faults", files_failed={"share": 0.02}, files_missing={"share": 0.01}, files_unmapped={"share": 0.01})
    kill_once(worker(sources), lambda: len(bench.requests("POST", "/files/upload")) > 1_200)
    arrived = sum(one["status"] == 200 for one in bench.requests("POST", "/files/upload"))
    assert 1_000 < arrived < FILES
    assert bench.batches(key) == []

    job_id = job_id_of(worker(sources))

    uploads = [one for one in bench.requests("POST", "/files/upload") if one["status"] == 200]
    assert len(uploads) == FILES
    assert names(bench, key) == ["1-of-3", "2-of-3", "3-of-3"]
    with bench.client(results_uri=str(bench.folder / "results")) as client:
        ref = client.service.ref(job_id)
        assert sorted(batch_ids(ref)) == sorted(batch["id"] for batch in bench.batches(key))
        assert len(batch_ids(ref)) == 3
        status = bench.finish(client, ref)
        results = client.run(client.service.results(ref))
    assert status.state is JobState.PARTIAL
    assert results.counts == status.counts
    output, errors = read_lines(results, "output"), read_lines(results, "error")
    missing = [line for line in errors if line["state"] == "missing"]
    assert results.counts.total == FILES == len(output) + len(errors)
    assert results.counts.succeeded == len(output)
    assert results.counts.failed == len(errors) - len(missing)
    assert missing
    every = {line["name"] for line in [*output, *errors]}
    assert every == {f"note-{number:04}.md" for number in range(FILES)}


def test_a_worker_killed_between_upload_and_submit_leaves_the_batches_to_the_next(
    bench: Bench, key: JobKey, worker: Worker
) -> None:
    sources = bench.files(12)
    bench.set("faults", server_error={"share": 1, "path": "^/api/v2/batches$", "methods": ["POST"]})
    kill_once(worker(sources, 10), lambda: bench.requests("POST", "/api/v2/batches"))
    assert bench.batches(key) == []
    bench.set("faults", server_error={})
    job_id = job_id_of(worker(sources, 10))
    assert len(bench.requests("POST", "/files/upload")) == 12
    assert names(bench, key) == ["1-of-2", "2-of-2"]
    assert {batch["id"] for batch in bench.batches(key)} == set(job_id.split("+"))
    assert len(bench.batches(key)) == 2


def test_a_worker_killed_before_it_learnt_of_its_first_batch_leads_to_no_second_one(
    bench: Bench, key: JobKey, worker: Worker
) -> None:
    sources = bench.files(12)
    bench.set("faults", lost_answer={"share": 1, "times": 1, "path": "^/api/v2/batches$", "methods": ["POST"]})
    kill_once(worker(sources, 10), lambda: bench.batches(key))
    (first,) = bench.batches(key)
    job_id = job_id_of(worker(sources, 10))
    assert first["id"] in job_id.split("+")
    assert {batch["id"] for batch in bench.batches(key)} == set(job_id.split("+"))
    assert len(bench.batches(key)) == 2


def test_a_worker_killed_after_its_last_batch_is_attached_to(bench: Bench, key: JobKey, worker: Worker) -> None:
    sources = bench.files(20)
    first = job_id_of(worker(sources, 10))
    assert job_id_of(worker(sources, 10)) == first
    assert len(bench.requests("POST", "/api/v2/batches")) == 2
