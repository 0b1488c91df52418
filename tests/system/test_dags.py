"""The DAGs that the project comes with, as Airflow has read them."""

from __future__ import annotations

from typing import Any

from .conftest import PROJECT, Standalone
from .console import eventually


def project_dags(airflow: Standalone) -> list[dict[str, Any]]:
    files = {path.name for path in (PROJECT / "dags").glob("*.py")}

    def look() -> list[dict[str, Any]]:
        found = airflow.console.get("/dags", limit=100, exclude_stale="true")["dags"]
        ours = [dag for dag in found if dag["bundle_name"] == "project"]
        broken = airflow.console.get("/importErrors")["import_errors"]
        return ours if broken or files <= {dag["relative_fileloc"] for dag in ours} else []

    return eventually(look, why=f"the DAGs of {files} are read")


def test_every_dag_of_the_project_is_read_without_an_error(airflow: Standalone) -> None:
    assert project_dags(airflow)
    assert airflow.console.get("/importErrors")["import_errors"] == []


def test_every_dag_of_the_project_has_a_form_and_says_what_it_does(airflow: Standalone) -> None:
    for dag in project_dags(airflow):
        details = airflow.console.get(f"/dags/{dag['dag_id']}/details")
        assert details["doc_md"], dag["dag_id"]
        assert details["params"], dag["dag_id"]
        for name, param in details["params"].items():
            assert param["schema"].get("type"), (dag["dag_id"], name)
            assert param["schema"].get("title"), (dag["dag_id"], name)
