from __future__ import annotations

from html.parser import HTMLParser

from overnight.ingest import LoadReport
from overnight.templates.report import Excluded, PartReport, PipelineReport
from overnight.templates.report_page import render


class Words(HTMLParser):
    """What a reader sees, and every tag that there is."""

    def __init__(self) -> None:
        super().__init__()
        self.words: list[str] = []
        self.tags: set[str] = set()

    def handle_starttag(self, tag, attrs):
        self.tags.add(tag)

    def handle_data(self, data):
        self.words += data.split()


def read(page: str) -> Words:
    words = Words()
    words.feed(page)
    return words


def test_the_page_has_the_counts_the_reasons_and_the_parts():
    load = LoadReport(
        index="i",
        submitted=2_846,
        indexed=1_497,
        unchanged=1_346,
        rejected=3,
        reasons={"not_json": 3},
        dead_letter_uri="s3://b/dead",
    )
    report = PipelineReport.of(
        [PartReport(submitted=2_846, load=load, accepted=True), PartReport(submitted=20)],
        not_sent=Excluded(count=7, uri="s3://b/aside"),
    )
    words = read(render(report, "dag d, run r")).words
    for shown in (
        "2,873",
        "1,497",
        "1,346",
        "unchanged",
        "not_json",
        "not_sent",
        "s3://b/dead",
        "s3://b/aside",
        "never",
    ):
        assert shown in words


def test_what_a_service_says_is_shown_and_not_obeyed():
    load = LoadReport(index="i", submitted=1, rejected=1, reasons={"<script>alert(1)</script>": 1})
    page = render(PipelineReport.of([PartReport(submitted=1, load=load)]), "<b>t</b>")
    assert "script" not in read(page).tags
    assert "b" not in read(page).tags
