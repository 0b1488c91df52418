"""``overnight doctor`` beside a running Airflow, which it asks through its API server."""

from __future__ import annotations

import json
import subprocess

from .conftest import Standalone


def test_the_api_server_is_asked_for_the_triggerer_and_the_page(airflow: Standalone) -> None:
    command = "from overnight.cli.app import app; app()"
    done = subprocess.run(
        [
            str(airflow.installation.python),
            "-c",
            command,
            "doctor",
            "--json",
            "--seconds",
            "300",
            "--api-url",
            airflow.url,
        ],
        env=airflow.installation.environment(),
        cwd=airflow.installation.home,
        capture_output=True,
        text=True,
        check=False,
    )
    checks = {check["name"]: check for check in json.loads(done.stdout)["checks"]}
    assert (checks["triggerer"]["state"], checks["triggerer"]["text"]) == ("ok", "A triggerer runs.")
    assert (checks["page"]["state"], checks["page"]["text"]) == (
        "ok",
        f"The API server has the page, at {airflow.url}/overnight/.",
    )
    # Both bundles are read.
    assert checks["DAG files"]["text"].count("/dags") == 2, checks["DAG files"]
    # One of the connections of these tests has a wrong key.
    assert "Check the API key in the connection" in checks["wrong_key"]["text"]
    assert "sk-wrong" not in done.stdout + done.stderr
