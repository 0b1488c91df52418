from __future__ import annotations

from typing import Any

import pytest
from airflow.sdk import BaseOperator
from airflow.sdk.types import TaskInstanceKey

from overnight.links.page import PageLink

KEY = TaskInstanceKey(dag_id="nightly", run_id="manual__2026-01-05T00:00:00+00:00", task_id="embed", map_index=3)


@pytest.mark.parametrize(
    ("base_url", "root"), [("", ""), ("http://localhost:8080", ""), ("https://a.b/team/", "/team")]
)
def test_a_task_leads_to_its_run_on_the_page_below_airflows_own_path(
    base_url: str, root: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("AIRFLOW__API__BASE_URL", base_url)
    link: Any = PageLink().get_link(BaseOperator(task_id="embed"), ti_key=KEY)
    run = "manual__2026-01-05T00%3A00%3A00%2B00%3A00"
    assert link == f"{root}/plugin/overnight/overnight/run?dag_id=nightly&run_id={run}"
