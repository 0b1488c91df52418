"""What a run shows: bars on a terminal, lines elsewhere."""

from __future__ import annotations

import io

from rich.console import Console

from overnight.cli.run_progress import RunDisplay
from overnight.ingest.report.load_report import Progress
from overnight.jobs import JobCounts, JobState, JobStatus

RUNNING = JobStatus(state=JobState.RUNNING, raw="in_progress", counts=JobCounts(total=200, succeeded=50, failed=0))
LOADING = Progress(submitted=4, indexed=4, rejected=0, missing=0, bytes=10, stored_bytes=5, total_bytes=10)


def make_console(*, is_terminal: bool) -> Console:
    return Console(file=io.StringIO(), force_terminal=is_terminal, width=120, color_system=None)


def get_text(console: Console) -> str:
    assert isinstance(console.file, io.StringIO)
    return console.file.getvalue()


def test_without_a_terminal_each_change_is_a_line() -> None:
    console = make_console(is_terminal=False)
    with RunDisplay(console) as display:
        display.say("first [red]")
        for _ in range(3):
            display.show_status("part 0", RUNNING)
        display.show_status("part 1", RUNNING)
        display.show_load("part 0, load", LOADING)
        display.finish("part 0")
    assert get_text(console).splitlines() == [
        "first [red]",
        "part 0 is running (in_progress), 50/200 items.",
        "part 1 is running (in_progress), 50/200 items.",
        f"part 0, load: {LOADING}",
    ]


def test_on_a_terminal_each_part_has_a_bar_until_it_is_over() -> None:
    console = make_console(is_terminal=True)
    with RunDisplay(console) as display:
        display.show_status("part 0", JobStatus(state=JobState.QUEUED, raw="validating"))
        display.show_status("part 0", RUNNING)
        display.show_status("part 1", RUNNING)
        display.say("above the bars")
        display.finish("part 0")
        display.show_load("part 0, load", LOADING)
        display.finish("part 0, load")
        display.finish("nothing")
    text = get_text(console)
    assert "25%" in text
    assert "running, 200 items" in text
    assert "above the bars" in text
