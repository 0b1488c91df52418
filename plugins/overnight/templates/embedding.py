"""The second half of every pipeline of OpenAI batches: documents → batches → index, as steps of a DAG."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Any, Final, Self, cast

from airflow.sdk import BaseOperator, Context, TriggerRule, XComArg, get_current_context, task, task_group
from pydantic import AfterValidator, Field, model_validator

from overnight.hooks.executor import require_shared
from overnight.hooks.outcome import failing_for_good
from overnight.operators.approval import CostApprovalOperator
from overnight.operators.cleanup import Cleanup, OpenAICleanupOperator
from overnight.operators.load import OpenSearchLoadOperator
from overnight.operators.openai import ESTIMATE_KEY, REUSED_KEY, OpenAIBatchInputOperator, OpenAIBatchOperator
from overnight.services.openai.choices import CacheMode, OnBadDocument
from overnight.services.openai.embedding_models import MODELS, check_dimension
from overnight.services.openai.joined_fields import (
    EMBEDDING_FIELDS,
    find_unreadable,
    join_fields,
    list_vector_fields,
)
from overnight.templates.params import AllowedFailures, JobConfig, SyncConfig, counted_by, run_folder
from overnight.templates.steps import mirror, report_and_verify

if TYPE_CHECKING:
    from overnight.transport.http import HttpTransport

BATCHES_IN_BUDGET: Final = 4
"""So many batches fit a budget of tokens at once: the queue stays filled while one of them ends and the next begins."""

_BUDGET_CHECK: Final = counted_by("overnight.services.openai.service:OpenAIBatchService")


def _check_cost_budget(value: str | None) -> str | None:
    if value:
        from overnight.costs.spending import CostBudget  # noqa: PLC0415 - not at parse

        CostBudget.parse(value)
    return value


def _check_cache_age(value: str | None) -> str | None:
    from overnight.cache import parse_cache_age  # noqa: PLC0415 - not at parse

    parse_cache_age(value)
    return value


class BatchConfig(SyncConfig, JobConfig):
    """What all pipelines of OpenAI batches have: documents, batches, load. Every field is a Param of the DAG."""

    work_uri: str = Field(
        title="Work folder",
        description="A folder for batch inputs, dead letters, checkpoints and the report; each run has its own below.",
    )
    id_path: str = Field(default="$.id", title="Path of the id", description="JSONPath of a document's id.")
    text_path: str = Field(default="$.text", title="Path of the text", description="JSONPath of what the model gets.")
    model: str = Field(title="Model", description="A name that the server knows, or a deployment of Azure's.")
    endpoint: str = Field(title="Endpoint", description="Of the Batch API, such as /v1/embeddings.")
    field_map: dict[str, Any] | None = Field(
        default=None,
        title="Field map",
        description=(
            "Field of the index to JSONPath, as ML Commons writes it; source[0] is the document, source[1] its result. "
            "The text and what the model made of it when empty."
        ),
    )
    ingest_fields: list[str] = Field(
        default_factory=list,
        title="More fields",
        description="JSONPaths of document fields to index by their name.",
    )
    index_body: dict[str, Any] | None = Field(
        default=None,
        title="Settings and mappings",
        description="What a missing index is created with; 'data_stream': {} in it makes a data stream.",
    )
    on_bad_document: OnBadDocument = Field(
        default="fail",
        title="Bad documents",
        description="reject: go on without documents that cannot be sent, up to the allowed failures. fail: stop.",
    )
    allow_empty: bool = Field(
        default=False,
        title="No documents",
        description="A run without documents is a success that indexes nothing; otherwise it fails.",
    )
    allowed_failures: AllowedFailures = Field(
        default=0,
        title="Allowed failures",
        description="How many documents of a batch may fail: a count (10), a ratio (0.05) or a percentage ('5%').",
    )
    batch_requests: int = Field(
        default=50_000, ge=1, title="Requests per batch", description="More documents than this become several batches."
    )
    budget: Annotated[dict[str, int] | None, _BUDGET_CHECK] = Field(
        default=None,
        title="Budget",
        description=(
            'What the model\'s queue may hold of all batches: {"tokens": 3000000}, "jobs" or "records". Others wait '
            "for their turn. Batches are cut so that four fit the tokens. Empty: what the service takes."
        ),
    )
    max_cost: float | str | None = Field(
        default=None,
        title="Cost limit",
        description=(
            "A run that would cost more is refused before anything is uploaded: '5 USD', or tokens: '20000000 tokens'."
        ),
    )
    approve_above: float | str | None = Field(
        default=None,
        title="Ask above",
        description=(
            "A run that would cost more waits, before anything is uploaded, until somebody approves it in Airflow: "
            "'5 USD', or '20000000 tokens'. So does one whose price is not known. Empty: no run waits."
        ),
    )
    approval_hours: float | None = Field(
        default=None,
        ge=0.01,
        title="Time to approve",
        description="Hours after which a run that nobody approved fails. Empty: it waits until there is an answer.",
    )
    cost_budget: Annotated[str | None, AfterValidator(_check_cost_budget)] = Field(
        default=None,
        title="Budget of cost",
        description=(
            "What all runs may cost together in a day, week or month of UTC: '50 USD/month', '20000000 tokens/day'. A "
            "run that would go over it is refused before anything is uploaded."
        ),
    )
    cost_budget_uri: str | None = Field(
        default=None,
        title="Folder of the budget",
        description=(
            "Where runs put down what they cost. The folder _spending of this DAG in the work folder when empty, which "
            "must be the same for all runs then. Pipelines that share it share the budget."
        ),
    )
    prices: dict[str, Any] | str | None = Field(
        default=None,
        title="Prices",
        description=(
            'Beside those of the package, per 1,000,000 tokens: {"models": {"my-model": {"input": 0.02}}}, or the URI '
            "of a JSON file."
        ),
    )
    cache: CacheMode = Field(
        default="off",
        title="Result cache",
        description=(
            "write: what was paid for is not sent again, and what is paid for is kept. read: keeps nothing. refresh: "
            "sends everything, and replaces what is there. off: no cache."
        ),
    )
    cache_uri: str | None = Field(
        default=None,
        title="Folder of the cache",
        description="The folder cache in the work folder when empty. Pipelines and runs may share it.",
    )
    cache_older_than: Annotated[str | None, AfterValidator(_check_cache_age)] = Field(
        default=None,
        title="Age of cached answers",
        description=(
            "What cleans of this cache are given as cache_older_than: '365d', '52w'. Answers that are used when they "
            "are older than half of it are written again, so that only unused ones expire. Empty: all expire."
        ),
    )
    resubmit: int | None = Field(
        default=None,
        ge=0,
        le=10,
        title="Rounds again",
        description=(
            "How often documents go out again that expired, got no result, or failed for a reason that passes. Empty: "
            "once, and only what is left of a batch that expired."
        ),
    )
    cleanup: Cleanup = Field(
        default="keep",
        title="Files at the service",
        description=(
            "delete: the uploads and the results are deleted there once the index was verified; a load "
            "that is cleared after that cannot read them again. keep: they stay, or expire."
        ),
    )
    file_hours: float | None = Field(
        default=None,
        ge=1,
        le=720,
        title="Expiry of the files",
        description=(
            "Hours after which the service deletes uploaded documents, and after which it deletes results, by itself. "
            "Empty: as it does for all (OpenAI: 30 days)."
        ),
    )
    openai_conn_id: str = Field(
        default="openai_default", title="OpenAI connection", description="The id of the connection that pays."
    )
    aws_conn_id: str | None = Field(
        default="aws_default", title="AWS connection", description="For s3:// URIs; the environment's own when empty."
    )

    def request_template(self) -> dict[str, Any]:
        """Return how a document becomes a request."""
        raise NotImplementedError

    def result_fields(self) -> dict[str, str]:
        """Return the fields that the index gets of a result, beside the document's own, when no field map is given."""
        raise NotImplementedError

    def load_options(self) -> dict[str, Any]:
        """Return further options of the load."""
        return {}

    def find_vectors(self) -> dict[str, int]:
        """Return the length of the vectors that will be written, by field."""
        return {}

    def joined_fields(self) -> dict[str, Any]:
        """Return ``field_map`` and ``ingest_fields`` of the load, which joins each document with its result."""
        return join_fields(
            self.field_map,
            self.ingest_fields,
            id_path=self.id_path,
            text_path=self.text_path,
            answer=self.result_fields(),
        )

    def _limit_tokens(self) -> dict[str, int]:
        """Return the limit of tokens of a batch under a budget: several fit, so that one is at work while one waits."""
        tokens = (self.budget or {}).get("tokens")
        return {"tokens": max(tokens // BATCHES_IN_BUDGET, 1)} if tokens else {}

    def _find_cache(self, context: Context) -> str | None:
        """
        Return the folder of the cache; ``None`` without one.

        :raises SpecError: it is on this machine's disk and other machines run the run's other tasks.
        """
        from overnight.cache import locate_cache  # noqa: PLC0415 - not at parse

        if self.cache == "off":
            return None
        uri = locate_cache(self.work_uri, self.cache_uri)
        require_shared(uri, context["task"].executor, name="cache_uri")
        return uri

    def _find_spending(self, run_uri: str, context: Context) -> str | None:
        """
        Return the folder of the budget's records; ``None`` without a budget.

        :raises SpecError: it is on this machine's disk and other machines run the run's other tasks.
        """
        if not self.cost_budget:
            return None
        # Beside the folders of the runs; no id of a run begins like this.
        uri = self.cost_budget_uri or f"{run_uri.rpartition('/')[0]}/_spending"
        require_shared(uri, context["task"].executor, name="cost_budget_uri")
        return uri

    def _get_document_id_path(self) -> str:
        """Return the JSONPath of the id that a document has in the index."""
        from overnight.ingest.map.field_map import compile_field_map  # noqa: PLC0415 - not at parse

        joined = self.joined_fields()
        documents = compile_field_map(joined["field_map"], joined["ingest_fields"], 2)[0]
        return documents.id.text if documents.id is not None else self.id_path

    def settings(self, context: Context) -> dict[str, Any]:
        """Return what the steps of a run are given: the config, and what follows from it."""
        run_uri = run_folder(self.work_uri, context)
        return {
            **self.model_dump(mode="json"),
            **self.joined_fields(),
            "template": self.request_template(),
            "deadline_seconds": self.deadline_hours * 3600,
            "file_seconds": int(self.file_hours * 3600) if self.file_hours is not None else None,
            "queue_deadline_seconds": self.queue_hours * 3600,
            "limits": {"requests": self.batch_requests, **self._limit_tokens()},
            "load_options": self.load_options(),
            "answer_schema": None,
            "repair": False,
            "run_uri": run_uri,
            "deletes_uri": f"{run_uri}/deletes.jsonl",
            "document_id_path": self._get_document_id_path(),
            "cache_uri": self._find_cache(context),
            # With read, nothing is written into the cache.
            "cache_older_than": self.cache_older_than if self.cache == "write" else None,
            "cost_budget_uri": self._find_spending(run_uri, context),
            # What a batch has finished is in the cache: cleared steps send the rest, which is another spec.
            "on_changed_spec": "restart_ended" if self.cache in ("write", "refresh") else "fail",
        }


class EmbeddingConfig(BatchConfig):
    """How documents become requests and then documents of an index. Every field is a Param of the DAG."""

    model: str = Field(
        default="text-embedding-3-small",
        title="Model",
        description="A name that the server knows, such as text-embedding-3-large, or a deployment of Azure's.",
    )
    dimension: int | None = Field(
        default=None,
        ge=1,
        le=16_000,
        title="Dimension",
        description="Length of the vectors; the model's own when empty.",
    )
    request_body: dict[str, Any] | None = Field(
        default=None,
        title="Request body",
        description="Instead of an embedding: each request's body, with ${path} placeholders, for the endpoint below.",
    )
    endpoint: str = Field(
        default="/v1/embeddings", title="Endpoint", description="Another one, of the Batch API, needs a request body."
    )
    probe: bool = Field(
        default=True,
        title="Probe the model",
        description=(
            "Ask a model whose vectors' length is not known for one embedding before anything else, which costs what "
            "one word costs, so that vectors that do not fit the index are not paid for."
        ),
    )

    @property
    def is_embedding(self) -> bool:
        """Whether the answers are embeddings."""
        return self.endpoint.endswith("/embeddings")

    @model_validator(mode="after")
    def _check_request(self) -> Self:
        """Refuse what would be paid for and could not be loaded."""
        body = self.request_body or {}
        if not body and not self.is_embedding:
            raise ValueError(f"endpoint {self.endpoint} needs a request_body; without one the requests are embeddings")
        if body and self.is_embedding and "input" not in body:
            raise ValueError(
                "request_body has no input, which requests of /v1/embeddings need; for a chat, set endpoint to "
                "/v1/chat/completions, and field_map to what the index gets of an answer"
            )
        unreadable = find_unreadable(self.endpoint, self.field_map)
        if unreadable is not None:
            raise ValueError(unreadable)
        model = body.get("model", self.model)
        if self.is_embedding and isinstance(model, str):
            check_dimension(model, body.get("dimensions", self.dimension))
        return self

    def find_vectors(self) -> dict[str, int]:
        """
        Return the length of the vectors that will be written, by field; none where it cannot be known.

        A model that is not known is asked for one embedding, unless ``probe`` is off.

        :raises SpecError: the server refuses the request, or gives vectors of another length than ``dimension``.
        """
        from overnight.hooks.openai import OpenAIHook  # noqa: PLC0415 - not at parse
        from overnight.services.openai.dimension import measure_vectors  # noqa: PLC0415 - not at parse

        fields = list_vector_fields(self.joined_fields()["field_map"]) if self.is_embedding else []
        if not fields:
            return {}
        body = self.request_template()["body"]
        with OpenAIHook(self.openai_conn_id).client() as client:
            base_url = cast("HttpTransport", client.transport).base_url
            length = client.run(
                measure_vectors(base_url, self.endpoint, body, dimension=self.dimension, probe=self.probe)
            )
        return dict.fromkeys(fields, length) if length is not None else {}

    def result_fields(self) -> dict[str, str]:
        """Return the field of the embedding."""
        return dict(EMBEDDING_FIELDS)

    def request_template(self) -> dict[str, Any]:
        """Return how a document becomes a request."""
        from overnight.services.openai.template import RequestTemplate  # noqa: PLC0415 - not at parse

        # A form that was left empty sends {}.
        if self.request_body:
            template = RequestTemplate(endpoint=self.endpoint, body=self.request_body, id_path=self.id_path)
        else:
            known = MODELS.get(self.model)
            template = RequestTemplate.embeddings(
                self.model,
                text_path=self.text_path,
                id_path=self.id_path,
                dimensions=self.dimension if known is None or known.is_resizable else None,
                endpoint=self.endpoint,
            )
        return template.model_dump(mode="json")


def configure(config: BatchConfig) -> Any:
    """
    Add the step that works out what the others of a run are given.

    :return: An operator's arguments are typed by what they are in the run; until then they are references to XComs.
    """

    @task(task_id="configure")
    def check() -> dict[str, Any]:
        """Check the run's params and work out what follows from them, before anything is paid for."""
        return configure_run(config, get_current_context())

    return check()


def configure_run(config: BatchConfig, context: Context) -> dict[str, Any]:
    """
    Return what the steps of a run are given.

    :raises AirflowFailException: a param does not fit, or what would be paid for could not be loaded.
    """
    run = config.render(context)
    with failing_for_good():
        return {**run.settings(context), "vectors": run.find_vectors()}


def embed_and_load(
    settings: Any,
    documents: Any,
    *,
    index: XComArg,
    files: XComArg | None = None,
    deferrable: bool,
    job_task: str = "embed",
) -> BaseOperator:
    """
    Add ``prepare → approve → (batch[embed → load], reused[load]) → mirror → report → verify → cleanup``.

    The documents are cut into as many batches as the limits ask for, and each batch is a mapped task of its own, so
    that an executor spreads them over machines. Those whose answers are in the cache are loaded beside the batches.

    :param settings: The XCom of the step that made :meth:`BatchConfig.settings`.
    :param documents: Where the documents are.
    :param index: The output of the step that had the index ready.
    :param files: The output of the job that made the documents of files, where one did.
    :param job_task: What the step is called whose batches may do something else than embed.
    :return: The first of the steps.
    """
    prepare = OpenAIBatchInputOperator(
        task_id="prepare",
        documents=documents,
        target=settings["run_uri"],
        template=settings["template"],
        on_bad_document=settings["on_bad_document"],
        allowed_failures=settings["allowed_failures"],
        limits=settings["limits"],
        allow_empty=settings["allow_empty"],
        max_cost=settings["max_cost"],
        prices=settings["prices"],
        cache_uri=settings["cache_uri"],
        cache=settings["cache"],
        conn_id=settings["openai_conn_id"],
        aws_conn_id=settings["aws_conn_id"],
    )
    approve = CostApprovalOperator(
        task_id="approve",
        estimate=_pull(prepare, ESTIMATE_KEY),
        approve_above=settings["approve_above"],
        approval_hours=settings["approval_hours"],
        cost_budget=settings["cost_budget"],
        cost_budget_uri=settings["cost_budget_uri"],
        aws_conn_id=settings["aws_conn_id"],
    )
    embeds: list[BaseOperator] = []
    loads: list[BaseOperator] = []

    # The fields of an InputPart that its steps need.
    @task_group
    def batch(  # noqa: PLR0917 - Airflow passes them by name
        uri: str,
        documents_uri: str,
        dead_letter_uri: str,
        checkpoint_uri: str,
        sha256: str,
        bytes: int,  # noqa: A002
        requests: int,
        repeated: int,
        repeated_uri: str | None,
        repeated_documents_uri: str | None,
    ) -> None:
        embed = OpenAIBatchOperator(
            task_id=job_task,
            input_uri=uri,
            input_sha256=sha256,
            input_bytes=bytes,
            input_requests=requests,
            endpoint=settings["endpoint"],
            conn_id=settings["openai_conn_id"],
            aws_conn_id=settings["aws_conn_id"],
            allowed_failures=settings["allowed_failures"],
            poll_interval=settings["poll_seconds"],
            deadline=settings["deadline_seconds"],
            budget=settings["budget"],
            queue_deadline=settings["queue_deadline_seconds"],
            resubmit=settings["resubmit"],
            input_expires_after=settings["file_seconds"],
            output_expires_after=settings["file_seconds"],
            on_clear=settings["on_clear"],
            output_schema=settings["answer_schema"],
            repair=settings["repair"],
            cache_uri=settings["cache_uri"],
            cache=settings["cache"],
            on_changed_spec=settings["on_changed_spec"],
            deferrable=deferrable,
        )
        results = {"job": embed.output, "repeated": repeated, "repeated_uri": repeated_uri}
        load = _load(settings, [documents_uri, repeated_documents_uri], results, dead_letter_uri, checkpoint_uri)
        embeds.append(embed)
        loads.append(load)

    @task_group
    def reused(uri: str, documents_uri: str, dead_letter_uri: str, checkpoint_uri: str, documents: int) -> None:
        part = {
            "uri": uri,
            "documents_uri": documents_uri,
            "dead_letter_uri": dead_letter_uri,
            "checkpoint_uri": checkpoint_uri,
            "documents": documents,
        }
        results = {
            "reused": part,
            "template": settings["template"],
            "cache_uri": settings["cache_uri"],
            "cache_older_than": settings["cache_older_than"],
        }
        reused_loads.append(_load(settings, documents_uri, results, dead_letter_uri, checkpoint_uri))

    reused_loads: list[BaseOperator] = []
    cached = _pull(prepare, REUSED_KEY)
    batches = batch.expand_kwargs(prepare.output)
    from_cache = reused.expand_kwargs(_list_reused(cached))
    mirrored = mirror(settings, documents, index=index, id_path=settings["document_id_path"], files=files)
    report = report_and_verify(
        settings,
        last=OpenAICleanupOperator(
            task_id="cleanup",
            job=embeds[0].output,
            cleanup=settings["cleanup"],
            # Skipped with the batches, as the run's last task, it would make a success of a run whose report failed.
            trigger_rule=TriggerRule.NONE_FAILED,
        ),
        mirror=mirrored.output,
        parts=prepare.output,
        loads=loads[0].output,
        jobs=embeds[0].output,
        not_sent=_pull(prepare, "rejected"),
        approval=approve.output,
        estimate=_pull(prepare, ESTIMATE_KEY),
        reused=cached,
        reused_loads=reused_loads[0].output,
        prices=settings["prices"],
    )
    prepare >> approve >> [batches, from_cache] >> mirrored >> report
    return prepare


def _pull(step: BaseOperator, key: str) -> Any:
    """Return an XCom, as the argument that it is in the run."""
    return XComArg(step, key=key)


@task(task_id="list_reused")
def _list_reused(parts: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Return an XCom that is no return value: only those are what tasks are mapped over."""
    return parts


def _load(settings: Any, documents: Any, results: Any, dead_letter_uri: str, checkpoint_uri: str) -> BaseOperator:
    """Add the load of documents joined with their results, wherever these come from."""
    return OpenSearchLoadOperator(
        task_id="load",
        request={
            "index_name": settings["index_name"],
            "field_map": settings["field_map"],
            "ingest_fields": settings["ingest_fields"],
            "data_source": {"source": [documents, results]},
        },
        conn_id=settings["opensearch_conn_id"],
        aws_conn_id=settings["aws_conn_id"],
        openai_conn_id=settings["openai_conn_id"],
        allowed_failures=settings["allowed_failures"],
        dead_letter_uri=dead_letter_uri,
        checkpoint_uri=checkpoint_uri,
        skip_unchanged=settings["skip_unchanged"],
        options=settings["load_options"],
    )
