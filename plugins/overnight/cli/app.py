"""The ``overnight`` command: a load and a search from a shell, and the sandbox."""

from __future__ import annotations

import typer

from overnight.cli.estimate import estimate
from overnight.cli.load import load
from overnight.cli.search import search
from overnight.sandbox.cli import app as sandbox

app = typer.Typer(
    name="overnight",
    help="Offline AI batch jobs, landed in an OpenSearch index.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
)
app.command()(load)
app.command()(search)
app.command()(estimate)
app.add_typer(sandbox, name="sandbox")
