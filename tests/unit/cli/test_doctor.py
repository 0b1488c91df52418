from __future__ import annotations

import json
from typing import Any

import pytest
from typer.testing import CliRunner

from overnight.cli.app import app
from overnight.doctor import examination
from overnight.doctor.examination import Options
from overnight.doctor.finding import CheckResult, State

WELL = CheckResult(name="versions", state=State.OK, text="Airflow 3.3.2.", seconds=0.1)
WARNED = CheckResult(name="x" * 60, state=State.WARNING, text="[red]No triggerer[/red] " * 20, seconds=0.1)
FAILED = CheckResult(name="openai_default", state=State.FAILURE, text="Check the API key.", seconds=0.1)


def run(monkeypatch: pytest.MonkeyPatch, results: list[CheckResult], *arguments: str, **variables: str) -> Any:
    asked: list[Options] = []

    def examine(options: Options) -> list[CheckResult]:
        asked.append(options)
        return results

    monkeypatch.setattr(examination, "examine", examine)
    result = CliRunner().invoke(app, ["doctor", *arguments], env=variables)
    result.options = asked[0] if asked else None  # type: ignore[attr-defined]
    return result


def test_the_table_fits_80_columns_and_takes_no_text_for_markup(monkeypatch: pytest.MonkeyPatch) -> None:
    shown = run(monkeypatch, [WELL, WARNED])
    assert max(map(len, shown.stdout.splitlines())) <= 80
    assert "[red]No triggerer[/red]" in shown.stdout
    assert "ok: 1, warnings: 1, failures: 0" in shown.stdout


@pytest.mark.parametrize(("results", "status"), [([WELL, WARNED], 0), ([WELL, FAILED], 1), ([], 0)])
@pytest.mark.parametrize("arguments", [(), ("--json",)])
def test_only_a_failure_is_a_failed_command(
    monkeypatch: pytest.MonkeyPatch, results: list[CheckResult], status: int, arguments: tuple[str, ...]
) -> None:
    assert run(monkeypatch, results, *arguments).exit_code == status


def test_json_has_every_check(monkeypatch: pytest.MonkeyPatch) -> None:
    printed = json.loads(run(monkeypatch, [WELL, FAILED], "--json").stdout)
    assert printed["ok"] is False
    assert printed["checks"][1] == {
        "name": "openai_default",
        "state": "failure",
        "text": "Check the API key.",
        "seconds": 0.1,
    }


def test_what_is_known_beforehand_reaches_the_checks(monkeypatch: pytest.MonkeyPatch) -> None:
    arguments = ("--connection", "a", "--connection", "b", "--work-uri", "s3://x/y", "--seconds", "5", "--dags", "d")
    options = run(monkeypatch, [], *arguments, AIRFLOW_API_URL="http://airflow").options
    assert options == Options("d", "http://airflow", ("a", "b"), ("s3://x/y",), 5.0)


def test_a_wrong_option_ends_with_2_and_ctrl_c_with_130(monkeypatch: pytest.MonkeyPatch) -> None:
    assert run(monkeypatch, [], "--seconds", "0").exit_code == 2

    def interrupt(options: Options) -> list[CheckResult]:
        raise KeyboardInterrupt

    monkeypatch.setattr(examination, "examine", interrupt)
    assert CliRunner().invoke(app, ["doctor"]).exit_code == 130
