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

from overnight.cache import open_cache
from overnight.cache.digests import compute_digest
from overnight.operators.clean import CleanWorkFolderOperator
from overnight.storage import Storage

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
        ({"cache_older_than": "1h"}, "cache_older_than='1h'"),
        ({"cache_older_than": "1d", "cache_grace": "1d"}, "Give 3d or more"),
        ({"cache_uri": "s3://bucket/cache"}, "give cache_older_than"),
    ],
)
def test_what_is_wrong_is_refused_for_good(work: Path, options: dict[str, Any], text: str) -> None:
    with pytest.raises(AirflowFailException, match=text):
        CleanWorkFolderOperator(**{"task_id": "clean", "work_uri": str(work), **options}).execute(
            {"ti": SimpleNamespace(get_dr_count=lambda **_: 0)}  # type: ignore[typeddict-item]
        )
    assert len(list_runs(work)) == 3


@pytest.mark.parametrize("elsewhere", [False, True])
def test_old_answers_of_the_cache_expire_where_an_age_is_given(
    work: Path, monkeypatch: pytest.MonkeyPatch, elsewhere: bool
) -> None:
    uri = str(work / ("elsewhere" if elsewhere else "cache"))
    cache_uri = uri if elsewhere else "None"
    key = compute_digest(b"asked")
    with monkeypatch.context() as patches:
        at = time.time_ns() - 60 * 86_400 * 10**9
        patches.setattr(time, "time_ns", lambda: at)
        with open_cache(uri, Storage()).open_writer() as writer:
            writer.add(key, b"answer")

    assert "cache" not in execute(work, cache_older_than="None", older_than="90d")
    old: dict[str, Any] = {"cache_older_than": timedelta(days=59), "cache_uri": cache_uri, "older_than": "90d"}
    assert execute(work, preview=True, **old)["cache"] == {"entries": 1, "files": 0, "bytes": 0}
    assert open_cache(uri, Storage()).find([key])
    assert execute(work, **old)["cache"]["entries"] == 1
    assert not open_cache(uri, Storage()).find([key])
    (mark,) = Path(uri).glob("v1/answers/*.unneeded")
    os.utime(mark, (time.time() - 8 * 86_400,) * 2)
    assert execute(work, **old)["cache"]["files"] == 1
    assert list(Path(uri).glob("v1/answers/*")) == []
