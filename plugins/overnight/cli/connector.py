"""``overnight connector``: what a cluster would be given for a connector of ML Commons."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console

from overnight.cli.exit_codes import REFUSED
from overnight.errors import OvernightError

app = typer.Typer(help="Connectors of ML Commons.", no_args_is_help=True)


@app.callback()
def main() -> None:
    """Connectors of ML Commons."""


@app.command()
def render(
    blueprint: Annotated[Path, typer.Argument(help="A connector without account and credential, as JSON.")],
    config: Annotated[Path, typer.Argument(help="What fills it, as JSON: `kind`, `name` and the kind's own fields.")],
) -> None:
    """
    Print the connector that a blueprint and a config make, without its credential.

    It is checked as MLCommonsConnectorOperator checks it, for what the server would find out with the first job; the
    credential is taken to be there. Exit status: 0, or 2 when the connector would not work.
    """
    from overnight.cli.files import read_json  # noqa: PLC0415
    from overnight.services.ml_commons.connectors import (  # noqa: PLC0415
        checked,
        fill,
        name_credential,
        read_blueprint,
        read_config,
    )

    try:
        given = read_config(read_json(config))
        filled = fill(read_blueprint(blueprint), given)
        whole = checked(filled, dict.fromkeys(name_credential(given), ""))
    except OvernightError as error:
        Console(stderr=True, soft_wrap=True, highlight=False).print(f"Refused: {error}", markup=False)
        raise typer.Exit(REFUSED) from None
    shown = {**whole, "credential": filled.get("credential") or {}}
    typer.echo(json.dumps(shown, indent=2, ensure_ascii=False))
