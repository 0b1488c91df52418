"""``python -m overnight.sandbox.azure``."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import orjson
import typer
import uvicorn
from pydantic import ValidationError

from overnight.sandbox.azure.app import create_app
from overnight.sandbox.azure.settings import Settings
from overnight.sandbox.openai.connections import DroppableProtocol

_KEEP_ALIVE = 75
"""Seconds an idle connection stays open: longer than clients wait between two polls."""
_GRACE = 2
"""Seconds that requests in flight get when the process is asked to end."""


def main(
    data_dir: Annotated[Path, typer.Option(help="Where everything is kept; taken up again when it exists.")],
    port: Annotated[int, typer.Option(help="The port to listen on.")],
    host: Annotated[str, typer.Option(help="The address to listen on.")] = "127.0.0.1",
    settings: Annotated[str, typer.Option(help="A JSON object of settings.")] = "{}",
    log_level: Annotated[str, typer.Option(help="Uvicorn's: critical, error, warning, info, debug.")] = "warning",
) -> None:
    """
    Emulate Azure OpenAI's ingestion jobs, and the search service that they fill.

    The keys are "sandbox" unless the settings say otherwise.
    """
    try:
        chosen = Settings.model_validate(orjson.loads(settings) | {"data_dir": data_dir})
    except (orjson.JSONDecodeError, TypeError, ValidationError) as error:
        raise typer.BadParameter(str(error), param_hint="--settings") from error
    uvicorn.run(
        create_app(chosen),
        host=host,
        port=port,
        http=DroppableProtocol,
        ws="none",
        log_level=log_level,
        access_log=False,
        proxy_headers=False,
        server_header=False,
        timeout_keep_alive=_KEEP_ALIVE,
        timeout_graceful_shutdown=_GRACE,
    )


if __name__ == "__main__":
    typer.run(main)
