"""The last step of a pipeline: what became of every document."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, NamedTuple, Self

from airflow.sdk import BaseOperator, XComArg
from airflow.sdk.exceptions import AirflowFailException

from overnight.errors import JobFailedError, SpecError, shorten
from overnight.hooks.outcome import QUEUED_KEY, failing_for_good
from overnight.hooks.storage import DEFAULT_AWS_CONN_ID, connected_storage
from overnight.links.page import PageLink
from overnight.operators.load import REPORT_KEY
from overnight.operators.parameters import check_parameters, require_mapping
from overnight.validation import parse_parameter

if TYPE_CHECKING:
    from airflow.sdk import Context

    from overnight.ingest import LoadReport, MirrorReport
    from overnight.storage import Storage
    from overnight.templates.job_costs import JobCosts
    from overnight.templates.report import Excluded, JobReport, PartReport


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
        documents of it are sent, and ``repeated`` how many others get their answers. Of a part that does not say (a
        shard), only its load knows.
    :param loads: The output of the mapped task that loads the parts.
    :param not_sent: The XCom with the ``{"count", "uri"}`` of the documents that were rejected before there were parts.
    :param without_result: The same for documents that the service gave no output for.
    :param mirror: The output of the step that deletes what the source no longer has.
    :param jobs: The output of the task whose job made the results: mapped over the parts, or one for all.
    :param reused: The XCom with the parts whose answers are in the cache; they are counted behind the others.
    :param reused_loads: The output of the mapped task that loads these.
    :param approval: The output of the :class:`~overnight.operators.approval.CostApprovalOperator`. It says why nothing
        was submitted, and where the run's record of a budget is, which gets what the jobs cost.
    :param estimate: The XCom ``estimate`` of the step that made the parts, to be shown beside what they cost.
    :param prices: What the jobs' answers cost, and would have cost that were reused: as
        :class:`~overnight.operators.openai.OpenAIBatchInputOperator` has it.
    :param index_name: The index or alias that is loaded into.
    :param target: The folder, as a URI, for ``report.json`` and ``report.html``.
    :param aws_conn_id: The connection for ``s3://`` URIs.
    """

    operator_extra_links = (PageLink(),)
    template_fields: Sequence[str] = ("target", "index_name", "prices", "aws_conn_id")

    def __init__(
        self,
        *,
        parts: XComArg,
        loads: XComArg,
        target: str,
        not_sent: XComArg | None = None,
        without_result: XComArg | None = None,
        jobs: XComArg | None = None,
        reused: XComArg | None = None,
        reused_loads: XComArg | None = None,
        approval: XComArg | None = None,
        estimate: XComArg | None = None,
        prices: Mapping[str, Any] | str | None = None,
        mirror: XComArg | None = None,
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
        self.reused = _Reference.of(reused) if reused is not None else None
        self.reused_loads = _Reference.of(reused_loads) if reused_loads is not None else None
        self.approval = _Reference.of(approval) if approval is not None else None
        self.estimate = _Reference.of(estimate) if estimate is not None else None
        self.prices = prices
        self.mirror = _Reference.of(mirror) if mirror is not None else None
        self.index_name = index_name
        self.target = target
        self.aws_conn_id = aws_conn_id

    def execute(self, context: Context) -> dict[str, Any]:
        """Gather the reports of the parts that have one, also of those that failed for what was in them."""
        with failing_for_good():
            return self._report(context)

    def _report(self, context: Context) -> dict[str, Any]:
        from overnight.costs.prices import PriceTable  # noqa: PLC0415 - not at parse
        from overnight.templates.job_costs import price_reused  # noqa: PLC0415 - not at parse
        from overnight.templates.report import PipelineReport  # noqa: PLC0415 - not at parse
        from overnight.templates.report_page import render  # noqa: PLC0415 - not at parse

        check_parameters(self)
        parts = self._pull_parts(context)
        storage = connected_storage(self.aws_conn_id)
        has_ended, mirrored = self._get_mirror(context)
        refused = self._get_refusal(context)
        cost = self._get_cost(context, parts, storage)
        report = PipelineReport.of(
            parts,
            index=self.index_name,
            not_sent=_get_excluded(context, self.not_sent),
            without_result=_get_excluded(context, self.without_result),
            job=self._get_job(context),
            saved=price_reused(parts, PriceTable.of(self.prices, storage)),
            mirror=mirrored,
            refused=refused,
            estimate=cost.estimate,
            cost=cost.total,
        )
        target = self.target.rstrip("/")
        title = f"{context['dag'].dag_id}, {context['run_id']}"
        for name, content in (("json", report.model_dump_json(indent=2)), ("html", render(report, title))):
            with storage.open(f"{target}/report.{name}", "wb") as file:
                file.write(content.encode())
        places = {"uri": f"{target}/report.json", "page": f"{target}/report.html"}
        summary = report.model_dump(mode="json", exclude={"parts", "jobs"}) | places
        context["ti"].xcom_push(key=REPORT_KEY, value=summary)
        for line in report.describe():
            self.log.info("%s", line)
        self.log.info("The report is %s, and for people %s.", places["uri"], places["page"])
        self._settle(context, cost, storage)
        if refused:
            raise AirflowFailException(f"Nothing was submitted. {refused}")
        if report.failed_parts:
            raise JobFailedError(
                f"{len(report.failed_parts)} of {len(report.parts)} parts were not loaded: "
                f"{', '.join(map(str, report.failed_parts[:20]))}. Clear their failed tasks; the rest is kept."
            )
        if not has_ended and self.mirror is not None:
            raise JobFailedError(
                f"{self.mirror.task_id} did not delete what the source no longer has. Its own error says why; clear it."
            )
        return summary

    def _pull_parts(self, context: Context) -> list[PartReport]:
        """Return what became of the parts that were sent, and of those that were reused."""
        from overnight.templates.report import PartReport  # noqa: PLC0415 - not at parse

        sent = _pull_list(context, self.parts)
        if sent is None:
            raise AirflowFailException(f"{self.parts.task_id} made no parts, so there is nothing to report.")
        reports = [
            _report_part(
                context,
                self.loads,
                number,
                PartReport(
                    submitted=part.get("requests", 0),
                    reused=part.get("repeated", 0),
                    job=self._get_job(context, number),
                ),
            )
            for number, part in enumerate(sent)
        ]
        if self.reused is None or self.reused_loads is None:
            return reports
        return reports + [
            _report_part(context, self.reused_loads, number, PartReport(submitted=0, reused=part.get("documents", 0)))
            for number, part in enumerate(_pull_list(context, self.reused) or ())
        ]

    def _get_refusal(self, context: Context) -> str:
        if self.approval is None:
            return ""
        from overnight.operators.approval import REFUSED_KEY  # noqa: PLC0415 - not at parse

        return str(self.approval._replace(key=REFUSED_KEY).pull(context) or "")

    def _get_cost(self, context: Context, parts: Sequence[PartReport], storage: Storage) -> JobCosts:
        """Price what the jobs used; nothing where no step said what they would cost."""
        from overnight.costs.estimate import CostEstimate  # noqa: PLC0415 - not at parse
        from overnight.costs.prices import PriceTable  # noqa: PLC0415 - not at parse
        from overnight.templates.job_costs import JobCosts  # noqa: PLC0415 - not at parse

        found = self.estimate.pull(context) if self.estimate is not None else None
        if found is None:
            return JobCosts()
        estimate = parse_parameter(CostEstimate, found, "the XCom of an estimate")
        return JobCosts.of([part for part in parts if part.submitted], estimate, PriceTable.of(self.prices, storage))

    def _settle(self, context: Context, cost: JobCosts, storage: Storage) -> None:
        """Replace what the run had reserved of a budget by what its jobs cost, once that is known of all of them."""
        from overnight.costs.spending import settle  # noqa: PLC0415 - not at parse

        found = self.approval.pull(context) if self.approval is not None else None
        uri = found.get("spending_uri") if isinstance(found, Mapping) else None
        if not uri:
            return
        if not cost.is_final:
            self.log.info("What the jobs cost is not known of all, so the budget counts the estimate. %s", uri)
            return
        settled = settle(str(uri), cost.jobs, storage)
        self.log.info("The budget counts %s for this run. %s", settled.describe(), uri)

    def _get_mirror(self, context: Context) -> tuple[bool, MirrorReport | None]:
        """Return whether the deletes came to their end, and what was found."""
        from overnight.ingest import MirrorReport  # noqa: PLC0415 - not at parse

        if self.mirror is None:
            return True, None
        for key, has_ended in (("return_value", True), (REPORT_KEY, False)):
            found = self.mirror._replace(key=key).pull(context)
            if isinstance(found, Mapping):
                is_off = "index" not in found
                return has_ended, None if is_off else parse_parameter(MirrorReport, found, "the XCom of the deletes")
        return False, None

    def _get_job(self, context: Context, number: int | None = None) -> JobReport | None:
        from overnight.templates.report import JobReport  # noqa: PLC0415 - not at parse

        if self.jobs is None:
            return None
        found = self.jobs.pull(context, number)
        queued = self.jobs._replace(key=QUEUED_KEY).pull(context, number)
        queued = queued if isinstance(queued, Mapping) else None
        if isinstance(found, Mapping) and "ref" in found:
            return JobReport.of(found, queued)
        return JobReport.of_queued(queued) if queued is not None and queued["state"] is not None else None


def _get_excluded(context: Context, reference: _Reference | None) -> Excluded | None:
    from overnight.templates.report import Excluded  # noqa: PLC0415 - not at parse

    found = reference.pull(context) if reference is not None else None
    return parse_parameter(Excluded, found, "the XCom of a step before") if found is not None else None


def _pull_list(context: Context, reference: _Reference) -> Sequence[Mapping[str, Any]] | None:
    parts = reference.pull(context)
    if parts is None or (isinstance(parts, Sequence) and all(isinstance(part, Mapping) for part in parts)):
        return parts
    raise SpecError(
        f"The XCom of {reference.task_id} is not a list of parts: {shorten(repr(parts), 200)}. Clear that "
        "task, or give the report the output of the task that made the parts."
    )


def _report_part(context: Context, loads: _Reference, number: int, part: PartReport) -> PartReport:
    """Return a part with what its load left."""
    if part.reused:
        from overnight.costs.usage_cost import AnswerUsage  # noqa: PLC0415 - not at parse
        from overnight.operators.openai import REUSED_KEY  # noqa: PLC0415 - not at parse

        used = loads._replace(key=REUSED_KEY).pull(context, number) or ()
        usage = tuple(parse_parameter(AnswerUsage, one, f"the XCom {REUSED_KEY} of a load") for one in used)
        part = part.model_copy(update={"reused_usage": usage})
    for key, accepted in (("return_value", True), (REPORT_KEY, False)):
        found = loads._replace(key=key).pull(context, number)
        if found is not None:
            load = _load_report(found, part.submitted + part.reused)
            return part.model_copy(update={"load": load, "accepted": accepted})
    return part


def _load_report(found: Mapping[str, Any], submitted: int) -> LoadReport:
    """Read what a load left: our own report, or the end of an ingestion in the cluster, which counts nothing."""
    from overnight.ingest import LoadReport  # noqa: PLC0415 - not at parse

    found = require_mapping(found, "the XCom of a load")
    if found.get("engine") == "server":
        # It fails as a whole for one bad line, so one that did not fail has indexed every line.
        return LoadReport(index="", submitted=submitted, indexed=submitted)
    return parse_parameter(LoadReport, found.get("report", found), "the XCom of a load")
