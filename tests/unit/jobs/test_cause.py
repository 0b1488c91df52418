"""A table of causes: which row answers for what a service said."""

from __future__ import annotations

import pytest

from overnight.jobs import FailureCause
from overnight.jobs.cause import Cause, find_cause, find_text_cause, text_cause

ROW = Cause(FailureCause.LIMITS, False, "Wait.")
OTHER = Cause(FailureCause.INPUT, False, "Mend it.")
TABLE = {"quota": ROW, "bad": OTHER}


@pytest.mark.parametrize(
    ("words", "row"),
    [(["QUOTA"], ROW), ([None, "", "new", "Bad", "quota"], OTHER), (["new", None], None), ([], None)],
)
def test_the_first_word_that_the_table_has_decides_whatever_its_case(words: list[str | None], row: Cause) -> None:
    assert find_cause(TABLE, words) == row


@pytest.mark.parametrize("cause", list(FailureCause))
def test_a_text_has_the_cause_of_the_first_row_that_is_found_in_it(cause: FailureCause) -> None:
    table = (text_cause(r"too \w+ pages", cause, "Split it."), text_cause("pages", FailureCause.INPUT, "Mend it."))
    found = find_text_cause(table, "Sorry: TOO many Pages.")
    assert found == Cause(cause, cause is FailureCause.SERVICE, "Split it.")
    assert find_text_cause(table, "Where are the PAGES?") == Cause(FailureCause.INPUT, False, "Mend it.")
    assert find_text_cause(table, "Something new.") is None
