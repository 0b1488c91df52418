from __future__ import annotations

from itertools import groupby
from types import SimpleNamespace
from typing import Any

import pytest
from airflow.sdk import Param
from airflow.sdk.exceptions import AirflowFailException, ParamValidationError
from airflow.serialization.serialized_objects import DagSerialization

from overnight.templates.form import SECTIONS

from .dags import CONFIGS, DAGS, project_config, project_dag

FIELDS = [(name, field) for name in CONFIGS for field in CONFIGS[name].model_fields]
CREDENTIALS = ("password", "secret", "token", "api_key", "access_key", "credential")


def context(name: str, **params: Any) -> Any:
    dag = project_dag(name)
    given = {field: param.resolve() for field, param in ((f, dag.params.get_param(f)) for f in dag.params)} | params
    return {
        "dag_run": SimpleNamespace(conf=params),
        "params": given,
        "task": dag.get_task("configure"),
        "dag": dag,
        "ds": "2026-01-05",
        "run_id": "r",
    }


def test_every_dag_of_the_project_is_looked_at() -> None:
    assert {path.stem for path in DAGS.glob("*.py")} == CONFIGS.keys()


@pytest.mark.parametrize("name", CONFIGS)
def test_the_form_has_a_field_for_everything_in_the_config(name: str) -> None:
    assert set(project_dag(name).params) == CONFIGS[name].model_fields.keys()


@pytest.mark.parametrize("name", CONFIGS)
def test_the_defaults_make_a_run(name: str) -> None:
    run = project_config(name).render(context(name))
    assert "{{" not in run.model_dump_json()


@pytest.mark.parametrize(("name", "field"), FIELDS)
def test_every_field_has_a_title_a_type_and_a_default_that_it_accepts(name: str, field: str) -> None:
    param = project_dag(name).params.get_param(field)
    assert param.schema["title"]
    assert param.schema["type"]
    assert "anyOf" not in param.schema
    assert "$ref" not in param.schema
    assert param.resolve() == param.value
    assert param.description


@pytest.mark.parametrize("name", CONFIGS)
def test_few_fields_are_in_front_and_every_other_one_is_in_a_section(name: str) -> None:
    sections = {
        field: project_dag(name).params.get_param(field).schema.get("section") for field in CONFIGS[name].model_fields
    }
    assert 3 <= list(sections.values()).count(None) <= 6
    assert {section for section in sections.values() if section} <= SECTIONS.keys()


@pytest.mark.parametrize("name", CONFIGS)
def test_the_fields_of_a_section_are_beside_each_other(name: str) -> None:
    sections = [param.schema.get("section") for param in CONFIGS[name].params(project_config(name)).values()]
    assert sections[0] is None
    assert len(list(groupby(sections))) == len(set(sections))


def test_a_field_has_the_same_title_in_every_form_but_where_it_is_something_else() -> None:
    titles: dict[str, set[str]] = {}
    for name, field in FIELDS:
        titles.setdefault(field, set()).add(project_dag(name).params.get_param(field).schema["title"])
    assert {field for field, different in titles.items() if len(different) > 1} == {
        "input_uri", "allow_empty", "configuration_id",
    }  # fmt: skip


@pytest.mark.parametrize(("name", "field"), FIELDS)
def test_a_value_of_no_kind_that_it_takes_is_refused_by_the_form_and_by_the_run(name: str, field: str) -> None:
    param = project_dag(name).params.get_param(field)
    types = param.schema["type"]
    kinds = {types} if isinstance(types, str) else set(types)
    wrong: Any = [{}] if "string" in kinds or "object" in kinds or "boolean" in kinds or "array" in kinds else "much"
    with pytest.raises(ParamValidationError):
        Param(wrong, **param.schema).resolve()
    with pytest.raises(AirflowFailException, match=field):
        project_config(name).render(context(name, **{field: wrong}))


@pytest.mark.parametrize(("name", "field"), FIELDS)
def test_the_form_itself_refuses_what_is_out_of_range(name: str, field: str) -> None:
    schema = project_dag(name).params.get_param(field).schema
    # Airflow's form knows minimum and maximum only; it takes 0 for exclusiveMinimum 0 and then says "Bad Request".
    assert not {"exclusiveMinimum", "exclusiveMaximum"} & schema.keys()


