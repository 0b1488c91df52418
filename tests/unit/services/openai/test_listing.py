"""How far the list of batches is read for the jobs that are waited for."""

from __future__ import annotations

from typing import Any

import pytest

from overnight.jobs.service import MAX_OTHER_PAGES, get_max_other_pages
from overnight.services.openai.service import OpenAIBatchService
from overnight.transport.http import HttpCall
from unit.services.answers import Service

SERVICE = OpenAIBatchService("conn")
PAGE = 100


class Account:
    """An account with batches of others that are newer than ours."""

    def __init__(self, others: int, ours: int) -> None:
        self.names = [*(f"other-{n}" for n in range(others)), *(f"ours-{n}" for n in range(ours))]
        self.calls = 0

    def __call__(self, call: HttpCall) -> Any:
        self.calls += 1
        after = (call.params or {}).get("after")
        start = self.names.index(str(after)) + 1 if after else 0
        page = self.names[start : start + PAGE]
        return {"object": "list", "data": [{"id": name, "status": "in_progress"} for name in page], "has_more": True}


@pytest.mark.parametrize(
    ("others", "ours", "found", "pages"),
    [(0, 300, 300, 3), (800, 400, 400, 12), (499, 1, 1, 5), (800, 1, 0, 5), (5_000, 400, 0, 20)],
)
def test_more_wanted_jobs_are_worth_more_pages_of_others(others: int, ours: int, found: int, pages: int) -> None:
    account = Account(others, ours)
    wanted = {f"ours-{n}" for n in range(ours)}
    statuses = Service(account).run(SERVICE.list_statuses(wanted))
    assert len(wanted & statuses.keys()) == found
    assert account.calls == pages


def test_a_page_is_read_for_twenty_jobs_at_least_beyond_the_first_few() -> None:
    assert [get_max_other_pages(missing) for missing in (0, 1, 100, 101, 2_000)] == [MAX_OTHER_PAGES] * 4 + [100]
