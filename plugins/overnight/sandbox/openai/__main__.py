"""``python -m overnight.sandbox.openai``."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Annotated, Any

import orjson
import typer
from pydantic import ValidationError

from overnight.sandbox.openai.server import serve
from overnight.sandbox.openai.settings import Settings

KEY_VARIABLE = "OVERNIGHT_SANDBOX_OPENAI_KEY"


def main(
    data_dir: Annotated[Path, typer.Option(help="Where everything is kept; taken up again when it exists.")],
    host: Annotated[str, typer.Option(help="The address to listen on.")] = "127.0.0.1",
    port: Annotated[int, typer.Option(help="0: any free port, printed on standard output.")] = 0,
    settings: Annotated[
        str, typer.Option(help="A JSON object of settings, or the path of a file that holds one.")
    ] = "{}",
    log_level: Annotated[str, typer.Option(help="Uvicorn's: critical, error, warning, info, debug.")] = "warning",
) -> None:
    """
    Emulate OpenAI's files and batches.

    The key that requests must carry is read from OVERNIGHT_SANDBOX_OPENAI_KEY; without it, it is "sandbox".
    """
    values = _read(settings) | {"data_dir": data_dir}
    if KEY_VARIABLE in os.environ:
        values["api_key"] = os.environ[KEY_VARIABLE]
    try:
        chosen = Settings.model_validate(values)
    except ValidationError as error:
        raise typer.BadParameter(str(error), param_hint="--settings") from error
    serve(chosen, host=host, port=port, log_level=log_level)


def _read(settings: str) -> dict[str, Any]:
    text = settings if settings.lstrip().startswith("{") else None
    try:
        values = orjson.loads(text if text is not None else Path(settings).read_bytes())
    except (OSError, orjson.JSONDecodeError) as error:
        raise typer.BadParameter(f"no JSON object can be read there: {error}", param_hint="--settings") from error
    if not isinstance(values, dict):
        raise typer.BadParameter("it must be a JSON object", param_hint="--settings")
    return values


if __name__ == "__main__":
    typer.run(main)
