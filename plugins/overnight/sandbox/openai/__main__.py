"""``python -m overnight.sandbox.openai``."""

from __future__ import annotations

import typer

from overnight.sandbox.emulator.command import DataDir, Host, LogLevel, Port, SettingsText, read_settings
from overnight.sandbox.emulator.server import serve
from overnight.sandbox.openai.app import create_app
from overnight.sandbox.openai.settings import Settings

KEY_VARIABLE = "OVERNIGHT_SANDBOX_OPENAI_KEY"


def main(
    data_dir: DataDir,
    host: Host = "127.0.0.1",
    port: Port = 0,
    settings: SettingsText = "{}",
    log_level: LogLevel = "warning",
) -> None:
    """
    Emulate OpenAI's files and batches.

    The key that requests must carry is read from OVERNIGHT_SANDBOX_OPENAI_KEY; without it, it is "sandbox".
    """
    chosen = read_settings(Settings, settings, key_variable=KEY_VARIABLE, data_dir=data_dir)
    serve(create_app(chosen), host=host, port=port, log_level=log_level)


if __name__ == "__main__":
    typer.run(main)
