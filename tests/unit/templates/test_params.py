from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any, Literal
from unittest.mock import Mock

import pytest
from airflow.sdk import DAG, BaseOperator, Param
from airflow.sdk.exceptions import AirflowFailException, ParamValidationError
from airflow.sdk.execution_time import task_runner
from airflow.sdk.execution_time.supervisor import InProcessSupervisorComms
from pydantic import Field, ValidationError

from overnight.templates.params import AllowedFailures, TemplateConfig, run_folder

SECRET = "planted-secret"


class Config(TemplateConfig):
    """A config with a field of every kind that the templates have."""

    uri: str = Field(default="s3://bucket/{{ ds }}/", title="Documents", description="Where they are.")
    engine: Literal["auto", "server"] = Field(default="auto", title="Engine")
    dimension: int | None = Field(default=None, ge=1, le=16, title="Dimension")
    allowed: int | float | str = Field(default=0, title="Allowed")
    fields: list[str] = Field(default_factory=list, title="Fields")
    field_map: dict[str, Any] | None = Field(default=None, title="Field map")
    create: bool = Field(default=False, title="Create")


def context(config: Config | None = None, **params: Any) -> Any:
    with DAG("a_dag", params=(config or Config()).params()):
        task = BaseOperator(task_id="task")
    # A Param holds the value that it was last validated with.
    given = {name: param.resolve() for name, param in task.dag.params.items()} | params
    for name in params.keys() & set(task.dag.params):
        task.dag.params.get_param(name).value = params[name]
    return {
        "dag_run": SimpleNamespace(conf=params),
        "conn": SimpleNamespace(opensearch_default=SimpleNamespace(password=SECRET)),
        "var": SimpleNamespace(value=SimpleNamespace(key=SECRET)),
        "params": given,
        "ds": "2026-01-05",
        "task": task,
        "dag": task.dag,
        "run_id": "manual__2026-01-05T00:00:00+00:00",
    }


def test_every_field_is_a_param_with_its_value_as_the_default() -> None:
    params = Config(dimension=8, fields=["$.a"]).params()
    assert {name: param.value for name, param in params.items()} == {
        "uri": "s3://bucket/{{ ds }}/",
        "engine": "auto",
        "dimension": 8,
        "allowed": 0,
        "fields": ["$.a"],
        "field_map": None,
        "create": False,
    }


@pytest.mark.parametrize(
    ("name", "schema"),
    [
        ("uri", {"type": "string", "title": "Documents"}),
        ("engine", {"type": "string", "title": "Engine", "enum": ["auto", "server"], "section": "Index"}),
        (
            "dimension",
            {"type": ["integer", "null"], "title": "Dimension", "minimum": 1, "maximum": 16, "section": "Request"},
        ),
        ("allowed", {"type": ["integer", "number", "string"], "title": "Allowed"}),
        ("fields", {"type": "array", "title": "Fields", "items": {"type": "string"}}),
        (
            "field_map",
            {"type": ["object", "null"], "title": "Field map", "additionalProperties": True, "section": "Index"},
        ),
        ("create", {"type": "boolean", "title": "Create"}),
    ],
)
def test_the_form_has_one_type_or_a_list_of_types_and_never_a_choice_of_schemas(
    name: str, schema: dict[str, Any]
) -> None:
    assert Config().params()[name].schema == schema


def test_what_a_field_is_for_is_the_help_text_of_its_param() -> None:
    assert Config().params()["uri"].description == "Where they are."


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("dimension", 0),
        ("dimension", 17),
        ("dimension", "large"),
        ("engine", "both"),
        ("create", "perhaps"),
        ("fields", "$.a"),
        ("field_map", ["$.a"]),
        ("uri", 5),
    ],
)
def test_a_wrong_value_is_refused_by_the_form_and_by_the_run_which_names_the_param(name: str, value: Any) -> None:
    param = Config().params()[name]
    with pytest.raises(ParamValidationError):
        Param(value, **param.schema).resolve()
    with pytest.raises(AirflowFailException, match=name):
        Config().render(context(**{name: value}))


@pytest.mark.parametrize("value", [3, 0.25, "5%"])
def test_a_value_of_any_of_its_types_is_kept_as_it_is(value: Any) -> None:
    found = Config().render(context(allowed=value)).allowed
    assert (found, type(found)) == (value, type(value))


def test_texts_are_templates_of_the_run_also_inside_lists_and_objects() -> None:
    run = Config().render(context(fields=["$.{{ ds }}"], field_map={"day": "{{ ds }}"}))
    assert run.uri == "s3://bucket/2026-01-05/"
    assert run.fields == ["$.2026-01-05"]
    assert run.field_map == {"day": "2026-01-05"}


@pytest.mark.parametrize(
    "template", ["s3://{{ ds", "{{ ds | no_such_filter }}", "{% for %}", "{{ 1 / 0 }}", "{{ macros.nothing.more }}"]
)
def test_a_template_that_cannot_be_rendered_is_refused_for_good_and_names_the_param(template: str) -> None:
    with pytest.raises(AirflowFailException, match="uri"):
        Config().render(context(uri=template))


