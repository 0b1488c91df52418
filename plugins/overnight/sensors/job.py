"""The one sensor: wait for any remote job, whoever submitted it."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from airflow.sdk import BaseSensorOperator, PokeReturnValue, conf
from airflow.sdk.exceptions import AirflowSensorTimeout

from overnight.hooks.job import hook_for
from overnight.hooks.outcome import build_outcome, failing_for_good
from overnight.links.job import CONSOLE_URL_KEY, JobLink

if TYPE_CHECKING:
    from airflow.sdk import Context

    from overnight.jobs import JobRef
    from overnight.jobs.client import JobClient
    from overnight.jobs.poller import Poller, PollOutcome
    from overnight.jobs.wait_settings import WaitSettings


class BatchJobSensor(BaseSensorOperator):
    """
    Wait for a job that another task submitted, and evaluate its end as its own operator would.

    A sensor never submits anything: once the job is over, its retries would find what the first try found, so it fails
    without them, and says to clear the task that submitted. The XCom is the operator's:
    ``{"ref": …, "status": …, "results": …}``.

    :param job: The job: the XCom of the task that submitted it (its ``output``), a
        :class:`~overnight.jobs.JobRef`, or ``{"service": …, "id": …, "conn_id": …}``; templated.
    :param deferrable: Wait in the triggerer and free the worker.
    :param poke_interval: Seconds between polls of the job.
    :param timeout: Seconds to wait at most, counted from the start of this try. The job runs on after it.
    :param allowed_failures: How many of the job's items may fail: a count, a ratio or a percentage.
    :param cancel_on_kill: Cancel the job when the waiting task is marked or cleared. Off: the job is another task's.
    """

    template_fields: Sequence[str] = ("job", "allowed_failures", "cancel_on_kill")
    operator_extra_links = (JobLink(),)

    def __init__(
        self,
        *,
        job: Any,
        deferrable: bool = conf.getboolean("operators", "default_deferrable", fallback=False),
        allowed_failures: float | str = 0,
        cancel_on_kill: bool | str = False,
        **kwargs: Any,
    ) -> None:
        super().__init__(**kwargs)
        self.job = job
        self.deferrable = deferrable
        self.allowed_failures = allowed_failures
        self.cancel_on_kill = cancel_on_kill
        self._poller: Poller | None = None

    def execute(self, context: Context) -> Any:
        """Wait in the triggerer, or poke."""
        from overnight.jobs import JobRef  # noqa: PLC0415 - not at parse
        from overnight.triggers.job import JobTrigger  # noqa: PLC0415 - not at parse

        with failing_for_good():
            ref = JobRef.read(self.job)
            settings = self.parse_settings()
            with hook_for(ref).client() as client:
                context["ti"].xcom_push(key=CONSOLE_URL_KEY, value=client.service.console_url(ref) or "")
            if self.deferrable:
                self.defer(
                    trigger=JobTrigger(
                        ref=ref.model_dump(mode="json"),
                        poll_interval=settings.poll_interval,
                        deadline=time.time() + self.timeout,
                        cancel_on_deadline=False,
                        cancel_on_kill=settings.cancel_on_kill,
                        context=ref.model_dump(mode="json"),
                    ),
                    method_name="execute_complete",
                )
            return super().execute(context)

    def parse_settings(self) -> WaitSettings:
        """
        Parse and check how this sensor waits; its templates are rendered.

        :raises SpecError: a parameter is out of its range, or no number or truth value.
        """
        from overnight.jobs.wait_settings import WaitSettings  # noqa: PLC0415 - not at parse

        return WaitSettings.parse(
            poll_interval=self.poke_interval,
            deferrable=self.deferrable,
            allowed_failures=self.allowed_failures,
            cancel_on_kill=self.cancel_on_kill,
        )

    def poke(self, context: Context) -> PokeReturnValue:
        """Poll once. A failing poll is tolerated as in the trigger."""
        from overnight.jobs import JobRef  # noqa: PLC0415 - not at parse
        from overnight.jobs.poller import Poller, Wait  # noqa: PLC0415 - not at parse
        from overnight.jobs.wait import poll_once  # noqa: PLC0415 - not at parse

        ref = JobRef.read(self.job)
        self._poller = self._poller or Poller(ref, poll_interval=self.poke_interval)
        with hook_for(ref).client() as client:
            step = client.run(poll_once(client.service, ref, self._poller, self.log))
            if isinstance(step, Wait):
                return PokeReturnValue(is_done=False)
            return PokeReturnValue(is_done=True, xcom_value=self._conclude(client, ref, step))

    def execute_complete(self, context: Context, event: Mapping[str, Any]) -> dict[str, Any]:
        """Go on after the trigger's event."""
        from overnight.jobs import JobRef  # noqa: PLC0415 - not at parse
        from overnight.triggers.job import get_context, parse_event  # noqa: PLC0415 - not at parse

        with failing_for_good():
            job = JobRef.model_validate(get_context(event))
            with hook_for(job).client() as client:
                return self._conclude(client, job, parse_event(event))

    def _conclude(self, client: JobClient[Any], ref: JobRef, outcome: PollOutcome) -> dict[str, Any]:
        from overnight.jobs.evaluate import evaluate_for_watcher  # noqa: PLC0415 - not at parse
        from overnight.jobs.poller import PollEnd  # noqa: PLC0415 - not at parse

        if outcome.end is PollEnd.DEADLINE:
            raise AirflowSensorTimeout(f"{outcome.message} It runs on.")
        evaluation = evaluate_for_watcher(ref, outcome, self.parse_settings().allowed_failures)
        if evaluation.error is not None:
            raise evaluation.error
        return build_outcome(ref, outcome.status, client.run(client.service.results(ref)))
