"""Which pages of a document a configuration asks for."""

from __future__ import annotations

from typing import Any

from overnight.sandbox.documents import Page


def chosen(pages: list[Page], ranges: dict[str, Any]) -> list[tuple[int, Page]]:
    """
    Return the numbered pages that a configuration's ``page_ranges`` ask for.

    :param ranges: ``target_pages`` (``"1,3-5"``, counted from 1) and ``max_pages``.
    """
    numbered = list(enumerate(pages, 1))
    target = ranges.get("target_pages")
    if target:
        spans = [part.strip().partition("-") for part in str(target).split(",")]
        wanted = {number for low, _, high in spans for number in range(int(low), int(high or low) + 1)}
        numbered = [pair for pair in numbered if pair[0] in wanted]
    return numbered[: ranges.get("max_pages")]