@pytest.mark.parametrize("name", [name for name in CONFIGS if "allowed_failures" in CONFIGS[name].model_fields])
def test_an_allowance_that_is_none_is_refused_before_anything_is_paid_for(name: str) -> None:
    with pytest.raises(AirflowFailException, match="allowed_failures"):
        project_config(name).render(context(name, allowed_failures="abc"))


@pytest.mark.parametrize(("name", "field"), FIELDS)
def test_no_field_is_a_credential(name: str, field: str) -> None:
    assert not any(word in field for word in CREDENTIALS)


@pytest.mark.parametrize("name", CONFIGS)
def test_a_task_whose_worker_dies_is_tried_again_unless_it_would_be_the_same(name: str) -> None:
    assert {task.task_id: task.retries for task in project_dag(name).tasks if task.retries < 1} == {}


@pytest.mark.parametrize("name", CONFIGS)
def test_airflow_can_store_the_dag_and_read_it_again(name: str) -> None:
    dag = project_dag(name)
    again = DagSerialization.from_dict(DagSerialization.to_dict(dag))
    assert set(again.task_dict) == set(dag.task_dict)
    assert dag.doc_md
    assert "overnight" in dag.tags


@pytest.mark.parametrize("name", CONFIGS)
def test_what_a_run_pays_for_comes_after_what_is_checked(name: str) -> None:
    dag = project_dag(name)
    paid = {"ingest", "parse", "transform", "prepare"} & set(dag.task_dict)
    for task_id in paid:
        upstream = dag.get_task(task_id).get_flat_relative_ids(upstream=True)
        assert "configure" in upstream
        assert "create_index" in upstream or name == "azure_ingestion_job"


JOBS = {
    "azure_ingestion_job": ("ingest", "budget"),
    "llamacloud_extract_to_index": ("extract", "budget"),
    "llamacloud_parse_to_index": ("parse", "parse_budget"),
    "mlcommons_batch_predict_to_index": ("transform", "budget"),
    "openai_batch_extract_to_index": ("batch.extract", "budget"),
    "openai_batch_to_index": ("batch.embed", "budget"),
    "s3_sagemaker_to_index": ("transform", "budget"),
}
"""The task whose job waits for room, and the field of its budget."""


@pytest.mark.parametrize("name", CONFIGS)
def test_the_job_of_every_pipeline_takes_its_budget_and_queue_deadline_from_the_form(name: str) -> None:
    task_id, field = JOBS[name]
    task: Any = project_dag(name).get_task(task_id)
    given = (
        task.partial_kwargs if task.is_mapped else {each: getattr(task, each) for each in ("budget", "queue_deadline")}
    )
    assert (given["budget"].key, given["queue_deadline"].key) == (field, "queue_deadline_seconds")


@pytest.mark.parametrize("name", CONFIGS)
@pytest.mark.parametrize("budget", [{"records": 0}, {"pages": 3}, {"jobs": 1, "tokens_or_so": 3}], ids=str)
def test_a_budget_that_is_none_is_refused_before_anything_is_paid_for(name: str, budget: dict[str, int]) -> None:
    field = JOBS[name][1]
    with pytest.raises(AirflowFailException, match=rf"(?s){field}.*is no budget"):
        project_config(name).render(context(name, **{field: budget}))


@pytest.mark.parametrize("name", CONFIGS)
def test_a_budget_in_a_unit_that_the_queue_is_not_counted_in_is_refused_there_too(name: str) -> None:
    field = JOBS[name][1]
    unit = "instances" if name.startswith("openai_batch") else "tokens"
    with pytest.raises(AirflowFailException, match=f"is not counted in {unit}"):
        project_config(name).render(context(name, **{field: {unit: 3}}))
    assert getattr(project_config(name).render(context(name, **{field: {"jobs": 3}})), field) == {"jobs": 3}


@pytest.mark.parametrize("name", CONFIGS)
def test_every_load_takes_from_the_form_whether_it_skips_what_is_unchanged(name: str) -> None:
    loads = [task for task in project_dag(name).tasks if task.task_id.rpartition(".")[2] == "load"]
    assert bool(loads) == ("skip_unchanged" in CONFIGS[name].model_fields)
    for task in loads:
        given: Any = task.partial_kwargs if task.is_mapped else vars(task)
        assert given["skip_unchanged"].key == "skip_unchanged"
