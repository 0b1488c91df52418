"""A work folder in S3 is cleaned as one on a disk is."""

from __future__ import annotations

import uuid
from datetime import UTC, datetime, timedelta

import pytest
import s3fs
from typer.testing import CliRunner

from overnight.cli.app import app
from overnight.retention import Retention, clean, make_plan
from overnight.services.openai.input import RequestTemplate, build
from overnight.storage import Storage

REPORT = b'{"submitted": 1, "indexed": 1, "missing": 0, "parts": []}'


@pytest.fixture
def filesystem(s3_endpoint: str, monkeypatch: pytest.MonkeyPatch) -> s3fs.S3FileSystem:
    settings = {
        "ENDPOINT_URL": s3_endpoint,
        "ACCESS_KEY_ID": "k",
        "SECRET_ACCESS_KEY": "s",
        "DEFAULT_REGION": "us-east-1",
    }
    for name, value in settings.items():
        monkeypatch.setenv(f"AWS_{name}", value)
    return s3fs.S3FileSystem(endpoint_url=s3_endpoint, key="k", secret="s", skip_instance_cache=True)


@pytest.fixture
def work_uri(filesystem: s3fs.S3FileSystem) -> str:
    bucket = f"clean-{uuid.uuid4().hex[:8]}"
    filesystem.mkdir(bucket)
    for run in ("done", "at-work"):
        build([b'{"id":"a","text":"x"}'], RequestTemplate.embeddings("m"), f"s3://{bucket}/work/dag/{run}")
    others = (
        "work/dag/done/report.json",
        "work/dag/done/outputs/_manifests/inputs.json",
        "work/dag/done/outputs/in[1] ?#%41.jsonl.out",
        "work/cache/v1/keys/1-a.parquet",
        "work/notes.txt",
        "work2/notes.txt",
    )
    for name in others:
        filesystem.pipe_file(f"{bucket}/{name}", REPORT)
    return f"s3://{bucket}/work"


def test_what_is_old_and_finished_goes_and_nothing_else(work_uri: str, filesystem: s3fs.S3FileSystem) -> None:
    # S3 does not let anybody choose when an object was written.
    later = datetime.now(UTC) + timedelta(days=31)
    plan = make_plan(work_uri, Storage(), Retention(), later)
    assert plan.old_runs == ["dag/done"]
    done = clean(plan, Storage())
    filesystem.invalidate_cache()
    left = {path.partition("/")[2] for path in filesystem.find(work_uri.removesuffix("/work"))}
    assert left == {
        "work/cache/v1/keys/1-a.parquet",
        "work/dag/at-work/part-00000.documents.jsonl",
        "work/dag/at-work/part-00000.requests.jsonl",
        "work/notes.txt",
        "work2/notes.txt",
    }
    assert (done.files, done.bytes) == (plan.old_files, plan.old_bytes)
    assert make_plan(work_uri, Storage(), Retention(), later).old_files == 0


def test_the_command_lists_it_and_leaves_what_is_young(work_uri: str, filesystem: s3fs.S3FileSystem) -> None:
    before = filesystem.find(work_uri)
    found = CliRunner().invoke(app, ["clean", work_uri, "--yes"])
    assert found.exit_code == 0, found.output
    assert "runs, recent: 2" in found.stdout
    filesystem.invalidate_cache()
    assert filesystem.find(work_uri) == before


def test_a_bucket_that_is_not_there_is_refused(filesystem: s3fs.S3FileSystem) -> None:
    assert CliRunner().invoke(app, ["clean", "s3://no-such-bucket-of-ours/work", "--yes"]).exit_code == 2
