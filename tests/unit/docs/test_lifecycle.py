"""The page about a job's exits promises nothing that no test holds."""

from __future__ import annotations

import re
from pathlib import Path

TESTS = Path(__file__).parents[2]
PAGE = (TESTS.parent / "docs" / "lifecycle.md").read_text()
NAMED = re.compile(r"`([\w/]+\.py)`: `(test_\w+)`")
DEFINED = re.compile(r"^\s*(?:async )?def (test_\w+)\(", re.MULTILINE)


def defined_in(path: str) -> list[str]:
    return DEFINED.findall((TESTS / path).read_text())


def test_every_test_that_the_page_names_exists() -> None:
    named = NAMED.findall(PAGE)
    assert named
    assert [(path, test) for path, test in named if test not in defined_in(path)] == []


def test_the_page_names_every_test_of_an_exit() -> None:
    named = {test for path, test in NAMED.findall(PAGE) if path == "system/test_lifecycle.py"}
    assert named == set(defined_in("system/test_lifecycle.py"))


def test_every_row_is_held() -> None:
    exits, services = PAGE.split("## Where the services differ")
    held = {int(number) for number in re.findall(r"^(\d+)\. ", services, re.MULTILINE)}
    rows = [row.rstrip("| ").rpartition("|")[2] for row in exits.splitlines() if row.startswith("| ")][1:]
    shares = [row for row in services.splitlines() if row.startswith("| Held by")]
    said = re.findall(r"\((\d\d)\)", PAGE)
    numbers = [int(number) for row in [*rows, *shares, *said] for number in re.findall(r"\d+", row)]
    assert all(re.search(r"\d", row) for row in rows)
    assert set(numbers) == held
