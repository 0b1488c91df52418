"""What the DAG processor imports at every parse."""

from __future__ import annotations

import subprocess
import sys

import pytest

HEAVY = ("boto3", "botocore", "airflow.providers.amazon", "opensearchpy", "fastapi", "moto", "pyarrow")


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
    code = f"import sys, airflow.sdk; before = set(sys.modules); import {module}; print(*set(sys.modules) - before)"
    imported = subprocess.run([sys.executable, "-c", code], capture_output=True, check=True, text=True).stdout.split()
    assert [name for name in imported if name.startswith(tuple(f"{heavy}." for heavy in HEAVY)) or name in HEAVY] == []
