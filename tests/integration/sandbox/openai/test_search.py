"""The lexical embeddings, over the docstrings of Python's own standard library: do they find what was asked for?"""

from __future__ import annotations

import ast
import sysconfig
from collections.abc import Iterator
from pathlib import Path

import pytest

from overnight.sandbox.vectors import embed, similarity

QUESTIONS = {
    "recursively delete a directory tree": "shutil.rmtree",
    "find the longest matching block between two sequences": "difflib.SequenceMatcher.find_longest_match",
    "remove leading whitespace from every line": "textwrap.dedent",
    "shuffle a list randomly": "random.Random.shuffle",
    "run a subprocess and capture its output": "subprocess.run",
    "compress data with gzip": "gzip.compress",
}


@pytest.fixture(scope="module")
def docstrings() -> dict[str, str]:
    found = dict(documents())
    assert len(found) > 5_000
    return found


def documents() -> Iterator[tuple[str, str]]:
    root = Path(sysconfig.get_paths()["stdlib"])
    for path in sorted(root.rglob("*.py")):
        parts = path.relative_to(root).with_suffix("").parts
        if {"site-packages", "test", "tests", "idle_test", "lib2to3"} & set(parts):
            continue
        try:
            tree = ast.parse(path.read_bytes())
        except SyntaxError:
            continue
        yield from described(tree, ".".join(part for part in parts if part != "__init__"))


def described(node: ast.AST, name: str) -> Iterator[tuple[str, str]]:
    for child in ast.iter_child_nodes(node):
        if isinstance(child, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef):
            qualified = f"{name}.{child.name}"
            signature = "" if isinstance(child, ast.ClassDef) else f"({ast.unparse(child.args)})"
            text = ast.get_docstring(child)
            if text:
                yield qualified, f"{name} {child.name}{signature}\n{text}"
            yield from described(child, qualified)


@pytest.mark.parametrize("dimensions", [256, 384])
def test_a_plain_question_finds_the_function_among_all_docstrings(docstrings, dimensions):
    vectors = {name: embed(text, dimensions) for name, text in docstrings.items()}
    for question, wanted in QUESTIONS.items():
        asked = embed(question, dimensions)
        best = sorted(vectors, key=lambda name: similarity(asked, vectors[name]), reverse=True)[:5]
        assert wanted in best, f"{question}: {best}"
