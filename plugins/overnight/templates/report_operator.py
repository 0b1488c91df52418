"""The last step of a pipeline: what became of every document."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, NamedTuple, Self

from airflow.sdk import BaseOperator, XComArg
from airflow.sdk.exceptions import AirflowFailException

from overnight.errors import JobFailedError, SpecError, shorten
from overnight.hooks.outcome import QUEUED_KEY, failing_for_good
from overnight.hooks.storage import DEFAULT_AWS_CONN_ID, connected_storage
from overnight.ingest import LoadReport
from overnight.operators.load import REPORT_KEY
from overnight.operators.parameters import check_parameters, require_mapping
from overnight.templates.report import Excluded, JobReport, PartReport, PipelineReport
from overnight.templates.report_page import render
from overnight.validation import parse_parameter

if TYPE_CHECKING:
    from airflow.sdk import Context


class _Reference(NamedTuple):
    """An XCom by the task that pushes it."""

    task_id: str
    key: str

    @classmethod
    def of(cls, argument: XComArg) -> Self:
        ((operator, key),) = argument.iter_references()
        return cls(operator.task_id, key)

    def pull(self, context: Context, number: int | None = None) -> Any:
        """Return the value, of a mapped task that of its instance ``number``."""
        if number is None:
            return context["ti"].xcom_pull(task_ids=self.task_id, key=self.key)
        return context["ti"].xcom_pull(task_ids=self.task_id, map_indexes=number, key=self.key)


class PipelineReportOperator(BaseOperator):
    """
    Add up the load reports of a pipeline's parts, write them down, and fail when a part was not loaded.

    Give it the trigger rule ``all_done``: it reports the parts that failed, too. The report is the XCom, the
    log's last lines, ``report.json`` in the target folder, and for people ``report.html`` beside it.

    The XComs it is given are read when it runs, not rendered: those of a failed task may not be there.

    :param parts: The output of the step that made the parts: a list, where each part's ``requests`` is how many
        documents it has. Of a part that does not say (a shard), only its load knows.
    :param loads: The output of the mapped task that loads the parts.
    :param not_sent: The XCom with the ``{"count", "uri"}`` of the documents that were rejected before there were parts.
    :param without_result: The same for documents that the service gave no output for.
    :param jobs: The output of the task whose job made the results: mapped over the parts, or one for all.
    :param index_name: The index or alias that is loaded into.
    :param target: The folder, as a URI, for ``report.json`` and ``report.html``.
    :param aws_conn_id: The connection for ``s3://`` URIs.
    """

    template_fields: Sequence[str] = ("target", "index_name", "aws_conn_id")

    def __init__(
        self,
        *,
        parts: XComArg,
        loads: XComArg,
        target: str,
        not_sent: XComArg | None = None,
        without_result: XComArg | None = None,
        jobs: XComArg | None = None,
        index_name: str = "",
        aws_conn_id: str | None = DEFAULT_AWS_CONN_ID,
        **kwargs: Any,
    ) -> None:
        super().__init__(**kwargs)
        self.parts = _Reference.of(parts)
        self.loads = _Reference.of(loads)
        self.not_sent = _Reference.of(not_sent) if not_sent is not None else None
        self.without_result = _Reference.of(without_result) if without_result is not None else None
        self.jobs = _Reference.of(jobs) if jobs is not None else None
        self.index_name = index_name
        self.target = target
        self.aws_conn_id = aws_conn_id

    def execute(self, context: Context) -> dict[str, Any]:
        """Gather the reports of the parts that have one, also of those that failed for what was in them."""
        with failing_for_good():
            return self._report(context)

    def _report(self, context: Context) -> dict[str, Any]:
        check_parameters(self)
        parts = self.parts.pull(context)
        if parts is None:
            raise AirflowFailException(f"{self.parts.task_id} made no parts, so there is nothing to report.")
        if not isinstance(parts, Sequence) or not all(isinstance(part, Mapping) for part in parts):
            raise SpecError(
                f"The XCom of {self.parts.task_id} is not a list of parts: {shorten(repr(parts), 200)}. Clear that "
                "task, or give the report the output of the task that made the parts."
            )
        report = PipelineReport.of(
            [self._part_report(context, number, part.get("requests", 0)) for number, part in enumerate(parts)],
            index=self.index_name,
            not_sent=_get_excluded(context, self.not_sent),
            without_result=_get_excluded(context, self.without_result),
            job=self._get_job(context),
        )
        target = self.target.rstrip("/")
        title = f"{context['dag'].dag_id}, {context['run_id']}"
        storage = connected_storage(self.aws_conn_id)
        for name, content in (("json", report.model_dump_json(indent=2)), ("html", render(report, title))):
            with storage.open(f"{target}/report.{name}", "wb") as file:
                file.write(content.encode())
        places = {"uri": f"{target}/report.json", "page": f"{target}/report.html"}
        summary = report.model_dump(mode="json", exclude={"parts", "jobs"}) | places
        context["ti"].xcom_push(key=REPORT_KEY, value=summary)
        for line in report.describe():
            self.log.info("%s", line)
        self.log.info("The report is %s, and for people %s.", places["uri"], places["page"])
        if report.failed_parts:
            raise JobFailedError(
                f"{len(report.failed_parts)} of {len(report.parts)} parts were not loaded: "
                f"{', '.join(map(str, report.failed_parts[:20]))}. Clear their failed tasks; the rest is kept."
            )
        return summary

    def _part_report(self, context: Context, number: int, submitted: int) -> PartReport:
        job = self._get_job(context, number)
        for key, accepted in (("return_value", True), (REPORT_KEY, False)):
            found = self.loads._replace(key=key).pull(context, number)
            if found is not None:
                return PartReport(submitted=submitted, load=_load_report(found, submitted), accepted=accepted, job=job)
        return PartReport(submitted=submitted, job=job)

    def _get_job(self, context: Context, number: int | None = None) -> JobReport | None:
        if self.jobs is None:
            return None
        found = self.jobs.pull(context, number)
        queued = self.jobs._replace(key=QUEUED_KEY).pull(context, number)
        queued = queued if isinstance(queued, Mapping) else None
        if isinstance(found, Mapping) and "ref" in found:
            return JobReport.of(found, queued)
        return JobReport.of_queued(queued) if queued is not None and queued["state"] is not None else None


def _get_excluded(context: Context, reference: _Reference | None) -> Excluded | None:
    found = reference.pull(context) if reference is not None else None
    return parse_parameter(Excluded, found, "the XCom of a step before") if found is not None else None


def _load_report(found: Mapping[str, Any], submitted: int) -> LoadReport:
    """Read what a load left: our own report, or the end of an ingestion in the cluster, which counts nothing."""
    found = require_mapping(found, "the XCom of a load")
    if found.get("engine") == "server":
        # It fails as a whole for one bad line, so one that did not fail has indexed every line.
        return LoadReport(index="", submitted=submitted, indexed=submitted)
    return parse_parameter(LoadReport, found.get("report", found), "the XCom of a load")
