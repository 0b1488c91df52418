"""What ``overnight run`` says and exits with; OpenAI is a fake, tests/integration/cli has servers."""

from __future__ import annotations

import json
import os
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner, Result

from job_fakes import FakeService, Silent
from overnight.cli.app import app
from overnight.cli.openai_run import OpenAIRun
from overnight.cli.work_folder import WorkFolder
from overnight.errors import CredentialsError, UnavailableError
from overnight.jobs import (
    FailureCause,
    JobCounts,
    JobKey,
    JobRef,
    JobState,
    JobStatus,
    ResultFile,
    ResultManifest,
)
from overnight.jobs.client import JobClient
from overnight.services.openai.connection import DEFAULT_BASE_URL, OpenAIConnection
from overnight.storage import Storage
from overnight.transport.flow import Flow
from unit.ingest.fake_opensearch import FakeOpenSearch

COUNT = 5
RUNNING = JobStatus(state=JobState.RUNNING, raw="in_progress", counts=JobCounts(total=COUNT, succeeded=1))
DONE = JobStatus(state=JobState.SUCCEEDED, raw="completed", counts=JobCounts(total=COUNT, succeeded=COUNT, failed=0))
PARTIAL = JobStatus(state=JobState.PARTIAL, raw="completed", counts=JobCounts(total=COUNT, succeeded=4, failed=1))
CANCELLED = JobStatus(state=JobState.CANCELLED, raw="cancelled", counts=JobCounts(total=COUNT, succeeded=4, failed=0))
FAILED = JobStatus(state=JobState.FAILED, raw="failed", cause=FailureCause.INPUT)


class Transport(Silent):
    base_url = f"{DEFAULT_BASE_URL}/"


class FakeOpenAI(FakeService):
    """Answers each request with a vector of two numbers, but those that it is told to leave out."""

    name = "openai"

    def __init__(self, folder: Path) -> None:
        super().__init__(DONE, conn_id="openai_default")
        self.folder = folder
        self.length = 2
        self.without: set[str] = set()
        self.inputs: dict[str, str] = {}
        self.refusals: list[Exception] = []
        self.connection: OpenAIConnection | None = None
        self.usage = {"prompt_tokens": 3, "total_tokens": 3}
        self.submitting: Callable[[], object] = lambda: None

    def submit(self, spec: Any, key: JobKey) -> Flow[JobRef]:
        self.submitting()
        if self.refusals:
            raise self.refusals.pop(0)
        self.events.append(("submit", key))
        ref = self.ref(f"batch_{len(self.inputs)}")
        self.inputs[ref.id] = spec.input_uri
        return ref
        yield

    def results(self, ref: JobRef) -> Flow[ResultManifest]:
        path = self.folder / f"{ref.id}.jsonl"
        with path.open("w") as file:
            for line in Path(self.inputs[ref.id]).read_text().splitlines():
                custom_id = json.loads(line)["custom_id"]
                if custom_id not in self.without:
                    body = {
                        "data": [{"embedding": [0.5] * self.length}],
                        "choices": [{"message": {"content": "yes"}}],
                        "model": "text-embedding-3-small",
                        "usage": self.usage,
                    }
                    answer = {"custom_id": custom_id, "response": {"status_code": 200, "body": body}, "error": None}
                    file.write(json.dumps(answer) + "\n")
        return ResultManifest(ref=ref, files=(ResultFile(kind="output", uri=str(path)),))
        yield


