"""What ``overnight jobs`` says and exits with; the service is a fake, tests/integration/cli has a server."""

from __future__ import annotations

import io
import json
from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from airflow.sdk.exceptions import AirflowNotFoundException
from rich.console import Console
from typer.testing import CliRunner, Result

from job_fakes import FakeService, client
from overnight.cli.app import app
from overnight.cli.remote_jobs import RemoteJob
from overnight.errors import CredentialsError, NotFoundError, UnavailableError, UnsupportedError
from overnight.jobs import JobCounts, JobError, JobRef, JobState, JobStatus
from overnight.jobs.model import ListedOwnJob
from overnight.transport.flow import Flow

RUNNING = JobStatus(state=JobState.RUNNING, raw="in_progress", counts=JobCounts(total=200, succeeded=50, failed=0))
DONE = JobStatus(state=JobState.SUCCEEDED, raw="completed", counts=JobCounts(total=200, succeeded=200, failed=0))
PARTIAL = JobStatus(
    state=JobState.PARTIAL,
    raw="completed",
    counts=JobCounts(total=200, succeeded=197, failed=3),
    errors=(JobError(code="bad_input", message="is [too] long", line=7),),
)


class ListingService(FakeService):
    """Lists what it is given."""

    listed: Sequence[ListedOwnJob] | Exception = ()

    def list_own(self, since: datetime) -> Flow[Sequence[ListedOwnJob]]:
        self.events.append(("list", since))
        if isinstance(self.listed, Exception):
            raise self.listed
        return self.listed
        yield


class Hook:
    def __init__(self, service: FakeService, conn_id: str | None) -> None:
        service.conn_id = self.conn_id = conn_id or "fake_default"
        self.service = service

    def client(self) -> Any:
        if self.conn_id == "nothing":
            raise AirflowNotFoundException("The conn_id `nothing` isn't defined")
        return client(self.service)


@pytest.fixture
def service(monkeypatch: pytest.MonkeyPatch) -> ListingService:
    service = ListingService(RUNNING)
    monkeypatch.setattr("overnight.cli.remote_jobs.find_hook", lambda _, conn_id: Hook(service, conn_id))
    return service


