"""One typed config: the DAG's arguments, its trigger form, and what a run reads back."""

from __future__ import annotations

from collections.abc import Mapping
from inspect import get_annotations
from pkgutil import resolve_name
from typing import TYPE_CHECKING, Annotated, Any, Final, Self, TypeAlias

from airflow.sdk import Param
from airflow.sdk.exceptions import AirflowFailException
from jinja2 import StrictUndefined, TemplateError, UndefinedError
from jinja2.sandbox import ImmutableSandboxedEnvironment
from pydantic import AfterValidator, BaseModel, ConfigDict, Field

from overnight.errors import shorten
from overnight.hooks.executor import require_shared
from overnight.hooks.outcome import failing_for_good
from overnight.ingest.choices import Sync
from overnight.jobs.allowance import Allowance
from overnight.jobs.choices import OnClear
from overnight.operators.parameters import check_texts
from overnight.templates.form import lay_out

if TYPE_CHECKING:
    from airflow.sdk import Context

    from overnight.jobs.service import Service


def _checked(value: float | str) -> float | str:
    Allowance.parse(value)
    return value


AllowedFailures: TypeAlias = Annotated[int | float | str, AfterValidator(_checked)]
"""A count, a ratio or a percentage, refused by ``configure`` when it is none."""


def counted_by(path: str) -> AfterValidator:
    """
    Return the check that a budget is one, and in units that a service's queue is counted in.

    :param path: Of the service's class, ``module:Class``, which is imported when there is a budget to check.
    """

    def check(value: dict[str, int] | None) -> dict[str, int] | None:
        from overnight.jobs.queue import Budget  # noqa: PLC0415 - not at parse

        service: type[Service[Any]] = resolve_name(path)
        Budget.parse(value).check_units(service.name, service.queue_units)
        return value

    return AfterValidator(check)


def _checked_deletes(value: float | str) -> float | str:
    Allowance.parse(value, "max_deletes")
    return value


RUN_FACTS: Final = frozenset(
    {
        "ds", "ds_nodash", "ts", "ts_nodash", "ts_nodash_with_tz", "logical_date", "data_interval_start",
        "data_interval_end", "run_id",
    }
)  # fmt: skip
"""What a text that a run brings may name. Connections and variables are the author's to use."""


class TemplateConfig(BaseModel):
    """
    The base of a DAG template's config.

    Every field is a Param of the DAG, so a run can be triggered with other values. Its ``description`` is the help
    text in the form. The author's texts are Jinja templates with all that Airflow has for them; those that a run brings
    know its dates and id only (:data:`RUN_FACTS`), or anybody who may trigger the DAG could read every connection.
    """

    # Built with the first value: of a config's class and all its bases a DAG that is parsed needs the one.
    model_config = ConfigDict(frozen=True, extra="forbid", defer_build=True)

    def params(self) -> dict[str, Param]:
        """Return the trigger form: a Param for each field, with this config's values as defaults."""
        schema = self.model_json_schema()
        values = self.model_dump(mode="json")
        definitions = schema.get("$defs", {})
        fields = {name: _form_field(_resolved(field, definitions)) for name, field in schema["properties"].items()}
        own = [name for kind in type(self).__mro__ for name in get_annotations(kind)]
        return {name: Param(values[name], **field) for name, field in lay_out(fields, own).items()}

    def render(self, context: Context) -> Self:
        """
        Return the config of one run: its params, rendered and validated.

        :raises AirflowFailException: a value does not fit, or is no template; the text names the param.
        """
        given = context["dag_run"].conf or {}
        # The config has the author's texts; a DAG's Params hold whatever value they were last validated with.
        written = self.model_dump(mode="json")
        rendered = {
            # A form sends the author's own values back as well.
            name: _render(name, value, context, as_author=name not in given or value == written.get(name))
            for name, value in dict(context["params"]).items()
        }
        with failing_for_good():
            for name, value in rendered.items():
                check_texts(name, value)
            return self.model_validate(rendered)


class JobConfig(TemplateConfig):
    """How a template waits for its jobs, and what it does when one of their tasks is cleared."""

    poll_seconds: float = Field(default=60.0, ge=0.1, title="Poll interval", description="Seconds between two polls.")
    queue_hours: float = Field(
        default=24.0, ge=0.01, title="Queue deadline", description="Hours a job may wait for room in the queue."
    )
    deadline_hours: float = Field(default=25.0, ge=0.01, title="Deadline", description="Hours a job may take at most.")
    on_clear: OnClear = Field(
        default="resubmit",
        title="Cleared tasks",
        description=(
            "What a job's task does that is cleared after its success. resubmit: submit the work anew, and pay for it. "
            "reuse: go on with the results, if the service still has them."
        ),
    )


