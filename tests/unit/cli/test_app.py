"""The command as a whole: what every command has, and what ``--help`` must not wait for."""

from __future__ import annotations

import subprocess
import sys

import pytest
from typer.testing import CliRunner

from overnight.cli.app import app

HEAVY = {"airflow", "httpx", "fsspec", "msgspec", "jsonschema", "boto3", "pyarrow"}
PACKAGES = {f"overnight.{name}" for name in ("hooks", "ingest", "services", "transport", "storage", "validation")}
LISTED = CliRunner().invoke(app, ["--help"])


@pytest.mark.parametrize(
    "arguments",
    [
        ("--help",),
        ("run", "--help"),
        ("load", "--help"),
        ("search", "--help"),
        ("estimate", "--help"),
        ("clean", "--help"),
        ("dead-letters", "--help"),
        ("dead-letters", "retry", "--help"),
        ("doctor", "--help"),
        ("fieldmap", "--help"),
        ("fieldmap", "try", "--help"),
        ("jobs", "--help"),
        ("jobs", "wait", "--help"),
        ("sandbox", "--help"),
        ("sandbox", "up", "--help"),
        ("--version",),
    ],
    ids=" ".join,
)
def test_help_waits_for_nothing_that_a_command_needs(arguments: tuple[str, ...]) -> None:
    code = (
        "import sys; from typer.testing import CliRunner; from overnight.cli.app import app;"
        f"found = CliRunner().invoke(app, {list(arguments)!r}); assert found.exit_code == 0, found.output;"
        "print(*sys.modules)"
    )
    ended = subprocess.run([sys.executable, "-c", code], capture_output=True, check=True, text=True)
    assert set(ended.stdout.split()) & (HEAVY | PACKAGES) == set()


def test_every_command_is_listed_with_what_it_does() -> None:
    assert LISTED.exit_code == 0
    for name in ("run", "load", "search", "estimate", "clean", "dead-letters", "doctor", "fieldmap", "jobs", "sandbox"):
        assert f" {name} " in LISTED.stdout
