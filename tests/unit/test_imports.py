"""What the DAG processor imports at every parse."""

from __future__ import annotations

import importlib
import subprocess
import sys
from pathlib import Path
from typing import get_type_hints

import pytest
from airflow.sdk import BaseOperator

import overnight.operators

HEAVY = ("boto3", "botocore", "airflow.providers.amazon", "opensearchpy", "fastapi", "moto", "pyarrow")


CARRIED_OUT = (
    "jsonpath_ng",
    "overnight.cache",
    "overnight.chunking",
    "overnight.costs",
    "overnight.ingest.loading",
    "overnight.ingest.map.rows",
    "overnight.ingest.read",
    "overnight.ingest.report",
    "overnight.ingest.request",
    "overnight.jobs.attach",
    "overnight.jobs.identity",
    "overnight.jobs.model",
    "overnight.jobs.poller",
    "overnight.jobs.queue",
    "overnight.jobs.record",
    "overnight.jobs.service",
    "overnight.jobs.wait_settings",
    "overnight.services.azure_ingestion.connection",
    "overnight.services.azure_ingestion.service",
    "overnight.services.llamacloud.connection",
    "overnight.services.llamacloud.service",
    "overnight.services.ml_commons.connection",
    "overnight.services.ml_commons.ingest.service",
    "overnight.services.ml_commons.predict.service",
    "overnight.services.openai.connection",
    "overnight.services.openai.dimension",
    "overnight.services.openai.input",
    "overnight.services.openai.limits",
    "overnight.services.openai.service",
    "overnight.services.sagemaker.results",
    "overnight.services.sagemaker.service",
    "overnight.services.sagemaker.spec",
    "overnight.storage",
    "overnight.templates.job_costs",
    "overnight.templates.report",
    "overnight.templates.report_page",
    "overnight.transport.flow",
    "overnight.transport.http",
    "overnight.triggers",
)
"""What only a task that is carried out needs."""
CHECKS_OF_FIELDS = ("jsonschema", "overnight.ingest.map", "overnight.output_schema")
"""What a DAG needs whose config is checked with a schema or a field map, and no operator does."""
BUILT = {"OutputSchema", "RequestTemplate"}
"""The models that may be ready to check something in a DAG that is parsed, beside its config."""
MODULES = sorted(path.stem for path in Path(overnight.operators.__path__[0]).glob("[!_]*.py"))
DAGS = Path(__file__).parents[2] / "dags"


def run_in_a_process(code: str) -> list[str]:
    return subprocess.run([sys.executable, "-c", code], capture_output=True, check=True, text=True).stdout.split()


def import_in_a_process(module: str) -> list[str]:
    return list_imports(f"import {module}")


def list_imports(code: str) -> list[str]:
    return run_in_a_process(
        f"import sys, airflow.sdk; before = set(sys.modules); {code}; print(*set(sys.modules) - before)"
    )


def list_unwanted(imported: list[str], parts: tuple[str, ...]) -> list[str]:
    return sorted(name for name in imported if f"{name}.".startswith(tuple(f"{part}." for part in parts)))


@pytest.mark.parametrize(
    "module",
    [
        "overnight.operators.load",
        "overnight.operators.openai",
        "overnight.operators.llamacloud",
        "overnight.sensors",
        "overnight.triggers.job",
    ],
)
def test_what_needs_no_aws_imports_no_aws(module: str) -> None:
    imported = import_in_a_process(module)
    assert [name for name in imported if name.startswith(tuple(f"{heavy}." for heavy in HEAVY)) or name in HEAVY] == []


def test_no_operator_imports_what_only_a_task_that_is_carried_out_needs() -> None:
    imported = import_in_a_process(
        ", ".join([*(f"overnight.operators.{module}" for module in MODULES), "overnight.sensors.job"])
    )
    assert list_unwanted(imported, (*CARRIED_OUT, *CHECKS_OF_FIELDS)) == []


@pytest.mark.parametrize("dag", [path.stem for path in sorted(DAGS.glob("*.py"))])
def test_no_dag_that_is_parsed_imports_what_only_its_tasks_need(dag: str) -> None:
    imported = list_imports(f"import runpy; runpy.run_path({str(DAGS / f'{dag}.py')!r})")
    assert list_unwanted(imported, CARRIED_OUT) == []


@pytest.mark.parametrize("dag", [path.stem for path in sorted(DAGS.glob("*.py"))])
def test_a_dag_that_is_parsed_has_pydantic_build_its_own_config_and_no_other_models(dag: str) -> None:
    code = (
        "import runpy, pydantic;"
        f"runpy.run_path({str(DAGS / f'{dag}.py')!r});"
        "models = [pydantic.BaseModel];"
        "[models.extend(model.__subclasses__()) for model in models];"
        "print(*{m.__name__ for m in models if m.__pydantic_complete__ and m.__module__.startswith('overnight.')})"
    )
    built = set(run_in_a_process(code)) - BUILT
    assert len(built) == 1
    assert built.pop().endswith("Config")


@pytest.mark.parametrize("module", MODULES)
def test_every_type_that_an_operator_takes_is_known_where_its_parameters_are_checked(module: str) -> None:
    # check_parameters() passes over a constructor whose types are imported for type checkers only.
    code = importlib.import_module(f"overnight.operators.{module}")
    operators = [
        kind
        for kind in vars(code).values()
        if isinstance(kind, type) and issubclass(kind, BaseOperator) and kind.__module__ == code.__name__
    ]
    for operator in operators:
        get_type_hints(operator.__init__)


@pytest.mark.parametrize("module", ["load", "index", "mirror", "shards", "ml_commons"])
def test_an_operator_imports_nothing_of_the_load_before_it_is_carried_out(module: str) -> None:
    imported = import_in_a_process(f"overnight.operators.{module}")
    assert [name for name in imported if name.startswith(("overnight.ingest.map", "overnight.ingest.loading"))] == []
    assert "boto3" not in imported


def test_what_a_package_offers_is_there_whatever_was_imported_before() -> None:
    code = (
        "import overnight.ingest, overnight.ingest.loading, overnight.jobs, overnight.jobs.runner as runner;"
        "from overnight.ingest import *; from overnight.jobs import *;"
        "assert load is overnight.ingest.loading.load and run is runner.run;"
        "assert set(overnight.ingest.__all__) <= set(dir(overnight.ingest))"
    )
    subprocess.run([sys.executable, "-c", code], check=True)
    with pytest.raises(ImportError, match="nothing"):
        from overnight.ingest import nothing  # type: ignore[attr-defined]  # noqa: F401
