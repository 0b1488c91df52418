"""The keys of the services are known to their connections, and to nothing that Airflow writes down."""

from __future__ import annotations

import sqlite3
from contextlib import closing
from pathlib import Path

import pytest

from .conftest import Services, Standalone
from .console import Run


def files_with(secret: bytes, folder: Path) -> list[Path]:
    return [path for path in folder.rglob("*") if path.is_file() and secret in path.read_bytes()]


@pytest.mark.dag_run("kept_waiting")
def test_no_key_is_in_a_log_or_anywhere_in_the_database(run: Run, airflow: Standalone, services: Services) -> None:
    run.wait("deferred")
    home = airflow.installation.home
    # What is looked for would be found: a reference is in the database, a log line in the logs.
    job = run.record()["ref"]["id"].encode()
    assert home / "airflow.db" in files_with(job, home) or home / "airflow.db-wal" in files_with(job, home)
    assert any(path.suffix == ".log" for path in files_with(job, home / "logs"))
    for name, account in services.accounts.items():
        assert files_with(account.key.encode(), home) == [], name


@pytest.mark.dag_run("kept_waiting")
def test_no_key_is_in_the_arguments_of_a_trigger(run: Run, airflow: Standalone, services: Services) -> None:
    run.wait("deferred")
    home = airflow.installation.home
    with closing(sqlite3.connect(home / "airflow.db")) as database:
        # A deferral that comes through the execution API is kept as it is, not encrypted.
        serialized = [row for (row,) in database.execute("SELECT kwargs FROM trigger")]
    assert any(run.record()["ref"]["id"] in arguments for arguments in serialized)
    assert not any(account.key in arguments for arguments in serialized for account in services.accounts.values())
