from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from http_server import Request, Server, json_answer
from overnight.doctor import examination
from overnight.doctor.dag_uses import KNN, DagFiles, DagUse
from overnight.doctor.examination import Options, examine
from overnight.doctor.finding import Finding, State, ok, warn
from overnight.doctor.survey import Survey
from unit.doctor.conftest import SECRET

OPTIONS = Options(api_url="http://127.0.0.1:9", seconds=30)


@pytest.fixture
def found(monkeypatch: pytest.MonkeyPatch) -> DagFiles:
    """What a survey finds, which runs none of Airflow's commands here."""
    dags = DagFiles()

    def read(survey: Survey, folder: str | None, seconds: float) -> Finding:
        survey.dags = dags
        return ok("Read.")

    monkeypatch.setattr(examination, "list_connections", lambda survey, seconds: warn("No database."))
    monkeypatch.setattr(examination, "read_dags", read)
    return dags


def test_a_cluster_that_does_not_answer_is_one_failure_and_hinders_no_other_check(
    found: DagFiles, connect: Callable[..., str]
) -> None:
    connect("away", "overnight_opensearch", host="http://127.0.0.1:9")
    results = {result.name: result for result in examine(OPTIONS)}
    assert results["away"].state == State.FAILURE
    assert "away: plugins" not in results
    assert results["versions"].state == results["task state"].state == results["prices"].state == State.OK
    assert results["triggerer"].state == results["page"].state == State.FAILURE


def test_a_cluster_that_answers_is_asked_what_it_can_do(
    found: DagFiles, connect: Callable[..., str], server: Server
) -> None:
    def answer(request: Request) -> Any:
        if request.path == "/_cat/plugins":
            return json_answer([])
        return json_answer({"version": {"distribution": "opensearch", "number": "1.3.20"}})

    server.handler = answer
    connect("search", "overnight_opensearch", host=server.url)
    found.uses = [DagUse(dag_id="nightly", connections={"search": "conn_id"}, needs={KNN}, settings={"max_cost": "x"})]
    results = {result.name: result for result in examine(OPTIONS)}
    assert results["search"].state == State.OK
    assert results["search: plugins"].state == State.FAILURE
    assert "came with OpenSearch 2.17" in results["search: ingestion"].text
    assert results["costs of nightly"].state == State.FAILURE
    assert SECRET not in str(results)
