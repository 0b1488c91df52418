"""Where the commands print their tables and texts."""

from __future__ import annotations

from typing import Final

from rich.console import Console

_WIDTH: Final = 80
"""Characters of a line where the output is no terminal."""


def make_console() -> Console:
    """Return the console of stdout, of the terminal's width where it is one."""
    out = Console(highlight=False)
    return out if out.is_terminal else Console(width=_WIDTH, highlight=False)
