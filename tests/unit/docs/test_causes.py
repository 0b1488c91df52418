"""The tables of causes in the pages are those in the code."""

from __future__ import annotations

from collections import defaultdict
from pathlib import Path

import pytest

from overnight.jobs.cause import Cause
from overnight.services.llamacloud.causes import CALL_CAUSES, TEXT_CAUSES
from overnight.services.openai.causes import CAUSES

DOCS = Path(__file__).parents[3] / "docs"


def render(rows: list[tuple[str, Cause]], head: str) -> str:
    lines = [f"| {head} | in | retried | what to do |", "|---|---|---|---|"]
    lines += [f"| {what} | {row.cause} | {'yes' if row.retryable else 'no'} | {row.remedy} |" for what, row in rows]
    return "\n".join(lines)


def render_codes() -> str:
    codes: dict[Cause, list[str]] = defaultdict(list)
    for code, row in CAUSES.items():
        codes[row].append(f"`{code}`")
    return render([(", ".join(some), row) for row, some in codes.items()], "code or status")


def render_statuses() -> str:
    return render([(str(status), row) for status, row in CALL_CAUSES.items()], "status of a call")


def render_texts() -> str:
    patterns = [(row.pattern.pattern.replace("|", "\\|"), row.cause) for row in TEXT_CAUSES]
    return render([(f"`{pattern}`", row) for pattern, row in patterns], "found in a file's error")


@pytest.mark.parametrize(
    ("page", "table"),
    [("openai.md", render_codes()), ("llamacloud.md", render_statuses()), ("llamacloud.md", render_texts())],
    ids=["codes of OpenAI", "statuses of LlamaCloud", "texts of LlamaCloud"],
)
def test_a_page_has_the_table_of_the_code(page: str, table: str) -> None:
    assert f"\n{table}\n" in (DOCS / page).read_text()
