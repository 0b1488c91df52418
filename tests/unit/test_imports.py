"""What the DAG processor imports at every parse."""

from __future__ import annotations

import subprocess
import sys

import pytest

HEAVY = ("boto3", "botocore", "airflow.providers.amazon", "opensearchpy", "fastapi", "moto", "pyarrow")


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
