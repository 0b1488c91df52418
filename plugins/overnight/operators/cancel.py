"""The one cancel operator."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from airflow.sdk import BaseOperator

from overnight.hooks.job import hook_for
from overnight.hooks.outcome import build_outcome, failing_for_good
from overnight.links.job import CONSOLE_URL_KEY, JobLink
from overnight.operators.parameters import check_parameters

if TYPE_CHECKING:
    from airflow.sdk import Context


class CancelBatchJobOperator(BaseOperator):
    """
    Ask for the end of any remote job. A job that is over stays as it is, and the task succeeds.

    :param job: The job: the XCom of the task that submitted it (its ``output``), a
        :class:`~overnight.jobs.JobRef`, or ``{"service": …, "id": …, "conn_id": …}``; templated.
    :raises AirflowFailException: the service cannot cancel such a job, or does not know it.
    """

    template_fields: Sequence[str] = ("job",)
    operator_extra_links = (JobLink(),)

    def __init__(self, *, job: Any, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.job = job

    def execute(self, context: Context) -> dict[str, Any]:
        """Cancel the job and return what the service says of it then."""
        from overnight.jobs import JobRef  # noqa: PLC0415 - not at parse

        with failing_for_good():
            check_parameters(self)
            ref = JobRef.read(self.job)
            with hook_for(ref).client() as client:
                context["ti"].xcom_push(key=CONSOLE_URL_KEY, value=client.service.console_url(ref) or "")
                status = client.run(client.service.cancel(ref))
        self.log.info("%s is %s.", ref, status.describe())
        return build_outcome(ref, status)
