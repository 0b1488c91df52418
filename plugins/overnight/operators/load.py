"""The load as a DAG step: the request of ``_batch_ingestion``, carried out on the worker."""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping, Sequence
from contextlib import closing
from typing import TYPE_CHECKING, Any

from airflow.sdk import BaseOperator

from overnight.errors import JobFailedError, SpecError
from overnight.hooks.metrics import count_load
from overnight.hooks.opensearch import OpenSearchHook
from overnight.hooks.outcome import failing_for_good
from overnight.hooks.storage import DEFAULT_AWS_CONN_ID, connected_storage
from overnight.operators.lineage import LoadLineage
from overnight.operators.parameters import check_parameters, require_mapping, require_truth

if TYPE_CHECKING:
    from airflow.sdk import Context

    from overnight.ingest import IngestRequest, LoadOptions, LoadReport
    from overnight.ingest.read.stored_answers import StoredAnswers

log = logging.getLogger(__name__)

REPORT_KEY = "report"
"""The XCom of a report that is there even when its task fails."""


class OpenSearchLoadOperator(LoadLineage, BaseOperator):
    """
    Load JSON Lines into an OpenSearch index, on every OpenSearch there is.

    The XCom is the :class:`~overnight.ingest.LoadReport`, and the log's last lines are: submitted = indexed +
    unchanged + dropped + rejected + missing. A retry goes on at the checkpoint, and stable ids make a second run
    harmless.

    :param request: The body of ``POST _plugins/_ml/_batch_ingestion``: ``index_name``, ``field_map``,
        ``ingest_fields``, ``data_source``; without ``credential``, which comes from the connections. An item of
        ``data_source.source`` is a URI, a list of URIs that are one source together, or the XCom of a job's task, which
        stands for the job's output and error files, or answers that are in a cache
        (:class:`~overnight.ingest.read.stored_answers.ReusedSource`).
    :param conn_id: The OpenSearch connection.
    :param aws_conn_id: The connection for ``s3://`` URIs.
    :param openai_conn_id: The connection for ``openai://`` URIs; when left out, the one of the job among the sources.
    :param allowed_failures: How many documents may be rejected or missing: a count (``10``), a ratio (``0.05``) or a
        percentage (``"5%"``); both together.
    :param dead_letter_uri: A JSONL file for every rejected and missing document, with the reason.
    :param checkpoint_uri: Where the progress is kept between tries.
    :param skip_unchanged: Write only documents that the index does not have already, as they are; each that is written
        gets the field ``overnight_digest``.
    :param options: Further fields of :class:`~overnight.ingest.LoadOptions`.
    """

    template_fields: Sequence[str] = (
        "request",
        "conn_id",
        "aws_conn_id",
        "openai_conn_id",
        "allowed_failures",
        "dead_letter_uri",
        "checkpoint_uri",
        "skip_unchanged",
        "options",
    )

    def __init__(
        self,
        *,
        request: Mapping[str, Any],
        conn_id: str = OpenSearchHook.default_conn_name,
        aws_conn_id: str | None = DEFAULT_AWS_CONN_ID,
        openai_conn_id: str | None = None,
        allowed_failures: float | str = 0,
        dead_letter_uri: str | None = None,
        checkpoint_uri: str | None = None,
        skip_unchanged: bool | str = False,
        options: Mapping[str, Any] | None = None,
        **kwargs: Any,
    ) -> None:
        super().__init__(**kwargs)
        self.request = request
        self.conn_id = conn_id
        self.aws_conn_id = aws_conn_id
        self.openai_conn_id = openai_conn_id
        self.allowed_failures = allowed_failures
        self.dead_letter_uri = dead_letter_uri
        self.checkpoint_uri = checkpoint_uri
        self.skip_unchanged = skip_unchanged
        self.options = options

    def execute(self, context: Context) -> dict[str, Any]:
        """Load, and fail for good when more was rejected or is missing than was allowed."""
        from overnight.operators.openai import REUSED_KEY  # noqa: PLC0415 - not at parse
        from overnight.operators.sources import find_conn_id, open_stored_answers  # noqa: PLC0415 - not at parse

        with failing_for_good():
            check_parameters(self)
            own = {
                "dead_letter_uri": self.dead_letter_uri,
                "checkpoint_uri": self.checkpoint_uri,
                "skip_unchanged": require_truth(self.skip_unchanged, "skip_unchanged"),
            }
            request = parse_request(self.request)
            items = get_items(self.request)
            openai_conn_id = self.openai_conn_id or find_conn_id(items)
            answers = open_stored_answers(items, connected_storage(self.aws_conn_id), openai_conn_id)
            try:
                return load_and_evaluate(
                    context,
                    request,
                    parse_options(
                        with_formats(self.options, self.request), allowed_failures=self.allowed_failures, **own
                    ),
                    conn_id=self.conn_id,
                    aws_conn_id=self.aws_conn_id,
                    openai_conn_id=openai_conn_id,
                    answers=answers,
                    on_report=self.note_load,
                )
            finally:
                # Also of a load that rejected too much: nothing of it was paid for.
                if answers.usage:
                    usage = [one.model_dump(mode="json") for one in answers.usage]
                    context["ti"].xcom_push(key=REUSED_KEY, value=usage)


