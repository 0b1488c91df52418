from __future__ import annotations

from typing import Any

import pytest

from http_server import Server, json_answer
from overnight.doctor import triggerer
from overnight.doctor.airflow_command import CommandAnswer
from overnight.doctor.finding import State
from overnight.doctor.triggerer import check_triggerer

LAST = "2026-11-27T02:00:00+00:00"


def ask(server: Server, triggerer: Any, *, is_needed: bool = True) -> Any:
    server.answers = [json_answer({"metadatabase": {"status": "healthy"}, "triggerer": triggerer})]
    return check_triggerer(server.url, 5, is_needed=is_needed)


def test_a_triggerer_that_runs_is_seen_in_the_servers_health(server: Server) -> None:
    found = ask(server, {"status": "healthy", "latest_triggerer_heartbeat": LAST})
    assert (found.state, found.text) == (State.OK, "A triggerer runs.")
    assert server.requests[0].path == "/api/v2/monitor/health"


@pytest.mark.parametrize(
    ("health", "text"),
    [
        ({"status": None, "latest_triggerer_heartbeat": None}, "No triggerer runs, and none ever did."),
        ({"status": "unhealthy", "latest_triggerer_heartbeat": LAST}, f"No triggerer runs since {LAST}."),
    ],
)
def test_without_a_triggerer_the_remedy_is_one_or_no_deferral(server: Server, health: Any, text: str) -> None:
    found = ask(server, health)
    assert found.state == State.FAILURE
    assert text in found.text
    assert "airflow triggerer" in found.text
    assert "deferrable=False" in found.text


def test_where_no_dag_defers_none_is_a_warning(server: Server) -> None:
    found = ask(server, {"status": None}, is_needed=False)
    assert found.state == State.WARNING
    assert "No DAG here needs one" in found.text


def test_an_address_that_is_no_airflow_is_named(server: Server) -> None:
    server.answers = [json_answer({"version": {"number": "2.19.6"}})]
    found = check_triggerer(server.url, 5, is_needed=True)
    assert found.state == State.FAILURE
    assert found.text == f"What answers at {server.url} is no API server of Airflow's. Correct --api-url."


def test_a_server_that_is_away_is_to_be_corrected() -> None:
    found = check_triggerer("http://127.0.0.1:9", 5, is_needed=True)
    assert found.state == State.FAILURE
    assert "Correct --api-url" in found.text


@pytest.mark.parametrize(
    ("status", "stderr", "state", "text"),
    [
        (0, "", State.OK, "A triggerer runs"),
        (1, "No alive jobs found.", State.FAILURE, "no sign of one that lives"),
        (1, "sqlalchemy.exc.OperationalError: no such table: job", State.FAILURE, "--api-url"),
    ],
)
def test_without_a_server_airflows_own_command_is_asked(
    monkeypatch: pytest.MonkeyPatch, status: int, stderr: str, state: State, text: str
) -> None:
    asked: list[Any] = []

    def run(arguments: Any, seconds: float) -> CommandAnswer:
        asked.append(arguments)
        return CommandAnswer(status, "", stderr)

    monkeypatch.setattr(triggerer, "run_airflow", run)
    found = check_triggerer(None, 5, is_needed=True)
    assert found.state == state
    assert text in found.text
    assert asked[0][:4] == ["jobs", "check", "--job-type", "TriggererJob"]
