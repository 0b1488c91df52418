"""Every field of every pipeline's form, given what makes no sense: ``configure`` fails for good, in words."""

from __future__ import annotations

import json
from inspect import get_annotations
from typing import Any

import pytest
from airflow.sdk import DAG
from airflow.sdk.exceptions import AirflowFailException

from overnight.errors import OvernightError

from .dags import CONFIGS, project_dag
from .test_forms import FIELDS, context

MAX_TEXT = 5_000
ODD: tuple[Any, ...] = (
    None, "", 10**400, {"a": None}, {"a": {"b": ["{{ nope }}"]}}, "x" * 200_000, "{{ ds", "{{ cycler() }}", "\ud800",
    "a\x00b", "-a*,#", "$[?(@.a==1)]",
)  # fmt: skip


def find_owner(name: str, field: str) -> type:
    """Return the class that declares a field; several pipelines inherit it."""
    return next(kind for kind in reversed(CONFIGS[name].__mro__) if field in get_annotations(kind))


TRIED = {(find_owner(name, field), field): (name, field) for name, field in FIELDS}.values()


@pytest.fixture
def nobody(monkeypatch: pytest.MonkeyPatch) -> None:
    connection = json.dumps({"conn_type": "http", "host": "http://127.0.0.1:9", "password": "k"})
    for name in ("openai", "opensearch", "azure_openai", "llamacloud"):
        monkeypatch.setenv(f"AIRFLOW_CONN_{name.upper()}_DEFAULT", connection)
    monkeypatch.setattr("time.sleep", lambda seconds: None)


def configure(monkeypatch: pytest.MonkeyPatch, name: str, **params: Any) -> Any:
    """Run the first step of a pipeline as its task does."""
    function: Any = project_dag(name).get_task("configure").python_callable  # type: ignore[attr-defined]
    monkeypatch.setitem(function.__globals__, "get_current_context", lambda: context(name, **params))
    return function()


@pytest.mark.usefixtures("nobody")
@pytest.mark.parametrize(("name", "field"), TRIED)
def test_an_odd_param_is_read_or_refused_in_words(monkeypatch: pytest.MonkeyPatch, name: str, field: str) -> None:
    for value in ODD:
        try:
            configure(monkeypatch, name, **{field: value})
        except (AirflowFailException, OvernightError) as error:
            text = str(error)
            assert len(text) < MAX_TEXT
            assert "input_value" not in text


def test_every_pipeline_has_the_step() -> None:
    for name in CONFIGS:
        dag: DAG = project_dag(name)
        assert "configure" in dag.task_ids