def load_and_evaluate(
    context: Context,
    request: IngestRequest,
    options: LoadOptions,
    *,
    conn_id: str | None,
    aws_conn_id: str | None,
    openai_conn_id: str | None,
    on_report: Callable[[str, LoadReport], None],
    answers: StoredAnswers | None = None,
) -> dict[str, Any]:
    """
    Carry out a request through Airflow's connections, and return the report.

    :param on_report: Gets the cluster's URL and the report, also of a load that fails after it.
    :param answers: Reads the sources that are in no file.
    :raises JobFailedError: more failed than ``options.allowed_failures``; the report is the XCom :data:`REPORT_KEY`.
    :raises VerificationError: the index does not hold what it has acknowledged; the report is that XCom, too.
    :raises DeletesRefusedError: the sources lack more documents of the index than may be deleted; so is it there.
    """
    from overnight.ingest import DeletesRefusedError, LoadReport, VerificationError, load  # noqa: PLC0415 - not at parse
    from overnight.operators.sources import openai_opener  # noqa: PLC0415 - not at parse

    with closing(OpenSearchHook(conn_id).target()) as target:
        try:
            report = load(
                request,
                target=target,
                storage=connected_storage(aws_conn_id),
                openers={"openai": openai_opener(openai_conn_id), **(answers.openers if answers is not None else {})},
                looks=answers.looks if answers is not None else {},
                options=options,
                on_progress=lambda progress: log.info("%s", progress),
            )
        except (VerificationError, DeletesRefusedError) as error:
            if error.report is not None:
                report = LoadReport.model_validate(error.report)
                on_report(target.url, report)
                _log_report(report)
                context["ti"].xcom_push(key=REPORT_KEY, value=error.report)
            raise
    on_report(target.url, report)
    _log_report(report)
    found = report.model_dump(mode="json")
    excess = report.excess(options.allowed_failures)
    if excess is not None:
        # The return value of a task that fails is lost; its report must not be.
        context["ti"].xcom_push(key=REPORT_KEY, value=found)
        raise JobFailedError(excess)
    return found


def _log_report(report: LoadReport) -> None:
    count_load(report)
    for line in report.describe():
        log.info("%s", line)


def parse_options(given: Mapping[str, Any] | None, **own: Any) -> LoadOptions:
    """
    Read an operator's ``options`` beside those that are parameters of the operator itself.

    :raises SpecError: they do not fit, or one is given twice.
    """
    from overnight.ingest import LoadOptions  # noqa: PLC0415 - not at parse

    given = require_mapping(given or {}, "options")
    twice = sorted(own.keys() & given.keys())
    if twice:
        raise SpecError(f"{', '.join(twice)}: give it as the operator's own parameter, not in options.")
    return LoadOptions.of({**own, **given})


def with_formats(options: Mapping[str, Any] | None, request: Mapping[str, Any]) -> dict[str, Any]:
    """
    Return an operator's ``options`` with what the XComs of the jobs among the request's sources say of their files.

    That is the service that wrote them, before which a ``format`` that the user gives goes, and how many results it
    counts in those that are at OpenAI.
    """
    from overnight.operators.sources import count_items, find_service  # noqa: PLC0415 - not at parse

    given = require_mapping(options or {}, "options")
    items = get_items(request)
    formats = [find_service(item) for item in items]
    counts = [count_items(item) for item in items] if "format" not in given else []
    return {
        **({"format": formats} if any(formats) else {}),
        **({"result_counts": counts} if any(counts) else {}),
        **given,
    }


def get_items(request: Mapping[str, Any]) -> Sequence[Any]:
    """Return the sources of a request in DAG code."""
    source = require_mapping(request, "request").get("data_source", {})
    items: Sequence[Any] = require_mapping(source, "data_source").get("source", ())
    return items


def parse_request(given: Mapping[str, Any]) -> IngestRequest:
    """
    Read a request from DAG code.

    :raises SpecError: it does not fit, or holds credentials.
    """
    from overnight.ingest import IngestRequest  # noqa: PLC0415 - not at parse
    from overnight.operators.sources import to_uris  # noqa: PLC0415 - not at parse

    given = require_mapping(given, "request")
    if given.get("credential"):
        raise SpecError(
            "The request holds a credential. DAG code, rendered templates and XComs are no place for one: remove it, "
            "and put it into the Airflow connections that conn_id, aws_conn_id and openai_conn_id name."
        )
    source = require_mapping(given.get("data_source", {}), "data_source")
    sources = source.get("source", ())
    if isinstance(sources, Sequence) and not isinstance(sources, str):
        sources = [to_uris(item) for item in sources]
    return IngestRequest.of({**given, "data_source": {**source, "source": sources}})
