"""The step that deletes what old runs left, and asks Airflow first."""

from __future__ import annotations

import os
import time
from datetime import timedelta
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from airflow.sdk.exceptions import AirflowFailException

from overnight.operators.clean import CleanWorkFolderOperator

REPORT = '{"submitted": 1, "indexed": 1, "missing": 0, "parts": []}'
SCHEDULED = "scheduled__2026-01-01T00:00:00+00:00"
FOLDER = "scheduled__2026-01-01T00_00_00_00_00"


@pytest.fixture
def work(tmp_path: Path) -> Path:
    for name in (FOLDER, "plain", "by_hand"):
        for file in ("part-00000.requests.jsonl", "report.json"):
            path = tmp_path / "dag" / name / file
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(REPORT)
            at = time.time() - 40 * 86_400
            os.utime(path, (at, at))
    return tmp_path


def execute(work: Path, active: tuple[str, ...] = (), **options: Any) -> dict[str, Any]:
    def get_dr_count(dag_id: str, run_ids: list[str] | None = None, states: list[str] | None = None) -> int:
        assert (dag_id, states) == ("dag", ["queued", "running"])
        return sum(run_ids is None or run_id in run_ids for run_id in active)

    operator = CleanWorkFolderOperator(task_id="clean", work_uri=str(work), **options)
    return operator.execute({"ti": SimpleNamespace(get_dr_count=get_dr_count)})  # type: ignore[typeddict-item]


def list_runs(work: Path) -> set[str]:
    return {path.name for path in (work / "dag").iterdir()} if (work / "dag").exists() else set()


def test_old_runs_are_deleted(work: Path) -> None:
    assert execute(work) == {"files": 6, "bytes": 6 * len(REPORT), "runs": 3, "spared": []}
    assert list_runs(work) == set()


def test_a_run_that_airflow_is_at_work_on_stays(work: Path) -> None:
    # Of the folder by_hand nobody knows whether it is that run's.
    assert execute(work, (SCHEDULED,))["runs"] == 1
    assert list_runs(work) == {FOLDER, "by_hand"}


def test_a_preview_deletes_nothing(work: Path) -> None:
    assert execute(work, preview="true")["files"] == 6
    assert len(list_runs(work)) == 3


@pytest.mark.parametrize(("age", "runs"), [(timedelta(days=50), 0), ("6w", 0), ("30d", 3)])
def test_the_age_is_a_duration_or_a_text(work: Path, age: Any, runs: int) -> None:
    assert execute(work, older_than=age)["runs"] == runs


@pytest.mark.parametrize(
    ("options", "text"),
    [
        ({"older_than": "1h"}, "write days or weeks"),
        ({"older_than": timedelta(hours=1)}, "Give 1d or more"),
        ({"work_uri": None}, "work_uri"),
        ({"keep": "dag/plain"}, "write DAG/RUN for each"),
    ],
)
def test_what_is_wrong_is_refused_for_good(work: Path, options: dict[str, Any], text: str) -> None:
    with pytest.raises(AirflowFailException, match=text):
        CleanWorkFolderOperator(**{"task_id": "clean", "work_uri": str(work), **options}).execute(
            {"ti": SimpleNamespace(get_dr_count=lambda **_: 0)}  # type: ignore[typeddict-item]
        )
    assert len(list_runs(work)) == 3
