"""The pictures of the docs, and what each of them shows: a digest beside it says whether it is out of date."""

from __future__ import annotations

import io
import json
from collections.abc import Iterator, Sequence
from hashlib import sha256
from pathlib import Path

from shipped_dags import shipped_dags

PROJECT = Path(__file__).parents[1]
PICTURES = PROJECT / "docs" / "pictures"
FORM = "form-"
FIRST_MINUTES = "first-minutes"
"""The animated picture: a form, its jobs while they run, the run's report, a search."""
FIRST_FORM = "openai_batch_to_index"
MAX_BYTES = 600_000
"""Of an animated picture: a page that shows it has to load at once."""


def list_pictures(folder: Path) -> list[Path]:
    """Return the files of all pictures, single and animated."""
    return sorted([*folder.glob("*.png"), *folder.glob("*.webp")])


def digest(name: str) -> str:
    """Return the digest of what a picture shows: the form of a DAG, a page of *Overnight*, or one after the other."""
    if name == FIRST_MINUTES:
        shown = [*_form(FIRST_FORM), *_page()]
    elif name.startswith(FORM):
        shown = [*_form(name.removeprefix(FORM))]
    else:
        shown = [*_page()]
    return sha256(b"\0".join(shown)).hexdigest()


def read_digests(folder: Path) -> dict[str, str]:
    """Return what the pictures of a folder showed when they were taken."""
    file = folder / "shown.json"
    return json.loads(file.read_bytes()) if file.exists() else {}


def note_digest(folder: Path, name: str) -> None:
    """Note what a picture shows that was just taken."""
    noted = read_digests(folder) | {name: digest(name)}
    (folder / "shown.json").write_text(json.dumps(dict(sorted(noted.items())), indent=2) + "\n")


def animate(folder: Path, name: str, frames: Sequence[tuple[bytes, float]]) -> None:
    """
    Write screenshots as one animated WebP that goes on for ever, and note what it shows.

    :param frames: Each a PNG, all of one size, and the seconds for which it stays.
    :raises AssertionError: It is larger than :data:`MAX_BYTES`.
    """
    from PIL import Image

    first, *others = [Image.open(io.BytesIO(png)).convert("RGB") for png, _ in frames]
    file = folder / f"{name}.webp"
    durations = [int(seconds * 1_000) for _, seconds in frames]
    first.save(file, save_all=True, append_images=others, duration=durations, loop=0, quality=80, method=6)
    assert file.stat().st_size <= MAX_BYTES, f"{file} has {file.stat().st_size:,} bytes"
    note_digest(folder, name)


def _form(dag_id: str) -> Iterator[bytes]:
    params = shipped_dags()[dag_id].params
    for name in params:
        param = params.get_param(name)
        yield json.dumps([name, param.value, param.description, param.schema], default=str).encode()


def _page() -> Iterator[bytes]:
    for path in sorted((PROJECT / "plugins" / "overnight" / "pages").rglob("*")):
        if path.suffix in (".py", ".html", ".css", ".js"):
            yield path.read_bytes()
