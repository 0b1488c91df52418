from __future__ import annotations

import pytest

from http_server import Answer, Server
from overnight.doctor import page
from overnight.doctor.airflow_command import CommandAnswer
from overnight.doctor.finding import State
from overnight.doctor.page import check_page


def test_a_server_with_the_page_hands_out_its_style(server: Server) -> None:
    server.answers = [Answer(body=b":root { color: black }", headers={"Content-Type": "text/css"})]
    found = check_page(f"{server.url}/airflow/", 5)
    assert (found.state, found.text) == (State.OK, f"The API server has the page, at {server.url}/airflow/overnight/.")
    assert server.requests[0].path == "/airflow/overnight/static/overnight.css"


@pytest.mark.parametrize("answer", [Answer(404), Answer(body=b"\n<!DOCTYPE html><html>"), Answer(body=b"")])
def test_a_server_without_it_says_how_to_install_the_plugin(server: Server, answer: Answer) -> None:
    server.answers = [answer]
    found = check_page(server.url, 5)
    assert found.state == State.FAILURE
    assert "Install airflow-provider-overnight in the API server's environment" in found.text


def test_a_server_that_is_away_is_to_be_corrected() -> None:
    found = check_page("http://127.0.0.1:9", 5)
    assert found.state == State.FAILURE
    assert "Correct --api-url" in found.text


@pytest.mark.parametrize(
    ("stdout", "state"),
    [
        ('a warning\n[{"name": "overnight"}]', State.OK),
        ('[{"name": "edge_executor"}]', State.FAILURE),
        ("No plugins loaded", State.FAILURE),
        ("[broken", State.FAILURE),
    ],
)
def test_without_a_server_the_plugins_that_load_here_count(
    monkeypatch: pytest.MonkeyPatch, stdout: str, state: State
) -> None:
    monkeypatch.setattr(page, "run_airflow", lambda arguments, seconds: CommandAnswer(0, stdout, ""))
    assert check_page(None, 5).state == state
