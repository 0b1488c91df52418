"""The keys of the services are known to their connections, and to nothing that Airflow writes down."""

from __future__ import annotations

import io
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import psycopg2
import pytest
from psycopg2.sql import SQL, Identifier

from .conftest import Services, Standalone
from .console import Run


def files_with(secret: bytes, folder: Path) -> list[Path]:
    return [path for path in folder.rglob("*") if path.is_file() and secret in path.read_bytes()]


def dump(address: str) -> Iterator[tuple[str, bytes]]:
    """Yield the name and the rows of each table, as text: the files of PostgreSQL are compressed in part."""
    with closing(psycopg2.connect(address.replace("+psycopg2", ""))) as database, database.cursor() as cursor:
        cursor.execute("SELECT tablename FROM pg_tables WHERE schemaname = 'public'")
        for (table,) in cursor.fetchall():
            rows = io.BytesIO()
            cursor.copy_expert(SQL("COPY {} TO STDOUT").format(Identifier(table)), rows)
            yield table, rows.getvalue()


def tables_with(secret: bytes, tables: dict[str, bytes]) -> list[str]:
    # What is of the type bytea is written in hexadecimal digits.
    return [name for name, rows in tables.items() if secret in rows or secret.hex().encode() in rows]


@pytest.mark.dag_run("kept_waiting")
def test_no_key_is_in_a_log_or_anywhere_in_the_database(
    run: Run, airflow: Standalone, services: Services, database: str
) -> None:
    run.wait("deferred")
    home, tables = airflow.installation.home, dict(dump(database))
    # What is looked for would be found: a reference is in the database, a log line in the logs.
    job = run.record()["ref"]["id"].encode()
    assert "trigger" in tables_with(job, tables)
    assert any(path.suffix == ".log" for path in files_with(job, home / "logs"))
    for name, account in services.accounts.items():
        assert files_with(account.key.encode(), home) == [], name
        assert tables_with(account.key.encode(), tables) == [], name


@pytest.mark.dag_run("kept_waiting")
def test_no_key_is_in_the_arguments_of_a_trigger(
    run: Run, airflow: Standalone, services: Services, database: str
) -> None:
    run.wait("deferred")
    # A deferral that comes through the execution API is kept as it is, not encrypted.
    triggers = dict(dump(database))["trigger"]
    assert run.record()["ref"]["id"].encode() in triggers
    assert not any(account.key.encode() in triggers for account in services.accounts.values())
