"""``python -m overnight.sandbox.llamacloud``."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Annotated, Any

import orjson
import typer
from pydantic import ValidationError

from overnight.sandbox.llamacloud.server import serve
from overnight.sandbox.llamacloud.settings import Settings

KEY_VARIABLE = "OVERNIGHT_SANDBOX_LLAMACLOUD_KEY"


def main(
    data_dir: Annotated[Path, typer.Option(help="Where everything is kept; taken up again when it exists.")],
    port: Annotated[int, typer.Option(help="The port to listen on.")],
    host: Annotated[str, typer.Option(help="The address to listen on.")] = "127.0.0.1",
    settings: Annotated[str, typer.Option(help="A JSON object of settings.")] = "{}",
    log_level: Annotated[str, typer.Option(help="Uvicorn's: critical, error, warning, info, debug.")] = "warning",
) -> None:
    """
    Emulate LlamaCloud's batches, directories, files, configurations, parse and extract jobs.

    The key that requests must carry is read from OVERNIGHT_SANDBOX_LLAMACLOUD_KEY; without it, it is "sandbox".
    """
    try:
        values: dict[str, Any] = orjson.loads(settings) | {"data_dir": data_dir}
        if KEY_VARIABLE in os.environ:
            values["api_key"] = os.environ[KEY_VARIABLE]
        chosen = Settings.model_validate(values)
    except (ValidationError, orjson.JSONDecodeError, TypeError) as error:
        raise typer.BadParameter(str(error), param_hint="--settings") from error
    serve(chosen, host=host, port=port, log_level=log_level)


if __name__ == "__main__":
    typer.run(main)
