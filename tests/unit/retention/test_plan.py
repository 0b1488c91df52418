"""What of a work folder may go."""

from __future__ import annotations

import fcntl
from collections.abc import Callable
from datetime import timedelta
from decimal import Decimal
from pathlib import Path
from typing import Any

import pytest

from overnight.costs.spending import SpendingRecord, Spent
from overnight.errors import SpecError
from overnight.retention import CleaningPlan, Retention, make_plan
from overnight.retention.layout import OWN, Kind
from overnight.retention.plan import Decision
from overnight.storage import Storage

from .conftest import FAILED, FILES, NOW, OWN_FILES, Write

WriteRun = Callable[..., None]


def plan(work: Path, **options: Any) -> CleaningPlan:
    return make_plan(str(work), Storage(), Retention(**options), NOW)


def test_a_finished_run_goes_when_none_of_its_files_is_young(work: Path, write: Write, write_run: WriteRun) -> None:
    write_run("dag/old")
    write_run("dag/young", days=3)
    write_run("dag/cleared")
    write("dag/cleared/part-00000.checkpoint.json", days=1)
    assert plan(work).runs == {
        "dag/old": Decision.DELETE,
        "dag/young": Decision.RECENT,
        "dag/cleared": Decision.RECENT,
    }


@pytest.mark.parametrize("report", [None, FAILED, "half a rep", '{"refused": "by ann"}'])
def test_a_run_that_is_not_finished_stays_unless_that_was_asked_for(
    work: Path, write_run: WriteRun, report: str | None
) -> None:
    write_run("dag/run", report=report)
    assert plan(work).runs == {"dag/run": Decision.UNFINISHED}
    assert plan(work, include_unfinished=True).runs == {"dag/run": Decision.DELETE}


@pytest.mark.parametrize(
    ("how", "decision"),
    [
        ({}, Decision.DELETE),
        ({"days": 3}, Decision.RECENT),
        ({"report": None}, Decision.UNFINISHED),
        ({"report": FAILED}, Decision.UNFINISHED),
        # The report is that of an earlier start.
        ({"ending": None}, Decision.UNFINISHED),
        ({"job": "no record"}, Decision.UNFINISHED),
    ],
)
def test_the_folder_of_an_overnight_run_is_decided_on_as_a_whole(
    work: Path, write_own: WriteRun, how: dict[str, Any], decision: Decision
) -> None:
    write_own(**how)
    assert plan(work).runs == {OWN: decision}
    everything = plan(work, include_unfinished=True)
    assert everything.runs == {OWN: decision if decision is Decision.RECENT else Decision.DELETE}
    assert plan(work).old_files == (len(OWN_FILES) if decision is Decision.DELETE else 0)


def test_an_overnight_run_that_is_at_work_stays_whatever_was_asked_for(work: Path, write_own: WriteRun) -> None:
    write_own()
    with (work / ".lock").open() as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        assert plan(work, include_unfinished=True).runs == {OWN: Decision.UNFINISHED}
    assert plan(work).runs == {OWN: Decision.DELETE}


def test_airflow_is_not_asked_about_an_overnight_run(work: Path, write_own: WriteRun) -> None:
    write_own()
    assert plan(work, is_active=lambda _: True).runs == {OWN: Decision.DELETE}


def test_an_overnight_run_that_was_refused_at_its_start_is_nothing_to_go_on_with(work: Path, write: Write) -> None:
    write("run.json", '{"run_id": "0123456789abcdef"}')
    write(".lock", "")
    assert plan(work).runs == {OWN: Decision.DELETE}
    write("input.json")
    assert plan(work).runs == {OWN: Decision.UNFINISHED}


def test_runs_of_pipelines_beside_an_overnight_run_are_what_they_were(
    work: Path, write_own: WriteRun, write_run: WriteRun
) -> None:
    write_own(days=3)
    write_run("dag/old")
    assert plan(work).runs == {OWN: Decision.RECENT, "dag/old": Decision.DELETE}


def test_a_run_json_of_another_program_makes_no_run(work: Path, write: Write) -> None:
    write("run.json", '{"name": "mine"}')
    write("part-00000.requests.jsonl")
    with pytest.raises(SpecError, match=r"is no work folder.*or the folder of an overnight run"):
        plan(work)


