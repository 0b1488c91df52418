"""The last step of a pipeline: what became of every document."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from airflow.sdk import BaseOperator

from overnight.hooks.outcome import failing_for_good
from overnight.hooks.storage import DEFAULT_AWS_CONN_ID, connected_storage
from overnight.ingest import LoadReport
from overnight.ingest.parts import PartReport, PipelineReport
from overnight.jobs.errors import JobFailedError
from overnight.operators.load import REPORT_KEY

if TYPE_CHECKING:
    from airflow.sdk import Context


class PipelineReportOperator(BaseOperator):
    """
    Add up the load reports of a pipeline's parts, write them down, and fail when a part did not land.

    Give it the trigger rule ``all_done``: it has to speak of the parts that failed, too. The report is the XCom, the
    log's last line, and ``report.json`` in the target folder.

    :param parts: The XCom of the step that made the parts: each one's ``requests`` is how many documents it has.
    :param load_task_id: The id of the mapped task that loads the parts.
    :param set_aside: ``{"count", "uri"}`` of the documents that no part has.
    :param target: The folder, as a URI, for ``report.json``.
    :param aws_conn_id: The connection for ``s3://`` URIs.
    """

    template_fields: Sequence[str] = ("parts", "load_task_id", "set_aside", "target", "aws_conn_id")

    def __init__(
        self,
        *,
        parts: Sequence[Mapping[str, Any]],
        load_task_id: str,
        target: str,
        set_aside: Mapping[str, Any] | None = None,
        aws_conn_id: str | None = DEFAULT_AWS_CONN_ID,
        **kwargs: Any,
    ) -> None:
        super().__init__(**kwargs)
        self.parts = parts
        self.load_task_id = load_task_id
        self.set_aside = set_aside
        self.target = target
        self.aws_conn_id = aws_conn_id

    def execute(self, context: Context) -> dict[str, Any]:
        """Gather the reports of the parts that have one, also of those that failed for what was in them."""
        aside = self.set_aside or {}
        report = PipelineReport.of(
            [self._part_report(context, number, part["requests"]) for number, part in enumerate(self.parts)],
            set_aside=aside.get("count", 0),
            set_aside_uri=aside.get("uri"),
        )
        uri = f"{self.target.rstrip('/')}/report.json"
        with connected_storage(self.aws_conn_id).open(uri, "wb") as file:
            file.write(report.model_dump_json(indent=2).encode())
        summary = report.model_dump(mode="json", exclude={"parts"}) | {"uri": uri}
        context["ti"].xcom_push(key=REPORT_KEY, value=summary)
        self.log.info("Pipeline report: %s", summary)
        with failing_for_good():
            if report.failed_parts:
                raise JobFailedError(
                    f"{len(report.failed_parts)} of {len(report.parts)} parts did not land: "
                    f"{', '.join(map(str, report.failed_parts[:20]))}. Clear their failed tasks; the rest is kept."
                )
        return summary

    def _part_report(self, context: Context, number: int, submitted: int) -> PartReport:
        for key, accepted in (("return_value", True), (REPORT_KEY, False)):
            found = context["ti"].xcom_pull(task_ids=self.load_task_id, map_indexes=number, key=key)
            if found is not None:
                return PartReport(submitted=submitted, load=LoadReport.model_validate(found), accepted=accepted)
        return PartReport(submitted=submitted)