@pytest.fixture
def pauses(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    paused: list[float] = []
    monkeypatch.setattr("overnight.cli.remote_jobs.time.sleep", paused.append)
    return paused


def run(*arguments: str, answer: str | None = None) -> Result:
    result = CliRunner().invoke(app, ["jobs", *arguments], input=answer)
    assert result.exception is None or isinstance(result.exception, SystemExit), result.exception
    assert "Traceback" not in result.output
    return result


def list_one(number: int, status: JobStatus, minutes: int, task: str = "") -> ListedOwnJob:
    return ListedOwnJob(
        ref=JobRef(service="fake", id=f"job-{number}", conn_id="c"),
        name=f"overnight-{'0' * 20}-g0-{'0' * 16}",
        # Not from the import on: the tests before this one may take minutes.
        created_at=datetime.now(UTC) - timedelta(minutes=minutes),
        task=task,
        status=status,
    )


def test_the_jobs_of_a_service_are_listed_newest_first(service: ListingService) -> None:
    service.listed = [list_one(1, DONE, 90), list_one(2, RUNNING, 5)]
    lines = run("list", "fake").stdout.splitlines()
    assert [line.split()[0] for line in lines] == ["id", "job-2", "job-1"]
    assert lines[1].split()[1:] == ["running", "200", "25%", "5", "min", *lines[1].split()[6:]]
    assert max(map(len, lines)) <= 80


def test_json_has_the_reference_that_the_other_commands_take(service: ListingService) -> None:
    service.listed = [list_one(1, DONE, 90), list_one(2, RUNNING, 5, task="dag / task / run")]
    (found,) = json.loads(run("list", "fake", "--unfinished", "--json").stdout)
    assert found["ref"] == {"version": 2, "service": "fake", "id": "job-2", "conn_id": "c"}
    assert found["task"] == "dag / task / run"
    shown = run("show", json.dumps(found))
    assert "job: fake job-2" in shown.stdout
    assert "connection: c" in shown.stdout


def test_a_service_without_jobs_of_ours_is_no_error(service: ListingService) -> None:
    found = run("list", "fake")
    assert (found.exit_code, found.stdout) == (0, "")
    assert "no such job" in found.stderr
    assert run("list", "fake", "--json").stdout == "[]\n"


def test_a_service_that_cannot_tell_whose_a_job_is_refuses_and_names_the_way(service: ListingService) -> None:
    service.listed = UnsupportedError("fake does not tell.")
    found = run("list", "fake")
    assert found.exit_code == 2
    assert "jobs show fake ID" in found.stderr


@pytest.mark.parametrize(("status", "code"), [(RUNNING, 0), (DONE, 0), (PARTIAL, 1)])
def test_a_job_is_shown_with_counts_and_errors(service: ListingService, status: JobStatus, code: int) -> None:
    service.statuses = [status]
    service.listed = [list_one(1, status, 5, task="dag / task / run")]
    found = run("show", "fake", "job-1")
    assert found.exit_code == code
    lines = found.stdout.splitlines()
    assert f"state: {status.state} ({status.raw})" in lines
    assert {"total: 200", "task: dag / task / run", "connection: fake_default"} <= set(lines)
    assert ("error: line 7: [bad_input] is [too] long" in lines) == (status is PARTIAL)
    assert any(line.startswith("created: ") and "(5 min" in line for line in lines)


def test_a_job_is_shown_where_the_list_cannot_be_read(service: ListingService) -> None:
    service.listed = UnavailableError("not now")
    found = run("show", "fake", "job-1", "--json")
    assert found.exit_code == 0
    shown = json.loads(found.stdout)
    assert (shown["status"]["state"], shown["created_at"]) == ("running", None)


def test_waiting_ends_with_the_job_and_outlasts_a_poll_that_failed(
    service: ListingService, pauses: list[float]
) -> None:
    service.statuses = [RUNNING, UnavailableError("busy"), RUNNING, DONE]
    found = run("wait", "fake", "job-1", "--interval", "7")
    assert (found.exit_code, found.stdout) == (0, "fake job job-1 is succeeded (completed), 200/200 items.\n")
    assert "50/200 items" in found.stderr
    assert "The poll failed: busy" in found.stderr
    assert len(pauses) == 3
    assert pauses[0] >= 5


@pytest.mark.parametrize(("allowed", "code"), [("0", 1), ("2", 1), ("3", 0), ("5%", 0)])
def test_failed_items_are_a_failure_beyond_what_is_allowed(
    service: ListingService, pauses: list[float], allowed: str, code: int
) -> None:
    service.statuses = [PARTIAL]
    found = run("wait", "fake", "job-1", "--allowed-failures", allowed)
    assert found.exit_code == code
    assert "3 failed" in found.stdout
    assert ("allowed_failures" in found.stderr) == bool(code)


def test_the_end_of_the_patience_leaves_the_job_alone(service: ListingService, pauses: list[float]) -> None:
    found = run("wait", "fake", "job-1", "--timeout", "0")
    assert (found.exit_code, found.stdout) == (1, "")
    assert "it runs on" in found.stderr
    assert service.asked("cancel") == []


def test_a_refusal_ends_the_wait_with_its_words(service: ListingService, pauses: list[float]) -> None:
    service.statuses = [CredentialsError("the key is wrong", status=401)]
    found = run("wait", "fake", "job-1")
    assert found.exit_code == 2
    assert found.stderr.count("the key is wrong") == 1
    service.statuses = [NotFoundError("nobody knows it", status=404)]
    assert run("wait", "fake", "job-1").exit_code == 2


def test_a_terminal_has_a_bar_with_state_share_and_items(service: ListingService, pauses: list[float]) -> None:
    service.statuses = [RUNNING, UnavailableError("busy"), DONE]
    screen = io.StringIO()
    console = Console(file=screen, force_terminal=True, width=80, color_system=None)
    outcome = RemoteJob(service.ref("job-1"), client(service)).wait(
        console, interval=1, timeout=None, allowed_failures="0"
    )
    assert (outcome.status, outcome.error) == (DONE, None)
    shown = screen.getvalue()
    assert "succeeded" in shown
    assert "100%" in shown
    assert "200 items" in shown
    assert "The poll failed: busy" in shown


def test_ctrl_c_ends_the_waiting_and_not_the_job(service: ListingService, monkeypatch: pytest.MonkeyPatch) -> None:
    def stop(_: float) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr("overnight.cli.remote_jobs.time.sleep", stop)
    found = run("wait", "fake", "job-1")
    assert found.exit_code == 130
    assert "job-1 runs on" in found.stderr
    assert service.asked("cancel") == []


@pytest.mark.parametrize(("answer", "code", "cancelled"), [("y\n", 0, 1), ("n\n", 1, 0), ("\n", 1, 0), ("", 1, 0)])
def test_a_cancellation_is_asked_for_first(service: ListingService, answer: str, code: int, cancelled: int) -> None:
    found = run("cancel", "fake", "job-1", answer=answer)
    assert found.exit_code == code
    assert "50/200 items" in found.stderr
    assert len(service.asked("cancel")) == cancelled


def test_yes_is_not_asked(service: ListingService) -> None:
    found = run("cancel", "fake", "job-1", "--yes", "--json")
    assert found.exit_code == 0
    assert json.loads(found.stdout)["status"]["state"] == "cancelling"
    assert service.asked("status") == []


def test_a_program_has_to_say_yes_beforehand(service: ListingService) -> None:
    found = run("cancel", "fake", "job-1", "--json")
    assert (found.exit_code, found.stdout) == (2, "")
    assert "give --yes" in found.stderr
    assert service.events == []


@pytest.mark.parametrize("words", [("fake",), ("not json",), ("fake", "a", "b"), ('{"service": "fake"}',)])
def test_what_names_no_job_is_refused(service: ListingService, words: tuple[str, ...]) -> None:
    found = run("show", *words)
    assert found.exit_code == 2
    assert found.stderr.startswith("Refused: ")
    assert service.events == []


def test_a_connection_that_is_not_there_is_named_with_the_remedy(service: ListingService) -> None:
    found = run("list", "fake", "--conn-id", "nothing")
    assert found.exit_code == 2
    assert "AIRFLOW_CONN_NOTHING" in found.stderr


def test_a_service_that_nobody_knows_is_answered_with_those_that_are_known() -> None:
    found = run("show", "opnai", "batch_1")
    assert found.exit_code == 2
    assert "known are azure_ingestion, llamacloud" in found.stderr


@pytest.fixture
def without_connection(monkeypatch: pytest.MonkeyPatch) -> FakeService:
    """An Airflow without the connection, and the service of the one that the environment has."""

    class Unknown(Hook):
        def client(self) -> Any:
            raise AirflowNotFoundException(f"The conn_id `{self.conn_id}` isn't defined")

    service = FakeService(RUNNING)
    monkeypatch.setattr(
        "overnight.cli.remote_jobs.find_hook",
        lambda name, conn_id: Unknown(FakeService(), conn_id or f"{name}_default"),
    )
    monkeypatch.setattr("overnight.cli.remote_jobs.make_openai_client", lambda _: client(service))
    monkeypatch.setenv("OPENAI_API_KEY", "k")
    return service


def test_the_jobs_of_a_run_are_reached_with_its_key_where_airflow_has_no_connection(
    without_connection: FakeService,
) -> None:
    assert run("show", "openai", "job-1").exit_code == 0
    assert run("cancel", "openai", "job-1", "--yes").exit_code == 0
    assert [ref.id for _, ref in without_connection.asked("cancel")] == ["job-1"]


def test_the_key_stands_in_for_the_default_connection_of_openai_alone(
    without_connection: FakeService, monkeypatch: pytest.MonkeyPatch
) -> None:
    for words in (("openai", "job-1", "--conn-id", "other"), ("sagemaker", "job-1")):
        assert run("show", *words).exit_code == 2
    monkeypatch.delenv("OPENAI_API_KEY")
    monkeypatch.delenv("OPENAI_BASE_URL", raising=False)
    found = run("show", "openai", "job-1")
    assert found.exit_code == 2
    assert "AIRFLOW_CONN_OPENAI_DEFAULT" in found.stderr
    assert without_connection.events == []
