"""An Airflow DAG that is scheduled on the index that the project's DAG loads into."""

from __future__ import annotations

import os
from datetime import UTC, datetime

from airflow.sdk import DAG, task

from overnight.hooks.assets import build_index_asset

index = build_index_asset(os.environ["OPENSEARCH_URL"], "documents")

with DAG(
    "downstream",
    schedule=[index],
    start_date=datetime(2026, 1, 1, tzinfo=UTC),
    catchup=False,
    is_paused_upon_creation=False,
):

    @task
    def see(triggering_asset_events=None) -> int:
        return triggering_asset_events[index][0].extra["documents"]

    see()
