"""A corpus of real text that every machine with Python has: the docstrings of its standard library."""

from __future__ import annotations

import ast
import sysconfig
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import TypeAlias

Documented: TypeAlias = ast.Module | ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef

_EXCLUDED = frozenset({"site-packages", "test", "tests", "lib2to3", "idlelib", "turtledemo"})


def documents(root: Path | None = None) -> Iterator[dict[str, str]]:
    """
    Yield one document for each docstring, in a fixed order, with ids that are unique.

    The sources are parsed, not imported: importing all of the standard library opens windows and browsers.

    :param root: The folder with the ``.py`` files; the running interpreter's standard library when left out.
    :return: ``id`` (``shutil.rmtree``), ``kind``, ``module``, ``name``, ``signature`` and ``text``, which is what is
        worth searching: name, signature and docstring together.
    """
    root = root or Path(sysconfig.get_path("stdlib"))
    seen: Counter[str] = Counter()
    for path in sorted(root.rglob("*.py")):
        relative = path.relative_to(root)
        if _EXCLUDED.isdisjoint(relative.parts):
            module = ".".join(relative.with_suffix("").parts).removesuffix(".__init__")
            for document in _of_module(path, module):
                # The same name is defined twice where a platform or a setter makes a difference.
                seen[document["id"]] += 1
                times = seen[document["id"]]
                yield document if times == 1 else {**document, "id": f"{document['id']}#{times}"}


def _of_module(path: Path, module: str) -> Iterator[dict[str, str]]:
    try:
        tree = ast.parse(path.read_bytes())
    except SyntaxError:
        return
    yield from _walk(tree, module, "")


def _walk(node: Documented, module: str, name: str) -> Iterator[dict[str, str]]:
    docstring = ast.get_docstring(node)
    if docstring:
        qualified = f"{module}.{name}" if name else module
        signature = _signature(node)
        yield {
            "id": qualified,
            "kind": type(node).__name__.removesuffix("Def").removeprefix("Async").lower(),
            "module": module,
            "name": name,
            "signature": signature,
            "text": f"{qualified}{signature}\n{docstring}",
        }
    for child in _inside(node):
        yield from _walk(child, module, f"{name}.{child.name}" if name else child.name)


def _inside(node: ast.AST) -> Iterator[ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef]:
    """Yield the definitions in a body, also below its ``if`` and ``try``."""
    for child in ast.iter_child_nodes(node):
        if isinstance(child, ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef):
            yield child
        else:
            yield from _inside(child)


def _signature(node: Documented) -> str:
    if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
        return f"({ast.unparse(node.args)})"
    return ""


def files(limit: int = 120) -> dict[str, Path]:
    """
    Return real files of an installation, by a name that is unique: licenses, and Markdown and HTML pages of packages.

    :param limit: How many at most.
    """
    root = Path(sysconfig.get_path("purelib"))
    found: dict[str, Path] = {}
    for pattern in ("*.dist-info/licenses/**/*", "*.dist-info/LICENSE*", "**/*.html", "**/*.md"):
        for path in sorted(root.glob(pattern)):
            suffix = path.suffix if path.suffix in (".html", ".md") else ".txt"
            name = "-".join(path.relative_to(root).with_suffix("").parts)
            if path.is_file() and 500 <= path.stat().st_size <= 200_000:
                found.setdefault(f"{name}{suffix}", path)
    # Some of each kind.
    chosen = sorted(found, key=lambda name: (found[name].suffix, name))
    return {name: found[name] for name in sorted(chosen[:: max(1, len(chosen) // limit)][:limit])}
