"""Whatever the service answers, every verb ends in a result or in a ServiceError of bounded length."""

from __future__ import annotations

from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import orjson
import pytest

from overnight.errors import (
    CreatedUnknownError,
    JobFailedError,
    NotFoundError,
    ServiceError,
    SpecError,
    UnavailableError,
)
from overnight.jobs import JobKey, JobState, ResultManifest
from overnight.jobs.allowance import Allowance
from overnight.jobs.evaluate import evaluate_results
from overnight.services.llamacloud.service import LlamaCloudService
from overnight.services.llamacloud.spec import Limits, LlamaCloudBatchSpec, part_name
from overnight.transport.flow import Flow
from overnight.transport.http import HttpCall
from unit.services.answers import Service, check

KEY = JobKey(dag_id="d", task_id="t", run_id="r", fingerprint="0" * 16)
AT = datetime.now(UTC).isoformat()
SERVICE = LlamaCloudService("conn", limits=Limits(uploads_per_second=1e9))
REF = SERVICE.ref("bat-1")
SPEC = LlamaCloudBatchSpec(
    job_type="parse_v2", configuration_name="mine", parameters={"tier": "fast"}, directory_id="dir-theirs"
)
# The fields of llama-cloud's BatchRetrieveResponse, DirectoryFileListResponse, ParsingListResponse and so on.
BATCH = {
    "id": "bat-1", "created_at": AT, "updated_at": AT, "project_id": "p", "status": "COMPLETED",
    "source_directory_id": "dir-1", "config": {"job": {"type": "parse_v2", "configuration_id": "cfg-1"}},
    "results": [
        {"source_directory_file_id": "dfl-1", "job_reference": {"id": "pjb-1", "type": "parse_v2"}},
        {"source_directory_file_id": "dfl-2", "job_reference": None, "error_message": "no parser"},
    ],
}  # fmt: skip
DIRECTORY = {"id": "dir-1", "name": part_name(KEY, 1, 1), "type": "ephemeral", "created_at": AT, "deleted_at": None}
FILES = [
    {
        "id": f"dfl-{n}", "display_name": f"{n}.md", "unique_id": f"u{n}", "file_id": f"file-{n}",
        "metadata": {"overnight_uri": f"s3://b/{n}.md", "team": "a"},
    }
    for n in (1, 2)
]  # fmt: skip
PAGES = {"pages": [{"page_number": 1, "markdown": "# one", "success": True}, {"page_number": 2, "markdown": "two"}]}
PARSED = {"job": {"id": "pjb-1", "status": "COMPLETED"}, "markdown": PAGES}
CONFIGURATION = {"id": "cfg-1", "name": "mine", "product_type": "parse_v2", "parameters": {"tier": "fast"}}


def good(**batch: Any) -> Callable[[], Callable[[HttpCall], Any]]:
    whole = {**BATCH, **batch}

    def answer(call: HttpCall) -> Any:
        match call.method, call.path.removeprefix("api/").split("/"):
            case "GET", ["v2", "batches"]:
                return {"items": [whole], "next_page_token": None}
            case "GET", ["v2", "parse"]:
                return {"items": [{"id": "pjb-1", "status": "COMPLETED", "error_message": None}]}
            case "GET", ["v2", "parse", _]:
                return PARSED
            case "GET", ["v1", "beta", "directories"]:
                return {"items": [DIRECTORY], "next_page_token": None}
            case "GET", ["v1", "beta", "directories", _, "files"]:
                return {"items": FILES, "next_page_token": None}
            case "GET", ["v1", "beta", "configurations"]:
                return {"items": [CONFIGURATION], "next_page_token": None}
        return whole

    return lambda: answer


@pytest.mark.parametrize("status", ["PENDING", "THROTTLED", "RUNNING", "COMPLETED", "FAILED", "CANCELLED"])
def test_reading_verbs(status: str) -> None:
    since = datetime.now(UTC)
    verbs: dict[str, Callable[[], Flow[Any]]] = {
        "find": lambda: SERVICE.find(KEY, since),
        "status": lambda: SERVICE.status(REF),
        "cancel": lambda: SERVICE.cancel(REF),
        "results": lambda: SERVICE.results(REF),
        "list_statuses": lambda: SERVICE.list_statuses({"bat-1"}),
        "list_queue": lambda: SERVICE.list_queue(""),
        "list_own": lambda: SERVICE.list_own(since),
    }
    check(verbs, good(status=status), seeds=range(120))


def test_measure_and_submit() -> None:
    verbs: dict[str, Callable[[], Flow[Any]]] = {
        "measure": lambda: SERVICE.measure(SPEC),
        "submit": lambda: SERVICE.submit(SPEC, KEY),
    }
    check(verbs, good(), seeds=range(300), also=(SpecError,))


def test_collect(tmp_path: Path) -> None:
    service = LlamaCloudService("conn", results_uri=str(tmp_path))
    check({"collect": lambda: service.results(REF)}, good(), seeds=range(400), also=(SpecError,))


def collect(tmp_path: Path, replies: list[Any]) -> tuple[ResultManifest, Service]:
    left = iter(replies)

    def answer(call: HttpCall) -> Any:
        if call.path == "api/v2/parse/pjb-1":
            reply = next(left)
            if isinstance(reply, ServiceError):
                raise reply
            return reply
        return good()()(call)

    service = Service(answer)
    return service.run(LlamaCloudService("conn", results_uri=str(tmp_path)).results(REF)), service


