"""What a run is given in the trigger form, in a real Airflow: it can name no connection, and lands nowhere."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from overnight.sandbox.airflow import Airflow

PASSWORD = "a-password-that-nobody-else-has"
VARIABLE = "a-variable-that-nobody-else-has"
DAGS = """
# The word airflow makes this a file of DAGs.
from overnight.templates.openai_batch_to_index import OpenAIBatchToIndexConfig, openai_batch_to_index

dag = openai_batch_to_index(
    "embeds",
    OpenAIBatchToIndexConfig(input_uri="{{ var.value.documents }}/", work_uri="/nowhere", index_name="documents"),
    schedule=None,
    user_defined_macros={"password": lambda: __import__("os").environ["A_PASSWORD"]},
    render_template_as_native_obj=True,
)
"""


@pytest.fixture(scope="module")
def airflow(tmp_path_factory: pytest.TempPathFactory, migrated_airflow: Airflow) -> Airflow:
    home = tmp_path_factory.mktemp("form")
    (home / "dags").mkdir()
    (home / "dags" / "embeds.py").write_text(DAGS)
    (home / "dags" / "secret.txt").write_text(PASSWORD)
    variables = {
        "A_PASSWORD": PASSWORD,
        "AIRFLOW_CONN_OPENSEARCH_DEFAULT": f"opensearch://admin:{PASSWORD}@localhost:1",
        "AIRFLOW_CONN_OPENAI_DEFAULT": '{"conn_type": "overnight_openai", "password": "not-used-here"}',
        "AIRFLOW_VAR_DOCUMENTS": VARIABLE,
    }
    return replace(migrated_airflow.copy(home / "home"), dags=home / "dags", variables=variables)


@pytest.mark.parametrize(
    "conf",
    [
        {"index_name": "{{ conn.opensearch_default.password }}"},
        {"index_name": "{{ password() }}{% include 'secret.txt' %}"},
    ],
    ids=["connection", "macros and files"],
)
def test_a_text_of_the_form_that_names_a_secret_is_refused_and_the_secret_is_nowhere(
    conf: dict[str, Any], airflow: Airflow, tmp_path: Path
) -> None:
    log = tmp_path / "log"
    run = airflow.run_dag("embeds", conf, xcoms={"configure": "return_value"}, log=log)
    assert {task.task_id: task.state for task in run.tasks}["configure"] == "failed"
    assert run.xcoms == {}
    assert "is a template that cannot be rendered" in log.read_text()
    assert PASSWORD not in log.read_text()
    assert PASSWORD.encode() not in (airflow.home / "airflow.db").read_bytes()


def test_the_authors_template_may_name_a_variable_and_a_run_its_dates(airflow: Airflow) -> None:
    conf = {"index_name": "documents-{{ run_id }}", "input_uri": "{{ var.value.documents }}/"}
    run = airflow.run_dag("embeds", conf, xcoms={"configure": "return_value"})
    assert run.xcoms["configure"]["input_uri"] == f"{VARIABLE}/"
    assert run.xcoms["configure"]["index_name"] == f"documents-{run.run_id}"
