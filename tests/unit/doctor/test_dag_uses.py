from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from airflow.sdk import DAG

from overnight.doctor.dag_uses import KNN, ML_COMMONS, SAGEMAKER, find_use, read_files
from overnight.operators.index import OpenSearchCreateIndexOperator
from overnight.operators.load import OpenSearchLoadOperator
from overnight.operators.openai import OpenAIBatchOperator
from overnight.templates.openai_batch_to_index import OpenAIBatchToIndexConfig, openai_batch_to_index

DAGS = Path(__file__).parents[3] / "dags"


def test_a_template_uses_what_its_form_begins_with() -> None:
    config = OpenAIBatchToIndexConfig(
        input_uri="s3://lake/in/{{ ds }}/",
        work_uri="s3://lake/work",
        index_name="documents",
        model="text-embedding-3-small",
        openai_conn_id="paid",
        cost_budget="50 USD/month",
    )
    used = find_use(openai_batch_to_index("nightly", config, schedule=None))
    assert used.dag_id == "nightly"
    assert used.connections == {
        "paid": "openai_conn_id",
        "opensearch_default": "opensearch_conn_id",
        "aws_default": "aws_conn_id",
    }
    assert used.settings["work_uri"] == "s3://lake/work"
    assert used.settings["cost_budget"] == "50 USD/month"
    assert "prices" not in used.settings
    assert used.defers


def test_operators_use_what_they_are_given_as_it_is() -> None:
    body: Any = {"mappings": {"properties": {"v": {"type": "knn_vector", "dimension": 3}}}}
    with DAG("own", schedule=None) as dag:
        OpenSearchCreateIndexOperator(task_id="index", index_name="a", create=True, body=body, conn_id="vectors")
        OpenAIBatchOperator(
            task_id="embed", input_uri="s3://a/b", endpoint="/v1/embeddings", conn_id="{{ var.value.c }}"
        )
        OpenSearchLoadOperator.partial(task_id="load", conn_id="search", aws_conn_id="lake").expand(request=[{}])
    used = find_use(dag)
    assert used.connections == {"vectors": "conn_id", "search": "conn_id", "lake": "aws_conn_id", **used.connections}
    assert not any("{{" in conn_id for conn_id in used.connections)
    assert used.needs == {KNN}
    assert not used.defers


def test_the_dags_of_the_project_are_read() -> None:
    found = read_files(str(DAGS))
    assert found.broken == {}
    assert found.count == len(found.uses) == len(list(DAGS.glob("*.py")))
    needs = {used.dag_id: used.needs for used in found.uses}
    assert needs["openai_batch_to_index"] == {KNN}
    assert needs["mlcommons_batch_predict_to_index"] == {KNN, ML_COMMONS}
    assert needs["s3_sagemaker_to_index"] == {KNN, SAGEMAKER}


def test_without_a_folder_all_bundles_are_read(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    (tmp_path / "other.py").write_text("import nowhere  # airflow dag")
    local = "airflow.dag_processing.bundles.local.LocalDagBundle"
    bundles = [
        {"name": name, "classpath": local, "kwargs": {"path": str(path)}}
        for name, path in {"project": DAGS, "other": tmp_path}.items()
    ]
    monkeypatch.setenv("AIRFLOW__DAG_PROCESSOR__DAG_BUNDLE_CONFIG_LIST", json.dumps(bundles))
    monkeypatch.setenv("AIRFLOW__CORE__LOAD_EXAMPLES", "False")
    found = read_files()
    assert found.folders == [str(DAGS), str(tmp_path)]
    assert found.count == len(list(DAGS.glob("*.py")))
    assert found.broken == {"other.py": "ModuleNotFoundError: No module named 'nowhere'"}


def test_a_use_survives_json() -> None:
    used = read_files(str(DAGS)).model_dump_json()
    assert json.loads(used)["uses"]
