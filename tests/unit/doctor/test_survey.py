from __future__ import annotations

import json
from pathlib import Path

import pytest

from overnight.doctor import survey as module
from overnight.doctor.airflow_command import CommandAnswer
from overnight.doctor.dag_uses import DagFiles, DagUse
from overnight.doctor.finding import State
from overnight.doctor.survey import Survey, list_connections, read_dags
from overnight.errors import UnavailableError


def answer(monkeypatch: pytest.MonkeyPatch, status: int, stdout: str, stderr: str = "") -> None:
    monkeypatch.setattr(module, "run_airflow", lambda arguments, seconds: CommandAnswer(status, stdout, stderr))


def test_connections_of_our_types_those_of_dags_and_those_asked_for_are_checked(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("AIRFLOW_CONN_LLAMA", "overnight-llamacloud://:key@")
    monkeypatch.setenv("AIRFLOW_CONN_AZURE", '{"conn_type": "overnight_azure_openai"}')
    monkeypatch.setenv("AIRFLOW_CONN_WAREHOUSE", '{"conn_type": "postgres"}')
    listed = {"paid": "overnight_openai", "search": "opensearch", "unused": "opensearch", "db": "mysql"}
    used = [
        DagUse(dag_id="a", connections={"search": "conn_id"}),
        DagUse(dag_id="b", connections={"search": "x_conn_id"}),
    ]
    survey = Survey(listed, DagFiles(uses=used), extra_connections=("db",))
    assert survey.find_connections() == {
        "azure": set(),
        "db": set(),
        "llama": set(),
        "paid": set(),
        "search": {"conn_id", "x_conn_id"},
    }


def test_each_folder_is_checked_once_with_its_dags_connection() -> None:
    uses = [
        DagUse(dag_id="a", settings={"work_uri": "s3://lake/a"}, connections={"mine": "aws_conn_id"}),
        DagUse(dag_id="b", settings={"work_uri": "s3://lake/a"}),
        DagUse(dag_id="c", settings={"work_uri": "s3://lake/c"}),
    ]
    survey = Survey(dags=DagFiles(uses=uses), extra_folders=("/tmp/x",))
    assert survey.find_folders() == {"/tmp/x": "aws_default", "s3://lake/a": "mine", "s3://lake/c": "aws_default"}
    assert survey.find_folder_connections() == {"mine", "aws_default"}


def test_a_folder_that_names_its_connection_is_opened_with_that() -> None:
    survey = Survey(extra_folders=("s3://minio@lake/a", "gs://google@lake/b", "/tmp/x"))
    assert survey.find_folder_connections() == {"minio", "google"}


def test_airflows_list_of_connections_is_read_behind_what_else_it_prints(monkeypatch: pytest.MonkeyPatch) -> None:
    answer(monkeypatch, 0, 'a warning\n[{"conn_id": "paid", "conn_type": "overnight_openai"}]\n')
    survey = Survey()
    assert list_connections(survey, 5).state == State.OK
    assert survey.listed == {"paid": "overnight_openai"}


@pytest.mark.parametrize(
    ("status", "stdout", "stderr"),
    [(1, "", "sqlite3.OperationalError: no such table: connection"), (0, "No data found", ""), (0, "[broken", "")],
)
def test_a_database_that_cannot_be_asked_is_a_warning(
    monkeypatch: pytest.MonkeyPatch, status: int, stdout: str, stderr: str
) -> None:
    answer(monkeypatch, status, stdout, stderr)
    found = list_connections(Survey(), 5)
    assert found.state == State.WARNING
    assert "airflow db migrate" in found.text
    assert stderr in found.text


def test_a_database_that_is_silent_is_a_warning(monkeypatch: pytest.MonkeyPatch) -> None:
    def run(arguments: object, seconds: float) -> CommandAnswer:
        raise UnavailableError("airflow connections did not end within 5 s.")

    monkeypatch.setattr(module, "run_airflow", run)
    found = list_connections(Survey(), 5)
    assert found.state == State.WARNING
    assert "did not end within 5 s" in found.text


def test_a_folder_of_dags_that_is_not_there_is_a_failure(tmp_path: Path) -> None:
    found = read_dags(Survey(), str(tmp_path / "none"), 5)
    assert found.state == State.FAILURE
    assert "Correct --dags" in found.text


def test_a_folder_without_a_dag_is_a_warning(tmp_path: Path) -> None:
    found = read_dags(Survey(), str(tmp_path), 100)
    assert found.state == State.WARNING
    assert f"There is no DAG in {tmp_path}" in found.text


@pytest.mark.parametrize(
    ("code", "text"),
    [
        ("import no_such_module  # airflow dag", "No module named 'no_such_module'. Correct it"),
        ("import os  # airflow dag\nos._exit(0)", "one of them ends the process"),
    ],
    ids=["broken", "ending"],
)
def test_a_dag_file_that_cannot_be_imported_is_named(tmp_path: Path, code: str, text: str) -> None:
    (tmp_path / "nightly.py").write_text(code)
    found = read_dags(Survey(), str(tmp_path), 100)
    assert found.state == State.FAILURE
    assert text in found.text


def test_a_dag_file_that_never_ends_is_bounded(tmp_path: Path) -> None:
    (tmp_path / "nightly.py").write_text("import threading  # airflow dag\nthreading.Event().wait()")
    found = read_dags(Survey(), str(tmp_path), 0.1)
    assert found.state == State.FAILURE
    assert "were not read within 0.1 s" in found.text


def test_airflows_examples_are_not_read(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    classpath = "airflow.dag_processing.bundles.local.LocalDagBundle"
    bundles = [{"name": "own", "classpath": classpath, "kwargs": {"path": str(tmp_path)}}]
    monkeypatch.setenv("AIRFLOW__DAG_PROCESSOR__DAG_BUNDLE_CONFIG_LIST", json.dumps(bundles))
    monkeypatch.setenv("AIRFLOW__CORE__LOAD_EXAMPLES", "True")
    found = read_dags(Survey(), None, 200)
    assert found.text.startswith(f"There is no DAG in {tmp_path}, so")
