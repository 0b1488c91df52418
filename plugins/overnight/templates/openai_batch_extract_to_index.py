"""Documents → structured answers of a model, in OpenAI batches → an OpenSearch index, as a DAG."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import cached_property
from typing import TYPE_CHECKING, Any, Self

from airflow.sdk import DAG, Param
from airflow.sdk.exceptions import AirflowFailException
from pydantic import Field, model_validator

from overnight.errors import SpecError
from overnight.ingest.map.field_map import compile_field_map
from overnight.ingest.write.schema_mapping import build_field_mappings
from overnight.jsonpath import JsonPath, to_segment
from overnight.output_schema import OutputSchema
from overnight.services.openai.structured import CHAT, build_request_template, get_answer_path
from overnight.services.openai.template import RequestTemplate
from overnight.templates.embedding import BatchConfig, configure, embed_and_load
from overnight.templates.steps import TAGS, create_index, pipeline_dag

if TYPE_CHECKING:
    from airflow.sdk import Context


class OpenAIBatchExtractToIndexConfig(BatchConfig):
    """The config of :func:`openai_batch_extract_to_index`. Every field is a Param of the DAG."""

    input_uri: str = Field(
        title="Documents",
        description="JSONL files of one object a line: a URI, a glob, or a prefix ending in '/'. May be a template.",
    )
    instruction: str = Field(
        min_length=1,
        title="Instruction",
        description="What the model shall do with a document, with ${path} placeholders for more of the document.",
    )
    output_type: str | None = Field(
        default=None,
        title="Type of the answer",
        description="Import path of a pydantic model, package.module.Model. A run cannot change what its author wrote.",
    )
    output_schema: dict[str, Any] | None = Field(
        default=None, title="Schema of the answer", description="A JSON Schema of an object, instead of a type."
    )
    nested_lists: bool = Field(
        default=False,
        title="Nested lists",
        description="Objects in lists become nested documents, so that searches find members of the same object.",
    )
    output_limit: int | None = Field(
        default=None, ge=1, title="Output limit", description="Tokens of an answer at most; longer ones are cut off."
    )
    request_options: dict[str, Any] = Field(
        default_factory=dict, title="More of the request", description='Such as {"temperature": 0}.'
    )
    repair: bool = Field(
        default=False,
        title="Repair",
        description=(
            "Rounds again, of which there must be one at least, send invalid answers back to the model with what is "
            "wrong. Otherwise their requests go out as they were."
        ),
    )
    model: str = Field(
        default="gpt-4.1-mini",
        title="Model",
        description="A name that the server knows, such as gpt-4.1-nano, or a deployment of Azure's.",
    )
    endpoint: str = Field(
        default=CHAT, title="Endpoint", description="/v1/chat/completions, or /v1/responses where the server has it."
    )

    @cached_property
    def schema_of_answers(self) -> OutputSchema:
        """What each answer must be."""
        return OutputSchema.parse(self.output_type or self.output_schema or {})

    @model_validator(mode="after")
    def _check_request(self) -> Self:
        """Refuse what would be paid for and could not be loaded."""
        if bool(self.output_type) == bool(self.output_schema):
            raise ValueError("output_type or output_schema says what an answer is; give one of them")
        if self.repair and not self.resubmit:
            raise ValueError("repair needs rounds again: set resubmit to 1 or more")
        self.build_template()
        fields = self.joined_fields()
        maps = compile_field_map(fields["field_map"], fields["ingest_fields"], 2)
        if all(path.to_text is None for path in maps[1].fields.values()):
            raise ValueError(
                "field_map takes nothing from the JSON of an answer; write such as "
                f'{{"label": "source[1].{get_answer_path(self.endpoint)}.json().label"}}'
            )
        build_field_mappings(self.schema_of_answers)
        return self

    def params(self) -> dict[str, Param]:
        """Return the trigger form; ``output_type`` is not in it, since a run would import whatever it names."""
        params = super().params()
        shown = params["output_type"]
        params["output_type"] = Param(
            self.output_type, description=shown.description, **shown.schema, const=self.output_type
        )
        return params

    def render(self, context: Context) -> Self:
        """
        Return the config of one run.

        :raises AirflowFailException: a value does not fit, or names another type than the author's.
        """
        if context["params"].get("output_type") != self.output_type:
            raise AirflowFailException(
                "output_type is code that the workers import, so only the DAG's author gives it. Give a run an "
                "output_schema, of a DAG that has no output_type."
            )
        return super().render(context)

    def build_template(self) -> RequestTemplate:
        """
        Build the request of a document.

        :raises SpecError: the service does not take the schema or the endpoint.
        """
        return build_request_template(
            self.schema_of_answers,
            model=self.model,
            instruction=self.instruction,
            text_path=self.text_path,
            id_path=self.id_path,
            endpoint=self.endpoint,
            output_limit=self.output_limit,
            options=self.request_options,
        )

    def request_template(self) -> dict[str, Any]:
        """Return how a document becomes a request."""
        return self.build_template().model_dump(mode="json")

    def result_fields(self) -> dict[str, str]:
        """Return a field for each member of the answer."""
        names = list(build_field_mappings(self.schema_of_answers))
        if taken := sorted({"text", "_id", *self._list_ingest_fields()} & set(names)):
            raise SpecError(
                f"{self.schema_of_answers.name}: {', '.join(taken)} would be a field of the document and of its "
                "answer. Give the member another name, or say with field_map which field of the index each is."
            )
        answer = f"source[1].{get_answer_path(self.endpoint)}.json()"
        return {name: f"{answer}{to_segment(name)}" for name in names}

    def load_options(self) -> dict[str, Any]:
        """Return the options of the load: each answer is validated while it streams by."""
        schema = self.schema_of_answers
        body = schema.resolve(schema.schema_body)
        is_whole = set(body.get("properties", {})) <= set(body.get("required", ()))
        return {
            "output_schema": self.output_type or self.output_schema,
            # A server that knows no "strict" may leave out what the schema lets it.
            **({} if is_whole else {"missing_path": "omit"}),
        }

    def settings(self, context: Context) -> dict[str, Any]:
        """Return what the steps of a run are given; the index is made from the schema."""
        return {
            **super().settings(context),
            "dimension": None,
            "index_body": self.build_index(),
            "answer_schema": self.output_type or self.output_schema,
            "repair": self.repair,
        }

    def build_index(self) -> dict[str, Any]:
        """Return what a missing index is created with; what ``index_body`` says comes first."""
        given = self.index_body or {}
        mappings = given.get("mappings", {})
        properties = {"text": {"type": "text"}}
        if not self.field_map:
            properties |= build_field_mappings(self.schema_of_answers, nested_lists=self.nested_lists)
        return {**given, "mappings": {**mappings, "properties": {**properties, **mappings.get("properties", {})}}}

    def _list_ingest_fields(self) -> list[str]:
        return [JsonPath.parse(f"${path.partition('$')[2]}").last_segment for path in self.ingest_fields]


def openai_batch_extract_to_index(
    dag_id: str,
    config: OpenAIBatchExtractToIndexConfig,
    *,
    deferrable: bool = True,
    default_args: Mapping[str, Any] | None = None,
    tags: Sequence[str] = TAGS,
    **dag_arguments: Any,
) -> DAG:
    """
    Return a DAG that asks a model for structured answers about documents, and loads both together.

    ``configure → create_index → prepare → approve → (batch[extract → load], reused[load]) → mirror → report → verify
    → cleanup``. The schema of the answers is part of each request, and each answer is validated by it before it is
    indexed. Ids are the documents' own: running a day twice changes nothing.

    :param dag_id: The DAG's id.
    :param config: The defaults of the trigger form.
    :param deferrable: Wait in the triggerer.
    :param default_args: For every task; two retries unless it says otherwise.
    :param dag_arguments: ``schedule``, ``start_date``, ``catchup`` and whatever else a DAG takes.
    """
    with pipeline_dag(dag_id, config, doc_md=__doc__, default_args=default_args, tags=tags, **dag_arguments) as dag:
        settings = configure(config)
        index = create_index(settings)
        first = embed_and_load(
            settings, settings["input_uri"], index=index.output, deferrable=deferrable, job_task="extract"
        )
        settings >> index >> first
    return dag
