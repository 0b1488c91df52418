"""What a work folder remembers, and whom it keeps out."""

from __future__ import annotations

import uuid
from datetime import UTC, datetime
from pathlib import Path

import pytest

from overnight.cli.work_folder import WorkFolder
from overnight.errors import SpecError
from overnight.jobs import JobKey, JobRecord, JobRef
from overnight.jobs.record import Ending
from overnight.services.openai.input import BuiltInput, RequestTemplate, ReusedPart, build
from overnight.services.openai.spec import OpenAIBatchSpec
from overnight.storage import Storage

SPECS = [
    OpenAIBatchSpec(
        input_uri=f"part-{n}", endpoint="/v1/embeddings", input_sha256=f"{n}" * 64, input_bytes=9, input_requests=9
    )
    for n in range(2)
]


@pytest.fixture(params=["disk", "object store"])
def folder(request: pytest.FixtureRequest, tmp_path: Path) -> WorkFolder:
    uri = str(tmp_path / "work") if request.param == "disk" else f"memory://{uuid.uuid4().hex}/work/"
    return WorkFolder(uri, Storage())


def record(spec: OpenAIBatchSpec, ending: Ending | None = None) -> JobRecord:
    key = JobKey(dag_id="d", task_id="t", run_id="", fingerprint=spec.fingerprint("c"))
    found = JobRecord.attached(JobRef(service="openai", id="batch_1", conn_id="c"), key, datetime.now(UTC))
    return found.ended(ending, 0) if ending is not None else found


def test_its_id_is_made_once(folder: WorkFolder) -> None:
    with folder.claim() as first:
        pass
    with WorkFolder(folder.uri, Storage()).claim() as second:
        assert first == second


def test_two_folders_have_two_ids(tmp_path: Path) -> None:
    with (
        WorkFolder(str(tmp_path / "a"), Storage()).claim() as one,
        WorkFolder(str(tmp_path / "b"), Storage()).claim() as other,
    ):
        assert one != other


def test_a_disks_folder_is_one_processs_at_a_time(tmp_path: Path) -> None:
    one, other = WorkFolder(str(tmp_path), Storage()), WorkFolder(str(tmp_path), Storage())
    with one.claim(), pytest.raises(SpecError, match="Another overnight run"), other.claim():
        pass
    with other.claim():
        pass


def test_a_folder_that_cannot_be_made_is_refused(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(SpecError, match="cannot be written"), WorkFolder(str(tmp_path / "file"), Storage()).claim():
        pass


def test_a_foreign_file_of_its_name_is_refused(tmp_path: Path) -> None:
    (tmp_path / "run.json").write_text("[]")
    with pytest.raises(SpecError, match="not of an overnight run"), WorkFolder(str(tmp_path), Storage()).claim():
        pass


def make_input(folder: WorkFolder) -> BuiltInput:
    documents = iter([{"id": "a", "text": "b"}])
    return build(documents, RequestTemplate.embeddings("m"), folder.uri, storage=Storage())


def test_the_input_is_known_again_until_it_is_made_of_something_else(folder: WorkFolder) -> None:
    assert folder.read_input("f") is None
    built = make_input(folder)
    folder.write_input("f", built)
    assert folder.read_input("f") == built
    assert folder.read_input("g") is None
    folder.forget_input()
    assert folder.read_input("f") is None


def test_an_input_without_its_files_or_that_cannot_be_read_is_made_anew(folder: WorkFolder) -> None:
    built = make_input(folder)
    folder.write_input("f", built)
    Storage().delete(built.parts[0].documents_uri)
    assert folder.read_input("f") is None
    Storage().put(f"{folder.uri}/input.json", b"{")
    assert folder.read_input("f") is None


def test_an_input_without_the_files_of_reused_or_repeated_documents_is_made_anew(folder: WorkFolder) -> None:
    built = make_input(folder)
    gone = f"{folder.uri}/gone.jsonl"
    reused = ReusedPart(uri=gone, documents_uri=built.parts[0].uri, dead_letter_uri="", checkpoint_uri="", documents=1)
    folder.write_input("f", built.model_copy(update={"reused": (reused,)}))
    assert folder.read_input("f") is None
    repeating = built.parts[0].model_copy(update={"repeated": 1, "repeated_uri": gone, "repeated_documents_uri": gone})
    folder.write_input("f", built.model_copy(update={"parts": (repeating,)}))
    assert folder.read_input("f") is None
    Storage().put(gone, b"{}")
    assert folder.read_input("f") is not None


def test_jobs_of_the_same_documents_or_that_failed_are_no_obstacle(folder: WorkFolder) -> None:
    folder.refuse_other_jobs(SPECS, "c")
    folder.open_records(0).set(record(SPECS[0]))
    folder.open_records(1).set(record(SPECS[1], Ending.ACCEPTED))
    folder.refuse_other_jobs(SPECS, "c")
    folder.open_records(1).set(record(SPECS[0], Ending.FINISHED))
    folder.refuse_other_jobs(SPECS, "c")
    folder.refuse_other_jobs(SPECS[:1], "c")


@pytest.mark.parametrize("ending", [None, Ending.ACCEPTED])
def test_jobs_of_other_documents_are_named(folder: WorkFolder, ending: Ending | None) -> None:
    folder.open_records(0).set(record(SPECS[0]))
    folder.open_records(1).set(record(SPECS[0], ending))
    for specs in (SPECS, SPECS[:1]):
        with pytest.raises(SpecError, match="batch_1 of other documents"):
            folder.refuse_other_jobs(specs, "c")


def test_an_intent_that_was_not_carried_out_counts_as_a_job(folder: WorkFolder) -> None:
    key = JobKey(dag_id="d", task_id="t", run_id="", fingerprint="0" * 16)
    folder.open_records(0).set(JobRecord.intent(key))
    with pytest.raises(SpecError, match="may have been submitted"):
        folder.refuse_other_jobs(SPECS, "c")


def test_the_report_lies_beside_the_parts(folder: WorkFolder) -> None:
    uri = folder.write_report("{}")
    assert uri == f"{folder.uri}/report.json"
    with Storage().open(uri) as file:
        assert file.read() == b"{}"
