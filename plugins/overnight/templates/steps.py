"""What the pipelines have in common: the DAG around them, the index before the work, the report behind it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import timedelta
from typing import Any

from airflow.sdk import DAG, AssetAlias, BaseOperator, TriggerRule, XComArg

from overnight.hooks.assets import LOADED_INDICES
from overnight.operators.index import OpenSearchCreateIndexOperator, OpenSearchVerifyIndexOperator
from overnight.operators.mirror import OpenSearchMirrorOperator
from overnight.templates.params import TemplateConfig
from overnight.templates.report_operator import PipelineReportOperator

TAGS = ("overnight",)


def pipeline_dag(
    dag_id: str,
    config: TemplateConfig,
    *,
    doc_md: str | None,
    default_args: Mapping[str, Any] | None = None,
    tags: Sequence[str] = TAGS,
    **dag_arguments: Any,
) -> DAG:
    """
    Return an empty DAG with a template's trigger form.

    :param default_args: For every task; two retries unless it says otherwise.
    """
    return DAG(
        dag_id,
        params=config.params(),
        default_args={"retries": 2, "retry_delay": timedelta(minutes=1), **(default_args or {})},
        tags=list(tags),
        doc_md=doc_md,
        **dag_arguments,
    )


def create_index(settings: Any) -> BaseOperator:
    """Add the step that has the index ready before anything is paid for."""
    return OpenSearchCreateIndexOperator(
        task_id="create_index",
        index_name=settings["index_name"],
        body=settings["index_body"],
        dimension=settings["dimension"],
        vectors=settings["vectors"],
        create=settings["create_index"],
        sync=settings["sync"],
        conn_id=settings["opensearch_conn_id"],
    )


def mirror(
    settings: Any, documents: Any, *, index: XComArg, id_path: Any, files: XComArg | None = None
) -> OpenSearchMirrorOperator:
    """
    Add the step that deletes what the source no longer has, when the run asks for it; it goes behind all loads.

    :param documents: The whole source.
    :param index: The output of :func:`create_index`.
    :param id_path: JSONPath of a document's id.
    :param files: The output of the job that made the documents of files.
    """
    return OpenSearchMirrorOperator(
        task_id="mirror",
        index_name=settings["index_name"],
        documents=documents,
        id_path=id_path,
        sync=settings["sync"],
        max_deletes=settings["max_deletes"],
        sync_filter=settings["sync_filter"],
        baseline=index,
        deletes_uri=settings["deletes_uri"],
        files=files,
        allow_empty=settings["allow_empty"],
        conn_id=settings["opensearch_conn_id"],
        aws_conn_id=settings["aws_conn_id"],
        # A source that is empty has no loads, and max_deletes is for that day above all.
        trigger_rule=TriggerRule.NONE_FAILED,
    )


def report_and_verify(
    settings: Any, *, parts: XComArg, loads: XComArg, last: BaseOperator | None = None, **others: Any
) -> BaseOperator:
    """
    Add ``report → verify`` and return the first.

    :param last: What is done when the index was verified.
    :param others: Further arguments of :class:`PipelineReportOperator`, such as ``jobs`` and ``not_sent``.
    """
    report = PipelineReportOperator(
        task_id="report",
        parts=parts,
        loads=loads,
        target=settings["run_uri"],
        aws_conn_id=settings["aws_conn_id"],
        # It reports the parts that failed, too; then it fails, and the run with it.
        trigger_rule=TriggerRule.ALL_DONE,
        multiple_outputs=True,
        index_name=settings["index_name"],
        **others,
    )
    in_index: Any = XComArg(report, key="in_index")
    verify = OpenSearchVerifyIndexOperator(
        task_id="verify",
        index_name=settings["index_name"],
        at_least=in_index,
        conn_id=settings["opensearch_conn_id"],
        outlets=[AssetAlias(LOADED_INDICES)],
    )
    report >> verify
    if last is not None:
        verify >> last
    return report
