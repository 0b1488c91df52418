"""Files → fields that LlamaCloud extracts, with citations and confidence → an OpenSearch index, as a DAG."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import cached_property
from typing import Annotated, Any, Final, Self

from airflow.sdk import DAG, Context, TriggerRule, get_current_context, task
from pydantic import Field, model_validator

from overnight.errors import SpecError
from overnight.ingest.map.field_map import compile_field_map
from overnight.ingest.write.schema_mapping import FieldMapping, build_field_mappings
from overnight.jsonpath import to_segment
from overnight.operators.cleanup import Cleanup, LlamaCloudCleanupOperator
from overnight.operators.llamacloud import LlamaCloudBatchOperator
from overnight.operators.load import OpenSearchLoadOperator
from overnight.output_schema import OutputSchema
from overnight.templates.params import AllowedFailures, JobConfig, LoadConfig, counted_by, run_folder
from overnight.templates.steps import TAGS, create_index, pipeline_dag, report_and_verify

_FILE: Final = "file"
_FIELD_METADATA: Final = "field_metadata"
_DESCRIBED: Final = ("cite_sources", "confidence_scores")
"""Options by which the service says something of each field beside its value."""

_BUDGET_CHECK: Final = counted_by("overnight.services.llamacloud.service:LlamaCloudService")


class LlamaCloudExtractToIndexConfig(LoadConfig, JobConfig):
    """The config of :func:`llamacloud_extract_to_index`. Every field is a Param of the DAG."""

    sources: str = Field(
        title="Files",
        description="A URI, a glob, or a prefix ending in '/': PDF, HTML, Markdown, text … May be a template.",
    )
    work_uri: str = Field(
        title="Work folder",
        description="A folder for results, dead letters and the report; each run has its own below.",
    )
    output_schema: dict[str, Any] | None = Field(
        default=None,
        title="Schema of the answer",
        description="A JSON Schema of an object: what is extracted of a file.",
    )
    extract_options: dict[str, Any] = Field(
        default_factory=dict,
        title="More of the configuration",
        description='Such as {"tier": "agentic", "cite_sources": true, "confidence_scores": true}.',
    )
    configuration_id: str | None = Field(
        default=None, title="Extract configuration", description="A saved one, instead of a schema; needs a field map."
    )
    field_map: dict[str, Any] | None = Field(
        default=None,
        title="Field map",
        description="Field of the index to JSONPath of a result, such as $.extracted.total. All fields when empty.",
    )
    ingest_fields: list[str] = Field(
        default_factory=list, title="More fields", description="JSONPaths of a result to index by their name."
    )
    nested_lists: bool = Field(
        default=False,
        title="Nested lists",
        description="Objects in lists become nested documents, so that searches find members of the same object.",
    )
    index_body: dict[str, Any] | None = Field(
        default=None,
        title="Settings and mappings",
        description="What a missing index is created with, beside the fields of the schema.",
    )
    allow_empty: bool = Field(
        default=False,
        title="No files",
        description="A run without files is a success that indexes nothing; otherwise it fails.",
    )
    allowed_failures: AllowedFailures = Field(
        default=0,
        title="Allowed failures",
        description="How many files may fail: a count (10), a ratio (0.05) or a percentage ('5%').",
    )
    budget: Annotated[dict[str, int] | None, _BUDGET_CHECK] = Field(
        default=None,
        title="Budget",
        description=(
            'How many batches of the LlamaCloud account may be unfinished at a time: {"jobs": 2}. Others wait for '
            "their turn. Empty: what the service takes."
        ),
    )
    cleanup: Cleanup = Field(
        default="keep",
        title="Files at the service",
        description=(
            "delete: the uploaded files are deleted there once the index was verified. keep: they stay, as long as the "
            "service keeps them."
        ),
    )
    llamacloud_conn_id: str = Field(
        default="llamacloud_default", title="LlamaCloud connection", description="The id of the connection that pays."
    )
    aws_conn_id: str | None = Field(
        default="aws_default", title="AWS connection", description="For s3:// URIs; the environment's own when empty."
    )

    @cached_property
    def schema_of_fields(self) -> OutputSchema | None:
        """What is extracted of a file; ``None`` where a saved configuration says so."""
        return OutputSchema.parse(self.output_schema) if self.output_schema is not None else None

    @model_validator(mode="after")
    def _check_fields(self) -> Self:
        """Refuse what would be paid for and could not be loaded."""
        if (self.configuration_id is None) == (self.output_schema is None):
            raise ValueError("output_schema or configuration_id says what is extracted; give one of them")
        if self.configuration_id is not None and self.extract_options:
            raise ValueError("extract_options belong to an output_schema; a configuration_id has its own")
        if self.field_map is None and self.output_schema is None:
            raise ValueError("a configuration_id needs a field_map, such as {'total': '$.extracted.total'}")
        if self.field_map is None and self.extract_options.get("extraction_target", "per_doc") != "per_doc":
            raise ValueError("a file has a list of results then; field_map says what becomes of it")
        compile_field_map(self.build_field_map(), self.ingest_fields, 1)
        self.build_index()
        return self

    @property
    def has_field_metadata(self) -> bool:
        """Whether the results say something of each field beside its value."""
        return any(self.extract_options.get(name) for name in _DESCRIBED)

    def build_field_map(self) -> dict[str, Any]:
        """
        Return which value of a result becomes which field.

        :raises SpecError: a member of the schema has the name of a field that is the file's.
        """
        if self.field_map is not None or self.schema_of_fields is None:
            return {"_id": "$.source_uri", **(self.field_map or {})}
        names = list(build_field_mappings(self.schema_of_fields))
        ours = {f"{_FILE}.uri": "$.source_uri", f"{_FILE}.name": "$.name"}
        if self.has_field_metadata:
            ours[_FIELD_METADATA] = "$.field_metadata"
        if taken := sorted({_FILE, _FIELD_METADATA} & set(names)):
            raise SpecError(
                f"{', '.join(taken)} would be a field of the file and of what is extracted. Give the member another "
                "name, or say with field_map which field of the index each is."
            )
        return {"_id": "$.source_uri", **ours, **{name: f"$.extracted{to_segment(name)}" for name in names}}

    def build_index(self) -> dict[str, Any]:
        """Return what a missing index is created with; what ``index_body`` says comes first."""
        given = self.index_body or {}
        properties: dict[str, FieldMapping] = {}
        if self.field_map is None and self.schema_of_fields is not None:
            fields = build_field_mappings(self.schema_of_fields, nested_lists=self.nested_lists)
            properties = {_FILE: {"properties": {name: {"type": "keyword"} for name in ("uri", "name")}}, **fields}
            if self.has_field_metadata:
                # A search may ask for uncertain values; citations are kept and not searched.
                certain = {"dynamic": False, "properties": {"confidence": {"type": "float"}}}
                properties[_FIELD_METADATA] = {"dynamic": False, "properties": dict.fromkeys(fields, certain)}
        mappings = given.get("mappings", {})
        return {**given, "mappings": {**mappings, "properties": {**properties, **mappings.get("properties", {})}}}

    def settings(self, context: Context) -> dict[str, Any]:
        """Return what the steps of a run are given."""
        from overnight.jobs import compute_fingerprint  # noqa: PLC0415 - not at parse

        run_uri = run_folder(self.work_uri, context)
        parameters = {**self.extract_options, "data_schema": self.output_schema} if self.output_schema else None
        # Another schema is another configuration: one that is there is never changed, since others may use it.
        name = f"overnight-{context['dag'].dag_id}-{compute_fingerprint(parameters)}" if parameters else None
        return {
            **self.model_dump(mode="json"),
            "configuration_name": name,
            "parameters": parameters,
            "index_body": self.build_index(),
            "dimension": None,
            "vectors": {},
            "sync": "upsert",
            "run_uri": run_uri,
            "results_uri": f"{run_uri}/extracted",
            "dead_letter_uri": f"{run_uri}/dead-letters.jsonl",
            "deadline_seconds": self.deadline_hours * 3600,
            "queue_deadline_seconds": self.queue_hours * 3600,
            "fields": {"field_map": self.build_field_map(), "ingest_fields": self.ingest_fields},
        }


def llamacloud_extract_to_index(
    dag_id: str,
    config: LlamaCloudExtractToIndexConfig,
    *,
    deferrable: bool = True,
    default_args: Mapping[str, Any] | None = None,
    tags: Sequence[str] = TAGS,
    **dag_arguments: Any,
) -> DAG:
    """
    Return a DAG that has LlamaCloud extract fields from files, and loads them: a file, a document.

    ``configure → create_index → extract → plan → load → report → verify → cleanup``. Ids are the files' addresses:
    running a day twice changes nothing.

    :param dag_id: The DAG's id.
    :param config: The defaults of the trigger form.
    :param deferrable: Wait in the triggerer.
    :param default_args: For every task; two retries unless it says otherwise.
    :param dag_arguments: ``schedule``, ``start_date``, ``catchup`` and whatever else a DAG takes.
    """
    with pipeline_dag(dag_id, config, doc_md=__doc__, default_args=default_args, tags=tags, **dag_arguments) as dag:

        @task
        def configure() -> dict[str, Any]:
            """Check the run's params and work out what follows from them, before anything is paid for."""
            context = get_current_context()
            return config.render(context).settings(context)

        @task(trigger_rule=TriggerRule.NONE_FAILED)
        def plan(run: Mapping[str, Any], job: Mapping[str, Any] | None = None) -> list[dict[str, Any]]:
            """Make one load of all results; none on a day without files, when nothing was extracted."""
            if job is None:
                return []
            request = {"index_name": run["index_name"], "data_source": {"source": [job]}, **run["fields"]}
            return [{"requests": job["status"]["counts"]["total"], "request": request}]

        # An operator's arguments are typed by what they are in the run; until then they are references to XComs.
        settings: Any = configure()
        index = create_index(settings)
        extract = LlamaCloudBatchOperator(
            task_id="extract",
            job_type="extract_v2",
            configuration_id=settings["configuration_id"],
            configuration_name=settings["configuration_name"],
            parameters=settings["parameters"],
            sources=settings["sources"],
            results_uri=settings["results_uri"],
            allowed_failures=settings["allowed_failures"],
            poll_interval=settings["poll_seconds"],
            deadline=settings["deadline_seconds"],
            budget=settings["budget"],
            on_clear=settings["on_clear"],
            queue_deadline=settings["queue_deadline_seconds"],
            conn_id=settings["llamacloud_conn_id"],
            allow_empty=settings["allow_empty"],
            aws_conn_id=settings["aws_conn_id"],
            deferrable=deferrable,
        )
        job: Any = extract.output
        parts: Any = plan(settings, job)
        load = OpenSearchLoadOperator.partial(
            task_id="load",
            conn_id=settings["opensearch_conn_id"],
            aws_conn_id=settings["aws_conn_id"],
            allowed_failures=settings["allowed_failures"],
            dead_letter_uri=settings["dead_letter_uri"],
            skip_unchanged=settings["skip_unchanged"],
            # What was not found in a file is null, or not there.
            options={"missing_path": "omit"},
        ).expand(request=parts.map(lambda part: part["request"]))
        cleanup = LlamaCloudCleanupOperator(
            task_id="cleanup",
            job=extract.output,
            cleanup=settings["cleanup"],
            # Skipped with the job, as the run's last task, it would make a success of a run whose report failed.
            trigger_rule=TriggerRule.NONE_FAILED,
        )
        report = report_and_verify(settings, parts=parts, loads=load.output, jobs=extract.output, last=cleanup)
        settings >> index >> extract >> load >> report
    return dag
