"""What a check finds, and how its result is kept."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum
from typing import Final

from pydantic import BaseModel, ConfigDict

from overnight.errors import shorten

MAX_TEXT: Final = 600
"""Characters of a finding: it is one sentence, or two, in a table."""


class State(StrEnum):
    """How a check ended."""

    OK = "ok"
    WARNING = "warning"
    FAILURE = "failure"


@dataclass(frozen=True)
class Finding:
    """
    What a check found.

    :param text: What is there; where something is wrong, with the remedy.
    """

    state: State
    text: str


class CheckResult(BaseModel):
    """
    A check and what it found.

    :param seconds: That it took.
    """

    model_config = ConfigDict(frozen=True)

    name: str
    state: State
    text: str
    seconds: float


def ok(text: str) -> Finding:
    """Return that all is well."""
    return Finding(State.OK, shorten(text, MAX_TEXT))


def warn(text: str) -> Finding:
    """Return what may hurt somebody, with the remedy."""
    return Finding(State.WARNING, shorten(text, MAX_TEXT))


def fail(text: str) -> Finding:
    """Return what will make a DAG fail, with the remedy."""
    return Finding(State.FAILURE, shorten(text, MAX_TEXT))
