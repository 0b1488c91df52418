"""The commands and options that the pages show are there, and the page of the command line has them all."""

from __future__ import annotations

import re
import shlex
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import typer

from overnight.cli.app import app

ROOT = Path(__file__).parents[3]
PAGES = sorted([*ROOT.glob("*.md"), *(ROOT / "docs").glob("*.md")])
COMMAND: Any = typer.main.get_command(app)


def walk(command: Any, name: str) -> Iterator[tuple[str, Any]]:
    for word, inner in getattr(command, "commands", {}).items():
        yield from walk(inner, f"{name} {word}")
    if not hasattr(command, "commands"):
        yield name, command


LEAVES = dict(walk(COMMAND, "overnight"))


def test_every_command_is_on_the_page() -> None:
    page = (ROOT / "docs" / "command-line.md").read_text()
    # Those of the sandbox have a page of their own, and one line here.
    assert {name for name in LEAVES if f"`{name}`" not in page and " sandbox " not in name} == set()
    assert {name.rpartition(" ")[2] for name in LEAVES if " sandbox " in name} <= set(
        re.findall(r"`(?:.* )?(\w+)`", page)
    )


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_every_command_that_a_page_shows_is_there_with_its_options(page: Path) -> None:
    for line in re.findall(r"^\$ (?:\S*/)?overnight (.+)$", page.read_text(), re.MULTILINE):
        words = shlex.split(line.partition(" | ")[0])
        command = COMMAND
        while words and not words[0].startswith("-") and hasattr(command, "commands"):
            assert words[0] in command.commands, line
            command = command.commands[words.pop(0)]
        known = {option for parameter in command.params for option in (*parameter.opts, *parameter.secondary_opts)}
        used = {word.partition("=")[0] for word in words if re.match(r"--?[a-z]", word)}
        assert used <= known | {"--help"}, line