NULL_PAGE = {"markdown": {"pages": [{"page_number": 1, "markdown": "# one"}, None]}}
ABSENT = NotFoundError("404", status=404)


@pytest.mark.parametrize("bad", [ABSENT, None, [], {"markdown": None}, {"markdown": {"pages": None}}, NULL_PAGE])
def test_a_result_of_a_completed_job_that_is_not_there_is_asked_for_again(tmp_path: Path, bad: Any) -> None:
    manifest, service = collect(tmp_path, [bad, bad, PARSED])
    assert (manifest.counts.total, manifest.counts.succeeded) == (2, 1)
    assert service.seen.count("GET api/v2/parse/pjb-1") == 3
    (uri,) = manifest.uris("output")
    assert orjson.loads(Path(uri).read_bytes())["markdown"] == "# one\n\ntwo"


@pytest.mark.parametrize(
    ("bad", "state"), [(ABSENT, "missing"), (None, "failed"), ({"markdown": None}, "failed"), (NULL_PAGE, "failed")]
)
def test_a_result_that_never_comes_is_no_success(tmp_path: Path, bad: Any, state: str) -> None:
    manifest, _ = collect(tmp_path, [bad] * 4)
    assert (manifest.counts.total, manifest.counts.succeeded) == (2, 0)
    assert manifest.uris("output")
    assert Path(manifest.uris("output")[0]).read_bytes() == b""
    states = [orjson.loads(line)["state"] for line in Path(manifest.uris("error")[0]).read_bytes().splitlines()]
    assert states == [state, "failed"]


def test_results_that_are_all_gone_fail_the_task_and_are_judged_by_the_allowance(tmp_path: Path) -> None:
    manifest, _ = collect(tmp_path, [ABSENT] * 4)
    assert (manifest.counts.total, manifest.counts.succeeded) == (2, 0)
    assert isinstance(evaluate_results(REF, manifest, Allowance.parse(0)).error, JobFailedError)
    assert isinstance(evaluate_results(REF, manifest, Allowance.parse("99%")).error, JobFailedError)
    assert evaluate_results(REF, manifest, Allowance.parse(2)).error is None


@pytest.mark.parametrize("bad", [{"error": {"message": "the words"}}, {"detail": "the words"}])
def test_the_words_of_a_result_that_is_an_error_are_kept(tmp_path: Path, bad: Any) -> None:
    manifest, _ = collect(tmp_path, [bad] * 4)
    lines = [orjson.loads(line) for line in Path(manifest.uris("error")[0]).read_bytes().splitlines()]
    assert "the words" in lines[0]["error"]
    assert lines[0]["state"] == "failed"


@pytest.mark.parametrize("status", [{}, {"code": "x"}])
def test_an_error_with_a_status_of_success_is_a_service_error_with_its_words(status: Any) -> None:
    since = datetime.now(UTC)
    answer = {"error": {"message": "the words", **status}}
    verbs: list[Callable[[], Flow[Any]]] = [
        lambda: SERVICE.find(KEY, since),
        lambda: SERVICE.status(REF),
        lambda: SERVICE.cancel(REF),
        lambda: SERVICE.results(REF),
        lambda: SERVICE.list_statuses({"bat-1"}),
        lambda: SERVICE.measure(SPEC),
        lambda: SERVICE.submit(SPEC, KEY),
    ]
    for verb in verbs:
        with pytest.raises(ServiceError, match="the words"):
            Service(lambda _: answer).run(verb())


def test_a_null_list_is_an_empty_one_and_none_is_no_list() -> None:
    since = datetime.now(UTC)
    assert Service(lambda _: {"items": None}).run(SERVICE.find(KEY, since)) is None
    for answer in (None, [], {}, {"items": "text"}, {"items": [], "next_page_token": 5}):
        with pytest.raises(UnavailableError):
            Service(lambda _, answer=answer: answer).run(SERVICE.find(KEY, since))


@pytest.mark.parametrize("jobs", [{"items": None}, {}, None, {"items": [None]}, {"items": [{"id": "pjb-1"}]}])
def test_a_list_of_jobs_that_cannot_be_read_does_not_read_as_gone(jobs: Any) -> None:
    healthy = good()()

    def answer(call: HttpCall) -> Any:
        return jobs if call.path == "api/v2/parse" else healthy(call)

    with pytest.raises(UnavailableError):
        Service(answer).run(SERVICE.status(REF))


@pytest.mark.parametrize("path", ["api/v2/batches", "api/v1/beta/directories"])
@pytest.mark.parametrize("reply", [None, {}, {"job": {"id": "x"}}, UnavailableError("HTML", status=200)])
def test_what_was_created_without_an_id_is_never_created_again(path: str, reply: Any) -> None:
    healthy = good()()
    spec = SPEC.model_copy(update={"configuration_name": None, "parameters": None, "configuration_id": "cfg-1"})

    def answer(call: HttpCall) -> Any:
        if call.method == "POST" and call.path == path:
            if isinstance(reply, ServiceError):
                raise reply
            return reply
        if call.method == "GET" and call.path == path:
            return {"items": []}
        return healthy(call)

    service = Service(answer)
    with pytest.raises(CreatedUnknownError):
        service.run(SERVICE.submit(spec, KEY))
    assert service.seen.count(f"POST {path}") == 1


def test_a_throttled_batch_is_queued_and_says_why() -> None:
    status = Service(good(status="THROTTLED")()).run(SERVICE.status(REF))
    assert status.state is JobState.QUEUED
    assert "holds the batch back (THROTTLED)" in status.describe()
