"""Files → LlamaCloud parse → chunks → OpenAI embeddings → an OpenSearch index, as a DAG."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Annotated, Any, Final

from airflow.sdk import DAG, Context, TriggerRule
from pydantic import Field

from overnight.operators.chunks import ChunkDocumentsOperator
from overnight.operators.cleanup import LlamaCloudCleanupOperator
from overnight.operators.llamacloud import LlamaCloudBatchOperator
from overnight.templates.embedding import EmbeddingConfig, configure, embed_and_load
from overnight.templates.params import AllowedFailures, counted_by
from overnight.templates.steps import TAGS, create_index, pipeline_dag

_BUDGET_CHECK: Final = counted_by("overnight.services.llamacloud.service:LlamaCloudService")


class LlamaCloudParseToIndexConfig(EmbeddingConfig):
    """The config of :func:`llamacloud_parse_to_index`. Every field is a Param of the DAG."""

    sources: str = Field(
        title="Files",
        description="A URI, a glob, or a prefix ending in '/': PDF, HTML, Markdown, text … May be a template.",
    )
    configuration_id: str = Field(
        default="cfg-PARSE_AGENTIC", title="Parse configuration", description="A saved one, or a preset of LlamaCloud."
    )
    chunk_size: int = Field(default=1_000, ge=1, title="Chunk size", description="Characters of a chunk at most.")
    chunk_overlap: int = Field(default=100, ge=0, title="Overlap", description="Characters two chunks share at most.")
    allowed_file_failures: AllowedFailures = Field(
        default=0,
        title="Allowed file failures",
        description="How many files may fail to parse: a count, ratio or '5%'.",
    )
    parse_budget: Annotated[dict[str, int] | None, _BUDGET_CHECK] = Field(
        default=None,
        title="Parse budget",
        description=(
            'How many batches of the LlamaCloud account may be unfinished at a time: {"jobs": 2}. Others wait for '
            "their turn, up to the queue deadline. Empty: what the service takes."
        ),
    )
    llamacloud_conn_id: str = Field(
        default="llamacloud_default", title="LlamaCloud connection", description="The id of the connection that pays."
    )

    def settings(self, context: Context) -> dict[str, Any]:
        """Return what the steps of a run are given."""
        settings = super().settings(context)
        return {
            **settings,
            "parsed_uri": f"{settings['run_uri']}/parsed",
            "chunks_uri": f"{settings['run_uri']}/chunks/chunks.jsonl",
            # A file's id at the service is new whenever it is sent; its address is not, and so running a day twice
            # changes nothing.
            "chunking": {"max_size": self.chunk_size, "overlap": self.chunk_overlap, "id_field": "source_uri"},
        }


def llamacloud_parse_to_index(
    dag_id: str,
    config: LlamaCloudParseToIndexConfig,
    *,
    deferrable: bool = True,
    default_args: Mapping[str, Any] | None = None,
    tags: Sequence[str] = TAGS,
    **dag_arguments: Any,
) -> DAG:
    """
    Return a DAG that parses files in LlamaCloud, cuts them into chunks, embeds these, and loads them.

    ``configure → create_index → parse → chunk → prepare → approve → (batch[embed → load], reused[load]) → mirror →
    report → verify → cleanup → cleanup_files``. The report counts chunks; what became of each file is in
    the XCom of ``parse``.

    :param dag_id: The DAG's id.
    :param config: The defaults of the trigger form.
    :param deferrable: Wait in the triggerer.
    :param default_args: For every task; two retries unless it says otherwise.
    :param dag_arguments: ``schedule``, ``start_date``, ``catchup`` and whatever else a DAG takes.
    """
    with pipeline_dag(dag_id, config, doc_md=__doc__, default_args=default_args, tags=tags, **dag_arguments) as dag:
        settings = configure(config)
        parse = LlamaCloudBatchOperator(
            task_id="parse",
            job_type="parse_v2",
            configuration_id=settings["configuration_id"],
            sources=settings["sources"],
            results_uri=settings["parsed_uri"],
            allowed_failures=settings["allowed_file_failures"],
            poll_interval=settings["poll_seconds"],
            deadline=settings["deadline_seconds"],
            budget=settings["parse_budget"],
            queue_deadline=settings["queue_deadline_seconds"],
            on_clear=settings["on_clear"],
            conn_id=settings["llamacloud_conn_id"],
            allow_empty=settings["allow_empty"],
            aws_conn_id=settings["aws_conn_id"],
            deferrable=deferrable,
        )
        parsed: Any = parse.output
        chunk = ChunkDocumentsOperator(
            task_id="chunk",
            documents=parsed,
            target=settings["chunks_uri"],
            config=settings["chunking"],
            allow_empty=settings["allow_empty"],
            # Parsing is skipped on a day without files.
            trigger_rule=TriggerRule.NONE_FAILED,
            aws_conn_id=settings["aws_conn_id"],
        )
        index = create_index(settings)
        first = embed_and_load(
            settings, settings["chunks_uri"], index=index.output, files=parse.output, deferrable=deferrable
        )
        settings >> index >> parse >> chunk >> first
        # Behind the last step that anything of the run depends on.
        dag.get_task("cleanup") >> LlamaCloudCleanupOperator(
            task_id="cleanup_files",
            job=parse.output,
            cleanup=settings["cleanup"],
            trigger_rule=TriggerRule.NONE_FAILED,
        )
    return dag
