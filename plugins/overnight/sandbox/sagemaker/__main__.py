"""``python -m overnight.sandbox.sagemaker``."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Annotated

import orjson
import typer
from pydantic import ValidationError

from overnight.sandbox.sagemaker.server import serve
from overnight.sandbox.sagemaker.settings import Settings


def main(
    data_dir: Annotated[Path, typer.Option(help="Where everything is kept; taken up again when it exists.")],
    host: Annotated[str, typer.Option(help="The address to listen on.")] = "127.0.0.1",
    port: Annotated[int, typer.Option(help="0: any free port, printed on standard output.")] = 0,
    s3_endpoint: Annotated[str | None, typer.Option(help="Where S3 is; AWS_ENDPOINT_URL_S3 when left out.")] = None,
    settings: Annotated[str, typer.Option(help="A JSON object of further settings.")] = "{}",
) -> None:
    """Emulate SageMaker's models and batch transform jobs over an S3 that is there already."""
    endpoint = s3_endpoint or os.environ.get("AWS_ENDPOINT_URL_S3")
    if not endpoint:
        raise typer.BadParameter("name the S3, or set AWS_ENDPOINT_URL_S3", param_hint="--s3-endpoint")
    try:
        values = orjson.loads(settings)
        chosen = Settings.model_validate({**values, "data_dir": data_dir, "s3_endpoint": endpoint})
    except (ValidationError, orjson.JSONDecodeError, TypeError) as error:
        raise typer.BadParameter(str(error), param_hint="--settings") from error
    serve(chosen, host=host, port=port)


if __name__ == "__main__":
    typer.run(main)
