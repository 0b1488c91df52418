"""What follows from the config of a pipeline that embeds."""

from __future__ import annotations

from typing import Any

import pytest
from airflow.sdk import DAG, BaseOperator
from pydantic import ValidationError

from overnight.errors import SpecError
from overnight.services.openai.choices import CacheMode
from overnight.templates.embedding import BATCHES_IN_BUDGET, EmbeddingConfig

CONTEXT: Any = {"dag": None, "dag_run": None, "run_id": "manual", "ti": None}


@pytest.mark.parametrize(
    ("budget", "limits"),
    [
        (None, {"requests": 7}),
        ({"jobs": 2}, {"requests": 7}),
        ({"tokens": 3_000_000}, {"requests": 7, "tokens": 3_000_000 // BATCHES_IN_BUDGET}),
        ({"tokens": 1}, {"requests": 7, "tokens": 1}),
    ],
)
def test_batches_are_cut_so_that_several_fit_the_budget(
    budget: dict[str, int] | None, limits: dict[str, int], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("overnight.templates.embedding.run_folder", lambda uri, _: f"{uri}/run")
    config = EmbeddingConfig(work_uri="/work", index_name="i", batch_requests=7, budget=budget)
    assert config.settings(CONTEXT)["limits"] == limits


def configure(**given: Any) -> dict[str, Any]:
    with DAG("d"):
        task = BaseOperator(task_id="configure")
    context: Any = {"task": task, "dag": task.dag, "run_id": "manual"}
    return EmbeddingConfig(**({"work_uri": "/work", "index_name": "i"} | given)).settings(context)


@pytest.mark.parametrize(
    ("given", "cache_uri"),
    [
        ({}, None),
        ({"cache_uri": "s3://b/answers"}, None),
        ({"cache": "write"}, "/work/cache"),
        ({"cache": "read", "work_uri": "/work/"}, "/work/cache"),
        ({"cache": "refresh", "cache_uri": "s3://b/answers"}, "s3://b/answers"),
    ],
)
def test_the_cache_is_off_until_its_mode_is_chosen_and_then_in_the_work_folder(
    given: dict[str, Any], cache_uri: str | None
) -> None:
    settings = configure(**given)
    assert settings["cache_uri"] == cache_uri
    assert settings["cache"] == given.get("cache", "off")


@pytest.mark.parametrize(("mode", "age"), [("write", "365d"), ("read", None), ("refresh", None), ("off", None)])
def test_only_a_run_that_looks_up_and_adds_writes_used_answers_again(mode: CacheMode, age: str | None) -> None:
    settings = configure(cache=mode, cache_older_than="365d")
    assert settings["cache_older_than"] == age


@pytest.mark.parametrize("age", ["12h", "a year", "0d"])
def test_an_age_of_the_caches_answers_that_is_none_is_refused(age: str) -> None:
    with pytest.raises(ValidationError, match="cache_older_than"):
        configure(cache="write", cache_older_than=age)


def test_a_cache_on_this_machines_disk_is_refused_where_other_machines_run_the_tasks() -> None:
    with DAG("d"):
        task = BaseOperator(task_id="configure", executor="CeleryExecutor")
    context: Any = {"task": task, "dag": task.dag, "run_id": "manual"}
    places = {"work_uri": "s3://b/work", "index_name": "i"}
    with pytest.raises(SpecError, match="/cache"):
        EmbeddingConfig(**places, cache="write", cache_uri="/cache").settings(context)
    assert EmbeddingConfig(**places, cache="write").settings(context)["cache_uri"] == "s3://b/work/cache"
