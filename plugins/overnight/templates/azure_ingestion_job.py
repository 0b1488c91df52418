"""A blob container → an Azure OpenAI ingestion job → an Azure AI Search index, as a DAG."""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from typing import Annotated, Any, Final

from airflow.sdk import DAG, get_current_context, task
from pydantic import Field

from overnight.operators.azure_ingestion import AzureIngestionJobOperator
from overnight.services.azure_ingestion.choices import CompletionAction
from overnight.templates.params import AllowedFailures, JobConfig, counted_by
from overnight.templates.steps import TAGS, pipeline_dag

log = logging.getLogger(__name__)

_BUDGET_CHECK: Final = counted_by("overnight.services.azure_ingestion.service:AzureIngestionService")


class AzureIngestionJobConfig(JobConfig):
    """The config of :func:`azure_ingestion_job`. Every field is a Param of the DAG; none is a credential."""

    storage_container: str | None = Field(
        default=None, title="Container", description="Of the documents; the connection's own when empty."
    )
    chunk_size: int | None = Field(
        default=None,
        ge=1,
        title="Chunk size",
        description="Tokens of a chunk at most; the service's own 1,024 when empty.",
    )
    completion_action: CompletionAction = Field(
        default="cleanUpAssets", title="At the end", description="What becomes of the intermediate assets."
    )
    data_refresh_interval_minutes: int = Field(
        default=0,
        ge=0,
        title="Refresh interval",
        description="Minutes. 0 ingests once. More goes on for ever, and this API cannot stop it.",
    )
    embedding_deployment_name: str | None = Field(
        default=None, title="Embedding deployment", description="For the vectors; the connection's own when empty."
    )
    allowed_failures: AllowedFailures = Field(
        default=0,
        title="Allowed failures",
        description="How many chunks may fail: a count (10), a ratio (0.05) or a percentage ('5%').",
    )
    deadline_hours: float = Field(
        default=24.0, ge=0.01, title="Deadline", description="Hours the job may take at most."
    )
    budget: Annotated[dict[str, int] | None, _BUDGET_CHECK] = Field(
        default=None,
        title="Budget",
        description=(
            'How many jobs of the resource may be unfinished at a time: {"jobs": 2}. Others wait for their turn. '
            "Empty: what the service takes."
        ),
    )
    azure_conn_id: str = Field(
        default="azure_openai_default", title="Azure OpenAI connection", description="The id of the connection."
    )


def azure_ingestion_job(
    dag_id: str,
    config: AzureIngestionJobConfig | None = None,
    *,
    deferrable: bool = True,
    default_args: Mapping[str, Any] | None = None,
    tags: Sequence[str] = (*TAGS, "legacy"),
    **dag_arguments: Any,
) -> DAG:
    """
    Return a DAG that has Azure OpenAI ingest a container, waits for the end, and reports what is in the index.

    ``configure → ingest → report``. Each run makes an index of its own, named after the job. The API is being retired:
    ``docs/azure-ingestion.md`` has the ways out.

    :param dag_id: The DAG's id.
    :param config: The defaults of the trigger form.
    :param deferrable: Wait in the triggerer.
    :param default_args: For every task; two retries unless it says otherwise.
    :param dag_arguments: ``schedule``, ``start_date``, ``catchup`` and whatever else a DAG takes.
    """
    defaults = config or AzureIngestionJobConfig()
    with pipeline_dag(dag_id, defaults, doc_md=__doc__, default_args=default_args, tags=tags, **dag_arguments) as dag:

        @task
        def configure() -> dict[str, Any]:
            """Check the run's params before anything is paid for."""
            run = defaults.render(get_current_context())
            return {
                **run.model_dump(mode="json"),
                "deadline_seconds": run.deadline_hours * 3_600,
                "queue_deadline_seconds": run.queue_hours * 3_600,
            }

        @task
        def report(outcome: Mapping[str, Any]) -> dict[str, Any]:
            """Say what is in the index now; this XCom is what a later step needs."""
            return build_report(outcome)

        # An operator's arguments are typed by what they are in the run; until then they are references to XComs.
        settings: Any = configure()
        ingest = AzureIngestionJobOperator(
            task_id="ingest",
            storage_container=settings["storage_container"],
            chunk_size=settings["chunk_size"],
            completion_action=settings["completion_action"],
            data_refresh_interval_minutes=settings["data_refresh_interval_minutes"],
            embedding_deployment_name=settings["embedding_deployment_name"],
            allowed_failures=settings["allowed_failures"],
            poll_interval=settings["poll_seconds"],
            deadline=settings["deadline_seconds"],
            budget=settings["budget"],
            queue_deadline=settings["queue_deadline_seconds"],
            on_clear=settings["on_clear"],
            conn_id=settings["azure_conn_id"],
            deferrable=deferrable,
        )
        outcome: Any = ingest.output
        report(outcome)
    return dag


def build_report(outcome: Mapping[str, Any]) -> dict[str, Any]:
    """
    Return the few facts of an ingestion's XCom that people ask for, and log them.

    :param outcome: The XCom of an :class:`~overnight.operators.azure_ingestion.AzureIngestionJobOperator`.
    """
    status, detail = outcome["status"], outcome["results"]["detail"]
    done = {stage["name"].lower(): stage for stage in detail["stages"]}
    facts = {
        "index": detail["index"],
        "state": status["state"],
        "documents": done.get("preprocessing", {}).get("processed"),
        "chunks": status["counts"]["succeeded"],
        "failed_chunks": status["counts"]["failed"],
        "warnings": list(status["warnings"]),
    }
    log.info(
        "%s: %s chunks of %s documents in %s.", facts["state"], facts["chunks"], facts["documents"], facts["index"]
    )
    for warning in facts["warnings"]:
        log.warning("%s", warning)
    return facts
