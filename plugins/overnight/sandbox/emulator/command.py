"""What the emulators' commands have in common."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Annotated, Any, TypeVar

import orjson
import typer
from pydantic import BaseModel, ValidationError

DataDir = Annotated[Path, typer.Option(help="Where everything is kept; taken up again when it exists.")]
Host = Annotated[str, typer.Option(help="The address to listen on.")]
Port = Annotated[int, typer.Option(help="0: any free port, printed on standard output.")]
SettingsText = Annotated[str, typer.Option(help="A JSON object of settings, or the path of a file that holds one.")]
LogLevel = Annotated[str, typer.Option(help="Uvicorn's: critical, error, warning, info, debug.")]

Settings = TypeVar("Settings", bound=BaseModel)


def read_settings(kind: type[Settings], text: str, *, key_variable: str | None = None, **values: Any) -> Settings:
    """
    Return what ``--settings`` says.

    :param text: A JSON object, or a file's path.
    :param key_variable: The variable of the environment that holds the key, if there is one.
    :param values: Come before those of the text.
    :raises typer.BadParameter: It says nothing, or nothing that makes sense.
    """
    chosen = _object(text) | values
    if key_variable is not None and key_variable in os.environ:
        chosen["api_key"] = os.environ[key_variable]
    try:
        return kind.model_validate(chosen)
    except ValidationError as error:
        raise typer.BadParameter(str(error), param_hint="--settings") from error


def _object(settings: str) -> dict[str, Any]:
    text = settings if settings.lstrip().startswith("{") else None
    try:
        values = orjson.loads(text if text is not None else Path(settings).read_bytes())
    except (OSError, orjson.JSONDecodeError) as error:
        raise typer.BadParameter(f"no JSON object can be read there: {error}", param_hint="--settings") from error
    if not isinstance(values, dict):
        raise typer.BadParameter("it must be a JSON object", param_hint="--settings")
    return values
