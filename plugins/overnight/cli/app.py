"""
The ``overnight`` command.

A module of a command imports typer and what is light; whatever imports httpx, pydantic or Airflow is imported within
the command's function, so that ``--help`` and completion answer at once.
"""

from __future__ import annotations

from typing import Annotated

import typer

from overnight import __version__
from overnight.cli.clean import clean
from overnight.cli.connector import app as connector
from overnight.cli.dead_letters import app as dead_letters
from overnight.cli.doctor import doctor
from overnight.cli.estimate import estimate
from overnight.cli.fieldmap import app as fieldmap
from overnight.cli.jobs import app as jobs
from overnight.cli.load import load
from overnight.cli.run import run
from overnight.cli.search import search
from overnight.sandbox.cli import app as sandbox

app = typer.Typer(
    name="overnight",
    help="Offline AI batch jobs, landed in an OpenSearch index.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    # Paragraphs are filled to the terminal's width.
    rich_markup_mode="markdown",
)


def _print_version(wanted: bool) -> None:
    if wanted:
        typer.echo(f"overnight {__version__}")
        raise typer.Exit


@app.callback()
def main(
    version: Annotated[
        bool, typer.Option("--version", callback=_print_version, is_eager=True, help="Print the version.")
    ] = False,
) -> None:
    """Offline AI batch jobs, landed in an OpenSearch index."""
    del version


app.command()(run)
app.command()(load)
app.command()(search)
app.command()(estimate)
app.command()(clean)
app.command()(doctor)
app.add_typer(connector, name="connector")
app.add_typer(dead_letters, name="dead-letters")
app.add_typer(fieldmap, name="fieldmap")
app.add_typer(jobs, name="jobs")
app.add_typer(sandbox, name="sandbox")
