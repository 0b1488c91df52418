"""What a batch left at the service is deleted once it is loaded, and nothing that goes wrong there fails a paid run."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any
from unittest.mock import MagicMock

import pytest
from airflow.sdk.exceptions import AirflowFailException

from http_server import Answer, Request, Server, json_answer
from overnight.operators.cleanup import LlamaCloudCleanupOperator, OpenAICleanupOperator


class Files:
    """A service with batches and their files."""

    def __init__(self) -> None:
        self.batches: dict[str, dict[str, Any]] = {}
        self.files: set[str] = set()
        self.refused: set[str] = set()

    def add(self, name: str, status: str = "completed") -> dict[str, Any]:
        """Add a batch, and return the XCom of its task."""
        fields = ("output_file_id", "error_file_id", "input_file_id")
        batch = {field: f"file-{name}-{field.partition('_')[0]}" for field in fields}
        self.files.update(batch.values())
        self.batches[name] = {"id": name, "status": status, **batch}
        return {"ref": {"service": "openai", "id": name, "conn_id": "openai_default"}, "status": None, "results": None}

    def answer(self, request: Request) -> Answer:
        folder, _, name = request.path.strip("/").partition("/")
        if folder == "batches" and name in self.batches:
            return json_answer(self.batches[name])
        if request.method == "DELETE" and name in self.refused:
            return json_answer({"error": {"message": "in use"}}, 409)
        if request.method == "DELETE" and name in self.files:
            self.files.remove(name)
            return json_answer({"id": name, "deleted": True})
        return json_answer({"error": {"message": "no such thing"}}, 404)


@pytest.fixture
def service(monkeypatch: pytest.MonkeyPatch) -> Iterator[Files]:
    files, server = Files(), Server()
    server.handler = files.answer
    connection = {"conn_type": "overnight_openai", "host": server.url, "password": "k"}
    monkeypatch.setenv("AIRFLOW_CONN_OPENAI_DEFAULT", json.dumps(connection))
    yield files
    server.stop()


def clean(job: Any, cleanup: str = "delete") -> dict[str, Any]:
    operator = OpenAICleanupOperator(task_id="cleanup", job=job, cleanup=cleanup)
    return operator.execute({"ti": MagicMock()})  # type: ignore[typeddict-item]


def test_the_files_of_all_batches_are_deleted_and_those_of_others_are_not(service: Files) -> None:
    jobs = [service.add("b1"), service.add("b2", "expired")]
    service.add("somebody's")
    found = clean(jobs)
    assert (len(found["deleted"]), found["kept"]) == (6, [])
    assert {name.split("-")[1] for name in service.files} == {"somebody's"}
    # Once more, and of one job.
    assert len(clean(jobs[0])["deleted"]) == 3


def test_the_files_of_further_rounds_are_deleted_too(service: Files) -> None:
    job = service.add("b1")
    service.add("b2")
    job["results"] = {"ref": job["ref"], "detail": {"rounds": [{"id": "b1"}, {"id": "b2"}]}}
    clean(job)
    assert service.files == set()


@pytest.mark.parametrize("job", [None, []])
def test_a_run_without_a_batch_has_nothing_to_delete(service: Files, job: Any) -> None:
    assert clean(job) == {"deleted": [], "kept": []}


def test_nothing_is_deleted_unless_it_is_asked_for(service: Files) -> None:
    assert clean([service.add("b1")], "keep") == {"deleted": [], "kept": []}
    assert len(service.files) == 3


def test_what_the_service_does_not_delete_is_named_and_the_rest_goes_on(service: Files) -> None:
    jobs = [{"ref": None}, service.add("b1"), service.add("b2")]
    service.refused.add("file-b1-error")
    del service.batches["b2"]
    found = clean(jobs)
    assert (found["deleted"], found["kept"]) == (["file-b1-output", "file-b1-input"], ["file-b1-error"])


def test_the_files_of_a_batch_that_runs_are_kept(service: Files) -> None:
    assert clean([service.add("b1", "in_progress")]) == {"deleted": [], "kept": []}
    assert len(service.files) == 3


def test_a_connection_that_is_gone_fails_no_run(service: Files) -> None:
    job = service.add("b1")
    job["ref"]["conn_id"] = "nobodys"
    assert clean([job]) == {"deleted": [], "kept": []}


def test_a_word_that_is_no_mode_is_refused(service: Files) -> None:
    with pytest.raises(AirflowFailException, match="cleanup='remove' is not one of keep, delete"):
        clean([service.add("b1")], "remove")


def test_what_llamacloud_does_not_answer_fails_no_run(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("AIRFLOW_CONN_LLAMACLOUD_DEFAULT", raising=False)
    job = {"ref": {"service": "llamacloud", "id": "bat-1", "conn_id": "llamacloud_default"}, "results": None}
    operator = LlamaCloudCleanupOperator(task_id="cleanup", job=job)
    assert operator.execute({"ti": MagicMock()}) == {"deleted": [], "kept": []}  # type: ignore[typeddict-item]
