"""The link from a task to its job's page at the service."""

from __future__ import annotations

from typing import TYPE_CHECKING

from airflow.providers.common.compat.sdk import XCom
from airflow.sdk import BaseOperatorLink

if TYPE_CHECKING:
    from airflow.sdk import BaseOperator
    from airflow.sdk.types import TaskInstanceKey

CONSOLE_URL_KEY = "job_page"
"""The XCom that holds the address. A link is computed by a fresh operator instance, which knows nothing else."""


class JobLink(BaseOperatorLink):
    """Show the remote job where its service shows it."""

    name = "Remote job"

    def get_link(self, operator: BaseOperator, *, ti_key: TaskInstanceKey) -> str:
        """Return the job's page, or an empty string before there is a job or when the service has no page for it."""
        del operator
        return XCom.get_value(ti_key=ti_key, key=CONSOLE_URL_KEY) or ""
