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
    "jsonschema",
    "overnight.ingest.loading",
    "overnight.ingest.map",
    "overnight.ingest.read",
    "overnight.jobs.attach",
    "overnight.jobs.poller",
    "overnight.jobs.wait_settings",
    "overnight.services.azure_ingestion.service",
    "overnight.services.llamacloud.service",
    "overnight.services.ml_commons.ingest.service",
    "overnight.services.ml_commons.predict.service",
    "overnight.services.openai.service",
    "overnight.services.sagemaker.service",
)
"""What only a task that is carried out needs."""
MODULES = sorted(path.stem for path in Path(overnight.operators.__path__[0]).glob("[!_]*.py"))


def import_in_a_process(module: str) -> list[str]:
    code = f"import sys, airflow.sdk; before = set(sys.modules); import {module}; print(*set(sys.modules) - before)"
    return subprocess.run([sys.executable, "-c", code], capture_output=True, check=True, text=True).stdout.split()


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
    imported = import_in_a_process(", ".join(f"overnight.operators.{module}" for module in MODULES))
    assert [name for name in imported if f"{name}.".startswith(tuple(f"{part}." for part in CARRIED_OUT))] == []


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
