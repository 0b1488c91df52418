"""The pictures of the docs show what there is now."""

from __future__ import annotations

from pathlib import Path

import pytest

from pictures import FIRST_MINUTES, MAX_BYTES, PICTURES, digest, list_pictures, read_digests

FILES = list_pictures(PICTURES)
FRAMES = 4
"""At least: a form, running jobs, a report, hits."""


def test_there_are_pictures_and_nothing_is_noted_of_others() -> None:
    assert FILES
    assert sorted(read_digests(PICTURES)) == sorted(file.stem for file in FILES)


@pytest.mark.parametrize("file", FILES, ids=lambda file: file.name)
def test_a_picture_is_not_older_than_what_it_shows(file: Path) -> None:
    remedy = "take the pictures again: make browser PICTURES=docs/pictures"
    assert read_digests(PICTURES).get(file.stem) == digest(file.stem), remedy


@pytest.mark.parametrize("file", FILES, ids=lambda file: file.name)
def test_a_picture_is_on_a_page(file: Path) -> None:
    pages = [*PICTURES.parent.glob("*.md"), PICTURES.parents[1] / "README.md"]
    assert any(f"pictures/{file.name}" in page.read_text() for page in pages)


def test_the_readme_shows_the_first_minutes_as_one_small_animated_image() -> None:
    readme = (PICTURES.parents[1] / "README.md").read_text()
    assert f"docs/pictures/{FIRST_MINUTES}.webp" in readme
    content = (PICTURES / f"{FIRST_MINUTES}.webp").read_bytes()
    assert len(content) <= MAX_BYTES
    assert content.count(b"ANMF") >= FRAMES
