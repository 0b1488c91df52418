"""The wheel: what is in it, and that it works where this repository is not."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

from overnight.sandbox.airflow import Airflow

from .conftest import PROJECT, Services

DAG_FILE = '''
"""A DAG somewhere else."""
from airflow.sdk import DAG, task
from overnight.operators.openai import OpenAIBatchOperator

with DAG("elsewhere", params={"input_uri": ""}):
    job = OpenAIBatchOperator(
        task_id="job",
        input_uri="{{ params.input_uri }}",
        endpoint="/v1/embeddings",
        poll_interval=0.2,
        deferrable=True,
    )

    @task
    def where():
        import overnight
        return overnight.__file__

    job >> where()
'''


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("wheel")
    command = [sys.executable, "-m", "build", "--no-isolation", "--wheel", "--outdir", str(folder), str(PROJECT)]
    subprocess.run(command, check=True, capture_output=True)
    (made,) = folder.glob("*.whl")
    return made


def test_the_wheel_holds_exactly_the_package(wheel: Path) -> None:
    package = PROJECT / "plugins" / "overnight"
    sources = {
        str(path.relative_to(package.parent))
        for path in package.rglob("*")
        if path.is_file() and "__pycache__" not in path.parts
    }
    with zipfile.ZipFile(wheel) as archive:
        names = set(archive.namelist())
        (entry_points,) = (archive.read(name).decode() for name in names if name.endswith("entry_points.txt"))
    information = {name for name in names if ".dist-info/" in name}
    assert names - information == sources
    assert "overnight/py.typed" in sources
    assert "[apache_airflow_provider]" in entry_points


def test_a_dag_elsewhere_runs_on_the_installed_wheel(
    wheel: Path, services: Services, folder: Path, tmp_path: Path
) -> None:
    venv = tmp_path / "venv"
    python = venv / "bin" / "python"
    uv = shutil.which("uv", path=f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}")
    assert uv
    lock = ["--require-hashes", "--requirements", str(PROJECT / "requirements.txt")]
    for command in (
        ["venv", "--quiet", "--python", sys.executable, str(venv)],
        ["pip", "install", "--quiet", "--python", str(python), *lock],
        ["pip", "install", "--quiet", "--python", str(python), "--no-deps", str(wheel)],
    ):
        subprocess.run([uv, *command], check=True)
    dags = tmp_path / "dags"
    dags.mkdir()
    (dags / "elsewhere.py").write_text(DAG_FILE)
    airflow = Airflow(tmp_path / "airflow", dags=dags, variables=services.environment, python=python)
    airflow.migrate()
    log = tmp_path / "log"
    conf = {"input_uri": str(folder / "good.jsonl")}
    run = airflow.run_dag("elsewhere", conf, xcoms={"job": "return_value", "where": "return_value"}, log=log)
    assert run.state == "success", log.read_text()
    assert run.xcoms["job"]["status"]["state"] == "succeeded"
    assert Path(run.xcoms["where"]).is_relative_to(venv)
