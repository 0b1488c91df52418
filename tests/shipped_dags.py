"""The DAGs of dags/, as the folder has them."""

from __future__ import annotations

import runpy
from functools import cache
from pathlib import Path

from airflow.sdk import DAG

FOLDER = Path(__file__).parents[1] / "dags"


@cache
def shipped_dags() -> dict[str, DAG]:
    """
    Return every DAG that a file of dags/ defines, by its id.

    :raises AssertionError: A file defines none.
    """
    found: dict[str, DAG] = {}
    for path in sorted(FOLDER.glob("*.py")):
        dags = {value.dag_id: value for value in runpy.run_path(str(path)).values() if isinstance(value, DAG)}
        assert dags, f"{path.name} defines no DAG"
        found |= dags
    return found
