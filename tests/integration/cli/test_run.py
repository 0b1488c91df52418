"""``overnight run`` as a process of its own: documents, the OpenAI emulator, an index of a real OpenSearch."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import httpx
import pytest

from patience import PATIENCE

APP = "from overnight.cli.app import app; app()"
KILLED_AFTER_THE_ANSWER = f"""
import os, signal
from overnight.jobs.record_store import StorageRecordStore
write = StorageRecordStore.set
def die(self, record):
    if record.ref is not None:
        os.kill(os.getpid(), signal.SIGKILL)
    write(self, record)
StorageRecordStore.set = die
{APP}
"""
"""The service has answered, and the reference is about to be written."""
KILLED_IN_THE_LOAD = f"""
import os, signal
from overnight.ingest.write.checkpoint import CheckpointFile
write = CheckpointFile.save
def die(self, checkpoint):
    write(self, checkpoint)
    if checkpoint.tally.submitted > 10:
        os.kill(os.getpid(), signal.SIGKILL)
CheckpointFile.save = die
{APP}
"""
COUNT = 60
MAPPING = {
    "settings": {"index": {"knn": True, "number_of_replicas": 0}},
    "mappings": {
        "properties": {
            "text": {"type": "text"},
            "embedding": {"type": "knn_vector", "method": {"name": "hnsw", "engine": "lucene"}},
        }
    },
}


class Runner:
    """One run: its documents, its work folder, its index."""

    def __init__(self, folder: Path, index: str, environment: Mapping[str, str]) -> None:
        self.folder = folder
        self.index = index
        self.environment = dict(environment)
        self.work = folder / "work"
        self.documents = folder / "documents.jsonl"
        lines = ({"id": f"d{number}", "text": f"the text of document {number}"} for number in range(COUNT))
        self.documents.write_text("".join(json.dumps(line) + "\n" for line in lines))
        (folder / "mapping.json").write_text(json.dumps(MAPPING))

    def command(self, *arguments: str, code: str = APP) -> list[str]:
        mapping = str(self.folder / "mapping.json")
        options = ("--index", self.index, "--work", str(self.work), "--mapping", mapping, "--dimension", "8")
        return [sys.executable, "-c", code, "run", str(self.documents), *options, "--interval", "0.2", *arguments]

    def run(self, *arguments: str, code: str = APP) -> subprocess.CompletedProcess[str]:
        command = self.command(*arguments, code=code)
        found = subprocess.run(
            command, env=self.environment, capture_output=True, text=True, timeout=PATIENCE, check=False
        )
        assert "Traceback" not in found.stderr, found.stderr
        return found

    def finish(self, *arguments: str) -> dict[str, Any]:
        found = self.run("--json", *arguments)
        assert found.returncode == 0, found.stderr
        return dict(json.loads(found.stdout))

    def start(self) -> tuple[subprocess.Popen[str], str]:
        """Start it, and return it once it has submitted, with what it said of that."""
        process = subprocess.Popen(
            self.command(), env=self.environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
        )
        assert process.stderr is not None
        said = next((line for line in process.stderr if "submitted" in line), None)
        assert said is not None, process.communicate()
        return process, said

    def jobs(self, *arguments: str) -> subprocess.CompletedProcess[str]:
        command = [sys.executable, "-c", APP, "jobs", *arguments]
        return subprocess.run(
            command, env=self.environment, capture_output=True, text=True, timeout=PATIENCE, check=False
        )


@pytest.fixture
def admin(openai_url: str) -> Iterator[str]:
    admin = openai_url.removesuffix("/v1") + "/_sandbox"
    sections = ("faults", "quirks", "limits", "pace")
    for section in sections:
        httpx.put(f"{admin}/{section}", json={}).raise_for_status()
    httpx.delete(f"{admin}/requests").raise_for_status()
    yield admin
    for section in sections:
        httpx.put(f"{admin}/{section}", json={}).raise_for_status()


@pytest.fixture
def runner(openai_url: str, opensearch_url: str, index_name: str, tmp_path: Path) -> Runner:
    without = {name: value for name, value in os.environ.items() if not name.startswith("AIRFLOW_CONN_")}
    servers = {"OPENAI_BASE_URL": openai_url, "OPENAI_API_KEY": "sandbox", "OPENSEARCH_URL": opensearch_url}
    others = {"AIRFLOW_HOME": str(tmp_path / "airflow"), "NO_COLOR": "1"}
    return Runner(tmp_path, index_name, {**without, **servers, **others})


def count_requests(admin: str, path: str) -> int:
    answer = httpx.get(f"{admin}/requests", params={"method": "POST", "path": path})
    return len(answer.raise_for_status().json()["data"])


def pace(admin: str, **values: float) -> None:
    httpx.put(f"{admin}/pace", json=values).raise_for_status()


def find_documents(opensearch_url: str, index: str) -> dict[str, dict[str, Any]]:
    query = {"size": COUNT + 1}
    found = httpx.post(f"{opensearch_url}/{index}/_search", json=query, timeout=60).raise_for_status().json()
    return {hit["_id"]: hit["_source"] for hit in found["hits"]["hits"]}


def test_documents_are_in_the_index_with_their_vectors(runner: Runner, admin: str, opensearch_url: str) -> None:
    report = runner.finish("--batch-requests", "40")
    assert (report["submitted"], report["indexed"], report["failed_parts"]) == (COUNT, COUNT, [])
    assert [job["state"] for job in report["jobs"]] == ["succeeded", "succeeded"]
    assert report["cost"]["cost"] is not None
    assert json.loads((runner.work / "report.json").read_text()) == report
    documents = find_documents(opensearch_url, runner.index)
    assert documents.keys() == {f"d{number}" for number in range(COUNT)}
    assert documents["d7"]["text"] == "the text of document 7"
    assert {len(document["embedding"]) for document in documents.values()} == {8}
    assert count_requests(admin, "/v1/batches") == 2
    mapping = httpx.get(f"{opensearch_url}/{runner.index}/_mapping").raise_for_status().json()
    assert mapping[runner.index]["mappings"]["properties"]["embedding"]["dimension"] == 8


def test_started_again_after_its_end_it_pays_for_nothing(runner: Runner, admin: str) -> None:
    first = runner.finish("--batch-requests", "40")
    second = runner.finish("--batch-requests", "40")
    assert [job["id"] for job in second["jobs"]] == [job["id"] for job in first["jobs"]]
    assert second["indexed"] == COUNT
    assert (count_requests(admin, "/v1/batches"), count_requests(admin, "/v1/files")) == (2, 2)


def test_a_second_run_has_its_answers_from_the_cache_and_submits_nothing(
    runner: Runner, admin: str, opensearch_url: str
) -> None:
    lines = runner.documents.read_text().splitlines(keepends=True)
    same = json.dumps({"id": "same", "text": "the text of document 7"})
    runner.documents.write_text("".join(lines[:-1]) + same + "\n")
    cache = ("--cache-uri", str(runner.folder / "cache"))
    first = runner.finish(*cache, "--batch-requests", "40")
    assert (first["submitted"], first["reused"], first["repeated"], first["indexed"]) == (COUNT - 1, 1, 1, COUNT)
    paid = find_documents(opensearch_url, runner.index)
    assert paid["same"]["embedding"] == paid["d7"]["embedding"]
    httpx.delete(f"{opensearch_url}/{runner.index}").raise_for_status()
    second = runner.finish(*cache, "--work", str(runner.folder / "second"))
    assert (second["submitted"], second["reused"], second["indexed"]) == (0, COUNT, COUNT)
    assert (second["jobs"], second["cost"]) == ([], None)
    assert second["saved"]["cost"] is not None
    assert find_documents(opensearch_url, runner.index) == paid
    assert (count_requests(admin, "/v1/batches"), count_requests(admin, "/v1/files")) == (2, 2)
    # The first one goes on with its own batches.
    assert runner.finish(*cache, "--batch-requests", "40")["submitted"] == COUNT - 1
    assert count_requests(admin, "/v1/batches") == 2


def test_killed_in_the_load_of_cached_answers_it_goes_on_at_the_checkpoint(runner: Runner, admin: str) -> None:
    cache = ("--cache-uri", str(runner.folder / "cache"))
    runner.finish(*cache)
    small = (*cache, "--work", str(runner.folder / "second"), "-o", "bulk_bytes=1000", "-o", "checkpoint_seconds=0")
    assert runner.run(*small, code=KILLED_IN_THE_LOAD).returncode == -signal.SIGKILL
    report = runner.finish(*small)
    (part,) = report["parts"]
    assert (part["load"]["resumed"], report["reused"], report["indexed"]) == (True, COUNT, COUNT)
    assert count_requests(admin, "/v1/batches") == 1


def test_openai_is_reached_by_a_connection_of_airflows(runner: Runner, admin: str) -> None:
    url, key = (runner.environment.pop(name) for name in ("OPENAI_BASE_URL", "OPENAI_API_KEY"))
    connection = {"conn_type": "overnight_openai", "host": url, "password": key}
    runner.environment["AIRFLOW_CONN_MINE"] = json.dumps(connection)
    report = runner.finish("--conn-id", "mine")
    assert (report["indexed"], count_requests(admin, "/v1/batches")) == (COUNT, 1)
    del runner.environment["AIRFLOW_CONN_MINE"]
    found = runner.run("--conn-id", "mine")
    assert (found.returncode, found.stdout) == (2, "")
    assert "set AIRFLOW_CONN_MINE" in found.stderr


def test_killed_while_it_waits_it_goes_on_with_its_job(runner: Runner, admin: str, opensearch_url: str) -> None:
    pace(admin, validating=0.1, lines_per_second=20)
    process, _ = runner.start()
    process.send_signal(signal.SIGKILL)
    process.communicate()
    assert process.returncode == -signal.SIGKILL
    report = runner.finish()
    assert (report["indexed"], count_requests(admin, "/v1/batches")) == (COUNT, 1)
    assert len(find_documents(opensearch_url, runner.index)) == COUNT


def test_killed_between_the_answer_and_the_record_it_finds_its_job(runner: Runner, admin: str) -> None:
    killed = runner.run(code=KILLED_AFTER_THE_ANSWER)
    assert killed.returncode == -signal.SIGKILL
    assert count_requests(admin, "/v1/batches") == 1
    assert runner.finish()["indexed"] == COUNT
    assert (count_requests(admin, "/v1/batches"), count_requests(admin, "/v1/files")) == (1, 1)


def test_killed_in_the_load_it_goes_on_at_the_checkpoint(runner: Runner, admin: str, opensearch_url: str) -> None:
    small = ("-o", "bulk_bytes=1000", "-o", "checkpoint_seconds=0")
    assert runner.run(*small, code=KILLED_IN_THE_LOAD).returncode == -signal.SIGKILL
    report = runner.finish(*small)
    (part,) = report["parts"]
    assert (part["load"]["resumed"], report["indexed"]) == (True, COUNT)
    assert count_requests(admin, "/v1/batches") == 1
    assert len(find_documents(opensearch_url, runner.index)) == COUNT


def test_after_ctrl_c_the_job_runs_on_until_it_is_cancelled_or_gone_on_with(runner: Runner, admin: str) -> None:
    pace(admin, validating=0.1, lines_per_second=5)
    process, _ = runner.start()
    process.send_signal(signal.SIGINT)
    said = process.communicate()[1]
    assert process.returncode == 130
    assert "runs on at the service" in said
    # The command that it names works as it is, with the same variables.
    job_id = said.partition("overnight jobs cancel openai ")[2].partition("`")[0]
    shown = runner.jobs("show", "openai", job_id, "--json")
    assert json.loads(shown.stdout)["status"]["state"] in ("queued", "running"), shown.stderr
    gone_on = runner.run("--timeout", "0")
    assert gone_on.returncode == 1
    assert f"openai job {job_id} of an earlier start" in gone_on.stderr
    assert runner.jobs("cancel", "openai", job_id, "--yes").returncode == 0
    assert count_requests(admin, "/v1/batches") == 1


def test_above_its_limit_of_cost_nothing_is_uploaded(runner: Runner, admin: str) -> None:
    found = runner.run("--max-cost", "10 tokens")
    assert found.returncode == 2
    assert "more than max_tokens=10" in found.stderr
    assert count_requests(admin, "/v1/files") == 0


def test_lines_that_fail_are_dead_letters_and_failures(runner: Runner, admin: str, opensearch_url: str) -> None:
    httpx.put(f"{admin}/limits", json={"input_tokens": 100}).raise_for_status()
    lines = runner.documents.read_text().splitlines(keepends=True)
    runner.documents.write_text("".join(lines[:-1]) + json.dumps({"id": "long", "text": "long " * 500}) + "\n")
    found = runner.run()
    assert found.returncode == 1
    assert "a larger number" in found.stderr
    report = runner.finish("--allowed-failures", "1")
    assert (report["indexed"], report["rejected"]) == (COUNT - 1, 1)
    assert count_requests(admin, "/v1/batches") == 1
    (uri,) = report["dead_letter_uris"]
    assert json.loads(Path(uri).read_text())["id"] == "long"
    assert "long" not in find_documents(opensearch_url, runner.index)
