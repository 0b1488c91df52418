"""What the version before wrote is read, and what the version after may add is not stumbled over."""

from __future__ import annotations

import json
import os
import re
import stat
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest

from overnight.errors import MAX_TEXT, SpecError
from overnight.hooks.record_store import RECORD, TaskStateRecordStore
from overnight.jobs import (
    FailureCause,
    FileRecordStore,
    FoundJob,
    JobError,
    JobKey,
    JobRecord,
    JobRef,
    JobState,
    JobStatus,
    ResultManifest,
)
from overnight.jobs.model import MAX_ERRORS, VERSION
from overnight.jobs.record_store import StorageRecordStore
from overnight.storage import Storage

VERSION_1: dict[str, Any] = json.loads((Path(__file__).parents[1] / "version_1.json").read_text())
MODELS = {"status": JobStatus, "record": JobRecord, "ref": JobRef, "manifest": ResultManifest, "found": FoundJob}
NOW = datetime(2026, 11, 23, 1, 2, 3, tzinfo=UTC)
KEY = JobKey(dag_id="d", task_id="t", run_id="r", fingerprint="0" * 16)


@pytest.mark.parametrize("name", MODELS)
def test_json_of_version_1_is_read_and_written_as_the_present_version(name: str) -> None:
    read = MODELS[name].model_validate(VERSION_1[name])
    written = json.loads(read.model_dump_json())
    assert written["version"] == VERSION
    assert MODELS[name].model_validate(written) == read


def test_the_fields_that_were_called_otherwise_keep_their_values() -> None:
    status = JobStatus.model_validate(VERSION_1["status"])
    assert (status.cause, status.results_expire_at) == (FailureCause.SERVICE, NOW)
    assert (status.state, status.counts.failed, status.errors[0].line) == (JobState.FAILED, 2, 2)


@pytest.mark.parametrize("name", MODELS)
def test_json_of_a_later_version_is_read_without_what_is_new_in_it(name: str) -> None:
    read = MODELS[name].model_validate(VERSION_1[name])
    later = {**read.model_dump(mode="json"), "version": 99, "new": {"deeply": ["nested"]}}
    assert MODELS[name].model_validate(later) == read


def test_a_part_of_a_later_version_is_read_too() -> None:
    later = {"state": "failed", "raw": "f", "counts": {"total": 1, "skipped": 1}, "errors": [{"message": "m", "n": 1}]}
    assert JobStatus.model_validate(later).counts.total == 1


def test_a_status_is_bounded_whatever_a_service_says() -> None:
    long = "x" * 1_000_000
    error = JobError(code=long, message=long, param=long)
    status = JobStatus(state=JobState.FAILED, raw=long, errors=(error,) * 5_000, warnings=(long,) * 5_000)
    assert len(status.errors) == len(status.warnings) == MAX_ERRORS
    assert len(status.model_dump_json()) < (4 * MAX_ERRORS + 2) * (MAX_TEXT + 100)
    assert len(status.describe()) < 10 * MAX_TEXT


class TestFileRecordStore:
    def test_returns_what_was_written_last(self, tmp_path: Path) -> None:
        store = FileRecordStore(tmp_path / "new" / "deep" / "job.json")
        assert store.get() is None
        for generation in range(3):
            store.set(JobRecord.intent(KEY.model_copy(update={"generation": generation})))
        again = FileRecordStore(str(tmp_path / "new" / "deep" / "job.json")).get()
        assert again is not None
        assert again.generation == 2
        assert [path.name for path in (tmp_path / "new" / "deep").iterdir()] == ["job.json"]

    def test_a_write_that_breaks_off_leaves_the_record_before(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        store = FileRecordStore(tmp_path / "job.json")
        first = JobRecord.intent(KEY)
        store.set(first)

        def full(handle: int) -> None:
            raise OSError("no space left on device")

        monkeypatch.setattr("os.fsync", full)
        with pytest.raises(OSError, match="no space"):
            store.set(JobRecord.intent(KEY.model_copy(update={"generation": 1})))
        assert store.get() == first
        assert [path.name for path in tmp_path.iterdir()] == ["job.json"]

    def test_the_file_and_then_its_folder_are_on_the_disk_when_a_write_returns(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        path = tmp_path / "job.json"
        record = JobRecord.intent(KEY)
        synced: list[tuple[bool, bool]] = []
        temporary: list[str] = []

        def sync(handle: int) -> None:
            is_folder = stat.S_ISDIR(os.fstat(handle).st_mode)
            if not is_folder:
                temporary.extend(one.name for one in tmp_path.iterdir())
                assert JobRecord.model_validate_json((tmp_path / temporary[0]).read_bytes()) == record
            synced.append((is_folder, path.exists()))

        monkeypatch.setattr("os.fsync", sync)
        FileRecordStore(path).set(record)
        assert synced == [(False, False), (True, True)]
        # Hidden, so that nobody who lists the folder takes it for a record.
        assert temporary[0].startswith(".job.json-")
        assert temporary[0].endswith(".tmp")
        assert path.read_text() == record.model_dump_json(indent=2)

    def test_what_is_no_record_is_said_with_its_place(self, tmp_path: Path) -> None:
        (tmp_path / "job.json").write_bytes(b"{}")
        with pytest.raises(SpecError, match=re.escape(str(tmp_path / "job.json"))):
            FileRecordStore(tmp_path / "job.json").get()

    @pytest.mark.parametrize("content", [b"", b"{", b"[]", b"null", b"{}", b'{"generation": "x"}', b"\xff"])
    def test_what_is_no_record_is_not_taken_for_absent(self, tmp_path: Path, content: bytes) -> None:
        (tmp_path / "job.json").write_bytes(content)
        with pytest.raises(SpecError, match="Nothing was submitted"):
            FileRecordStore(tmp_path / "job.json").get()


class TestTaskStateRecordStore:
    class Store(dict[str, Any]):
        def set(self, key: str, value: Any) -> None:
            self[key] = json.loads(json.dumps(value))

    def test_returns_what_was_written(self) -> None:
        airflow = self.Store()
        assert TaskStateRecordStore(airflow).get() is None
        TaskStateRecordStore(airflow).set(JobRecord.intent(KEY))
        read = TaskStateRecordStore(airflow).get()
        assert read is not None
        assert read.key == KEY

    def test_what_is_no_record_is_not_taken_for_absent(self) -> None:
        with pytest.raises(SpecError, match=f"under '{RECORD}'"):
            TaskStateRecordStore({RECORD: {"ref": "p0"}}).get()


class TestStorageRecordStore:
    @pytest.mark.parametrize("kind", ["disk", "object store"])
    def test_returns_what_was_written_last(self, tmp_path: Path, kind: str) -> None:
        folder = str(tmp_path) if kind == "disk" else f"memory://{tmp_path.name}"
        store = StorageRecordStore(f"{folder}/new/deep/job.json", Storage())
        assert store.get() is None
        for generation in range(3):
            store.set(JobRecord.intent(KEY.model_copy(update={"generation": generation})))
        again = StorageRecordStore(store.uri, Storage()).get()
        assert again is not None
        assert again.generation == 2
        assert len(Storage().list_all(folder)) == 1

    def test_what_is_no_record_is_refused(self, tmp_path: Path) -> None:
        (tmp_path / "job.json").write_text("{}")
        with pytest.raises(SpecError, match="no record of a job"):
            StorageRecordStore(str(tmp_path / "job.json"), Storage()).get()
