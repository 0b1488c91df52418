from __future__ import annotations

import tomllib
from collections.abc import Callable
from pathlib import Path

import pytest
from packaging.requirements import Requirement

from overnight.doctor import versions
from overnight.doctor.finding import State
from overnight.doctor.versions import OPTIONAL, PYTHON, REQUIRED, check_versions

PROJECT = tomllib.loads((Path(__file__).parents[3] / "pyproject.toml").read_text())["project"]


def test_what_is_installed_here_is_new_enough() -> None:
    found = check_versions()
    assert found.state == State.OK, found.text
    assert "Airflow 3." in found.text
    assert "Overnight " in found.text


def test_an_airflow_that_is_too_old_is_named_with_the_version_to_install(
    install: Callable[[str, str], None],
) -> None:
    install("apache-airflow", "3.2.1")
    found = check_versions()
    assert found.state == State.FAILURE
    assert "apache-airflow 3.2.1 is older than 3.3" in found.text
    assert "pip install 'apache-airflow>=3.3'" in found.text


def test_a_provider_that_is_too_old_is_named_alone(install: Callable[[str, str], None]) -> None:
    install("apache-airflow-providers-amazon", "9.1.0")
    found = check_versions()
    assert found.state == State.FAILURE
    assert found.text.startswith("apache-airflow-providers-amazon 9.1.0 is older than 9.39. pip install")
    assert "opensearch" not in found.text


def test_a_package_that_is_missing_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(versions, "REQUIRED", {"apache-airflow-providers-nowhere": "1"})
    found = check_versions()
    assert (found.state, found.text.partition(".")[0]) == (
        State.FAILURE,
        "apache-airflow-providers-nowhere is not installed",
    )


def test_a_python_that_is_too_old_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("sys.version", "3.10.4 (main)")
    assert "Python 3.10.4 is older than 3.11" in check_versions().text


def test_the_oldest_versions_are_those_of_the_project() -> None:
    assert PROJECT["requires-python"] == f">={PYTHON}"
    extras = [text for texts in PROJECT["optional-dependencies"].values() for text in texts]
    bounds = {
        requirement.name: str(next(iter(requirement.specifier)).version)
        for requirement in map(Requirement, [*PROJECT["dependencies"], *extras])
        if requirement.name.startswith("apache-airflow")
    }
    assert bounds == {**REQUIRED, **OPTIONAL}