@pytest.mark.parametrize(
    "text",
    ["{{ conn.opensearch_default.password }}", "{{ var.value.key }}", "{{ task }}", "{{ ti }}", "{{ params.uri }}",
     "{{ macros }}", "{{ dag_run.conf }}", "{{ a_macro() }}"],
)  # fmt: skip
@pytest.mark.parametrize("place", ["text", "list", "object"])
def test_a_text_that_a_run_brings_cannot_name_connections_variables_or_objects(text: str, place: str) -> None:
    brought: Any = {"text": {"uri": text}, "list": {"fields": [text]}, "object": {"field_map": {"a": text}}}[place]
    with pytest.raises(
        AirflowFailException, match=r"is undefined. A text that is given to a run may name .*ds"
    ) as refused:
        Config().render(context(**brought))
    assert SECRET not in str(refused.value)


def test_the_authors_own_text_may_name_a_variable_also_when_the_form_sends_it_back() -> None:
    config = Config(uri="s3://bucket/{{ var.value.key }}/")
    assert config.render(context(config)).uri == f"s3://bucket/{SECRET}/"
    assert config.render(context(config, uri="s3://bucket/{{ var.value.key }}/")).uri == f"s3://bucket/{SECRET}/"


def test_a_run_without_a_logical_date_is_named_as_what_a_date_lacks() -> None:
    without = {name: value for name, value in context().items() if name != "ds"}
    with pytest.raises(AirflowFailException, match="'ds' is undefined. This run has no logical date"):
        Config().render(without)


class Allowing(TemplateConfig):
    """A config with an allowance."""

    allowed_failures: AllowedFailures = Field(default=0, title="Allowed failures")


@pytest.mark.parametrize("value", ["abc", 1.5, "120%", -1])
def test_an_allowance_that_is_none_is_refused_before_anything_is_paid_for(value: Any) -> None:
    with pytest.raises(ValidationError, match="allowed_failures"):
        Allowing(allowed_failures=value)


class Special(Config):
    """A config with a field of its own."""

    model: str = Field(default="small", title="Model")


def test_a_templates_own_fields_come_before_those_that_it_shares() -> None:
    assert list(Special().params()) == ["model", *Config().params()]


def test_a_param_that_the_config_does_not_have_is_refused() -> None:
    with pytest.raises(AirflowFailException, match="colour"):
        Config().render(context(colour="blue"))


def test_a_runs_folder_is_the_same_on_every_try_and_has_only_plain_characters() -> None:
    assert run_folder("s3://bucket/work/", context()) == "s3://bucket/work/a_dag/manual__2026-01-05T00_00_00_00_00"
    assert run_folder("s3://bucket/work", context()) == run_folder("s3://bucket/work/", context())


LOCAL = ["/var/work", "file:///var/work", "local:///var/work", "memory://work"]
SHARED = ["s3://bucket/work", "s3://conn@bucket/work", "gs://bucket/work", "az://container/work"]
DISTRIBUTED = [
    "CeleryExecutor",
    "KubernetesExecutor",
    "CeleryExecutor,LocalExecutor",
    "LocalLooking:airflow.providers.celery.executors.celery_executor.CeleryExecutor",
    "airflow.providers.amazon.aws.executors.ecs.ecs_executor.AwsEcsExecutor",
]


@pytest.mark.parametrize("executor", DISTRIBUTED)
@pytest.mark.parametrize("uri", LOCAL)
def test_a_work_folder_on_one_machine_is_refused_when_tasks_run_on_several(
    uri: str, executor: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("AIRFLOW__CORE__EXECUTOR", executor)
    with pytest.raises(AirflowFailException, match=r"work_uri to an object store .*LOCAL_WORK_URI_IS_SHARED=True"):
        run_folder(uri, context())


@pytest.mark.parametrize("executor", DISTRIBUTED)
@pytest.mark.parametrize("uri", SHARED)
def test_a_work_folder_that_all_machines_can_read_is_taken(
    uri: str, executor: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("AIRFLOW__CORE__EXECUTOR", executor)
    assert run_folder(uri, context()).startswith(f"{uri}/a_dag/")


@pytest.mark.parametrize(
    "executor",
    ["LocalExecutor", "LocalExecutor,CeleryExecutor", "mine:airflow.executors.local_executor.LocalExecutor"],
)
@pytest.mark.parametrize("uri", LOCAL)
def test_a_work_folder_on_one_machine_is_taken_when_all_tasks_run_there(
    uri: str, executor: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("AIRFLOW__CORE__EXECUTOR", executor)
    assert run_folder(uri, context()).startswith(f"{uri}/a_dag/")


@pytest.mark.parametrize("executor", ["CeleryExecutor", "far"])
def test_a_tasks_own_executor_decides_where_there_are_several(executor: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AIRFLOW__CORE__EXECUTOR", "LocalExecutor,CeleryExecutor,far:a.module.FarExecutor")
    run = context()
    run["task"].executor = executor
    with pytest.raises(AirflowFailException, match="several"):
        run_folder("/var/work", run)


def test_a_disk_that_every_worker_mounts_is_taken(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AIRFLOW__CORE__EXECUTOR", "CeleryExecutor")
    monkeypatch.setenv("AIRFLOW__OVERNIGHT__LOCAL_WORK_URI_IS_SHARED", "True")
    assert run_folder("/mnt/shared", context()).startswith("/mnt/shared/a_dag/")


def test_a_run_in_one_process_may_work_on_its_disk_whatever_the_executor(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("AIRFLOW__CORE__EXECUTOR", "CeleryExecutor")
    monkeypatch.setattr(task_runner, "SUPERVISOR_COMMS", InProcessSupervisorComms(supervisor=Mock()), raising=False)
    assert run_folder(str(tmp_path), context()).startswith(f"{tmp_path}/a_dag/")
