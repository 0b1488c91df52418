"""What is deleted, whenever it is killed and whoever else does the same."""

from __future__ import annotations

import fcntl
import itertools
import os
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from datetime import timedelta
from pathlib import Path
from tempfile import TemporaryDirectory

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from overnight.cli.work_folder import WorkFolder
from overnight.errors import SpecError, UnavailableError
from overnight.retention import Retention, clean, make_plan
from overnight.retention.layout import OWN
from overnight.storage import Storage

from .conftest import FAILED, FILES, NOW, OWN_FILES, REPORT, Write

WriteRun = Callable[..., None]


class Breaking(Storage):
    """A storage that is gone after some deletes, as the process would be."""

    left = 0

    def delete(self, uri: str) -> None:
        if type(self).left == 0:
            raise UnavailableError("gone")
        type(self).left -= 1
        super().delete(uri)


def list_files(work: Path) -> set[str]:
    return {path.relative_to(work).as_posix() for path in work.rglob("*") if path.is_file()}


def test_the_files_of_an_old_run_are_gone_and_its_folder_with_them(work: Path, write_run: WriteRun) -> None:
    write_run("dag/old")
    write_run("dag/young", days=1)
    done = clean(make_plan(str(work), Storage(), Retention(), NOW), Storage())
    assert (done.files, done.runs, done.spared) == (len(FILES) + 2, 1, ())
    assert [path.name for path in (work / "dag").iterdir()] == ["young"]
    assert len(list_files(work)) == len(FILES) + 2


def test_files_of_others_stay_where_they_are(work: Path, write: Write, write_run: WriteRun) -> None:
    write_run("dag/old")
    write("dag/old/notes.txt")
    clean(make_plan(str(work), Storage(), Retention(), NOW), Storage())
    assert list_files(work) == {"dag/old/notes.txt"}


def test_the_folder_of_an_overnight_run_is_gone_but_for_what_is_not_its_own(
    work: Path, write: Write, write_own: WriteRun
) -> None:
    write_own()
    done = clean(make_plan(str(work), Storage(), Retention(), NOW), Storage())
    assert (done.files, done.runs, done.spared) == (len(OWN_FILES), 1, ())
    assert not work.exists()
    write_own()
    for path in ("notes.txt", "cache/v1/keys/1-a.parquet", "outputs/a.out"):
        write(path)
    clean(make_plan(str(work), Storage(), Retention(), NOW), Storage())
    assert list_files(work) == {"notes.txt", "cache/v1/keys/1-a.parquet", "outputs/a.out"}


def test_an_overnight_run_that_was_begun_since_the_plan_is_spared(work: Path, write_own: WriteRun) -> None:
    write_own()
    plan = make_plan(str(work), Storage(), Retention(include_unfinished=True), NOW)
    with (work / ".lock").open() as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        assert clean(plan, Storage()).spared == (OWN,)
    assert list_files(work) == set(OWN_FILES)


def test_a_run_that_begins_while_its_folder_is_cleaned_is_refused(work: Path, write_own: WriteRun) -> None:
    refused: list[str] = []

    class Beginning(Storage):
        def delete(self, uri: str) -> None:
            with pytest.raises(SpecError, match="Another overnight run"), WorkFolder(str(work), Storage()).claim():
                pass
            refused.append(uri)
            super().delete(uri)

    write_own()
    plan = make_plan(str(work), Storage(), Retention(), NOW)
    clean(plan, Beginning())
    assert len(refused) == len(OWN_FILES)


@pytest.mark.parametrize("report", [REPORT, FAILED, None])
def test_after_a_kill_at_any_place_the_next_one_finds_the_rest_of_an_overnight_run(
    work: Path, write_own: WriteRun, report: str | None
) -> None:
    retention = Retention(include_unfinished=report != REPORT)
    for deletes in itertools.count():
        write_own(report=report)
        Breaking.left = deletes
        try:
            clean(make_plan(str(work), Storage(), retention, NOW), Breaking())
        except UnavailableError:
            if (work / "run.json").exists():
                clean(make_plan(str(work), Storage(), retention, NOW), Storage())
            assert list_files(work) <= {".lock"}
        else:
            break
    assert deletes >= len(OWN_FILES) - 1


def test_a_run_that_was_cleared_since_the_plan_is_spared(work: Path, write: Write, write_run: WriteRun) -> None:
    write_run("dag/old")
    plan = make_plan(str(work), Storage(), Retention(), NOW)
    write("dag/old/part-00000.requests.jsonl", days=0)
    before = list_files(work)
    assert clean(plan, Storage()).spared == ("dag/old",)
    assert list_files(work) == before


@pytest.mark.parametrize("report", [REPORT, FAILED, None])
def test_after_a_kill_at_any_place_the_next_one_finds_the_rest(
    work: Path, write_run: WriteRun, report: str | None
) -> None:
    retention = Retention(include_unfinished=report != REPORT)
    for deletes in itertools.count():
        write_run("dag/old", report=report)
        write_run("dag/young", days=1)
        Breaking.left = deletes
        plan = make_plan(str(work), Storage(), retention, NOW)
        try:
            clean(plan, Breaking())
        except UnavailableError:
            clean(make_plan(str(work), Storage(), retention, NOW), Storage())
            assert not (work / "dag/old").exists()
        else:
            break
    assert deletes >= len(FILES)
    assert (work / "dag/young").exists()


def test_two_at_once_delete_what_one_would(work: Path, write_run: WriteRun) -> None:
    for number in range(10):
        write_run(f"dag/old{number}")
    write_run("dag/young", days=1)
    plan = make_plan(str(work), Storage(), Retention(), NOW)
    with ThreadPoolExecutor(2) as pool:
        list(pool.map(lambda _: clean(plan, Storage()), range(2)))
    assert {path.split("/")[1] for path in list_files(work)} == {"young"}


AGES = st.sampled_from([0, 1, 29, 31, 400])
RUNS = st.dictionaries(
    st.sampled_from(["a/r1", "a/r2", "b/r1"]),
    st.tuples(
        st.dictionaries(st.sampled_from([*FILES, "notes.txt", "outputs/a.out"]), AGES, min_size=1),
        st.sampled_from([None, REPORT, FAILED]),
        AGES,
    ),
    min_size=1,
)


@settings(max_examples=100, deadline=None)
@given(runs=RUNS, cache=AGES)
def test_nothing_goes_that_a_reader_may_ask_for(
    runs: dict[str, tuple[dict[str, int], str | None, int]], cache: int
) -> None:
    with TemporaryDirectory() as folder:
        work = Path(folder)
        needed = {"cache/v1/keys/1-a.parquet"}

        def write(path: str, content: str, days: int) -> None:
            file = work / path
            file.parent.mkdir(parents=True, exist_ok=True)
            file.write_text(content)
            at = (NOW - timedelta(days=days)).timestamp()
            os.utime(file, (at, at))

        write("cache/v1/keys/1-a.parquet", "", cache)
        for name, (files, report, age) in runs.items():
            ages = [*files.values(), *([age] if report is not None else [])]
            # Of these a retry or a clear reads every file.
            is_needed = min(ages) < 30 or report != REPORT
            for file, days in files.items():
                write(f"{name}/{file}", "{}", days)
                if is_needed or file == "notes.txt":
                    needed.add(f"{name}/{file}")
            if report is not None:
                write(f"{name}/report.json", report, age)
                needed |= {f"{name}/report.json"} if is_needed else set()
        clean(make_plan(folder, Storage(), Retention(), NOW), Storage())
        assert list_files(work) == needed
