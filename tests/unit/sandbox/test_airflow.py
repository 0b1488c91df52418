from __future__ import annotations

import json
import os
import stat
import sys
from pathlib import Path

import pytest
from airflow.sdk import Connection
from cryptography.fernet import Fernet

from overnight.sandbox.airflow import Airflow, DagRun, TaskRun, read_airflow_settings, split_connections
from overnight.sandbox.errors import SandboxError

SETTINGS = """\
airflow:
  connections:
    - conn_id: openai_default
      conn_type: overnight_openai
      conn_host: https://api.example.com/v1
      conn_schema:
      conn_login: ""
      conn_password: sk-secret
      conn_port: 8443
      conn_extra:
        auth_style: bearer
    - conn_id: bare
      conn_type: aws
  pools:
  variables:
    - variable_name: bucket
      variable_value: overnight
    - variable_name: limit
      variable_value: 5
"""


@pytest.fixture
def airflow(tmp_path: Path) -> Airflow:
    return Airflow(tmp_path / "home", dags=tmp_path / "dags", variables={"AIRFLOW_CONN_OURS": "aws://"})


def test_settings_become_variables_that_airflow_reads_as_connections(tmp_path: Path) -> None:
    file = tmp_path / "airflow_settings.yaml"
    file.write_text(SETTINGS)
    environment = read_airflow_settings(file)
    assert json.loads(environment.pop("AIRFLOW_CONN_OPENAI_DEFAULT")) == {
        "conn_type": "overnight_openai",
        "host": "https://api.example.com/v1",
        "password": "sk-secret",
        "port": 8443,
        "extra": {"auth_style": "bearer"},
    }
    assert environment == {
        "AIRFLOW_CONN_BARE": '{"conn_type": "aws"}',
        "AIRFLOW_VAR_BUCKET": "overnight",
        "AIRFLOW_VAR_LIMIT": "5",
    }


def test_connections_are_told_from_other_variables() -> None:
    connections, others = split_connections(
        {"AIRFLOW_CONN_OPENAI_DEFAULT": '{"conn_type": "overnight_openai"}', "AIRFLOW_VAR_BUCKET": "overnight"}
    )
    assert connections == {"openai_default": {"conn_type": "overnight_openai"}}
    assert others == {"AIRFLOW_VAR_BUCKET": "overnight"}


def test_an_import_of_connections_that_fails_leaves_no_file_with_them(tmp_path: Path) -> None:
    airflow = Airflow(tmp_path / "home", dags=tmp_path, python=failing_python(tmp_path))
    with pytest.raises(SandboxError, match="connections import failed"):
        airflow.import_connections({"openai_default": {"conn_type": "overnight_openai", "password": "sk-secret"}})
    assert not list((tmp_path / "home").glob("connections*"))


def test_settings_may_be_empty(tmp_path: Path) -> None:
    file = tmp_path / "airflow_settings.yaml"
    file.write_text("airflow:\n  connections:\n  pools:\n  variables:\n")
    assert read_airflow_settings(file) == {}


def test_the_projects_own_settings_are_connections_that_airflow_understands(monkeypatch: pytest.MonkeyPatch) -> None:
    found = read_airflow_settings(Path(__file__).parents[3] / "airflow_settings.yaml")
    for name, value in found.items():
        monkeypatch.setenv(name, value)
    conn_ids = [name.removeprefix("AIRFLOW_CONN_").lower() for name in found if name.startswith("AIRFLOW_CONN_")]
    assert "openai_default" in conn_ids
    for conn_id in conn_ids:
        connection = Connection.get(conn_id)
        assert connection.conn_type == json.loads(found[f"AIRFLOW_CONN_{conn_id.upper()}"])["conn_type"]


