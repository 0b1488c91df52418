"""Whose the folder of an ``overnight run`` is, and who is kept out of it."""

from __future__ import annotations

import fcntl
import uuid
from pathlib import Path
from typing import Any

import pytest

from overnight.errors import SpecError
from overnight.retention.own_run import has_open_job, lock_run, read_identity
from overnight.storage import Storage


@pytest.mark.parametrize("content", [None, "", "[]", '{"id": 1}'])
def test_a_folder_without_a_runs_id_is_nobodys(tmp_path: Path, content: str | None) -> None:
    if content is not None:
        (tmp_path / "run.json").write_text(content)
    assert read_identity(str(tmp_path), Storage()) is None


def test_a_folder_has_the_id_of_its_run(tmp_path: Path) -> None:
    (tmp_path / "run.json").write_text('{"run_id": "abc"}')
    found = read_identity(str(tmp_path), Storage())
    assert found is not None
    assert found.run_id == "abc"


def test_a_record_that_has_gone_meanwhile_is_no_open_job(tmp_path: Path) -> None:
    assert not has_open_job([f"{tmp_path}/part-00000.json"], Storage())


def test_one_process_at_a_time_has_the_folder(tmp_path: Path) -> None:
    uri = f"{tmp_path}/work"
    with lock_run(uri, Storage(), create=True) as first:
        for create in (True, False):
            with lock_run(uri, Storage(), create=create) as second:
                assert (first, second) == (True, False)
    with lock_run(uri, Storage(), create=False) as free:
        assert free


def test_who_only_looks_makes_no_file(tmp_path: Path) -> None:
    with lock_run(str(tmp_path), Storage(), create=False) as free:
        assert free
    assert list(tmp_path.iterdir()) == []


def test_the_lock_of_a_folder_that_was_deleted_meanwhile_is_none(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    lock = fcntl.flock

    def lock_late(*arguments: Any) -> None:
        (tmp_path / ".lock").unlink()
        lock(*arguments)

    monkeypatch.setattr(fcntl, "flock", lock_late)
    with lock_run(str(tmp_path), Storage(), create=True) as free:
        assert not free


def test_an_object_store_has_no_lock() -> None:
    uri = f"memory://{uuid.uuid4().hex}/work"
    with lock_run(uri, Storage(), create=True) as first, lock_run(uri, Storage(), create=False) as second:
        assert (first, second) == (True, True)


def test_a_folder_that_cannot_be_used_is_refused(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(SpecError, match="cannot be written to"), lock_run(f"{tmp_path}/file", Storage(), create=True):
        pass
