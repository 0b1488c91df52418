from __future__ import annotations

from overnight.sandbox.documents import Page
from overnight.sandbox.llamacloud.page_ranges import chosen


def test_ranges_choose_among_the_pages() -> None:
    pages = [Page(text=text) for text in ("one", "two", "three", "four")]

    def numbers(**ranges: object) -> list[int]:
        return [number for number, _ in chosen(pages, ranges)]

    assert numbers(target_pages="1, 3-9") == [1, 3, 4]
    assert numbers(max_pages=2) == [1, 2]
    assert numbers(target_pages="2-4", max_pages=1) == [2]
    assert numbers() == [1, 2, 3, 4]