def test_nothing_of_an_airflow_around_it_is_in_the_environment(
    airflow: Airflow, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("AIRFLOW_HOME", "/somewhere/else")
    monkeypatch.setenv("AIRFLOW_CONN_OPENAI_DEFAULT", "the outer one's")
    monkeypatch.setenv("AIRFLOW_VAR_BUCKET", "the outer one's")
    monkeypatch.setenv("AIRFLOW__CORE__EXECUTOR", "CeleryExecutor")
    monkeypatch.setenv("SOMETHING_ELSE", "kept")
    environment = airflow.environment()
    assert environment["AIRFLOW_HOME"] == str(airflow.home)
    assert environment["AIRFLOW_CONN_OURS"] == "aws://"
    assert environment["SOMETHING_ELSE"] == "kept"
    assert "the outer one's" not in environment.values()
    assert "AIRFLOW__CORE__EXECUTOR" not in environment


def test_airflows_parts_are_those_of_the_interpreter_that_it_is_installed_for(tmp_path: Path) -> None:
    python = tmp_path / "venv" / "bin" / "python"
    environment = Airflow(tmp_path, dags=tmp_path, python=python).environment()
    assert environment["PATH"].split(os.pathsep)[0] == str(python.parent)
    assert Airflow(tmp_path, dags=tmp_path).python == Path(sys.executable)


def test_variables_of_the_installation_win(tmp_path: Path) -> None:
    variables = {"AIRFLOW__CORE__LOAD_EXAMPLES": "True"}
    assert Airflow(tmp_path, dags=tmp_path, variables=variables).environment()["AIRFLOW__CORE__LOAD_EXAMPLES"] == "True"


def test_its_keys_are_its_own_stay_the_same_and_are_for_nobody_else(airflow: Airflow, tmp_path: Path) -> None:
    first, second = airflow.environment(), Airflow(airflow.home, dags=airflow.dags).environment()
    other = Airflow(tmp_path / "other", dags=airflow.dags).environment()
    for name in ("AIRFLOW__CORE__FERNET_KEY", "AIRFLOW__API_AUTH__JWT_SECRET"):
        assert first[name] == second[name] != other[name]
    Fernet(first["AIRFLOW__CORE__FERNET_KEY"]).decrypt(Fernet(second["AIRFLOW__CORE__FERNET_KEY"]).encrypt(b"x"))
    assert stat.S_IMODE((airflow.home / "keys.json").stat().st_mode) == 0o600


def test_a_copy_has_the_database_and_the_keys_that_it_was_made_with(airflow: Airflow, tmp_path: Path) -> None:
    original = airflow.environment()
    (airflow.home / "airflow.db").write_bytes(b"rows")
    copy = airflow.copy(tmp_path / "copy")
    assert (copy.home / "airflow.db").read_bytes() == b"rows"
    environment = copy.environment()
    assert environment["AIRFLOW__CORE__FERNET_KEY"] == original["AIRFLOW__CORE__FERNET_KEY"]
    assert environment["AIRFLOW__DATABASE__SQL_ALCHEMY_CONN"].startswith(f"sqlite:///{copy.home}/airflow.db")
    assert environment["AIRFLOW_CONN_OURS"] == "aws://"


def test_every_part_of_a_standalone_airflow_knows_where_the_others_are(airflow: Airflow) -> None:
    environment = airflow.standalone_environment(12345)
    assert environment["AIRFLOW__API__PORT"] == "12345"
    assert environment["AIRFLOW__CORE__EXECUTION_API_SERVER_URL"] == "http://127.0.0.1:12345/execution/"
    assert (
        environment["AIRFLOW__LOGGING__WORKER_LOG_SERVER_PORT"]
        != environment["AIRFLOW__LOGGING__TRIGGER_LOG_SERVER_PORT"]
    )


def failing_python(folder: Path) -> Path:
    """Return an interpreter that says something and fails, whatever it is asked."""
    python = folder / "python"
    python.write_text('#!/bin/sh\necho "called with $2 and no database"\nexit 3\n')
    python.chmod(0o755)
    return python


def test_a_command_that_fails_is_told_in_its_own_words(tmp_path: Path) -> None:
    airflow = Airflow(tmp_path / "home", dags=tmp_path, python=failing_python(tmp_path))
    with pytest.raises(SandboxError, match="called with airflow and no database"):
        airflow.migrate()
    log = tmp_path / "log"
    with pytest.raises(SandboxError, match="some_dag could not be run"):
        airflow.run_dag("some_dag", {}, log=log)
    assert "called with overnight.sandbox.dag_run and no database" in log.read_text()


def test_a_mapped_tasks_seconds_are_those_of_all_its_instances() -> None:
    tasks = (TaskRun("load", 0, "success", 1.5), TaskRun("load", 1, "success", 2.0), TaskRun("plan", -1, "success", 4))
    run = DagRun("r", "success", 3.0, tasks, {})
    assert run.get_seconds("load") == 3.5
    assert run.get_seconds("none") == 0