@pytest.fixture
def openai(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> FakeOpenAI:
    service = FakeOpenAI(tmp_path)

    def connect(connection: OpenAIConnection, *others: Any) -> JobClient[Any]:
        service.connection, service.conn_id = connection, others[-1]
        return JobClient(service, Transport())

    monkeypatch.setattr("overnight.cli.openai_run.make_openai_client", connect)
    monkeypatch.setenv("OPENAI_API_KEY", "k")
    monkeypatch.delenv("OPENAI_BASE_URL", raising=False)
    return service


@pytest.fixture
def documents(tmp_path: Path) -> Path:
    path = tmp_path / "docs.jsonl"
    write(path, COUNT)
    return path


@pytest.fixture
def run(opensearch: FakeOpenSearch, documents: Path, tmp_path: Path) -> Callable[..., Result]:
    opensearch.create("docs", {"embedding": {"type": "knn_vector", "dimension": 2}, "text": {"type": "text"}})

    def start(*arguments: Any, url: str | None = opensearch.url) -> Result:
        address = ("--url", url) if url is not None else ()
        options = ("--index", "docs", "--work", tmp_path / "work", "--dimension", "2", *address)
        words = ["run", str(documents), *map(str, (*options, *arguments))]
        result = CliRunner().invoke(app, words, env={"OPENSEARCH_URL": ""} if url is None else {})
        assert result.exception is None or isinstance(result.exception, SystemExit), result.exception
        assert "Traceback" not in result.output
        return result

    return start


def write(path: Path, count: int) -> None:
    path.write_text("".join(f'{{"id":"d{number}","text":"t{number}"}}\n' for number in range(count)))


def count_submits(openai: FakeOpenAI) -> int:
    return len(openai.asked("submit"))


def test_documents_are_loaded_with_their_answers_and_counted(
    run: Callable[..., Result], openai: FakeOpenAI, opensearch: FakeOpenSearch, tmp_path: Path
) -> None:
    found = run()
    assert found.exit_code == 0, found.output
    assert {"submitted: 5", "indexed: 5", "job: openai batch_0, succeeded"} <= set(found.stdout.splitlines())
    assert "price: " in found.stderr
    assert "submitted openai job batch_0, 5 requests" in found.stderr
    assert opensearch.documents["d3"] == {"text": "t3", "embedding": [0.5, 0.5]}
    assert json.loads((tmp_path / "work" / "report.json").read_text())["indexed"] == COUNT


def test_a_second_start_pays_for_nothing_and_reads_the_documents_no_second_time(
    run: Callable[..., Result], openai: FakeOpenAI, tmp_path: Path
) -> None:
    run()
    written = (tmp_path / "work" / "part-00000.documents.jsonl").stat().st_mtime_ns
    found = run("--json")
    assert json.loads(found.stdout)["indexed"] == COUNT
    assert "batch_0 of an earlier start" in found.stderr
    assert count_submits(openai) == 1
    assert (tmp_path / "work" / "part-00000.documents.jsonl").stat().st_mtime_ns == written


def test_all_parts_are_submitted_before_one_is_waited_for(run: Callable[..., Result], openai: FakeOpenAI) -> None:
    found = run("--batch-requests", 2, "--json")
    report = json.loads(found.stdout)
    assert (report["indexed"], len(report["jobs"])) == (COUNT, 3)
    verbs = [event[0] for event in openai.events if event[0] in ("submit", "status")]
    assert verbs[:3] == ["submit"] * 3
    assert len({key.tag for _, key in openai.asked("submit")}) == 3


def test_other_documents_in_the_same_folder_are_refused(
    run: Callable[..., Result], openai: FakeOpenAI, documents: Path
) -> None:
    run("--batch-requests", 3)
    for count in (COUNT + 1, 2):
        write(documents, count)
        found = run("--batch-requests", 3)
        assert found.exit_code == 2
        assert "another --work" in found.stderr
    assert count_submits(openai) == 2


def test_a_job_that_failed_is_submitted_anew_also_with_other_documents(
    run: Callable[..., Result], openai: FakeOpenAI, documents: Path
) -> None:
    openai.statuses = [FAILED]
    found = run()
    assert found.exit_code == 1
    assert "submits it anew" in found.stderr
    assert "1 of 1 parts were not loaded" in found.stderr
    assert "job_failed: 5" in found.stdout
    write(documents, COUNT - 1)
    openai.statuses = [DONE]
    assert run().exit_code == 0
    assert count_submits(openai) == 2


def test_what_succeeded_of_a_partial_job_is_loaded_once_that_is_allowed(
    run: Callable[..., Result], openai: FakeOpenAI
) -> None:
    openai.statuses, openai.without = [PARTIAL], {"d1"}
    found = run()
    assert found.exit_code == 1
    assert "start the same run again with a larger number" in found.stderr
    report = json.loads(run("--allowed-failures", "1", "--json").stdout)
    assert (report["indexed"], report["missing"]) == (4, 1)
    assert count_submits(openai) == 1


def test_documents_that_are_missing_behind_a_success_are_a_failure(
    run: Callable[..., Result], openai: FakeOpenAI
) -> None:
    openai.without = {"d1"}
    found = run()
    assert found.exit_code == 1
    assert "missing: 1" in found.stdout
    assert "not indexed" in found.stderr


def test_ctrl_c_says_what_runs_on_and_how_to_go_on(
    run: Callable[..., Result], openai: FakeOpenAI, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    def interrupt(*_: Any, **__: Any) -> Any:
        raise KeyboardInterrupt

    monkeypatch.setattr(OpenAIRun, "_wait_and_load", interrupt)
    found = run()
    assert found.exit_code == 130
    assert "One job runs on at the service: batch_0" in found.stderr
    assert f"--work {tmp_path / 'work'}" in found.stderr
    assert "overnight jobs cancel openai batch_0" in found.stderr


def test_ctrl_c_in_the_middle_of_a_submit_names_what_is_there_already(
    run: Callable[..., Result], openai: FakeOpenAI
) -> None:
    def interrupt() -> None:
        if openai.inputs:
            raise KeyboardInterrupt

    openai.submitting = interrupt
    found = run("--batch-requests", 3)
    assert found.exit_code == 130
    assert "One job runs on at the service: batch_0" in found.stderr
    openai.submitting = lambda: None
    assert run("--batch-requests", 3).exit_code == 0
    assert count_submits(openai) == 2


def test_at_its_time_limit_the_jobs_run_on(
    run: Callable[..., Result], openai: FakeOpenAI, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(OpenAIRun, "_wait", lambda *_: None)
    found = run("--timeout", "0")
    assert found.exit_code == 1
    assert "Not over after 0 s. One job runs on" in found.stderr


def test_a_submit_that_fails_behind_another_leaves_a_run_to_go_on_with(
    run: Callable[..., Result], openai: FakeOpenAI
) -> None:
    openai.submitting = lambda: openai.refusals.append(CredentialsError("no more")) if openai.inputs else None
    found = run("--batch-requests", 3)
    assert found.exit_code == 1
    assert "no more One job runs on" in found.stderr


@pytest.mark.parametrize(("error", "status"), [(CredentialsError("a wrong key"), 2), (UnavailableError("away"), 1)])
def test_a_first_submit_that_fails_is_a_refusal_or_passes(
    run: Callable[..., Result], openai: FakeOpenAI, error: Exception, status: int
) -> None:
    openai.refusals = [error]
    found = run()
    assert found.exit_code == status
    assert str(error) in found.stderr


def test_it_costs_too_much_before_anything_is_submitted(run: Callable[..., Result], openai: FakeOpenAI) -> None:
    for limit in (("--max-cost", "0.00000001 USD"), ("--max-cost", "1 tokens"), ("--max-tokens", "1")):
        found = run(*limit)
        assert found.exit_code == 2
        assert "Nothing was uploaded" in found.stderr
    assert openai.events == []


def test_vectors_that_do_not_fit_the_index_are_not_paid_for(
    run: Callable[..., Result], openai: FakeOpenAI, opensearch: FakeOpenSearch
) -> None:
    opensearch.create("docs", {"embedding": {"type": "knn_vector", "dimension": 3}})
    found = run()
    assert found.exit_code == 2
    assert openai.events == []


def test_an_index_that_is_missing_is_created_of_the_mapping_before_anything_is_submitted(
    run: Callable[..., Result], openai: FakeOpenAI, opensearch: FakeOpenSearch, tmp_path: Path
) -> None:
    del opensearch.indices["docs"]
    found = run()
    assert (found.exit_code, openai.events) == (2, [])
    assert "--mapping" in found.stderr
    path = tmp_path / "mapping.json"
    path.write_text(json.dumps({"mappings": {"properties": {"embedding": {"type": "knn_vector"}}}}))
    assert run("--mapping", path).exit_code == 0
    assert opensearch.indices["docs"]["mappings"]["properties"]["embedding"]["dimension"] == 2


def test_bad_documents_stop_the_run_or_are_left_out(
    run: Callable[..., Result], openai: FakeOpenAI, documents: Path
) -> None:
    documents.write_text(documents.read_text() + '{"id": "bad"}\n')
    assert run().exit_code == 2
    assert run("--on-bad-document", "reject").exit_code == 2
    assert openai.events == []
    report = json.loads(run("--on-bad-document", "reject", "--allowed-failures", "1", "--json").stdout)
    assert (report["indexed"], report["rejected"], report["not_sent"]) == (COUNT, 1, 1)


def test_a_template_of_another_endpoint_needs_a_field_map(
    run: Callable[..., Result], openai: FakeOpenAI, opensearch: FakeOpenSearch, tmp_path: Path
) -> None:
    body = {"model": "gpt-4o-mini", "max_tokens": 10, "messages": [{"role": "user", "content": "${$.text}"}]}
    template = tmp_path / "template.json"
    template.write_text(json.dumps({"endpoint": "/v1/chat/completions", "body": body, "id_path": "$.id"}))
    found = run("--template", template)
    assert found.exit_code == 2
    assert "--field-map" in found.stderr
    fields = tmp_path / "fields.json"
    fields.write_text(json.dumps({"answer": "source[1].$.response.body.choices[0].message.content"}))
    found = run("--template", template, "--field-map", fields, "--ingest-field", "$.text")
    assert found.exit_code == 0, found.output
    assert opensearch.documents["d0"] == {"answer": "yes", "text": "t0"}
    fields.write_text("[]")
    assert run("--template", template, "--field-map", fields).exit_code == 2


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (("--index", "a:b"), "not the name of one index"),
        (("-o", "bulk=1"), "bulk"),
        (("--allowed-failures", "many"), "allowed_failures"),
        (("--on-bad-document", "skip"), "'fail' or 'reject'"),
        (("--ingest-field", "$["), "$["),
        (("--dimension", "3000"), "1536"),
        (("--prices", "{"), "prices"),
    ],
)
def test_a_wrong_option_is_refused_before_anything_is_written(
    run: Callable[..., Result], openai: FakeOpenAI, tmp_path: Path, arguments: tuple[str, ...], said: str
) -> None:
    found = run(*arguments)
    assert found.exit_code == 2
    assert said in found.stderr
    assert not (tmp_path / "work" / "part-00000.requests.jsonl").exists()
    assert openai.events == []


def test_servers_that_are_not_named_are_asked_for(
    run: Callable[..., Result], openai: FakeOpenAI, monkeypatch: pytest.MonkeyPatch
) -> None:
    found = run(url=None)
    assert (found.exit_code, "OPENSEARCH_URL" in found.stderr) == (2, True)
    monkeypatch.delenv("OPENAI_API_KEY")
    found = run()
    assert (found.exit_code, "Set OPENAI_API_KEY" in found.stderr) == (2, True)


def test_openai_may_be_a_connection_of_airflows(
    run: Callable[..., Result], openai: FakeOpenAI, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("OPENAI_API_KEY")
    given = {
        "conn_type": "overnight_openai",
        "host": "https://gateway.example/v1",
        "password": "of the connection",
        "extra": {"project": "p", "secret_headers": {"X-Gateway": "secret"}},
    }
    monkeypatch.setenv("AIRFLOW_CONN_GATEWAY", json.dumps(given))
    found = run("--conn-id", "gateway")
    assert (found.exit_code, count_submits(openai)) == (0, 1), found.output
    connection = openai.connection
    assert connection is not None
    assert (connection.base_url, connection.api_key) == ("https://gateway.example/v1", "of the connection")
    assert (connection.project, connection.headers) == ("p", {"X-Gateway": "secret"})
    assert "of the connection" not in found.output
    # Of another account, its jobs are not known.
    monkeypatch.setenv("OPENAI_API_KEY", "k")
    found = run()
    assert (found.exit_code, "--conn-id" in found.stderr, count_submits(openai)) == (2, True, 1)


def test_a_job_of_a_connection_is_cancelled_through_it(
    run: Callable[..., Result], openai: FakeOpenAI, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("AIRFLOW_CONN_GATEWAY", json.dumps({"conn_type": "overnight_openai", "password": "k"}))
    monkeypatch.setattr(OpenAIRun, "_wait", lambda *_: None)
    found = run("--timeout", "0", "--conn-id", "gateway")
    assert "`overnight jobs cancel openai batch_0 --conn-id gateway`" in found.stderr


@pytest.mark.parametrize(
    ("connection", "said"),
    [
        (None, "set AIRFLOW_CONN_NOWHERE, or name another one with --conn-id"),
        ({"conn_type": "overnight_openai", "extra": {"timeout": "long"}}, "timeout"),
    ],
)
def test_a_connection_that_cannot_be_used_is_refused(
    run: Callable[..., Result],
    openai: FakeOpenAI,
    monkeypatch: pytest.MonkeyPatch,
    tmp_path: Path,
    connection: dict[str, Any] | None,
    said: str,
) -> None:
    if connection is not None:
        monkeypatch.setenv("AIRFLOW_CONN_NOWHERE", json.dumps(connection))
    found = run("--conn-id", "nowhere")
    assert (found.exit_code, said in found.stderr) == (2, True), found.stderr
    assert not (tmp_path / "work").exists()


def test_a_dry_run_says_the_price_and_needs_no_server(
    run: Callable[..., Result], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.delenv("OPENAI_API_KEY", raising=False)
    found = run("--dry-run", "--json", url=None)
    assert (found.exit_code, json.loads(found.stdout)["requests"]) == (0, COUNT)
    assert run("--dry-run", "--max-cost", "1 tokens", url=None).exit_code == 1
    assert not (tmp_path / "work").exists()


def test_another_run_in_the_folder_is_not_disturbed(
    run: Callable[..., Result], openai: FakeOpenAI, tmp_path: Path
) -> None:
    with WorkFolder(str(tmp_path / "work"), Storage()).claim():
        found = run()
    assert found.exit_code == 2
    assert "Another overnight run works in" in found.stderr
    assert openai.events == []


def test_a_part_that_was_changed_by_hand_is_not_submitted(
    run: Callable[..., Result], openai: FakeOpenAI, tmp_path: Path
) -> None:
    openai.refusals = [UnavailableError("away")]
    run()
    path = tmp_path / "work" / "part-00000.requests.jsonl"
    path.write_text(path.read_text().replace("t0", "other"))
    found = run()
    assert found.exit_code == 2
    assert "has changed since it was written" in found.stderr
    (tmp_path / "work" / "input.json").unlink()
    assert run().exit_code == 0


def test_an_openai_that_cannot_be_understood_is_said_in_one_sentence(
    run: Callable[..., Result], openai: FakeOpenAI, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*_: Any) -> Any:
        raise KeyError("results")

    monkeypatch.setattr(openai, "results", fail)
    found = run()
    assert found.exit_code == 1
    assert "Something failed that should not: KeyError" in found.stderr


def test_what_a_run_leaves_is_cleaned_as_a_whole_once_it_is_old(
    run: Callable[..., Result], openai: FakeOpenAI, tmp_path: Path
) -> None:
    work = tmp_path / "work"

    def clean_when_old() -> Result:
        for path in work.rglob("*"):
            os.utime(path, (0, 0))
        return CliRunner().invoke(app, ["clean", str(work), "--yes"])

    openai.statuses = [FAILED]
    run()
    assert "runs, unfinished: 1" in clean_when_old().stdout
    openai.statuses = [DONE]
    run()
    assert CliRunner().invoke(app, ["clean", str(work), "--yes"]).stdout.count("runs, recent: 1") == 1
    found = clean_when_old()
    assert found.exit_code == 0, found.stderr
    assert not work.exists()


@pytest.fixture
def cached(run: Callable[..., Result], tmp_path: Path) -> Callable[..., Result]:
    """Starts a run with a cache; ``work`` names the folder."""

    def start(*arguments: Any, work: str = "work") -> Result:
        return run("--cache-uri", tmp_path / "cache", "--work", tmp_path / work, "--json", *arguments)

    return start


def test_what_is_in_the_cache_is_loaded_and_not_submitted_again(
    cached: Callable[..., Result], openai: FakeOpenAI, opensearch: FakeOpenSearch, documents: Path
) -> None:
    first = cached()
    assert "the batch: answers that were added to the cache: 5." in first.stderr
    paid = dict(opensearch.documents)
    opensearch.documents.clear()
    second = cached(work="second")
    report = json.loads(second.stdout)
    assert (second.exit_code, count_submits(openai)) == (0, 1)
    assert (report["submitted"], report["reused"], report["indexed"]) == (0, COUNT, COUNT)
    assert (report["saved"]["input"], report["cost"], report["jobs"]) == (3 * COUNT, None, [])
    assert "Answers of 5 documents are in the cache" in second.stderr
    assert opensearch.documents == paid
    write(documents, COUNT + 2)
    report = json.loads(cached(work="third").stdout)
    assert (report["submitted"], report["reused"], report["indexed"]) == (2, COUNT, COUNT + 2)
    assert count_submits(openai) == 2


def test_a_document_with_the_request_of_another_one_gets_its_answer(
    cached: Callable[..., Result], openai: FakeOpenAI, opensearch: FakeOpenSearch, documents: Path
) -> None:
    documents.write_text("".join(f'{{"id":"d{number}","text":"same"}}\n' for number in range(3)))
    openai.statuses = [
        DONE.model_copy(update={"counts": JobCounts(total=1, succeeded=1, failed=0)}),
    ]
    report = json.loads(cached().stdout)
    assert (report["submitted"], report["reused"], report["repeated"], report["indexed"]) == (1, 2, 2, 3)
    assert opensearch.documents["d2"] == {"text": "same", "embedding": [0.5, 0.5]}


def test_a_start_after_the_answers_are_in_the_cache_goes_on_with_its_jobs(
    cached: Callable[..., Result], openai: FakeOpenAI
) -> None:
    cached("--batch-requests", 3)
    again = cached("--batch-requests", 3)
    report = json.loads(again.stdout)
    assert (report["submitted"], report["reused"], report["indexed"]) == (COUNT, 0, COUNT)
    assert "answers that were added to the cache: 0." in again.stderr
    assert count_submits(openai) == 2


def test_a_start_that_would_find_the_answers_of_its_jobs_in_another_cache_is_refused(
    cached: Callable[..., Result], openai: FakeOpenAI
) -> None:
    cached("--cache", "off")
    cached(work="second")
    found = cached()
    assert (found.exit_code, "another template, --cache or --conn-id" in found.stderr) == (2, True)
    assert cached("--cache", "off").exit_code == 0
    assert count_submits(openai) == 2


@pytest.mark.parametrize(
    ("mode", "looks_up", "adds"),
    [("write", True, True), ("read", True, False), ("refresh", False, True), ("off", False, False)],
)
def test_the_cache_is_read_and_written_as_was_asked(
    cached: Callable[..., Result], openai: FakeOpenAI, documents: Path, mode: str, looks_up: bool, adds: bool
) -> None:
    cached()
    write(documents, COUNT + 1)
    report = json.loads(cached("--cache", mode, work="second").stdout)
    assert report["submitted"] == (1 if looks_up else COUNT + 1)
    report = json.loads(cached("--cache", "read", work="third").stdout)
    assert report["submitted"] == (0 if adds else 1)


@pytest.mark.parametrize(
    ("arguments", "is_renewed"),
    [
        (("--cache-older-than", "30d"), True),
        (("--cache-older-than", "40d"), False),
        (("--cache-older-than", "30d", "--cache", "read"), False),
        ((), False),
    ],
)
def test_an_answer_that_a_run_uses_after_half_of_its_age_is_written_again(
    cached: Callable[..., Result],
    openai: FakeOpenAI,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    arguments: tuple[str, ...],
    is_renewed: bool,
) -> None:
    with monkeypatch.context() as patch:
        written = time.time_ns() - 16 * 86_400 * 10**9
        patch.setattr("overnight.cache.answers.make_name", lambda: f"{written:020d}-{'a' * 12}")
        cached()
    found = cached(*arguments, work="second")
    assert (found.exit_code, json.loads(found.stdout)["indexed"]) == (0, COUNT)
    assert len(list((tmp_path / "cache" / "v1" / "answers").iterdir())) == 1 + is_renewed


@pytest.mark.parametrize(
    "arguments",
    [("--cache", "keep"), ("--cache", "write", "--cache-uri", ""), ("--cache-older-than", "1h")],
)
def test_a_cache_that_cannot_be_used_is_refused(
    cached: Callable[..., Result], openai: FakeOpenAI, tmp_path: Path, arguments: tuple[str, ...]
) -> None:
    found = cached(*arguments)
    assert (found.exit_code, "cache" in found.stderr) == (2, True)
    assert not (tmp_path / "work").exists()


def test_what_a_job_finished_that_did_not_succeed_is_kept(cached: Callable[..., Result], openai: FakeOpenAI) -> None:
    openai.statuses, openai.without = [PARTIAL], {"d1"}
    assert cached().exit_code == 1
    openai.statuses, openai.without = [DONE], set()
    report = json.loads(cached(work="second").stdout)
    assert (report["submitted"], report["reused"], report["indexed"]) == (1, 4, COUNT)


def test_a_job_that_was_cancelled_says_that_only_the_rest_has_to_be_sent(
    cached: Callable[..., Result], run: Callable[..., Result], openai: FakeOpenAI
) -> None:
    only_rest = "with another --work only the rest of it is submitted"
    openai.statuses, openai.without = [CANCELLED], {"d1"}
    found = cached()
    assert (found.exit_code, only_rest in found.stderr) == (1, True), found.stderr
    assert only_rest not in run().stderr
    openai.statuses, openai.without = [DONE], set()
    assert json.loads(cached(work="second").stdout)["submitted"] == 1


def test_a_cache_that_cannot_be_written_is_a_warning(
    cached: Callable[..., Result], openai: FakeOpenAI, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*_: Any, **__: Any) -> Any:
        raise UnavailableError("the store is away")

    monkeypatch.setattr("overnight.cli.openai_run.keep_rounds", fail)
    found = cached()
    assert (found.exit_code, json.loads(found.stdout)["indexed"]) == (0, COUNT)
    assert "openai job batch_0 were not added to the cache" in found.stderr
    assert "the store is away" in found.stderr


def test_an_answer_that_is_gone_from_the_cache_fails_the_run_and_says_what_to_do(
    cached: Callable[..., Result], openai: FakeOpenAI, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    cached()
    prepare = OpenAIRun._prepare

    def prepare_and_lose(self: OpenAIRun) -> Any:
        found = prepare(self)
        for file in (tmp_path / "cache" / "v1" / "answers").iterdir():
            file.unlink()
        return found

    monkeypatch.setattr(OpenAIRun, "_prepare", prepare_and_lose)
    found = cached(work="second")
    assert found.exit_code == 1
    assert "with another --work: what is not in the cache is sent then" in found.stderr


def test_documents_of_which_nothing_says_whether_they_changed_have_no_cache(
    cached: Callable[..., Result], run: Callable[..., Result], openai: FakeOpenAI, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("overnight.storage.get_version", lambda _: "")
    found = cached()
    assert (found.exit_code, "Nothing says whether" in found.stderr) == (2, True)
    assert openai.events == []
    assert run().exit_code == 0


def test_a_dry_run_prices_what_is_not_in_the_cache_and_leaves_it_as_it_is(
    cached: Callable[..., Result], openai: FakeOpenAI, documents: Path, tmp_path: Path
) -> None:
    cached()
    write(documents, COUNT + 1)
    before = sorted((tmp_path / "cache").rglob("*"))
    assert json.loads(cached("--dry-run").stdout)["requests"] == 1
    assert json.loads(cached("--dry-run", "--cache", "refresh").stdout)["requests"] == COUNT + 1
    assert sorted((tmp_path / "cache").rglob("*")) == before
