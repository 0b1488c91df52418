"""Every file of a work folder is known by its name; the writers' names are the judge."""

from __future__ import annotations

from datetime import UTC, datetime
from pathlib import Path

import pytest

from overnight.cli.work_folder import WorkFolder
from overnight.jobs import JobKey, JobRecord
from overnight.retention.layout import OWN, Kind, classify, classify_own, find_period_end
from overnight.services.openai.input import RequestTemplate, build
from overnight.services.sagemaker.spec import write_manifest
from overnight.storage import Storage


def test_each_file_that_prepare_writes_is_known(tmp_path: Path) -> None:
    documents = [b'{"id":"a","text":"x"}', b'{"id":"b","text":"x"}', b'{"id":"c"}']
    built = build(documents, RequestTemplate.embeddings("m"), str(tmp_path / "dag" / "run"), on_bad="reject")
    part = built.parts[0]
    loads = (part.dead_letter_uri, part.checkpoint_uri)
    paths = [*Storage().list_all(str(tmp_path)), *(str(Path(uri).relative_to(tmp_path)) for uri in loads)]
    assert len(paths) >= 5
    assert [path for path in paths if classify(path).kind is Kind.OTHER] == []


def test_each_file_that_an_overnight_run_writes_is_known(tmp_path: Path) -> None:
    folder = WorkFolder(str(tmp_path), Storage())
    documents = [b'{"id":"a","text":"x"}', b'{"id":"c"}']
    key = JobKey(dag_id="d", task_id="t", run_id="", fingerprint="0" * 16)
    with folder.claim():
        built = build(documents, RequestTemplate.embeddings("m"), folder.uri, on_bad="reject")
        folder.write_input("f", built)
        folder.open_records(0).set(JobRecord.intent(key))
        folder.write_report("{}")
    paths = list(Storage().list_all(str(tmp_path)))
    assert len(paths) == 8
    assert {classify_own(path).owner for path in paths} == {OWN}
    # Elsewhere these names are anybody's.
    assert {path for path in paths if classify(f"d/r/{path}").kind is Kind.OTHER} == {
        ".lock",
        "input.json",
        "jobs/part-00000.json",
        "run.json",
    }


@pytest.mark.parametrize(
    ("path", "kind", "owner"),
    [
        ("jobs/.part-00000.json-0123456789abcdef0123456789abcdef.tmp", Kind.TEMPORARY, OWN),
        ("reused-00000.answers.jsonl", Kind.REQUESTS, OWN),
        ("dag/run/part-00000.requests.jsonl", Kind.REQUESTS, "dag/run"),
        ("cache/v1/keys/1-a.parquet", Kind.CACHE, ""),
        ("notes.txt", Kind.OTHER, ""),
        ("jobs/notes.json", Kind.OTHER, ""),
        ("outputs/a.out", Kind.OTHER, ""),
    ],
)
def test_in_the_folder_of_an_overnight_run_all_else_is_what_it_is_elsewhere(path: str, kind: Kind, owner: str) -> None:
    found = classify_own(path)
    assert (found.kind, found.owner) == (kind, owner)


def test_a_manifest_of_sagemaker_is_known(tmp_path: Path) -> None:
    write_manifest(["s3://b/in/a.jsonl"], str(tmp_path / "d/r/outputs/_manifests"), prefix="s3://b/in/")
    assert [classify(path).kind for path in Storage().list_all(str(tmp_path))] == [Kind.RESULTS]


@pytest.mark.parametrize(
    ("path", "kind"),
    [
        ("d/r/reused-00001.answers.jsonl", Kind.REQUESTS),
        ("d/r/part-00000.repeated.jsonl", Kind.REQUESTS),
        ("d/r/part-00000.repeated.documents.jsonl", Kind.DOCUMENTS),
        ("d/r/chunks/chunks.jsonl", Kind.DOCUMENTS),
        ("d/r/parsed/bat-1.output.jsonl", Kind.RESULTS),
        ("d/r/extracted/bat-1.error.jsonl", Kind.RESULTS),
        ("d/r/outputs/2026/a.jsonl.out", Kind.RESULTS),
        ("d/r/outputs/_manifests/missing.jsonl", Kind.RESULTS),
        ("d/r/dead-letters.jsonl", Kind.DEAD_LETTERS),
        ("d/r/part-00000.dead-letters.jsonl.left.jsonl", Kind.DEAD_LETTERS),
        ("d/r/report.html", Kind.REPORTS),
        ("d/r/.part-00000.checkpoint.json-0123456789abcdef0123456789abcdef.tmp", Kind.TEMPORARY),
        ("d/_spending/2026-01/000001.json", Kind.SPENDING),
        ("cache/v1/keys/1-a.parquet", Kind.CACHE),
        ("d/r/notes.txt", Kind.OTHER),
        ("d/r/.notes.txt-0123456789abcdef0123456789abcdef.tmp", Kind.OTHER),
        ("d/r/deeper/report.json", Kind.OTHER),
        ("d/_spending/2026-01/notes.json", Kind.OTHER),
        ("report.json", Kind.OTHER),
        ("d/report.json", Kind.OTHER),
    ],
)
def test_a_name_says_what_a_file_is(path: str, kind: Kind) -> None:
    assert classify(path).kind is kind


@pytest.mark.parametrize(
    ("period", "end"),
    [
        ("2026-01", datetime(2026, 2, 1, tzinfo=UTC)),
        ("2026-12", datetime(2027, 1, 1, tzinfo=UTC)),
        ("2026-01-31", datetime(2026, 2, 1, tzinfo=UTC)),
        ("2026-W01", datetime(2026, 1, 5, tzinfo=UTC)),
        ("2026-99", None),
        ("2026-W99", None),
    ],
)
def test_a_period_ends_when_the_next_one_begins(period: str, end: datetime | None) -> None:
    assert find_period_end(f"{period}/000001.json") == end
