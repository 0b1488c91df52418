"""The field's terms: what docs/glossary.md has another word for is in no name and in no first docstring."""

from __future__ import annotations

import ast
import importlib
import re
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[3]
PACKAGE = ROOT / "plugins" / "overnight"
FILES = sorted(PACKAGE.rglob("*.py"))

WORDS = re.compile(
    r"\b(told|letters?|untold|keeper|saw|judges?|judged|blames?|lapses?|lapsed|colours?|manners|roads?|books|booked|borne|bears)\b",
    re.IGNORECASE,
)
NAMES = re.compile(
    r"(^|_)(told|letters?|lets_go|untold|keeper|saw|judge|echo|over_of|blame|lapse|reach|colour|manners|set_aside|left_out)(_|$)"
)
CLASSES = {"Over", "Blame", "Refused", "Refusal", "Problem", "DocumentError", "RejectedSample", "Step", "Yield"}
# ``dead_letter`` is the standard term, and the sandbox's own API of the vendors keeps their words.
ALLOWED = re.compile(r"dead[_ -]letters?", re.IGNORECASE)
# The names of stored arguments that version 1 of the trigger wrote, and that are still read.
STORED = {"triggers/job.py": {"echo"}}


def names(tree: ast.Module) -> Iterator[str]:
    for node in ast.walk(tree):
        match node:
            case ast.ClassDef(name=name) | ast.FunctionDef(name=name) | ast.AsyncFunctionDef(name=name):
                yield name
            case ast.arg(arg=name) | ast.Name(id=name, ctx=ast.Store()):
                yield name


@pytest.mark.parametrize("path", FILES, ids=lambda path: str(path.relative_to(PACKAGE)))
def test_a_module_speaks_the_fields_terms(path: Path) -> None:
    tree = ast.parse(path.read_text())
    wrong = {name for name in names(tree) if NAMES.search(ALLOWED.sub("", name.lower()))}
    wrong |= {name for name in names(tree) if name.strip("_") in CLASSES or re.fullmatch(r"_?[a-z_]+_of", name)}
    assert not wrong - STORED.get(str(path.relative_to(PACKAGE)), set())
    assert not WORDS.findall(ALLOWED.sub("", ast.get_docstring(tree) or ""))


def test_the_glossary_names_things_that_exist() -> None:
    rows = [
        line.split("|") for line in (ROOT / "docs" / "glossary.md").read_text().splitlines() if line.startswith("| ")
    ]
    terms = [row[1].strip() for row in rows[1:]]
    assert terms == sorted(terms)
    source = "\n".join(path.read_text() for path in FILES)
    for row in rows[1:]:
        for name in re.findall(r"`([\w.]+)`", row[3]):
            assert (name.startswith("overnight.") and importlib.import_module(name)) or name.split(".")[0] in source, (
                name
            )
