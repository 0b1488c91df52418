"""What ``overnight clean`` says, asks and exits with."""

from __future__ import annotations

import json
import os
import time
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner, Result

from overnight.cache import open_cache
from overnight.cache.digests import compute_digest
from overnight.cli import clean as command
from overnight.cli.app import app
from overnight.storage import Storage

REPORT = '{"submitted": 1, "indexed": 1, "missing": 0, "parts": []}'


def run(*arguments: Any, answer: str | None = None) -> Result:
    return CliRunner().invoke(app, ["clean", *map(str, arguments)], input=answer)


@pytest.fixture
def work(tmp_path: Path) -> Path:
    for name, days in (("old", 40), ("young", 2)):
        for file in ("part-00000.requests.jsonl", "report.json"):
            path = tmp_path / "dag" / name / file
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(REPORT)
            at = time.time() - days * 86_400
            os.utime(path, (at, at))
    return tmp_path


def list_runs(work: Path) -> list[str]:
    return sorted(path.name for path in (work / "dag").iterdir())


def test_a_dry_run_says_what_would_go_and_deletes_nothing(work: Path) -> None:
    found = run(work, "--dry-run", "--yes")
    assert found.exit_code == 0
    assert "delete dag/old\n" in found.stdout
    assert "To delete: 2 files" in found.stdout
    assert list_runs(work) == ["old", "young"]


def test_it_asks_before_it_deletes(work: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(command, "_is_asked", lambda: True)
    assert run(work, answer="n\n").exit_code == 0
    assert list_runs(work) == ["old", "young"]
    found = run(work, answer="y\n")
    assert "Deleted 2 files" in found.stdout
    assert list_runs(work) == ["young"]


def test_where_nobody_can_be_asked_nothing_is_deleted(work: Path) -> None:
    assert "Give --yes." in run(work).stdout
    assert list_runs(work) == ["old", "young"]


def test_with_yes_it_deletes_and_the_second_time_there_is_nothing(work: Path) -> None:
    assert "Deleted 2 files" in run(work, "--yes").stdout
    again = run(work, "--yes")
    assert (again.exit_code, "Deleted" in again.stdout) == (0, False)
    assert list_runs(work) == ["young"]


def test_as_json_it_is_one_object_and_dry_without_yes(work: Path) -> None:
    said = json.loads(run(work, "--json").stdout)
    assert said["to_delete"]["files"] == 2
    assert said["deleted"] is None
    assert said["runs"] == {"dag/old": "delete", "dag/young": "recent"}
    assert json.loads(run(work, "--json", "--yes").stdout)["deleted"]["files"] == 2
    assert list_runs(work) == ["young"]


def test_a_run_can_be_kept(work: Path) -> None:
    run(work, "--yes", "--keep", "dag/old")
    assert list_runs(work) == ["old", "young"]


@pytest.mark.parametrize("options", [["--older-than", "2h"], ["--older-than", "0d"]])
def test_a_wrong_age_is_refused(work: Path, options: list[str]) -> None:
    assert run(work, *options).exit_code == 2


def test_another_folder_is_refused_with_a_remedy(tmp_path: Path) -> None:
    (tmp_path / "a.txt").write_text("mine")
    found = run(tmp_path, "--yes")
    assert found.exit_code == 2
    assert "is no work folder" in found.stderr


@pytest.fixture
def cached(work: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Return the work folder, with two answers in a cache: an old one and a young one."""
    for days in (400, 1):
        with monkeypatch.context() as patches:
            at = time.time_ns() - days * 86_400 * 10**9
            patches.setattr(time, "time_ns", lambda at=at: at)
            with open_cache(f"{work}/cache", Storage()).open_writer() as writer:
                writer.add(compute_digest(b"%d" % days), b"answer")
    return work


def find_cached(work: Path) -> list[int]:
    cache = open_cache(f"{work}/cache", Storage())
    return [days for days in (400, 1) if cache.find([compute_digest(b"%d" % days)])]


def test_the_cache_stays_unless_its_age_is_given(cached: Path) -> None:
    assert json.loads(run(cached, "--yes", "--json").stdout)["cache"] is None
    assert find_cached(cached) == [400, 1]


def test_a_dry_run_says_what_of_the_cache_would_expire(cached: Path) -> None:
    found = run(cached, "--dry-run", "--cache-older-than", "52w")
    assert "cache: 2 files" in found.stdout
    assert "have expired (1 answers)" in found.stdout
    assert find_cached(cached) == [400, 1]
    assert len(list((cached / "cache/v1/answers").iterdir())) == 2


def test_answers_expire_first_and_their_files_are_deleted_by_a_later_clean(cached: Path) -> None:
    options = ("--cache-older-than", "365d", "--cache-grace", "5d")
    said = json.loads(run(cached, "--yes", "--json", *options).stdout)["cache"]
    assert (said["entries"], said["expired"]["files"], said["to_delete"]["files"]) == (1, 1, 0)
    assert said["deleted"]["entries"] == 1
    assert find_cached(cached) == [1]
    (mark,) = (cached / "cache/v1/answers").glob("*.unneeded")
    at = time.time() - 6 * 86_400
    os.utime(mark, (at, at))
    waiting = json.loads(run(cached, "--json", "--cache-older-than", "365d").stdout)["cache"]
    assert (waiting["waiting"]["files"], waiting["to_delete"]["files"]) == (1, 0)
    said_then = run(cached, "--yes", *options).stdout
    assert "Cache: 0 answers have expired; deleted 1 files" in said_then
    assert len(list((cached / "cache/v1/answers").iterdir())) == 1


def test_a_cache_elsewhere_is_named(cached: Path) -> None:
    (cached / "cache").rename(cached / "elsewhere")
    run(cached, "--yes", "--cache-older-than", "365d", "--cache-uri", cached / "elsewhere")
    assert len(list((cached / "elsewhere/v1/answers").glob("*.unneeded"))) == 1


@pytest.mark.parametrize(
    "options",
    [
        ["--cache-older-than", "2h"],
        ["--cache-older-than", "30d", "--cache-grace", "1d"],
        ["--cache-uri", "s3://bucket/cache"],
    ],
)
def test_a_wrong_option_of_the_cache_is_refused_and_nothing_deleted(cached: Path, options: list[str]) -> None:
    assert run(cached, "--yes", *options).exit_code == 2
    assert list_runs(cached) == ["old", "young"]


def test_the_folder_of_an_overnight_run_is_named_and_deleted_when_it_is_finished(tmp_path: Path) -> None:
    folder = tmp_path / "night"
    folder.mkdir()
    for file, content in (("run.json", '{"run_id": "abc"}'), ("part-00000.requests.jsonl", "{}")):
        (folder / file).write_text(content)
        os.utime(folder / file, (0, 0))
    found = run(folder, "--dry-run")
    assert (found.exit_code, "runs, unfinished: 1\n" in found.stdout) == (0, True), found.stderr
    (folder / "report.json").write_text(REPORT)
    os.utime(folder / "report.json", (0, 0))
    found = run(folder, "--dry-run")
    assert f"delete {folder}\nTo delete: 3 files" in found.stdout
    assert len(list(folder.iterdir())) == 3
    assert "Deleted 3 files" in run(folder, "--yes").stdout
    assert not folder.exists()
