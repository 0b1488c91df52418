"""What becomes of a job: stages, ends, faults, expiry, refreshes, restarts."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any, get_args

import pytest

from overnight.sandbox.azure.errors import DESCRIPTIONS, Code

DAY = 86_400
JOBS = "/openai/extensions/on-your-data/ingestion-jobs"


def stages(job: dict[str, Any]) -> dict[str, tuple[int, int]]:
    return {stage["name"]: (stage["processedItems"], stage["totalItems"]) for stage in job["progress"]["stageProgress"]}


def test_documents_end_up_in_the_index_in_chunks(azure: Any) -> None:
    azure.blob("whales.md", "# Whales\n\n" + "The blue whale eats krill. " * 10)
    azure.blob("deep/rockets.html", "<h1>Rockets</h1><p>They fly to the moon.</p>")
    azure.put(body={"dataRefreshIntervalInMinutes": 0, "chunkSize": 20})
    job = azure.over()
    assert (job["status"], job["warnings"]) == ("succeeded", [])
    # 2 + 10 * 6 tokens make 4 chunks of 20; "# Rockets They fly to the moon ." makes one.
    assert stages(job) == {"Preprocessing": (2, 2), "Indexing": (5, 5)}
    assert azure.count() == 5
    found = azure.search("moon", count=True)
    assert found["@odata.count"] == 1
    (row,) = found["value"]
    assert (row["title"], row["filepath"], row["chunk_id"]) == ("Rockets", "deep/rockets.html", "0")


def test_what_cannot_be_read_is_a_warning(azure: Any) -> None:
    azure.blob("a.docx", b"x")
    azure.blob("b.txt", "words")
    azure.put()
    job = azure.over()
    assert job["status"] == "succeeded"
    assert len(job["warnings"]) == 1
    assert job["warnings"][0].startswith("a.docx was left out")
    assert azure.count() == 1


def test_an_empty_container_makes_an_empty_index(azure: Any, tmp_path: Path) -> None:
    (tmp_path / "data" / "blobs" / "docs").mkdir()
    azure.put()
    assert azure.over()["status"] == "succeeded"
    assert azure.count() == 0


def test_a_missing_container_fails_the_job(azure: Any) -> None:
    azure.put()
    job = azure.over()
    assert (job["status"], job["error"]["code"], job["error"]["target"]) == ("failed", "notFound", "storageContainer")


def test_a_folder_stands_for_a_storage_account(azure: Any, tmp_path: Path) -> None:
    (tmp_path / "acc ount" / "docs").mkdir(parents=True)
    (tmp_path / "acc ount" / "docs" / "a.txt").write_text("words")
    azure.put(storageConnectionString=f"AccountName=x;BlobEndpoint={(tmp_path / 'acc ount').as_uri()}")
    assert azure.over()["status"] == "succeeded"
    assert azure.count() == 1


def test_a_wrong_admin_key_fails_the_job(azure: Any) -> None:
    azure.blob("a.txt", "words")
    azure.put(searchServiceAdminKey="wrong")
    assert azure.over()["error"]["code"] == "unauthorized"


def test_the_stages_are_seen_one_after_the_other(azure: Any) -> None:
    azure.set("pace", queued=0.2, documents_per_second=10, chunks_per_second=50)
    for number in range(4):
        azure.blob(f"{number}.txt", "word " * 5)
    assert azure.put(body={"dataRefreshIntervalInMinutes": 0, "chunkSize": 1}).json()["status"] == "notRunning"
    seen: list[tuple[str, dict[str, tuple[int, int]]]] = []

    def note(job: dict[str, Any]) -> bool:
        seen.append((job["status"], stages(job)))
        return job["status"] == "succeeded"

    azure.wait(note)
    assert [status for number, (status, _) in enumerate(seen) if number == 0 or seen[number - 1][0] != status] == [
        "notRunning",
        "running",
        "succeeded",
    ]
    assert any(0 < done["Preprocessing"][0] < 4 and done["Indexing"][0] == 0 for _, done in seen)
    assert any(done["Preprocessing"] == (4, 4) and 0 < done["Indexing"][0] < 20 for _, done in seen)


def test_a_job_is_forgotten_48_hours_after_its_end(azure: Any) -> None:
    azure.blob("a.txt", "words")
    azure.put()
    azure.over()
    azure.advance(2 * DAY - 60)
    assert azure.get().status_code == 200
    azure.advance(120)
    assert azure.get().json()["error"]["code"] == "notFound"
    assert azure.client.get(JOBS).json() == {"value": []}
    assert azure.count() == 1


def test_a_running_job_is_not_forgotten(azure: Any) -> None:
    azure.set("faults", job_stuck=1)
    azure.blob("a.txt", "words")
    azure.put()
    azure.wait(lambda job: job["status"] == "running")
    azure.advance(30 * DAY)
    assert azure.get().json()["status"] == "running"


def test_a_refreshed_job_runs_again_and_follows_the_container(azure: Any, tmp_path: Path) -> None:
    azure.blob("a.txt", "old words")
    azure.blob("gone.txt", "ephemeral")
    azure.put(body={"dataRefreshIntervalInMinutes": 60})
    azure.over()
    assert azure.count() == 2
    azure.blob("b.txt", "new words")
    (tmp_path / "data" / "blobs" / "docs" / "gone.txt").unlink()
    azure.blob("c.txt", "more words")
    assert azure.get().json()["status"] == "succeeded"
    azure.advance(3_600)
    azure.wait(lambda job: job["status"] == "succeeded" and stages(job)["Preprocessing"] == (3, 3))
    assert azure.count() == 3
    assert azure.search("ephemeral")["value"] == []
    azure.advance(30 * DAY)
    assert azure.get().status_code == 200


@pytest.mark.parametrize("code", get_args(Code))
def test_a_job_fails_with_every_code(azure: Any, code: str) -> None:
    azure.set("faults", job_failed=1, job_failed_code=code)
    azure.blob("a.txt", "words")
    azure.put()
    job = azure.over()
    assert (job["status"], job["error"]["code"]) == ("failed", code)


@pytest.mark.parametrize("code", get_args(Code))
def test_a_request_is_refused_with_every_code_and_not_carried_out(azure: Any, code: Any) -> None:
    azure.set("faults", refused={"share": 1, "times": 1, "methods": ["PUT"]}, refused_code=code)
    answer = azure.put()
    assert (answer.status_code, answer.json()["error"]["code"]) == (DESCRIPTIONS[code][0], code)
    assert ("retry-after" in answer.headers) == (answer.status_code in (429, 503))
    assert azure.get().status_code == 404
    assert azure.put().status_code == 200


def test_a_request_may_be_carried_out_and_yet_refused(azure: Any) -> None:
    azure.set("faults", refused_after={"share": 1, "methods": ["PUT"]}, refused_code="internalFailure")
    assert azure.put().status_code == 500
    assert azure.get().status_code == 200


def test_the_later_previews_words_can_be_had(azure: Any) -> None:
    azure.set("quirks", capitalised=True, retry_after=7)
    azure.set("pace", queued=60)
    answer = azure.put()
    assert (answer.json()["status"], answer.headers["retry-after"]) == ("NotRunning", "7")


def test_a_job_goes_on_after_a_restart(restartable: Callable[[], Any]) -> None:
    with restartable() as azure:
        azure.set("pace", queued=0, documents_per_second=20)
        for number in range(10):
            azure.blob(f"{number}.txt", "word " * 5)
        azure.put(body={"dataRefreshIntervalInMinutes": 0, "chunkSize": 1})
        before = stages(azure.wait(lambda job: stages(job)["Preprocessing"][0] >= 2))
        azure.advance(100)
    assert before["Preprocessing"][0] < 10
    with restartable() as azure:
        assert azure.client.get("/_sandbox/clock").json()["offset"] == 100
        job = azure.over()
        assert stages(job) == {"Preprocessing": (10, 10), "Indexing": (50, 50)}
        assert azure.count() == 50


def test_requests_are_recorded_without_credentials(azure: Any) -> None:
    azure.put(embeddingKey="hush-key")
    seen = azure.client.get("/_sandbox/requests", params={"method": "PUT"}).json()
    assert [request["status"] for request in seen["value"]] == [200]
    assert "hush" not in str(seen)


@pytest.mark.parametrize("name", ["../x.txt", "a/../../x.txt"])
def test_a_blob_stays_in_its_container(azure: Any, name: str, tmp_path: Path) -> None:
    answer = azure.client.put(f"/_sandbox/blobs/docs/{name.replace('..', '%2e%2e')}", content=b"x")
    assert answer.status_code in (400, 404)
    assert not list(tmp_path.rglob("x.txt"))
