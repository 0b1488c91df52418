"""``python -m overnight.sandbox.azure``."""

from __future__ import annotations

import typer

from overnight.sandbox.azure.app import create_app
from overnight.sandbox.azure.settings import Settings
from overnight.sandbox.emulator.command import DataDir, Host, LogLevel, Port, SettingsText, read_settings
from overnight.sandbox.emulator.server import serve


def main(
    data_dir: DataDir,
    host: Host = "127.0.0.1",
    port: Port = 0,
    settings: SettingsText = "{}",
    log_level: LogLevel = "warning",
) -> None:
    """
    Emulate Azure OpenAI's ingestion jobs, and the search service that they fill.

    The keys are "sandbox" unless the settings say otherwise.
    """
    chosen = read_settings(Settings, settings, data_dir=data_dir)
    serve(create_app(chosen), host=host, port=port, log_level=log_level)


if __name__ == "__main__":
    typer.run(main)
