"""The pictures of the docs show what there is now."""

from __future__ import annotations

import pytest

from pictures import PICTURES, digest, read_digests

NAMES = sorted(path.stem for path in PICTURES.glob("*.png"))


def test_there_are_pictures_and_nothing_is_noted_of_others() -> None:
    assert NAMES
    assert sorted(read_digests(PICTURES)) == NAMES


@pytest.mark.parametrize("name", NAMES)
def test_a_picture_is_not_older_than_what_it_shows(name: str) -> None:
    remedy = "take the pictures again: make browser PICTURES=docs/pictures"
    assert read_digests(PICTURES).get(name) == digest(name), remedy


@pytest.mark.parametrize("name", NAMES)
def test_a_picture_is_on_a_page(name: str) -> None:
    pages = [*PICTURES.parent.glob("*.md"), PICTURES.parents[1] / "README.md"]
    assert any(f"pictures/{name}.png" in page.read_text() for page in pages)
