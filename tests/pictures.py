"""The pictures of the docs, and what each of them shows: a digest beside it says whether it is out of date."""

from __future__ import annotations

import json
import runpy
from collections.abc import Iterator
from hashlib import sha256
from pathlib import Path

PROJECT = Path(__file__).parents[1]
PICTURES = PROJECT / "docs" / "pictures"
FORM = "form-"


def digest(name: str) -> str:
    """Return the digest of what a picture shows: the form of a DAG, or a page of *Overnight*."""
    shown = _form(name.removeprefix(FORM)) if name.startswith(FORM) else _page()
    return sha256(b"\0".join(shown)).hexdigest()


def read_digests(folder: Path) -> dict[str, str]:
    """Return what the pictures of a folder showed when they were taken."""
    file = folder / "shown.json"
    return json.loads(file.read_bytes()) if file.exists() else {}


def note_digest(folder: Path, name: str) -> None:
    """Note what a picture shows that was just taken."""
    noted = read_digests(folder) | {name: digest(name)}
    (folder / "shown.json").write_text(json.dumps(dict(sorted(noted.items())), indent=2) + "\n")


def _form(dag_id: str) -> Iterator[bytes]:
    dag = next(
        found
        for found in runpy.run_path(str(PROJECT / "dags" / f"{dag_id}.py")).values()
        if getattr(found, "dag_id", None) == dag_id
    )
    for name in dag.params:
        param = dag.params.get_param(name)
        yield json.dumps([name, param.value, param.description, param.schema], default=str).encode()


def _page() -> Iterator[bytes]:
    for path in sorted((PROJECT / "plugins" / "overnight" / "pages").rglob("*")):
        if path.suffix in (".py", ".html", ".css", ".js"):
            yield path.read_bytes()