def test_what_a_pipeline_has_not_written_stays_and_is_counted(work: Path, write: Write, write_run: WriteRun) -> None:
    write_run("dag/run")
    write("dag/run/notes.txt", "mine")
    write("other/tool/report.json", '{"tests": 3}')
    kinds = {kind.kind: (kind.files, kind.old_files) for kind in plan(work).kinds}
    assert kinds[Kind.OTHER] == (2, 0)
    assert kinds[Kind.REPORTS] == (2, 2)
    assert "other/tool" not in plan(work, include_unfinished=True).runs


def test_kinds_are_counted_with_their_bytes(work: Path, write_run: WriteRun) -> None:
    write_run("dag/run")
    write_run("dag/next", days=2)
    found = plan(work)
    dead = next(kind for kind in found.kinds if kind.kind is Kind.DEAD_LETTERS)
    assert dead[1:] == (4, 8, 2, 4)
    assert found.old_files == len(FILES) + 2


def test_a_run_that_is_kept_or_at_work_stays(work: Path, write_run: WriteRun) -> None:
    write_run("dag/scheduled__2026-01-01T00_00_00_00_00")
    write_run("dag/manual")
    write_run("dag/old")
    found = plan(
        work, keep=["dag/scheduled__2026-01-01T00:00:00+00:00"], is_active=lambda name: name == "dag/manual"
    ).runs
    assert list(found.values()) == [Decision.UNFINISHED, Decision.DELETE, Decision.KEPT]


def test_the_cache_stays(work: Path, write: Write) -> None:
    write("cache/v1/answers/1-a.parquet", days=400)
    assert plan(work).old_files == 0


def record(run_id: str = "gone", *, reserved: Spent | None = None) -> str:
    return SpendingRecord(
        dag_id="dag", run_id=run_id, at=NOW, currency="USD", reserved=reserved or Spent(), jobs={"b": Spent(tokens=1)}
    ).model_dump_json()


@pytest.mark.parametrize(
    ("period", "content", "goes"),
    [
        ("2026-01", record(), True),
        ("2026-W05", record(), True),
        ("2026-01-31", record(), True),
        # Over, but not for thirty days.
        ("2026-03-15", record(), False),
        # Counted.
        ("2026-03", record(), False),
        # A report may be to come, which settles it.
        ("2026-01", record(reserved=Spent(cost=Decimal(1))), False),
        ("2026-01", record("young"), False),
        ("2026-01", record("old", reserved=Spent(cost=Decimal(1))), True),
        ("2026-01", "no record", False),
    ],
)
def test_a_record_goes_when_nobody_counts_or_settles_it(
    work: Path, write: Write, write_run: WriteRun, period: str, content: str, goes: bool
) -> None:
    write_run("dag/old")
    write_run("dag/young", days=1)
    write(f"dag/_spending/{period}/000001.json", content, days=200)
    assert len(plan(work).records) == goes


@pytest.mark.parametrize("path", ["a.txt", "dag/run/report.json", "up/dag/run/part-00000.requests.jsonl"])
def test_a_folder_that_is_no_work_folder_is_refused(work: Path, write: Write, path: str) -> None:
    write(path)
    with pytest.raises(SpecError, match=r"is no work folder.*Give the work_uri of the pipelines"):
        plan(work)


def test_a_folder_that_is_not_there_is_refused(work: Path) -> None:
    with pytest.raises(SpecError, match="is no work folder"):
        plan(work)


def test_a_link_to_other_files_is_not_followed(work: Path, write_run: WriteRun, tmp_path: Path) -> None:
    write_run("dag/run")
    precious = tmp_path / "precious"
    precious.write_text("{}")
    (work / "dag/run/part-00001.documents.jsonl").symlink_to(precious)
    assert plan(work).old_files == len(FILES) + 2


def test_less_than_a_day_is_refused() -> None:
    with pytest.raises(SpecError, match="Give 1d or more"):
        Retention(timedelta(hours=23))


@pytest.mark.parametrize("keep", ["dag/run", ["dag/run", "run"], ["dag/"], ["/run"]])
def test_what_is_to_be_kept_names_dag_and_run(keep: Any) -> None:
    with pytest.raises(SpecError, match="write DAG/RUN for each"):
        Retention(keep=keep)
