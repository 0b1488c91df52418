"""Documents → OpenAI batches → an OpenSearch index, as a DAG."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from airflow.sdk import DAG
from pydantic import Field

from overnight.templates.embedding import EmbeddingConfig, configure, embed_and_load
from overnight.templates.steps import TAGS, create_index, pipeline_dag


class OpenAIBatchToIndexConfig(EmbeddingConfig):
    """The config of :func:`openai_batch_to_index`. Every field is a Param of the DAG."""

    input_uri: str = Field(
        title="Documents",
        description="JSONL files of one object a line: a URI, a glob, or a prefix ending in '/'. May be a template.",
    )


def openai_batch_to_index(
    dag_id: str,
    config: OpenAIBatchToIndexConfig,
    *,
    deferrable: bool = True,
    default_args: Mapping[str, Any] | None = None,
    tags: Sequence[str] = TAGS,
    **dag_arguments: Any,
) -> DAG:
    """
    Return a DAG that embeds (or otherwise sends) documents in OpenAI batches and loads them with their results.

    ``configure → create_index → prepare → approve → (batch[embed → load], reused[load]) → mirror → report → verify →
    cleanup``: the documents are cut into as many batches as the limits ask for, and each batch is a mapped task of its
    own, so that an executor spreads them over machines. Ids are the documents' own: running a day twice changes
    nothing.

    :param dag_id: The DAG's id.
    :param config: The defaults of the trigger form.
    :param deferrable: Wait in the triggerer.
    :param default_args: For every task; two retries unless it says otherwise.
    :param dag_arguments: ``schedule``, ``start_date``, ``catchup`` and whatever else a DAG takes.
    """
    with pipeline_dag(dag_id, config, doc_md=__doc__, default_args=default_args, tags=tags, **dag_arguments) as dag:
        settings = configure(config)
        index = create_index(settings)
        first = embed_and_load(settings, settings["input_uri"], index=index.output, deferrable=deferrable)
        settings >> index >> first
    return dag
