"""What the demo asks a model to find in a docstring."""

from __future__ import annotations

from typing import Literal

from pydantic import BaseModel, Field


class Name(BaseModel):
    """One name that a docstring speaks of."""

    name: str
    role: Literal["parameter", "exception", "class", "function", "module"]


class Docstring(BaseModel):
    """What a docstring says."""

    topic: Literal[
        "archive",
        "calendar",
        "class",
        "directory",
        "file",
        "iterator",
        "mapping",
        "number",
        "process",
        "random",
        "sequence",
        "socket",
        "statistics",
        "string",
        "text",
        "thread",
        "time",
    ] = Field(description="What the docstring is about, above all.")
    summary: str = Field(description="One sentence.")
    keywords: list[str] = Field(description="At most five.")
    names: list[Name]
    returns: str | None = Field(description="What it returns, where it says so.")
