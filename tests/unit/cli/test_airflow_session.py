from __future__ import annotations

import os

import pytest

from overnight.cli.airflow_session import airflow_session

LEVEL = "AIRFLOW__LOGGING__LOGGING_LEVEL"
CONTEXT = "_AIRFLOW_PROCESS_CONTEXT"


def test_airflow_is_silent_and_finds_connections_whatever_the_deployment_says(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(LEVEL, "INFO")
    monkeypatch.delenv(CONTEXT, raising=False)
    before = dict(os.environ)
    with airflow_session():
        assert (os.environ[LEVEL], os.environ[CONTEXT]) == ("CRITICAL", "server")
    assert dict(os.environ) == before
