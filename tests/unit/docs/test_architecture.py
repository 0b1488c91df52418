"""The page about the architecture names files that exist, and leaves no package out."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[3]
PACKAGE = ROOT / "plugins" / "overnight"
PAGE = (ROOT / "docs" / "architecture.md").read_text()
NAMED = sorted(set(re.findall(r"`([a-z_]+(?:/[a-z_]+)*(?:\.py|/))`", PAGE)))
UNIT = ROOT / "tests" / "unit"
# Tests of what has no package of its own name.
OTHER_TESTS = {"docs", "soak"}


@pytest.mark.parametrize("path", NAMED)
def test_every_file_that_the_page_names_exists(path: str) -> None:
    assert (PACKAGE / path).exists()


def test_a_walk_names_files() -> None:
    walks = [part for part in PAGE.split("\n## ") if part.startswith(("A document", "A cancel", "A poll"))]
    assert len(walks) == 3
    for walk in walks:
        assert len(set(re.findall(r"`[a-z_/]+\.py`", walk))) >= 5


def test_every_part_of_the_package_is_named() -> None:
    parts = {f"{path.name}/" for path in PACKAGE.iterdir() if (path / "__init__.py").exists()}
    parts |= {path.name for path in PACKAGE.glob("*.py") if path.name != "__init__.py"}
    assert parts - set(NAMED) == set()


def test_the_folders_of_the_unit_tests_are_those_of_the_package() -> None:
    folders = {path.parent.relative_to(UNIT) for path in UNIT.rglob("test_*.py")}
    without = {folder for folder in folders if not (PACKAGE / folder).is_dir()}
    assert {folder.as_posix() for folder in without} == OTHER_TESTS
