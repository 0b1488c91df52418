"""``python -m overnight.sandbox.sagemaker``."""

from __future__ import annotations

import os
from typing import Annotated

import typer

from overnight.sandbox.emulator.command import DataDir, Host, Port, SettingsText, read_settings
from overnight.sandbox.emulator.server import serve
from overnight.sandbox.sagemaker.app import create_app
from overnight.sandbox.sagemaker.settings import Settings


def main(
    data_dir: DataDir,
    host: Host = "127.0.0.1",
    port: Port = 0,
    s3_endpoint: Annotated[str | None, typer.Option(help="Where S3 is; AWS_ENDPOINT_URL_S3 when left out.")] = None,
    settings: SettingsText = "{}",
) -> None:
    """Emulate SageMaker's models and batch transform jobs over an S3 that is there already."""
    endpoint = s3_endpoint or os.environ.get("AWS_ENDPOINT_URL_S3")
    if not endpoint:
        raise typer.BadParameter("name the S3, or set AWS_ENDPOINT_URL_S3", param_hint="--s3-endpoint")
    chosen = read_settings(Settings, settings, data_dir=data_dir, s3_endpoint=endpoint)
    serve(create_app(chosen), host=host, port=port)


if __name__ == "__main__":
    typer.run(main)
