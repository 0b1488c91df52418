from __future__ import annotations

from collections.abc import Callable

import pytest

from overnight.doctor.finding import State
from overnight.doctor.task_state import check_task_state

SECTION = "AIRFLOW__STATE_STORE__"


def test_this_airflow_keeps_the_record_of_a_job() -> None:
    found = check_task_state()
    assert found.state == State.OK
    assert "keeps the record of each job (30 days)" in found.text


def test_an_airflow_without_a_state_store_is_named(install: Callable[[str, str], None]) -> None:
    install("apache-airflow", "3.2.1")
    found = check_task_state()
    assert found.state == State.FAILURE
    assert "Airflow 3.2.1 has no task state store" in found.text
    assert "apache-airflow>=3.3" in found.text


@pytest.mark.parametrize(
    ("variable", "value"),
    [
        (f"{SECTION}BACKEND", "airflow.state.metastore.Elsewhere"),
        ("AIRFLOW__WORKERS__STATE_STORE_BACKEND", "no_such_package.Backend"),
        (f"{SECTION}BACKEND", "Backend"),
    ],
)
def test_a_backend_that_cannot_be_imported_is_named(monkeypatch: pytest.MonkeyPatch, variable: str, value: str) -> None:
    monkeypatch.setenv(variable, value)
    found = check_task_state()
    assert found.state == State.FAILURE
    assert value in found.text
    assert variable in found.text


@pytest.mark.parametrize(("name", "value"), [("DEFAULT_RETENTION_DAYS", "1"), ("CLEAR_ON_SUCCESS", "True")])
def test_a_setting_that_forgets_jobs_early_is_a_warning(monkeypatch: pytest.MonkeyPatch, name: str, value: str) -> None:
    monkeypatch.setenv(f"{SECTION}{name}", value)
    found = check_task_state()
    assert found.state == State.WARNING
    assert f"{SECTION}{name}" in found.text
