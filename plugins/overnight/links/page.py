"""The link from a task to its run on the page *Overnight*: jobs, report, documents that were not indexed."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final
from urllib.parse import urlencode, urlsplit

from airflow.sdk import BaseOperatorLink, conf

if TYPE_CHECKING:
    from airflow.sdk import BaseOperator
    from airflow.sdk.types import TaskInstanceKey

PREFIX: Final = "/overnight"
"""Where the page is in Airflow's API server."""


class PageLink(BaseOperatorLink):
    """Show the task's run on the page *Overnight*, within Airflow's own navigation."""

    name = "Overnight"

    def get_link(self, operator: BaseOperator, *, ti_key: TaskInstanceKey) -> str:
        """Return the page's address; it is the same before, while and after the task runs."""
        del operator
        root = urlsplit(conf.get("api", "base_url", fallback="") or "").path.rstrip("/")
        query = urlencode({"dag_id": ti_key.dag_id, "run_id": ti_key.run_id})
        return f"{root}/plugin/overnight{PREFIX}/run?{query}"
