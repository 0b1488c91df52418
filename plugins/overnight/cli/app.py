"""The ``overnight`` command: a load from a shell, and the sandbox."""

from __future__ import annotations

import typer

from overnight.cli.load import load
from overnight.sandbox.cli import app as sandbox

app = typer.Typer(
    name="overnight",
    help="Offline AI batch jobs, landed in an OpenSearch index.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
)
app.command()(load)
app.add_typer(sandbox, name="sandbox")
