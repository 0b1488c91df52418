"""Uploads are deleted once their job is over, and nothing else is."""

from __future__ import annotations

import httpx
import pytest

from overnight.errors import UnavailableError
from overnight.jobs import JobKey, JobRef
from overnight.sandbox.services import KEY
from overnight.services.llamacloud.cleanup import delete_uploads

from .conftest import FAST, Bench, parsing, read_lines

SMALL = FAST.model_copy(update={"files_per_batch": 10})


def count_files(bench: Bench, key: JobKey) -> int:
    """Return how many files of a job's directories the service still has."""
    found = 0
    for directory in bench.directories(key):
        for file in bench.get(f"/api/v1/beta/directories/{directory['id']}/files", page_size=1000)["items"]:
            answer = httpx.get(
                f"{bench.url}/api/v1/beta/files/{file['file_id']}/content", headers={"Authorization": f"Bearer {KEY}"}
            )
            found += answer.status_code == 200
    return found


def test_the_uploads_of_all_batches_are_deleted_and_the_results_stay(bench: Bench, key: JobKey) -> None:
    with bench.client(limits=SMALL, results_uri=str(bench.folder / "results")) as client:
        ref = client.run(client.service.submit(parsing(bench.files(12)), key))
        before = bench.finish(client, ref)
        assert count_files(bench, key) == 12
        found = client.run(delete_uploads(ref))
        assert (len(found.deleted), found.kept) == (12, ())
        assert count_files(bench, key) == 0
        # Once more, and what a cleared task asks: the job is there, and its results can be collected.
        assert len(client.run(delete_uploads(ref)).deleted) == 12
        assert client.run(client.service.status(ref)) == before
        lines = read_lines(client.run(client.service.results(ref)), "output")
    assert {line["name"] for line in lines} == {f"note-{n:04}.md" for n in range(12)}


def test_the_files_of_a_directory_of_the_users_own_are_left(bench: Bench, key: JobKey) -> None:
    headers = {"Authorization": f"Bearer {KEY}"}
    folder = f"{bench.url}/api/v1/beta/directories"
    own = httpx.post(folder, json={"name": "mine", "type": "user"}, headers=headers).raise_for_status().json()["id"]
    upload = {"upload_file": ("a.md", b"# mine\n")}
    httpx.post(f"{folder}/{own}/files/upload", files=upload, headers=headers).raise_for_status()
    spec = parsing("x").model_copy(update={"sources": (), "directory_id": own})
    with bench.client() as client:
        ref = client.run(client.service.submit(spec, key))
        bench.finish(client, ref)
        assert client.run(delete_uploads(ref)) == ((), ())
    assert count_files(bench, key) == 1


def test_the_files_of_a_job_that_runs_are_kept(bench: Bench, key: JobKey) -> None:
    bench.set("pace", pending=60.0)
    with bench.client() as client:
        ref: JobRef = client.run(client.service.submit(parsing(bench.files(2)), key))
        with pytest.raises(UnavailableError, match="is not over"):
            client.run(delete_uploads(ref))
        assert count_files(bench, key) == 2
        client.run(client.service.cancel(ref))