class LoadConfig(TemplateConfig):
    """The index that a template ends in, and what is done about documents that it has already."""

    index_name: str = Field(title="Index", description="The index or alias that is loaded into.")
    create_index: bool = Field(
        default=False, title="Create the index", description="Create it when it is missing; otherwise that is refused."
    )
    opensearch_conn_id: str = Field(
        default="opensearch_default", title="OpenSearch connection", description="The id of the index's connection."
    )
    skip_unchanged: bool = Field(
        default=False,
        title="Skip what is unchanged",
        description=(
            "Documents that the index has already, as they are, are not written. Each that is written gets the field "
            "overnight_digest, by which the next run knows it."
        ),
    )


class SyncConfig(LoadConfig):
    """What a template that ends in an index does about documents that its source no longer has."""

    sync: Sync = Field(
        default="upsert",
        title="Documents that are gone",
        description=(
            "mirror: the documents are a whole corpus, and what the index has beyond them is deleted at the end. "
            "preview: say what that would delete. upsert: never delete."
        ),
    )
    max_deletes: Annotated[int | float | str, AfterValidator(_checked_deletes)] = Field(
        default="10%",
        title="Deletes",
        description=(
            "How many documents of the index may be deleted: a count, a ratio or a percentage. With more the run fails "
            "and deletes none."
        ),
    )
    sync_filter: dict[str, Any] | None = Field(
        default=None,
        title="Documents of this corpus",
        description=(
            'A query, for an index that has documents of others, too: {"term": {"source": "wiki"}}. Only what matches '
            "is deleted."
        ),
    )


def run_folder(work_uri: str, context: Context) -> str:
    """
    Return the folder of one DAG run below the work folder; the same on every try.

    :raises AirflowFailException: the folder is on this machine's disk and other machines run the run's other tasks.
    """
    from overnight.storage import to_segment  # noqa: PLC0415 - not at parse

    with failing_for_good():
        require_shared(work_uri, context["task"].executor)
    run_id = to_segment(context["run_id"])
    return f"{work_uri.rstrip('/')}/{context['dag'].dag_id}/{run_id}"


def _render(name: str, value: Any, context: Context, *, as_author: bool) -> Any:
    try:
        if as_author:
            return context["task"].render_template(value, context)
        return _render_with_facts(value, {key: fact for key, fact in context.items() if key in RUN_FACTS})
    except UndefinedError as error:
        remedy = f"A text that is given to a run may name {', '.join(sorted(RUN_FACTS))}."
        if any(f"'{fact}'" in str(error) for fact in RUN_FACTS):
            remedy = "This run has no logical date: trigger it with one, or write the value out."
        raise _refuse(name, error, remedy) from None
    except (
        TemplateError, ArithmeticError, AttributeError, LookupError, RuntimeError, TypeError, ValueError,
    ) as error:  # fmt: skip
        raise _refuse(name, error, "Correct the template, or write the value out.") from None


def _refuse(name: str, error: Exception, remedy: str) -> AirflowFailException:
    said = shorten(str(error).rstrip("."), 500)
    return AirflowFailException(f"The param {name} is a template that cannot be rendered: {said}. {remedy}")


def _render_with_facts(value: Any, facts: Mapping[str, Any]) -> Any:
    """
    Render every text in a value in an environment that has nothing of the DAG's: no macros, no files to include.

    A DAG's own environment may also be one without a sandbox (``render_template_as_native_obj``).
    """
    if isinstance(value, str):
        return ImmutableSandboxedEnvironment(undefined=StrictUndefined).from_string(value).render(facts)
    if isinstance(value, list):
        return [_render_with_facts(element, facts) for element in value]
    if isinstance(value, dict):
        return {key: _render_with_facts(element, facts) for key, element in value.items()}
    return value


def _resolved(field: Mapping[str, Any], definitions: Mapping[str, Any]) -> dict[str, Any]:
    reference = field.get("$ref")
    if reference is None:
        return dict(field)
    return {**definitions[reference.rpartition("/")[2]], **{k: v for k, v in field.items() if k != "$ref"}}


def _form_field(field: dict[str, Any]) -> dict[str, Any]:
    """Turn pydantic's schema into what Airflow's form understands: it wants ``type`` as a list, not ``anyOf``."""
    field.pop("default", None)
    choices = field.pop("anyOf", None)
    if choices is not None:
        field["type"] = list(dict.fromkeys(choice.get("type", "object") for choice in choices))
        for choice in choices:
            for key, value in choice.items():
                field.setdefault(key, value)
    return field
